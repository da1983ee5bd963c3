"""The worker's side of the ledger: `holdfast.cluster.ledger` says what stands in it, and why that is safe."""

from __future__ import annotations

import faulthandler
import fcntl
import itertools
import mmap
import os
import resource
import threading
from collections.abc import Callable
from typing import Any

from holdfast.cluster.ledger import (
    HEARD,
    INCARNATION,
    REASON_NBYTES,
    REVOCATIONS,
    RUNNING,
    lent_words,
    ring_words,
    words_nbytes,
)

#: The descriptor that last words go to is one that tasks are least likely to close, or to be given after that.
_LAST_WORDS_FD = 500


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
        whole = memoryview(memory or mmap.mmap(-1, words_nbytes(nthreads) + REASON_NBYTES))
        self._reason = whole[words_nbytes(nthreads) :]
        self._words = whole[: words_nbytes(nthreads)].cast("q")
        self._threads = RUNNING + nthreads
        self._lent = self._threads + nthreads
        self._free = list(range(self._lent, self._lent + lent_words(nthreads)))  # places there
        ring = self._lent + lent_words(nthreads)
        self._places = itertools.cycle(range(ring, ring + ring_words(nthreads)))
        #: One word, ``revocations[0]``: how many there were until now.
        self.revocations = self._words[REVOCATIONS : REVOCATIONS + 1]

    @classmethod
    def of_descriptor(cls, fd: int, nthreads: int) -> WorkerLedger:
        """The ledger behind a descriptor, which is closed by this."""
        try:
            return cls(nthreads, mmap.mmap(fd, words_nbytes(nthreads) + REASON_NBYTES))
        finally:
            os.close(fd)

    @property
    def incarnation(self) -> int | None:
        """Names this process to its agent, which may revoke runs of it, and end it; None if it isn't an agent's."""
        return self._words[INCARNATION] or None

    def hear(self) -> None:
        """The worker's loop goes round."""
        self._words[HEARD] += 1

    @property
    def heard(self) -> int:
        """Grows with each `hear`."""
        return self._words[HEARD]

    def leave_reason(self, reason: str) -> None:
        """Say why this process is about to end itself."""
        text = reason.encode(errors="replace")[: REASON_NBYTES - 1]
        self._reason[: len(text)] = text

    # What follows is called by one thread at a time, with a fence afterwards.

    def taker(self, slot: int) -> Callable[[int], None]:
        """What a thread calls with each run that it takes into this slot; with 0 when the run that is there blocks."""
        words, places = self._words, self._places
        running = RUNNING + slot
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

    def forget_thread(self, slot: int) -> None:
        """The thread that had a slot has another one."""
        self._words[self._threads + slot] = 0

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
        return self._words[RUNNING : self._threads].tolist()


def leave_last_words(fd: int, nthreads: int) -> None:
    """Have what the threads of this process are doing written behind a ledger's words, if a signal kills it."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, min(_LAST_WORDS_FD, soft // 2))
    os.lseek(high, words_nbytes(nthreads) + REASON_NBYTES, os.SEEK_SET)
    faulthandler.enable(high, all_threads=True)
