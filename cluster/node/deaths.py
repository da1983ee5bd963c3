"""How a worker's process has ended, and what its threads were doing then.

The process can't be asked any more. What is known is how the kernel says that it ended, which run was begun last in
each of its slots (`cluster/ledger.py`), and its *last words*: Python writes down what every thread is doing when a
signal such as SIGSEGV kills the process, and which of them the signal came in (`faulthandler`). They lie in the
ledger's memory.

A signal may come in a thread that isn't one of those which run tasks, of a numerical library or one that the task has
started. Then it is not known which run it was.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import sysconfig
from typing import NamedTuple

from holdfast.cluster.node.ledger import AgentLedger
from holdfast.cluster.processes.parent import describe_exit

#: What kills a process that writes to memory which can't be written; Arrow aborts before it does.
FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT)

#: What Python says first, and then of the thread in which the signal came.
_BEGINNING = b"Fatal Python error: "
_CURRENT_THREAD = re.compile(rb"^Current thread 0x([0-9a-f]+)[^\n]*\n((?:  File [^\n]*\n)*)", re.MULTILINE)
#: The names of files that are none begin so; those of code that was typed in, with another word.
_FROZEN = "<frozen "
_FRAME = re.compile(r'  File "(.*)", line (\d+|\?\?\?) in (.*)')
_OWN = os.path.dirname(os.path.dirname(os.path.dirname(__file__))) + os.sep
_LIBRARIES = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib"))
#: So many frames of the crashed thread are logged.
FRAMES_MAX = 12


class Death(NamedTuple):
    """What is known of one.

    Attributes
    ----------
    reason
        In words, for people.
    running
        The run that was begun last in each slot, without those that were blocked.
    crashed
        The one of these that has crashed the process, if that is known.
    fault
        Whether it was killed as a process is that writes where it can't.
    frames
        What the crashed thread was doing, innermost first, for people.
    log
        The end of what it has logged, introduced and indented; empty if it has no log of its own.
    asked
        Whether it was ended for the scheduler, because of what it was running.
    incarnation
        Which of the processes it was that fill the worker's place one after the other; None: the worker had no process
        of its own.
    """

    reason: str
    running: tuple[int, ...] = ()
    crashed: int | None = None
    fault: bool = False
    frames: str = ""
    asked: bool = False
    incarnation: int | None = None
    log: str = ""


def death_of(code: int, ledger: AgentLedger) -> Death:
    """How a process has ended, by its exit code (`ChildProcess.returncode`) and its ledger."""
    reason = describe_exit(code)
    running = ledger.running
    going_on = tuple(run_id for run_id in running if run_id > 0)  # others are of its warm-up
    if ledger.reason:
        return Death(f"was no use any more: {ledger.reason}", going_on)
    if code >= 0:
        return Death(reason, going_on)
    fault = -code in FAULTS
    found = _CURRENT_THREAD.search(_last_words(ledger.last_words))
    if found is None:
        return Death(reason, going_on, fault=fault)
    frames = found[2].decode(errors="replace")
    if (where := _where(frames)) is not None:
        reason = f"{reason} in {where}"
    slot = ledger.slot_of(int(found[1], 16))
    crashed = None if slot is None else running[slot]
    theirs = itertools.takewhile(lambda line: _OWN not in line, frames.splitlines(keepends=True))
    shown = "".join(itertools.islice(theirs, FRAMES_MAX))
    return Death(reason, going_on, crashed if crashed in going_on else None, fault, shown)


def _last_words(text: bytes) -> bytes:
    """What was said last: a process that a task had forked may have said the same before."""
    start = text.rfind(_BEGINNING)
    return text[start:].rstrip(b"\0") if start >= 0 else b""


def _where(frames: str) -> str | None:
    """The innermost function that is neither Python's, nor a library's, nor ours: a user's."""
    for path, line, function in _FRAME.findall(frames):
        if not path.startswith((_OWN, _FROZEN, *_LIBRARIES)):
            return f"{function} ({os.path.basename(path)}:{line})"
    return None
