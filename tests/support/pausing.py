"""Processes that stand still for a while."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator

from holdfast.cluster.deploy import processes


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Within it these processes are stopped."""
    _signal(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(pids, signal.SIGCONT)


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def processes_of(cluster: object) -> list[int]:
    """All processes of a `LocalCluster`."""
    return processes._processes_of(cluster._parts.id)  # type: ignore[attr-defined]
