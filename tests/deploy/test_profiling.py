"""Profiles: what was seen when, and how much of it is kept."""

from __future__ import annotations

import sys

import pytest
from waiting import until

from holdfast.cluster.processes import profiling
from holdfast.cluster.processes.profiling import Profiler, merged, rows, stack_of


def outer(depth=0):
    return inner() if depth == 0 else outer(depth - 1)


def inner():
    frames = []
    frame = sys._getframe()
    while frame is not None and frame.f_code.co_filename == __file__:
        frames.append(frame)
        frame = frame.f_back
    return stack_of(reversed([f for f in frames if f.f_code.co_name in ("outer", "inner")]))


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(profiling.time, "time", lambda: Clock.now)
    return Clock


def profiler(seen, **options):
    return Profiler(lambda: list(seen), 0.001, "a-profile-of-a-test", **options)


def test_stacks_are_counted_in_a_tree_by_name(clock):
    seen = [("a", outer()), ("b", outer())]
    profile = profiler(seen)
    for _ in range(3):
        assert profile._count()
    state = profile.state("a", None, None)
    assert state["count"] == 3
    (top,) = state["children"].values()
    assert top["description"]["name"] == "outer"
    assert top["description"]["filename"] == __file__
    assert "inner()" in top["description"]["line"]
    ((identifier, below),) = top["children"].items()
    assert identifier.startswith("inner;")
    assert below["count"] == 3
    assert profile.state(None, None, None)["count"] == 6
    assert profile.state("c", None, None) == profiling.empty()


def test_windows_are_found_by_time(clock):
    profile = profiler([("a", outer())])
    for now in (1000.0, 1000.5, 1010.0, 1020.0):
        clock.now = now
        profile._count()
    assert profile.state(None, None, None)["count"] == 4
    assert profile.state(None, 1005.0, None)["count"] == 2
    assert profile.state(None, 1005.0, 1015.0)["count"] == 1
    assert profile.state(None, None, 1005.0)["count"] == 2


def test_the_oldest_windows_go_when_there_are_too_many_functions(clock):
    profile = profiler([("a", outer(50))], max_nodes=200)
    for n in range(100):
        clock.now = 1000.0 + 2 * n
        profile._count()
    assert sum(profile._sizes) <= 200 + 60
    assert 1 < len(profile._windows) < 6
    assert profile.state(None, 1190.0, None)["count"] > 0


def test_deep_stacks_are_cut():
    assert len(outer(1_0 * profiling.MAX_DEPTH // 2)) == profiling.MAX_DEPTH


def test_what_fails_to_be_seen_is_seen_the_next_time():
    def look():
        yield "a", outer()
        if not looked:
            looked.append(1)
            raise RuntimeError("a stack is gone")

    looked = []
    profile = Profiler(look, 0.001, "a-profile-of-a-test")
    profile.start()
    profile.start()
    try:
        until(lambda: profile.state("a", None, None)["count"] > 3, "it goes on")
    finally:
        profile.stop()
    profile.stop()
    profile.start()
    assert not profile._thread.is_alive()


def test_profiles_are_added_up_and_drawn():
    profile = profiler([("a", outer())])
    profile._count()
    profile._count()
    one = profile.state(None, None, None)
    both = merged([one, one, profiling.empty()])
    assert both["count"] == 4
    assert merged([both]) == both
    drawn = [(depth, before, node["description"]["name"]) for depth, before, node in rows(both)]
    assert drawn == [(0, 0, ""), (1, 0, "outer"), (2, 0, "inner")]
