"""The agent's side of the ledger: `holdfast.cluster.ledger` says what stands in it, and why that is safe."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterable
from typing import TypeAlias

from holdfast.cluster.ledger import (
    HEARD,
    INCARNATION,
    LAST_WORDS_NBYTES,
    REASON_NBYTES,
    REVOCATIONS,
    REVOKES,
    RUNNING,
    lent_words,
    words_nbytes,
)

#: A number, what was revoked, and what had begun: see `AgentLedger.revoke`.
Revoked: TypeAlias = tuple[int, list[int], list[int]]


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
            nbytes = words_nbytes(nthreads) + REASON_NBYTES + LAST_WORDS_NBYTES
            os.ftruncate(self.fd, nbytes)
            self._memory = mmap.mmap(self.fd, nbytes)
        except BaseException:
            self.close_fd()
            raise
        self._whole = memoryview(self._memory)
        self._text = self._whole[words_nbytes(nthreads) :]
        self._words = self._whole[: words_nbytes(nthreads)].cast("q")
        self._words[INCARNATION] = incarnation
        self._threads = RUNNING + nthreads
        self._lent = self._threads + nthreads
        self._ring = self._lent + lent_words(nthreads)
        self._fence = threading.Lock()

    @property
    def heard(self) -> int:
        """Grows while the worker's loop goes round; 0 until it does for the first time."""
        return self._words[HEARD]

    @property
    def running(self) -> list[int]:
        """The run that was begun last in each slot; 0 for none, or while that is blocked."""
        return self._words[RUNNING : self._threads].tolist()

    def slot_of(self, ident: int) -> int | None:
        """Which slot was held last by the thread that Python calls so; None if none was."""
        idents = self._words[self._threads : self._lent].tolist()
        return idents.index(ident) if ident in idents else None

    @property
    def last_words(self) -> bytes:
        """What the process has written into this memory when it was killed by a signal, padded with zeros."""
        return self._text[REASON_NBYTES:].tobytes()

    @property
    def reason(self) -> str:
        """Why the process was about to end itself; empty if it wasn't."""
        return self._text[:REASON_NBYTES].tobytes().partition(b"\0")[0].decode(errors="replace")

    def is_at(self, run_ids: Iterable[int]) -> bool:
        """Whether one of these runs was begun last in its slot, or has lent one: so it is going on, or is blocked.

        What has ended last in a slot counts as well, until another run begins there.
        """
        return not {*self.running, *self._words[self._lent : self._ring].tolist()}.isdisjoint(run_ids)

    def revoke(self, run_ids: Iterable[int]) -> Revoked:
        """Take runs away from the worker, as far as it has not begun them. Where nothing can be revoked (`REVOKES`),
        the answer is that nothing is known of any.

        Returns
        -------
        int
            The number of this revocation, for the worker to confirm; 0 if all had begun and nothing was revoked.
        list of int
            The runs that the worker will never begin.
        list of int
            Those that it has begun, or will.
        """
        if not REVOKES:
            return 0, [], []
        begun = self._begun()
        run_ids = list(run_ids)
        if begun.issuperset(run_ids):
            return 0, [], run_ids
        self._words[REVOCATIONS] += 1
        with self._fence:
            begun = self._begun()
        return (
            self._words[REVOCATIONS],
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
