"""What one scheduler plugin hears: in order, with what its methods take, as much as it can take, and beside others."""

from __future__ import annotations

import contextlib
import threading

import pytest
from waiting import until

from holdfast import SchedulerPlugin
from holdfast.cluster.assistant import listening
from holdfast.cluster.assistant.listening import Listener
from holdfast.cluster.errands.calls import Calls
from holdfast.cluster.protocol.records import record_of
from holdfast.objectstore import encode

VIEW = object()


@pytest.fixture
def listen():
    """Makes listeners, and ends them."""
    calls = Calls(
        "the test",
        {},
        encode=encode,
        store=lambda encoded: pytest.fail("nothing is stored"),
        inside=contextlib.nullcontext,
        name="holdfast-errand-test",
        inline_nbytes=1 << 20,
    )
    made = []

    def make(plugin, noted=None):
        made.append(Listener("one", plugin, VIEW, calls, (noted if noted is not None else []).append))
        return made[-1]

    yield make
    for listener in made:
        listener.stop()
    calls.close()


def test_each_hook_gets_what_it_takes(listen):
    heard = []

    class Old(SchedulerPlugin):
        def transition(self, key, start, finish, *args):
            heard.append((key, start, finish, args))

        def remove_worker(self, scheduler, worker):
            heard.append((scheduler, worker))

        def update_graph(self, scheduler, dsk=None, keys=None, restrictions=None, **kwargs):
            heard.append((dsk, keys, sorted(kwargs)))

    class New(SchedulerPlugin):
        def transition(self, key, start, finish, *args, stimulus_id, **kwargs):
            heard.append((key, stimulus_id, kwargs))

        def remove_worker(self, scheduler, worker, *, stimulus_id, **kwargs):
            heard.append((worker, stimulus_id))

        async def update_graph(self, scheduler, *, client, keys, tasks, annotations, priority, dependencies, **kwargs):
            heard.append((client, keys, tasks, annotations, priority, dependencies))

    graph = ("c", ["y"], [("x", (), (0.0, 1)), ("y", ("x",), None)], {"retries": 2, "per_key": {"y": {"priority": 1}}})
    told = [
        (1.5, "transition", "x", None, "waiting"),
        (1.5, "remove_worker", "tcp://a:1/0"),
        (2.0, "update_graph", *graph),
    ]
    for plugin in (Old(), New()):
        listener = listen(plugin)
        listener.tell(0, told)
        until(lambda: len(heard) % 3 == 0 and heard, "all is heard")
    until(lambda: len(heard) == 6, "all is heard")
    assert heard == [
        ("x", "released", "waiting", ()),
        (VIEW, "tcp://a:1/0"),
        (None, {"y"}, ["annotations", "client", "dependencies", "priority", "stimulus_id", "tasks"]),
        ("x", "transition-1.5", {}),
        ("tcp://a:1/0", "remove_worker-1.5"),
        (
            "c",
            {"y"},
            ["x", "y"],
            {"retries": {"x": 2, "y": 2}, "priority": {"y": 1}},
            {"x": (0.0, 1)},
            {"x": set(), "y": {"x"}},
        ),
    ]


def test_an_event_of_several_topics_is_told_of_each(listen):
    heard = []

    class Noting(SchedulerPlugin):
        def log_event(self, topic, msg):
            heard.append((topic, msg))

    listen(Noting()).tell(0, [(1.0, "log_event", ["a", "b"], record_of({"x": [1, 2]}))])
    until(lambda: len(heard) == 2, "both are heard")
    assert heard == [("a", {"x": [1, 2]}), ("b", {"x": [1, 2]})]


def test_what_it_does_not_hear_is_not_kept_and_without_hooks_there_is_no_thread(listen):
    before = threading.active_count()
    listener = listen(SchedulerPlugin())
    assert threading.active_count() == before
    listener.tell(0, [(1.0, "transition", "x", None, "waiting")])
    assert not listener._queue


def test_one_that_is_slow_misses_the_oldest_changes_and_a_long_call_is_named_once(listen, monkeypatch, caplog):
    monkeypatch.setattr(listening, "KEPT", 10)
    monkeypatch.setattr(listening, "SLOW_SECONDS", 0.0)
    begun, go, heard, noted = threading.Event(), threading.Event(), [], []

    class Slow(SchedulerPlugin):
        def transition(self, key, start, finish, *args, **kwargs):
            begun.set()
            go.wait(30)
            heard.append(key)

    listener = listen(Slow(), noted)
    listener.tell(0, [(0.0, "transition", "first", None, "waiting")])
    assert begun.wait(30)
    for number in range(15):
        listener.tell(1 if number == 0 else 0, [(1.0, "transition", number, None, "waiting")])
    go.set()
    until(lambda: len(heard) == 11, "it goes on")
    assert heard == ["first", *range(5, 15)]
    assert "has missed 6 changes" in caplog.text
    (text,) = noted
    assert "its transition has taken more than 0 s" in text
    assert "go.wait(30)" in text


def test_one_that_fails_is_noted_once_and_goes_on(listen):
    heard, noted = [], []

    class Failing(SchedulerPlugin):
        def transition(self, key, start, finish, *args, **kwargs):
            heard.append(key)
            raise ValueError(f"not {key}")

    listen(Failing(), noted).tell(0, [(0.0, "transition", key, None, "waiting") for key in "abc"])
    until(lambda: len(heard) == 3, "it goes on")
    assert len(noted) == 1
    assert "ValueError: not a" in noted[0]
