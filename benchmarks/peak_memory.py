"""The most memory that a process and its descendants use at a time, watched from a process of its own.

``python -m benchmarks.peak_memory PID [SOCKET]`` says ``ready`` when it has looked once, and looks on until its
standard input ends; then it prints the peaks as one JSON object. ``SOCKET`` is that of an object store, whose objects
are measured too. Looking takes processor time from those that are looked at: what is watched is not to be timed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from types import TracebackType
from typing import NamedTuple, Self

from benchmarks.memory import tree_pss

_INTERVAL_SECONDS = 0.02


class Peaks(NamedTuple):
    """Bytes: of all processes, each page counted once, before and at the most, and of a store's objects."""

    before: int
    memory: int
    store: int


class PeakMemory:
    """Watches this process and its descendants within a ``with`` block; then `peaks` has what was seen.

    Parameters
    ----------
    socket:
        Of an object store.
    """

    peaks: Peaks

    def __init__(self, socket: str | None = None) -> None:
        command = [sys.executable, "-m", "benchmarks.peak_memory", str(os.getpid()), *([socket] if socket else [])]
        self._watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._watcher.stdout is not None
        if not self._watcher.stdout.readline():
            raise RuntimeError(f"watching the memory failed: {' '.join(command)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        said, _ = self._watcher.communicate()
        if error is None:
            self.peaks = Peaks(**json.loads(said))


def watch(pid: int, socket: str | None) -> Peaks:
    """Look until standard input ends."""
    with contextlib.ExitStack() as stack:
        store = None
        if socket is not None:
            from holdfast.objectstore import connect  # where distributed is watched, it isn't installed

            store = stack.enter_context(connect(socket, name="peak-memory"))
        before = memory = tree_pss(pid, without=os.getpid())
        in_store = 0
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], _INTERVAL_SECONDS)[0]:
            memory = max(memory, tree_pss(pid, without=os.getpid()))
            if store is not None:
                stats = store.stats()
                in_store = max(in_store, stats["used"] - stats["leased_nbytes"])
        return Peaks(before, memory, in_store)


def main() -> None:
    """Watches the process that is named on the command line."""
    print(json.dumps(watch(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)._asdict()))


if __name__ == "__main__":
    main()
