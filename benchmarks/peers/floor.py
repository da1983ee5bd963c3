"""What the machine itself can do: copies of warm memory by one thread and by two, and dask's own threads.

dask's threads run the workloads of its collections in one process: nothing is encoded, nothing moves.
"""

from __future__ import annotations

import mmap
import os
import statistics
from collections.abc import Callable

import dask
import numpy as np
import pyarrow as pa

from benchmarks.peers import dask_workloads
from benchmarks.peers.reporting import LARGE_LENGTH, Report, timed

_ARENA_NBYTES = 1 << 29
_COPIES = 7
_ATTEMPTS = 3


def copies(report: Report) -> None:
    fd = os.memfd_create("floor")
    os.ftruncate(fd, _ARENA_NBYTES)
    arena = mmap.mmap(fd, _ARENA_NBYTES)
    source = np.random.default_rng(0).random(LARGE_LENGTH)

    def speed(threads: int) -> float:
        writer = pa.FixedSizeBufferWriter(pa.py_buffer(memoryview(arena)[: source.nbytes]))
        writer.set_memcopy_threads(threads)
        writer.set_memcopy_blocksize(1 << 20)
        writer.set_memcopy_threshold(1 << 20)
        return source.nbytes / 1e9 / timed(lambda: writer.write(source))[0]

    report("put_400mb_first", speed(1), "GB/s")
    for threads in (1, 2):
        report(f"put_400mb_{threads}_threads", statistics.median(speed(threads) for _ in range(_COPIES)), "GB/s")


def dask_collections(report: Report) -> None:
    def best(call: Callable[[], None]) -> float:
        return min(timed(call)[0] for _ in range(_ATTEMPTS))

    with dask.config.set({"scheduler": "threads", "num_workers": 2, "dataframe.shuffle.method": "tasks"}):
        report("array_transpose_sum", best(dask_workloads.transpose_sum), "s")
        frame = dask_workloads.timeseries()
        report("frame_groupby", best(lambda: dask_workloads.groupby(frame)), "s")
        report("frame_shuffle", best(lambda: dask_workloads.shuffle(frame)), "s")


def main() -> None:
    """Runs them."""
    report = Report("floor")
    copies(report)
    dask_collections(report)


if __name__ == "__main__":
    main()
