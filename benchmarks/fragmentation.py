"""How the store's memory bears a long history of objects of a realistic mix of sizes and lifetimes: only the books.

``python benchmarks/fragmentation.py [--operations N] [--capacity SIZE] [--seed N]`` prints one JSON line for
each load of the allocator alone. Objects come in three kinds: small ones (log-normal, around 2 KB), which lie in leased
slabs as a client lays them; arrays (64 KB to 4 MB); tables (8 to 128 MB). Each is given a time to end, soon, later or
much later. The store is filled up to the load and kept there: when the next object would exceed it, those whose
time comes first end.

========================  ============================================================================
``load``                  the share of the capacity that objects take up, at most
``largest_free``          the largest free extent as a share of the free bytes: median over the run
``refused``               the share of the requests refused although that many bytes were free
``waste``                 bytes taken per byte asked for, less one; leases' unused ends included
``operations_per_second``  allocations, lease grants and frees
========================  ============================================================================

And one for each share of pinned bytes of a store's core, with objects of the same kinds that go to disk and move as
they do in a store, at once. Somebody looks at some of them, so that they stay where they are: of the capacity at most
the share ``pinned``. Now and then as many eighths of the capacity are asked for as can be had, and given back.

========================  ============================================================================
``usable``                the share of the capacity that can be had in eighths at a time: mean over the run
``granted``               how often the first of these eighths was granted
``moved``, ``spilled``    bytes that were copied for that, per byte that was granted
``milliseconds``          of the core's time for each eighth, the search for a window for the most part
========================  ============================================================================
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from holdfast.objectstore.core.core import StoreCore
from holdfast.objectstore.core.effects import Answer, ContinueSearch, Effect, MoveObjects, Spill
from holdfast.objectstore.core.objects import SpillExtent
from holdfast.objectstore.memory.allocator import SMALL_NBYTES, Allocator
from holdfast.objectstore.memory.free_extents import footprint
from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.protocol import SealItem, Status
from holdfast.objectstore.sizes import parse_size
from holdfast.objectstore.system.memory_limits import address_span

LOADS = (0.5, 0.8, 0.95)
LEASE_NBYTES = 4 << 20
PINNED = (0.1, 0.33, 0.6)
STORE_NBYTES = 1 << 30
STORE_OPERATIONS = 20_000
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
        offset = self._take_small(nbytes) if nbytes <= SMALL_NBYTES else self._allocate(nbytes, small=False)
        if offset is not None:
            heapq.heappush(self._due, (now + self._lifetime(), offset, footprint(nbytes), nbytes))
            self.asked_nbytes += nbytes

    def _end_one(self) -> None:
        _, offset, size, nbytes = heapq.heappop(self._due)
        self.allocator.free(offset, size)
        self.asked_nbytes -= nbytes
        self.operations += 1

    def _allocate(self, nbytes: int, *, small: bool) -> int | None:
        self.operations += 1
        offset = self.allocator.allocate(nbytes, small=small)
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
                granted = self._allocate(want, small=True)
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


class PinnedStore:
    """The core of a store in which somebody looks at some of the objects.

    Parameters
    ----------
    capacity : int
        Bytes.
    pinned : float
        The share of them that may be pinned.
    seed : int
        The same seed makes the same objects.
    """

    def __init__(self, capacity: int, pinned: float, seed: int) -> None:
        self.now = 0.0
        self.core = StoreCore(capacity, clock=lambda: self.now, span=address_span(capacity), can_spill=True)
        self.sizes = Workload(Allocator(capacity), 1.0, seed)
        self.random = random.Random(seed)
        self.limit = pinned * capacity
        self.putter, self.viewer = self.core.connect("putter"), self.core.connect("viewer")
        self.numbers = itertools.count(1)
        self.requests = itertools.count(1)
        self.pins: deque[tuple[ObjectID, int]] = deque()
        self.pinned_nbytes = 0
        self.alive: list[ObjectID] = []
        self.lease = (0, 0)
        self.usable: list[float] = []
        self.granted: list[bool] = []
        self.copied_nbytes = {"moved": 0, "spilled": 0}
        self.seconds = 0.0

    def run(self, operations: int) -> None:
        """Puts that many objects."""
        for number, nbytes in enumerate(itertools.islice(self.sizes._sizes(), operations)):
            offset = self._place(nbytes)
            if offset is not None:
                self._seal(offset, nbytes)
            if self.random.random() < 0.2 and self.alive:
                self.core.delete([self.alive.pop(self.random.randrange(len(self.alive)))])
            self._settle()
            if number % 200 == 199:
                self._ask_for_eighths()

    def _place(self, nbytes: int) -> int | None:
        if nbytes > SMALL_NBYTES:
            reply = self._ask(self.core.create, nbytes, 0.0)
            return None if reply is None else int(reply.payload[0])
        cursor, end = self.lease
        if cursor + footprint(nbytes) > end:
            reply = self._ask(self.core.lease, nbytes, max(nbytes, LEASE_NBYTES // 8), 0.0, [end] if end else [])
            self.lease = cursor, end = (0, 0) if reply is None else (reply.payload[0], sum(reply.payload))
            if not end:
                return None
        self.lease = cursor + footprint(nbytes), end
        return cursor

    def _seal(self, offset: int, nbytes: int) -> None:
        object_id = ObjectID(next(self.numbers).to_bytes(16, "big"))
        self.core.seal(self.putter, [SealItem(object_id, offset, nbytes, None, None, None, 0, b"", False)])
        self.alive.append(object_id)
        if self.random.random() < 0.3:
            self.core.pin(self.viewer, object_id)
            self.pins.append((object_id, nbytes))
            self.pinned_nbytes += nbytes
        while self.pinned_nbytes > self.limit:
            # Mostly the oldest, but some are looked at for long.
            self.pins.rotate(-self.random.randrange(min(len(self.pins), 20)))
            object_id, nbytes = self.pins.popleft()
            self.core.unpin(self.viewer, [object_id])
            self.pinned_nbytes -= nbytes

    def _ask_for_eighths(self) -> None:
        before, began = self._copied(), time.perf_counter()
        eighth = self.core.capacity // 8
        offsets = []
        while (reply := self._ask(self.core.create, eighth, 0.0, tries=20)) is not None:
            offsets.append(reply.payload[0])
        self.seconds += time.perf_counter() - began
        for kind, nbytes in self._copied().items():
            self.copied_nbytes[kind] += nbytes - before[kind]
        self.usable.append(len(offsets) * eighth / self.core.capacity)
        self.granted.append(bool(offsets))
        for offset in offsets:
            self.core.abort(self.putter, offset)
        self._settle()

    def _ask(self, ask: Callable[..., None], *arguments: Any, tries: int = 3) -> Answer | None:
        """The reply, once it's been granted; None if it isn't, with all copies made in between."""
        for _ in range(tries):
            self.now += 1
            self.core.expire()
            request = next(self.requests)
            ask(self.putter, request, *arguments)
            for effect in self._settle():
                if isinstance(effect, Answer) and effect.request == request and effect.status is Status.OK:
                    return effect
            if ask == self.core.lease:
                arguments = *arguments[:-1], []
        return None

    def _settle(self) -> list[Effect]:
        done: list[Effect] = []
        while effects := self.core.drain():
            done += effects
            for effect in effects:
                if isinstance(effect, Spill):
                    extents = [SpillExtent("", next(self.requests), layout.nbytes, 0) for layout in effect.layouts]
                    self.core.spill_done(list(extents))
                elif isinstance(effect, MoveObjects):
                    self.core.moved()
                elif isinstance(effect, ContinueSearch):
                    self.core.continue_search()
        return done

    def _copied(self) -> dict[str, int]:
        stats = self.core.stats()
        return {"moved": stats["moved_total_nbytes"], "spilled": stats["spilled_total_nbytes"]}


def main() -> None:
    """Measures at each load, and with each share of pins."""
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
    for pinned in PINNED:
        store = PinnedStore(STORE_NBYTES, pinned, options.seed)
        store.run(STORE_OPERATIONS)
        granted_nbytes = max(1.0, sum(store.usable) * STORE_NBYTES)
        print(
            json.dumps(
                {
                    "pinned": pinned,
                    "usable": round(statistics.mean(store.usable), 3),
                    "granted": round(statistics.mean(store.granted), 3),
                    **{kind: round(nbytes / granted_nbytes, 3) for kind, nbytes in store.copied_nbytes.items()},
                    "milliseconds": round(1000 * store.seconds / max(1.0, sum(store.usable) * 8), 2),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
