"""Notices that this process is no use as a worker any more, and ends it: its node starts another one.

Tasks can do anything to the process that runs them. One that closes all descriptors, as code does that wants to become
a daemon, leaves a worker that lives, hears nothing, and counts as a worker for ever. So a thread looks once a second

=================================  ================================================================================
at …                               … and it's no use if
=================================  ================================================================================
the descriptors of the connections one is closed, or stands for something else
to the scheduler and the store
the threads without which there    one has ended. The kernel is asked: a thread that C code has ended still lives for
are no tasks and no outcomes       Python
whether the event loop goes round  it didn't for `DEAF_LOOKS`
=================================  ================================================================================

No worker is ended by mistake. This thread needs the interpreter for each look, so it sees nothing of a call into C that
keeps the interpreter to itself, nor of a time in which the process or the machine stood still: what counts are its
looks, not seconds. And what is wrong has to be so for some looks, for an orderly end passes through states that look
alike.

A process whose interpreter is gone can't do this. When its connection to the scheduler has ended, its node ends it
(`Supervisor.parted`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping

LOOK_SECONDS = 1.0
#: Of what else is wrong.
BROKEN_LOOKS = 2
#: Of a loop that doesn't go round, though others get to run Python.
DEAF_LOOKS = 30

#: What a descriptor stands for.
Identity = tuple[int, int]


class Watchdog:
    """A thread that looks after its process, from now on until `stop`.

    Parameters
    ----------
    descriptors
        ``descriptors()``: what has to stay open now, by a name for people: each descriptor, and what it stood for when
        it was opened.
    threads
        ``threads()``: those that have to live now.
    heard
        ``heard()``: another number each time that the loop has gone round.
    give_up
        ``give_up(reason)``, called once, in the watchdog's thread.
    name
        For the thread's name.
    """

    def __init__(
        self,
        descriptors: Callable[[], Mapping[str, Iterable[tuple[int, Identity]]]],
        threads: Callable[[], Iterable[threading.Thread]],
        heard: Callable[[], int],
        give_up: Callable[[str], None],
        name: str,
    ) -> None:
        self._descriptors = descriptors
        self._threads = threads
        self._heard = heard
        self._give_up = give_up
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def stop(self) -> None:
        """Look no more: this worker is closing."""
        self._stopped.set()

    def _run(self) -> None:
        broken = deaf = heard_before = 0
        while not self._stopped.wait(LOOK_SECONDS):
            reason = self._what_is_wrong()
            broken = broken + 1 if reason is not None else 0
            heard = self._heard()
            deaf = deaf + 1 if heard == heard_before else 0
            heard_before = heard
            if reason is None and deaf >= DEAF_LOOKS:
                reason = "its event loop did not go round"
            if reason is not None and (broken >= BROKEN_LOOKS or deaf >= DEAF_LOOKS):
                if not self._stopped.is_set():
                    self._give_up(reason)
                return

    def _what_is_wrong(self) -> str | None:
        # The worker may let go of something between two lines here. So what is gone counts only if it has to be there
        # still.
        for what, descriptors in self._descriptors().items():
            closed = [(fd, identity) for fd, identity in descriptors if identity_of(fd) != identity]
            if closed and any(other in closed for other in self._descriptors().get(what, ())):
                return f"a task has closed {what}"
        for thread in self._threads():
            native_id = thread.native_id  # None: it is about to start
            has_ended = native_id is not None and not os.path.exists(f"/proc/self/task/{native_id}")
            if has_ended and any(other is thread for other in self._threads()):
                return f"its thread {thread.name} has ended"
        return None


def identity_of(fd: int) -> Identity | None:
    """What a descriptor stands for; None if it's closed."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino
