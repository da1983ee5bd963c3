"""The allocator alone: no overlap, no loss, whatever the order."""

from __future__ import annotations

import importlib.util
import random
import statistics
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from holdfast.objectstore.memory.allocator import Allocator
from holdfast.objectstore.memory.free_extents import ALIGNMENT, LARGE_NBYTES, PAGE, footprint

CAPACITY = 8 << 20


class AllocatorMachine(RuleBasedStateMachine):
    """Allocates, frees whole and in pieces, and compares with a map of what is used."""

    extents = Bundle("extents")

    def __init__(self) -> None:
        super().__init__()
        self.allocator = Allocator(CAPACITY)
        self.used: dict[int, int] = {}

    @rule(target=extents, nbytes=st.one_of(st.integers(1, 5000), st.integers(1, 3 << 20)))
    def allocate(self, nbytes: int) -> tuple[int, int]:
        offset = self.allocator.allocate(nbytes)
        size = footprint(nbytes)
        if offset is None:
            align = PAGE if nbytes >= LARGE_NBYTES else ALIGNMENT
            assert not any(
                -(-start // align) * align + size <= start + free for start, free in self.allocator.free_extents()
            )
            return (0, 0)
        assert offset % (PAGE if nbytes >= LARGE_NBYTES else ALIGNMENT) == 0
        assert all(offset + size <= other or other + n <= offset for other, n in self.used.items())
        assert offset + size <= CAPACITY
        self.used[offset] = size
        return (offset, size)

    @rule(extent=consumes(extents))
    def free(self, extent: tuple[int, int]) -> None:
        offset, size = extent
        if size:
            self.allocator.free(offset, self.used.pop(offset))

    @rule(target=extents, extent=consumes(extents), part=st.floats(0, 1))
    def free_the_front(self, extent: tuple[int, int], part: float) -> tuple[int, int]:
        offset, size = extent
        cut = int(size * part) // ALIGNMENT * ALIGNMENT
        if not 0 < cut < size:
            return extent
        del self.used[offset]
        self.allocator.free(offset, cut)
        self.used[offset + cut] = size - cut
        return (offset + cut, size - cut)

    @invariant()
    def every_byte_is_used_or_free(self) -> None:
        at = 0
        was_free = False
        pieces = [(start, n, True) for start, n in self.allocator.free_extents()]
        pieces += [(start, n, False) for start, n in self.used.items()]
        for start, nbytes, is_free in sorted(pieces):
            assert start == at
            assert not (was_free and is_free), "two free extents side by side"
            at, was_free = start + nbytes, is_free
        assert at == CAPACITY
        assert self.allocator.used_nbytes == sum(self.used.values())


TestAllocator = AllocatorMachine.TestCase
TestAllocator.settings = settings(max_examples=60, stateful_step_count=40)


def test_all_of_it_can_be_had_again_after_random_use() -> None:
    rng = random.Random(7)
    allocator = Allocator(CAPACITY)
    held: list[tuple[int, int]] = []
    for _ in range(20_000):
        if held and rng.random() < 0.5:
            offset, nbytes = held.pop(rng.randrange(len(held)))
            allocator.free(offset, footprint(nbytes))
        else:
            nbytes = int(rng.lognormvariate(8, 2)) + 1
            offset = allocator.allocate(nbytes)
            if offset is not None:
                held.append((offset, nbytes))
    for offset, nbytes in held:
        allocator.free(offset, footprint(nbytes))
    assert allocator.allocate(CAPACITY) == 0


def test_what_was_freed_last_is_used_first() -> None:
    allocator = Allocator(CAPACITY)
    first, second, _ = (allocator.allocate(8192) for _ in range(3))
    assert first is not None
    assert second is not None
    allocator.free(second, 8192)
    assert allocator.allocate(8192) == second


def test_freeing_twice_is_noticed() -> None:
    allocator = Allocator(CAPACITY)
    offset = allocator.allocate(64)
    assert offset is not None
    allocator.free(offset, 64)
    with pytest.raises((AssertionError, KeyError)):
        allocator.free(offset, 64)


def test_nothing_fits_into_a_full_arena() -> None:
    allocator = Allocator(CAPACITY)
    assert allocator.allocate(CAPACITY) == 0
    assert allocator.allocate(1) is None
    assert allocator.largest_free_nbytes() == 0


def test_less_than_a_page_is_no_capacity() -> None:
    with pytest.raises(ValueError, match="less than one page"):
        Allocator(100)


@pytest.fixture
def fragmentation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark's module."""
    path = Path(__file__).parents[2] / "benchmarks" / "fragmentation.py"
    spec = importlib.util.spec_from_file_location("fragmentation", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fragmentation", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
@pytest.mark.parametrize(("load", "refused", "largest_free"), [(0.5, 0.0, 0.5), (0.8, 0.001, 0.08), (0.95, 0.01, 0.08)])
def test_fragmentation_is_bounded(fragmentation: ModuleType, load: float, refused: float, largest_free: float) -> None:
    # At 95 % a first fit from one end refuses 3 % of these requests, and its largest extent is 5 % of what is free.
    workload = fragmentation.Workload(Allocator(8 << 30), load, seed=1)
    workload.run(100_000)
    assert workload.operations >= 100_000
    assert workload.allocator.used_nbytes > 0.9 * load * workload.allocator.capacity
    assert workload.refusals <= refused * workload.requests
    assert statistics.median(workload.largest_free) >= largest_free
    assert statistics.median(workload.waste) < 0.01
