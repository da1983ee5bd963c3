"""The ledger: which runs a worker has begun, in memory that its node agent reads without asking.

A worker that is stopped, or in a call into C that keeps the interpreter to itself, answers nobody. What was sent ahead
to it, and what it has not begun, should go to others all the same, and nothing may run twice. So "begun" and "revoked"
are words in memory that a worker's process shares with the agent of its host, one such memory for each process.

Terms
-----
run
    One run of a task on a worker, named by its number (`run_id`). It is *begun* when a thread may call the task.
slot
    The right to run one task: a worker has as many as it runs tasks at once. A task that waits for others *lends* its
    slot, and is *blocked* until it has a slot again (`worker/threads.py`).
to revoke
    To take a run away from its worker: it will never begin there, so it may be sent to another one.
to confirm
    The worker has been told by the scheduler what a revocation has taken away.

The words, of 8 bytes each
--------------------------
=============  ===========================================================================  ==============
incarnation    which of the processes that fill a worker's place one after the other        agent, once
heard          grows while the loop of the worker goes round                                worker
revocations    how many there were                                                          agent
running        for each slot the run that was begun in it last; 0 while that is blocked     worker
threads        for each slot what Python calls its thread (``threading.get_ident()``)       worker
lent           the runs that have lent their slots, from then on until they have ended      worker
earlier        a ring of the runs that have been in the slots before                        worker
=============  ===========================================================================  ==============

Behind the words there is room for the reason for which the worker ends itself (`worker/watchdog.py`), and for its *last
words*, text that Python writes there when a signal kills the process (`node/deaths.py`).

Why nothing runs twice
----------------------
A thread that takes a run from its queue and the agent that revokes it race::

    worker                                        agent
    1  earlier[next] := running[slot]             1  revocations += 1
    2  running[slot] := the run                   2  fence
    3  fence                                      3  is the run in running, lent or earlier?
    4  revocations = those confirmed?                yes: it has begun    no: it is revoked
       yes: it begins    no: it waits

Each writes before it reads, with a fence between, so at least one of them sees what the other has written (Dekker). If
both do, the agent gives way: the run counts as begun, and waits on its worker until that is told what was revoked. If
only the worker does, the run is revoked. It waits for the same word, and is dropped. A run moves from ``running`` to
``earlier`` by 1 before 2, and the agent looks there in the same order, so it finds the run in one of them.

A run that lends its slot is written into ``lent`` before it leaves ``running``, and stays in ``lent`` until it has
ended, though it may come back to ``running`` and leave it again any number of times. When it ends it is in ``running``,
from where it goes to ``earlier`` like others. So an agent that looks into ``running``, ``lent``, ``running`` and
``earlier``, in this order, finds it: if it is in neither of the first two, it either has not begun or has ended in
between.

What has happened to a run that the agent was asked about, and what follows:

======================  =======================  ==============================================================
in the worker           in the ledger            what the agent says, and what becomes of the run
======================  =======================  ==============================================================
not read yet, queued,   no                       revoked; the worker forgets it when it is told
or behind another run
taken, and waits for    seen by the agent        begun; it begins when the worker is told of the revocation
word                    not seen                 revoked; dropped when the worker is told
begun, or has ended     yes                      begun; its outcome comes, or has been sent
======================  =======================  ==============================================================

The worker is told over its connection to the scheduler, behind all runs that were sent to it before. From the
revocation until then it begins nothing. Who tells of a revocation looks for its runs while it holds the lock that a
thread holds from when it takes a run from the queue until 3: so they are in the queue, or some thread's ``running`` has
them. "Those confirmed" in 4 is a number that the thread knew before it took the run. So it does not miss a revocation
that was told of between 3 and 4, and looks with that lock held whether its run is among those that were revoked
(`worker/threads.py`).

How long ``earlier`` must be: a run has to be found as long as the scheduler counts it as its worker's, and that counts
at most N = `runs_max` at a time. A run enters the ring when its thread takes the next one, so its outcome is in the
outbox by then. Others that enter after it have their own outcomes there either before it, one for each other thread, or
after it. Of the latter the scheduler can have handled, before that of the run, only those which left in the same batch,
at most N; the others still count, at most N. So 2 N + slots places are enough. Each run enters the ring once, however
often it has lent its slot.

On x86 stores are seen in the order in which they were made, and the fence is any locked instruction, such as taking or
leaving a ``threading.Lock``. Processors with a weaker order would need barriers that Python hasn't; there nothing is
revoked without the worker's own answer (`REVOKES`).
"""

from __future__ import annotations

import faulthandler
import fcntl
import itertools
import mmap
import os
import resource
import threading
from collections.abc import Callable, Iterable
from typing import Any

from holdfast.objectstore.shared.index import ORDERED

#: Whether an agent may revoke runs of a worker that does not answer.
REVOKES = ORDERED
#: The most runs that the scheduler sends a worker at a time, for each of its threads
#: (`scheduler/placing/placement.py`).
RUNS_PER_THREAD_MAX = 510
#: The most runs of a worker that may be blocked at a time.
BLOCKED_MAX = 1000

_WORD_NBYTES = 8
_REASON_NBYTES = 512
_LAST_WORDS_NBYTES = 64 << 10
#: The descriptor that last words go to is one that tasks are least likely to close, or to be given after that.
_LAST_WORDS_FD = 500
_INCARNATION, _HEARD, _REVOCATIONS, _RUNNING = range(4)


def runs_max(nthreads: int) -> int:
    """The most runs that the scheduler counts as one worker's at a time, beside those that are blocked."""
    return RUNS_PER_THREAD_MAX * nthreads + 1


def _ring_words(nthreads: int) -> int:
    """The length of the ring, a power of two."""
    return 1 << (2 * runs_max(nthreads) + nthreads - 1).bit_length()


def _lent_words(nthreads: int) -> int:
    return BLOCKED_MAX + nthreads  # those that are blocked, and those that have a slot again


def _nbytes(nthreads: int) -> int:
    return (_RUNNING + 2 * nthreads + _lent_words(nthreads) + _ring_words(nthreads)) * _WORD_NBYTES


class WorkerLedger:
    """The worker's side.

    Parameters
    ----------
    nthreads
        How many slots the worker has.
    memory
        Shared with the agent, of an `AgentLedger` for as many slots; memory of this process alone if not given.
    """

    def __init__(self, nthreads: int, memory: mmap.mmap | None = None) -> None:
        whole = memoryview(memory or mmap.mmap(-1, _nbytes(nthreads) + _REASON_NBYTES))
        self._reason = whole[_nbytes(nthreads) :]
        self._words = whole[: _nbytes(nthreads)].cast("q")
        self._threads = _RUNNING + nthreads
        self._lent = self._threads + nthreads
        self._free = list(range(self._lent, self._lent + _lent_words(nthreads)))  # places there
        ring = self._lent + _lent_words(nthreads)
        self._places = itertools.cycle(range(ring, ring + _ring_words(nthreads)))
        #: One word, ``revocations[0]``: how many there were until now.
        self.revocations = self._words[_REVOCATIONS : _REVOCATIONS + 1]

    @classmethod
    def of_descriptor(cls, fd: int, nthreads: int) -> WorkerLedger:
        """The ledger behind a descriptor, which is closed by this."""
        try:
            return cls(nthreads, mmap.mmap(fd, _nbytes(nthreads) + _REASON_NBYTES))
        finally:
            os.close(fd)

    @property
    def incarnation(self) -> int | None:
        """Names this process to its agent when runs are to be revoked; None if that can't be."""
        return (self._words[_INCARNATION] or None) if REVOKES else None

    def hear(self) -> None:
        """The worker's loop goes round."""
        self._words[_HEARD] += 1

    @property
    def heard(self) -> int:
        """Grows with each `hear`."""
        return self._words[_HEARD]

    def leave_reason(self, reason: str) -> None:
        """Say why this process is about to end itself."""
        text = reason.encode(errors="replace")[: _REASON_NBYTES - 1]
        self._reason[: len(text)] = text

    # What follows is called by one thread at a time, with a fence afterwards.

    def taker(self, slot: int) -> Callable[[int], None]:
        """What a thread calls with each run that it takes into this slot; with 0 when the run that is there blocks."""
        words, places = self._words, self._places
        running = _RUNNING + slot
        previous = 0

        def take(run_id: int, next: Callable[[Any], Any] = next) -> None:
            nonlocal previous
            if previous and run_id:
                words[next(places)] = previous
            words[running] = previous = run_id

        return take

    def hold(self, slot: int) -> None:
        """This thread has a slot."""
        self._words[self._threads + slot] = threading.get_ident()

    def lend(self, run_id: int) -> int:
        """A run that has a slot is about to lend it for the first time. Returns what `end` takes when it has ended."""
        place = self._free.pop()
        self._words[place] = run_id
        return place

    def end(self, place: int) -> None:
        """A run that had lent its slot has ended; it has a slot."""
        self._words[place] = 0
        self._free.append(place)

    @property
    def running(self) -> list[int]:
        """The run that was begun last in each slot; 0 for none, or while that is blocked."""
        return self._words[_RUNNING : self._threads].tolist()


def leave_last_words(fd: int, nthreads: int) -> None:
    """Have what the threads of this process are doing written behind a ledger's words, if a signal kills it."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, min(_LAST_WORDS_FD, soft // 2))
    os.lseek(high, _nbytes(nthreads) + _REASON_NBYTES, os.SEEK_SET)
    faulthandler.enable(high, all_threads=True)


class AgentLedger:
    """The agent's side, which makes the memory.

    Parameters
    ----------
    incarnation
        Above zero, and of no other process that this agent starts.
    nthreads
        How many slots the worker has.

    Attributes
    ----------
    fd : int
        For the worker's process (`WorkerLedger.of_descriptor`); -1 when that has it.
    """

    def __init__(self, incarnation: int, nthreads: int) -> None:
        self.incarnation = incarnation
        self.fd = os.memfd_create("holdfast-ledger", os.MFD_CLOEXEC)
        try:
            nbytes = _nbytes(nthreads) + _REASON_NBYTES + _LAST_WORDS_NBYTES
            os.ftruncate(self.fd, nbytes)
            self._memory = mmap.mmap(self.fd, nbytes)
        except BaseException:
            self.close_fd()
            raise
        self._whole = memoryview(self._memory)
        self._text = self._whole[_nbytes(nthreads) :]
        self._words = self._whole[: _nbytes(nthreads)].cast("q")
        self._words[_INCARNATION] = incarnation
        self._threads = _RUNNING + nthreads
        self._lent = self._threads + nthreads
        self._fence = threading.Lock()

    @property
    def heard(self) -> int:
        """Grows while the worker's loop goes round; 0 until it does for the first time."""
        return self._words[_HEARD]

    @property
    def running(self) -> list[int]:
        """The run that was begun last in each slot; 0 for none, or while that is blocked."""
        return self._words[_RUNNING : self._threads].tolist()

    def slot_of(self, ident: int) -> int | None:
        """Which slot was held last by the thread that Python calls so; None if none was."""
        idents = self._words[self._threads : self._lent].tolist()
        return idents.index(ident) if ident in idents else None

    @property
    def last_words(self) -> bytes:
        """What the process has written into this memory when it was killed by a signal, padded with zeros."""
        return self._text[_REASON_NBYTES:].tobytes()

    @property
    def reason(self) -> str:
        """Why the process was about to end itself; empty if it wasn't."""
        return self._text[:_REASON_NBYTES].tobytes().partition(b"\0")[0].decode(errors="replace")

    def revoke(self, run_ids: Iterable[int]) -> tuple[int, list[int], list[int]]:
        """Take runs away from the worker, as far as it has not begun them.

        Returns
        -------
        int
            The number of this revocation, for the worker to confirm; 0 if all had begun and nothing was revoked.
        list of int
            The runs that the worker will never begin.
        list of int
            Those that it has begun, or will.
        """
        begun = self._begun()
        run_ids = list(run_ids)
        if begun.issuperset(run_ids):
            return 0, [], run_ids
        self._words[_REVOCATIONS] += 1
        with self._fence:
            begun = self._begun()
        return (
            self._words[_REVOCATIONS],
            [run_id for run_id in run_ids if run_id not in begun],
            [run_id for run_id in run_ids if run_id in begun],
        )

    def _begun(self) -> set[int]:
        begun = set(self.running)
        rest = self._words[self._lent :]  # the runs that have lent their slots, and the ring
        begun.update(rest.tolist(), self.running)  # what has left `running` meanwhile is in the rest, and the other way
        begun.update(rest.tolist())
        return begun

    def close_fd(self) -> None:
        """Let go of the descriptor. Twice is no error."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        """Let go of the memory."""
        self.close_fd()
        self._words.release()
        self._text.release()
        self._whole.release()
        self._memory.close()
