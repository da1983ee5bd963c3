"""How the allocator bears a million operations of a realistic mix of sizes and lifetimes: no memory, only the books.

``python benchmarks/fragmentation.py [--operations N] [--capacity SIZE] [--seed N]`` prints one JSON line for
each load. Objects come in three kinds: small ones (log-normal, around 2 KB), which lie in leased slabs as a
client lays them; arrays (64 KB to 4 MB); tables (8 to 128 MB). Each is given a time to end, soon, later or
much later. The store is filled up to the load and kept there: when the next object would exceed it, those whose
time comes first end.

========================  ============================================================================
``load``                  the share of the capacity that objects take up, at most
``largest_free``          the largest free extent as a share of the free bytes: median over the run
``refused``               the share of the requests refused although that many bytes were free
``waste``                 bytes taken per byte asked for, less one; leases' unused ends included
``operations_per_second``  allocations, lease grants and frees
========================  ============================================================================
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from holdfast.objectstore.allocator import Allocator, footprint
from holdfast.objectstore.sizes import parse_size
from holdfast.objectstore.writer import SMALL_NBYTES

LOADS = (0.5, 0.8, 0.95)
LEASE_NBYTES = 4 << 20
LIFETIMES = {20: 0.70, 500: 0.25, 20_000: 0.05}  # mean, in requests, and the share of the objects
_SAMPLES = 1000


@dataclass
class Workload:
    """Objects that come and go at one load.

    Parameters
    ----------
    allocator : Allocator
        What is measured; empty.
    load : float
        The share of the capacity that may be taken up.
    seed : int
        The same seed makes the same objects.
    """

    allocator: Allocator
    load: float
    seed: int
    requests: int = 0
    refusals: int = 0
    asked_nbytes: int = 0
    operations: int = 0
    largest_free: list[float] = field(default_factory=list)
    waste: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._due: list[tuple[float, int, int, int]] = []  # when, where, bytes taken, bytes asked for
        self._lease = (0, 0)

    def run(self, operations: int) -> None:
        """Goes on until that many operations were done."""
        limit = int(self.allocator.capacity * self.load)
        sample_at = 0
        for nbytes in self._sizes():
            if self.operations >= operations:
                return
            now = self.requests
            while self._due and self.allocator.used_nbytes + footprint(nbytes) > limit:
                self._end_one()
            self._begin_one(nbytes, now)
            if self.operations >= sample_at:
                sample_at += operations // _SAMPLES
                self._sample()

    def _begin_one(self, nbytes: int, now: int) -> None:
        self.requests += 1
        offset = self._take_small(nbytes) if nbytes <= SMALL_NBYTES else self._allocate(nbytes)
        if offset is not None:
            heapq.heappush(self._due, (now + self._lifetime(), offset, footprint(nbytes), nbytes))
            self.asked_nbytes += nbytes

    def _end_one(self) -> None:
        _, offset, size, nbytes = heapq.heappop(self._due)
        self.allocator.free(offset, size)
        self.asked_nbytes -= nbytes
        self.operations += 1

    def _allocate(self, nbytes: int) -> int | None:
        self.operations += 1
        offset = self.allocator.allocate(nbytes)
        if offset is None and footprint(nbytes) <= self.allocator.free_nbytes:
            self.refusals += 1
        return offset

    def _take_small(self, nbytes: int) -> int | None:
        size = footprint(nbytes)
        cursor, end = self._lease
        if cursor + size > end:
            if cursor < end:
                self.allocator.free(cursor, end - cursor)
            cursor = end = 0
            for want in (min(LEASE_NBYTES, self.allocator.capacity // 16), size):
                granted = self._allocate(want)
                if granted is not None:
                    cursor, end = granted, granted + footprint(want)
                    break
            else:
                self._lease = (0, 0)
                return None
        self._lease = (cursor + size, end)
        return cursor

    def _sizes(self) -> Iterator[int]:
        draw = self._random
        table_max = min(128 << 20, self.allocator.capacity // 16)
        while True:
            kind = draw.random()
            if kind < 0.80:
                yield min(max(1, int(draw.lognormvariate(math.log(2000), 1.5))), SMALL_NBYTES)
            elif kind < 0.99:
                yield draw.randint(64 << 10, 4 << 20)
            else:
                yield draw.randint(table_max // 16, table_max)

    def _lifetime(self) -> float:
        (mean,) = self._random.choices(list(LIFETIMES), list(LIFETIMES.values()))
        return self._random.expovariate(1 / mean)

    def _sample(self) -> None:
        free = self.allocator.free_nbytes
        if free:
            self.largest_free.append(self.allocator.largest_free_nbytes() / free)
        if self.asked_nbytes:
            self.waste.append(self.allocator.used_nbytes / self.asked_nbytes - 1)


def main() -> None:
    """Measures at each load."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--operations", type=int, default=1_000_000)
    parser.add_argument("--capacity", type=parse_size, default=parse_size("8 GB"))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for load in LOADS:
        workload = Workload(Allocator(options.capacity), load, options.seed)
        began = time.perf_counter()
        workload.run(options.operations)
        seconds = time.perf_counter() - began
        figures = {
            "load": load,
            "operations": workload.operations,
            "largest_free": round(statistics.median(workload.largest_free), 3),
            "refused": round(workload.refusals / workload.requests, 6),
            "waste": round(statistics.median(workload.waste), 4),
            "operations_per_second": round(workload.operations / seconds),
        }
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
