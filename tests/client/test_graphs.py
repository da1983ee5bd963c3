"""dask's graphs as tasks, without a cluster: what is sent, in which order, with which references."""

from __future__ import annotations

import operator
import random
from typing import NamedTuple

import dask.array as da
import pytest
from dask._task_spec import Alias, DataNode, Dict, List, Task, TaskRef
from hypothesis import given, settings
from hypothesis import strategies as st
from packing import pack, run

from holdfast.client.packing.graphs import split


class Stored(NamedTuple):
    """In the place of a future."""

    key: str


def test_a_task_is_a_call_with_references():
    graph = {
        "a": DataNode("a", 1),
        "b": Task("b", operator.add, TaskRef("a"), 10),
        "c": Task("c", sum, List(TaskRef("a"), TaskRef("b"), 5)),
        "d": Task("d", dict, Dict({"x": TaskRef("c"), "y": List(TaskRef("b"))}), z=TaskRef("a")),
    }
    packed = pack(graph, ["d"])
    assert run(packed) == {"d": {"x": 17, "y": [11], "z": 1}}
    digests = {task[0]: task[1] for task in packed.tasks}
    assert digests["a"] is None
    assert None not in (digests["b"], digests["c"], digests["d"])


def test_a_task_inside_a_task_is_sent_as_it_is():
    graph = {"a": 1, "b": (operator.add, (operator.mul, "a", 10), 2)}
    packed = pack(graph, ["b"])
    assert run(packed) == {"b": 12}
    assert packed.tasks[-1][1] is None


def test_what_is_not_needed_is_not_sent():
    packed = pack({"a": 1, "b": (operator.neg, "a"), "c": (operator.neg, "b")}, ["b"])
    assert [task[0] for task in packed.tasks] == ["a", "b"]


def test_aliases_cost_no_task():
    graph = {
        "a": Task("a", int),
        "b": Alias("b", "a"),
        "c": Alias("c", "b"),
        "d": Task("d", operator.add, TaskRef("c"), TaskRef("b")),
        "e": Alias("e", "d"),
    }
    packed = pack(graph, ["e", "c", "a"])
    assert [task[0] for task in packed.tasks] == ["a", "d"]
    assert packed.targets == {"e": "d", "c": "a", "a": "a"}
    assert run(packed) == {"e": 0, "c": 0, "a": 0}


def test_what_is_held_already_is_not_sent_again():
    held = []

    def borrow(key):
        if key != "b":
            return None
        held.append(key)
        return f"future of {key}"

    packed = pack({"a": 1, "b": (operator.neg, "a"), "c": (operator.neg, "b")}, ["c", "b"], borrow=borrow)
    assert [task[0] for task in packed.tasks] == ["c"]
    assert packed.borrowed == ["future of b"]
    assert run(packed, {"b": -1}) == {"c": 1, "b": -1}
    assert held == ["b"]


def test_what_is_nowhere_is_named():
    with pytest.raises(ValueError, match=r"'far'.*neither in it nor held"):
        pack({"a": Task("a", operator.neg, TaskRef("far"))}, ["a"])


def test_large_data_is_stored():
    stored = {}

    def store_as(value, key):
        stored[key] = value
        return Stored(key)

    big = bytes(2_000_000)
    packed = pack({"big": DataNode("big", big), "n": Task("n", len, TaskRef("big"))}, ["n"], store_as=store_as)
    assert [task[0] for task in packed.tasks] == ["n"]
    assert packed.stored == [Stored("big")]
    assert run(packed, stored) == {"n": 2_000_000}


def test_a_function_shared_by_many_tasks_is_sent_once():
    x = da.ones((100, 100), chunks=10) + 1
    packed = pack(x.__dask_graph__(), x.__dask_keys__()[0])
    assert len(packed.tasks) == 20, "a chunk of ones and a sum for each of ten blocks in a row"
    assert len(packed.functions) <= 3


@settings(max_examples=150)
@given(st.integers(1, 40), st.integers(0, 2**32), st.integers(1, 9))
def test_any_graph_runs_in_the_order_in_which_it_is_sent(size, seed, max_tasks):
    """Chains, fans, diamonds and aliases, shuffled; and the messages that it is cut into stand by themselves."""
    rng = random.Random(seed)
    graph, expected = {}, {}
    for i in range(size):
        below = [("k", j) for j in rng.sample(range(i), min(i, rng.randrange(4)))]
        if below and rng.random() < 0.25:
            graph["k", i] = Alias(("k", i), below[0])
            expected["k", i] = expected[below[0]]
        else:
            graph["k", i] = Task(("k", i), sum, List(*map(TaskRef, below), i))
            expected["k", i] = sum(expected[key] for key in below) + i
    items = list(graph.items())
    rng.shuffle(items)
    outputs = rng.sample(list(graph), rng.randrange(1, size + 1))
    packed = pack(dict(items), outputs)
    assert run(packed) == {key: expected[key] for key in outputs}

    wants = set(packed.targets.values())
    held, recipes = set(), {}
    for tasks, wanted, done in split(packed.tasks, wants, max_tasks):
        assert len(tasks) <= max_tasks
        for key, _, _, dependencies in tasks:
            assert all(dependency in held or dependency in recipes for dependency in dependencies)
            recipes[key] = dependencies
        held.update(wanted)
        assert held.issuperset(done)
        held.difference_update(done)
        # The scheduler forgets what nobody wants and nothing that it knows depends on.
        kept, work = {}, [key for key in held if key in recipes]
        while work:
            key = work.pop()
            kept[key] = recipes[key]
            work.extend(recipes[key])
        recipes = kept
    assert held == wants
