"""Results that are taken apart: whose items the tasks that read them take, and whose have a task of their own."""

from __future__ import annotations

import operator
import random

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask._task_spec import Alias, DataNode, Dict, List, Task, TaskRef
from hypothesis import given, settings
from hypothesis import strategies as st
from packing import pack, run
from pandas.testing import assert_frame_equal
from waiting import DEADLINE_SECONDS

from holdfast import wait
from holdfast.client.packing.shuffle_items import ITEMS_MIN

N = ITEMS_MIN + 1


def split(number, n=N):
    return {i: 100 * number + i for i in range(n)}


def shuffle(n=N):
    """What dask makes of a shuffle: N dictionaries, N x N takings, N tasks that read N items each."""
    graph = {("group", i): (split, i, n) for i in range(n)}
    graph |= {("split", k, i): (operator.getitem, ("group", i), k) for i in range(n) for k in range(n)}
    return graph | {("out", k): (sum, [("split", k, i) for i in range(n)]) for k in range(n)}


def sent(packed):
    return {task[0][0] if isinstance(task[0], tuple) else task[0] for task in packed.tasks}


def test_the_readers_of_a_shuffle_take_their_items():
    outputs = [("out", k) for k in range(N)]
    packed = pack(shuffle(), outputs)
    assert len(packed.tasks) == 2 * N
    assert set(packed.tasks[-1][3]) == {("group", i) for i in range(N)}
    assert run(packed) == dict(zip(outputs, dask.get(shuffle(), outputs), strict=True))


def test_items_are_taken_wherever_they_stand_among_the_arguments():
    graph = {
        "group": Task("group", split, 0),
        **{f"s{i}": Task(f"s{i}", operator.getitem, TaskRef("group"), i) for i in range(N)},
        "a": Task("a", dict, Dict({"x": TaskRef("s0"), "y": List(TaskRef("s1"), 5)}), z=TaskRef("s2")),
        "b": Task("b", list, List(*[TaskRef(f"s{i}") for i in range(3, N)])),
    }
    packed = pack(graph, ["a", "b"])
    assert sent(packed) == {"group", "a", "b"}
    assert run(packed) == {"a": {"x": 0, "y": [1, 5], "z": 2}, "b": list(range(3, N))}


def test_items_of_what_is_held_already_are_taken_too():
    graph = shuffle()
    outputs = [("out", k) for k in range(N)]
    packed = pack(graph, outputs, borrow=lambda key: f"future of {key}" if key[0] == "group" else None)
    assert sent(packed) == {"out"}
    assert run(packed, {("group", i): split(i) for i in range(N)}) == dict(
        zip(outputs, dask.get(graph, outputs), strict=True)
    )


def with_aliases(graph):
    graph = {**graph, ("other", 0): Alias(("other", 0), ("group", 0))}
    graph["split", 3, 0] = Task(("split", 3, 0), operator.getitem, TaskRef(("other", 0)), 3)
    return graph


#: Graphs in which one item, ("split", 3, 0), stays a task; and the outputs of each.
STAYS = {
    "the client wants it itself": (shuffle(), [("out", 3), ("split", 3, 0)]),
    "two tasks read it": ({**shuffle(), "more": (operator.neg, ("split", 3, 0))}, [("out", 3), "more"]),
    "a reader that has tasks in its arguments": (
        {**shuffle(), ("out", 3): (sum, [(operator.neg, ("split", 3, 0))])},
        [("out", k) for k in range(N)],
    ),
    "an item that isn't plain": (
        {**shuffle(), ("split", 3, 0): (operator.getitem, ("group", 0), np.int64(3))},
        [("out", k) for k in range(N)],
    ),
}


@pytest.mark.parametrize("name", STAYS)
def test_it_stays_a_task_for(name):
    graph, outputs = STAYS[name]
    outputs = [*outputs, *(("out", k) for k in range(N) if ("out", k) not in outputs)]
    packed = pack(graph, outputs)
    assert [task[0] for task in packed.tasks if task[0][0] == "split"] == [("split", 3, 0)]
    assert run(packed) == dict(zip(outputs, dask.get(graph, outputs), strict=True))


def test_an_item_of_an_item_is_taken_of_a_task():
    graph = {
        "group": Task("group", lambda: {i: [i] for i in range(N)}),
        **{f"s{i}": Task(f"s{i}", operator.getitem, TaskRef("group"), i) for i in range(N)},
        **{f"t{i}": Task(f"t{i}", operator.getitem, TaskRef(f"s{i}"), 0) for i in range(N)},
        "all": Task("all", list, List(*[TaskRef(f"t{i}") for i in range(N)])),
    }
    assert run(pack(graph, ["all"])) == {"all": list(range(N))}


def test_few_items_are_let_go_one_by_one():
    n = ITEMS_MIN - 1
    packed = pack(shuffle(n), [("out", k) for k in range(n)])
    assert len(packed.tasks) == 2 * n + n * n


def test_options_of_its_own_keep_it_a_task_unless_its_reader_has_the_same():
    outputs = [("out", k) for k in range(N)]
    chosen = {"workers": ["tcp://one"]}
    of_one = pack(shuffle(), outputs, {("split", 0, 0): chosen})
    assert [task[0] for task in of_one.tasks if task[0][0] == "split"] == [("split", 0, 0)]
    of_all = pack(shuffle(), outputs, dict.fromkeys(shuffle(), chosen))
    assert sent(of_all) == {"group", "out"}


def test_aliases_of_what_is_taken_apart():
    graph = with_aliases(shuffle())
    outputs = [("out", k) for k in range(N)]
    packed = pack(graph, outputs)
    assert sent(packed) == {"group", "out"}
    assert run(packed) == dict(zip(outputs, dask.get(shuffle(), outputs), strict=True))


@settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_any_graph_with_items_gives_what_dask_computes(seed):
    rng = random.Random(seed)
    graph = {}
    for i in range(rng.randrange(1, 4)):
        values = {k: rng.randrange(100) for k in (*range(rng.randrange(3, 2 * N)), "a", (1, "b"))}
        graph["group", i] = DataNode(("group", i), values)
        for k in values:
            for j in range(rng.choice([0, 1, 1, 1, 2])):
                graph["item", i, k, j] = Task(("item", i, k, j), operator.getitem, TaskRef(("group", i)), k)
    takings = [key for key in graph if key[0] == "item"]
    for i in range(rng.randrange(1, 8)):
        read = [TaskRef(key) for key in rng.sample(takings, rng.randrange(len(takings) + 1))]
        total = List(*read, 1)
        graph["sum", i] = Task(("sum", i), sum, Task(None, list, total) if rng.random() < 0.2 else total)
    items = list(graph.items())
    rng.shuffle(items)
    outputs = [key for key in graph if key[0] == "sum"] + rng.sample(takings, min(len(takings), rng.randrange(3)))
    expected = dict(zip(outputs, dask.get(graph, outputs), strict=True))
    assert run(pack(dict(items), outputs)) == expected


# -- on a cluster


def sealed(client):
    stats = client._core.stores.local[0].stats()
    return stats["sealed"], stats["sealed_nbytes"]


def test_a_shuffle_writes_every_partition_once_and_its_readers_write_no_item_again(client):
    n, rows = 10, 100_000
    values = np.random.default_rng(0).integers(0, 1000, n * rows)
    frame = dd.from_pandas(pd.DataFrame({"key": values, "x": values * 0.5}), npartitions=n).persist()
    wait(frame)
    count, nbytes = sealed(client)
    shuffled = frame.shuffle("key").persist()
    wait(shuffled)
    of_frame = 3 * 8 * n * rows  # a column of dask's own says where each row goes; and the index
    more_count, more_nbytes = sealed(client)
    # Each row is written with its destination, then beside the others that go there, then where it goes.
    assert more_nbytes - nbytes < 3.3 * (of_frame + 8 * n * rows)
    assert more_count - count <= 4 * n
    assert_frame_equal(shuffled.compute().sort_index(), frame.compute().sort_index(), check_dtype=False)


def test_items_of_what_was_persisted_and_published(client):
    groups = {("group", i): (split, i, N) for i in range(N)}
    futures = client.get(groups, list(groups), sync=False)
    client.publish_dataset(futures, name="groups")
    graph = {key: value for key, value in shuffle().items() if key[0] != "group"}
    graph |= dict(zip(groups, client.get_dataset("groups"), strict=True))
    outputs = [("out", k) for k in range(N)]
    assert client.get(graph, outputs) == list(dask.get(shuffle(), outputs))
    client.unpublish_dataset("groups")


def test_a_missing_item_is_an_error_that_names_it_and_of_what_it_is(client):
    graph = {**shuffle(), ("split", 0, 0): (operator.getitem, ("group", 0), "nobody")}
    (future,) = client.get(graph, [("out", 0)], sync=False)
    error = future.exception(timeout=DEADLINE_SECONDS)
    assert isinstance(error, KeyError)
    assert error.args == ("nobody",)
    assert any("('group', 0)" in note for note in error.__notes__)


def test_what_cannot_be_taken_apart_fails_as_it_does_with_dask(client):
    graph = {**shuffle(), ("group", 0): 5}
    with pytest.raises(TypeError, match="not subscriptable"):
        dask.get(graph, [("out", 0)])
    with pytest.raises(TypeError, match="not subscriptable"):
        client.get(graph, [("out", 0)])
