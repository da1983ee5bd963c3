"""An idle store gives the pages of its free extents back, in bounded steps, whatever these are aligned to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.objectstore.memory import trim
from holdfast.objectstore.memory.free_extents import PAGE
from holdfast.objectstore.memory.trim import Trimmer


class Loop:
    """Timers that are called when the test says."""

    def __init__(self):
        self.due = []

    def call_later(self, seconds, callback):
        self.due.append(callback)


class Books:
    def __init__(self, extents):
        self.extents = extents

    def free_extents(self):
        return iter(self.extents)


class Pages:
    def __init__(self):
        self.punched = []

    def punch(self, offset, nbytes):
        assert offset % PAGE == nbytes % PAGE == 0
        assert nbytes > 0
        self.punched.append((offset, nbytes))


@given(st.lists(st.tuples(st.integers(0, 200_000), st.integers(1, 2_500_000)), max_size=12))
def test_every_whole_page_of_a_large_extent_is_punched_once_and_no_step_is_larger_than_the_limit(sizes):
    extents, at = [], 0
    for gap, nbytes in sizes:
        offset = at + (gap + 1) * 64
        extents.append((offset, nbytes * 64))
        at = offset + nbytes * 64
    loop, pages, now = Loop(), Pages(), [0.0]
    trimmer = Trimmer(loop, pages, Books(extents), lambda: now[0], idle_seconds=60.0, on_idle=lambda: None)
    trimmer.touch()
    now[0] = 60.0
    while loop.due:
        before = len(pages.punched)
        loop.due.pop()()
        assert sum(nbytes for _, nbytes in pages.punched[before:]) <= trim._TICK_NBYTES
    expected = set()
    for offset, nbytes in extents:
        whole = range(-(-offset // PAGE), (offset + nbytes) // PAGE)
        if len(whole) * PAGE >= trim._EXTENT_NBYTES_MIN:
            expected.update(whole)
    punched = [page for offset, nbytes in pages.punched for page in range(offset // PAGE, (offset + nbytes) // PAGE)]
    assert len(punched) == len(set(punched))
    assert set(punched) == expected
