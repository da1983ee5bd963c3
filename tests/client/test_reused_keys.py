"""A key that nobody holds is free: what is submitted under it is computed, whatever it meant before."""

from __future__ import annotations

import logging
import operator
import threading
import time
import warnings

import dask.array as da
import numpy as np
import pytest
from dask import delayed
from dask.delayed import Delayed

from holdfast import Client, wait


def boom(x):
    raise ValueError(x)


def inc(x):
    return x + 1


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def other(cluster):
    with Client(cluster, set_as_default=False, name="other") as other:
        yield other


class TestSubmit:
    def test_in_a_loop(self, client):
        assert [client.submit(int, i, key="step").result() for i in range(5)] == [0, 1, 2, 3, 4]

    def test_after_a_release(self, client):
        future = client.submit(int, 1, key="k")
        assert future.result() == 1
        future.release()
        assert client.submit(int, 2, key="k").result() == 2

    def test_another_function(self, client):
        assert [client.submit(f, -1, key="k").result() for f in (abs, inc, str)] == [1, 0, "-1"]

    def test_other_dependencies(self, client):
        one, two = client.scatter([1, 2])
        assert [client.submit(inc, x, key="k").result() for x in (one, two, one)] == [2, 3, 2]

    def test_after_a_failure_and_before_one(self, client):
        with pytest.raises(ValueError, match="7"):
            client.submit(boom, 7, key="k").result()
        assert client.submit(int, 1, key="k").result() == 1
        assert isinstance(client.submit(boom, 8, key="k").exception(), ValueError)

    def test_while_the_old_one_still_runs(self, client):
        client.submit(time.sleep, 0.2, key="k").release()
        assert client.submit(int, 3, key="k").result() == 3

    def test_after_it_was_cancelled(self, client):
        future = client.submit(inc, 1, key="k")
        client.cancel(future)
        assert client.submit(int, 5, key="k").result() == 5
        assert future.cancelled()

    def test_by_several_threads(self, client):
        def loop(name):
            seen[name] = [client.submit(int, i, key=name).result() for i in range(50)]

        seen: dict[str, list[int]] = {}
        threads = [threading.Thread(target=loop, args=(f"key of {n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert list(seen.values()) == [list(range(50))] * 4

    def test_in_what_comes_in_the_middle_of_another_call(self, client):
        # As a signal handler or a finalizer may: whatever it gets, nobody waits for ever.
        future = client.submit(int, 1, key="k")
        assert future.result() == 1
        with client._core.table.lock:
            future.release()
            again = client.submit(int, 1, key="k")
        assert again.result() == 1

    def test_large_results_and_arguments(self, client):
        sizes = [client.submit(np.sum, np.full(300_000, i), key="k").result() for i in range(3)]
        assert sizes == [0, 300_000, 600_000]


class TestLineage:
    def test_dependents_keep_what_they_were_submitted_with(self, client):
        one = client.submit(int, 1, key="k")
        before = client.submit(inc, one)
        one.release()
        two = client.submit(int, 10, key="k")
        after = client.submit(inc, two)
        assert client.gather([before, two, after]) == [2, 10, 11]

    def test_a_pure_call_is_another_one_if_what_its_key_names_is(self, client):
        results = []
        for i in range(3):
            future = client.submit(int, i, key="k")
            results.append(client.submit(inc, future))
            results.append(client.submit(sum, [future, future], key=f"sum-{i}"))
            results.append(delayed(inc)(future).persist())
            del future
        values = [r.compute() if isinstance(r, Delayed) else r.result() for r in results]
        assert values == [1, 0, 1, 2, 2, 2, 3, 4, 3]

    def test_a_pure_call_is_the_same_if_what_its_key_names_is(self, client):
        future = client.submit(int, 1, key="k")
        first = client.submit(inc, future)
        future.release()
        assert client.submit(inc, client.submit(int, 1, key="k")).key == first.key

    def test_a_function_that_takes_the_future_along(self, client):
        seen = []
        for i in range(3):
            future = client.submit(int, i, key="k")
            seen.append(client.submit(lambda future=future: future.key))
            del future
        assert len({future.key for future in seen}) == 3
        wait(seen)


class TestMap:
    def test_keys(self, client):
        seen = [client.gather(client.map(int, [i, i + 1], key=["a", "b"])) for i in range(3)]
        assert seen == [[0, 1], [1, 2], [2, 3]]

    def test_one_of_them_is_held(self, client):
        held = client.submit(int, 100, key="b")
        with pytest.warns(UserWarning, match="'b' is held by futures of this client for another call"):
            futures = client.map(int, [0, 1], key=["a", "b"])
        assert client.gather(futures) == [0, 100]
        assert held.result() == 100

    def test_the_beginning_of_keys(self, client):
        assert [client.gather(client.map(int, [i, i + 1], key="a")) for i in range(2)] == [[0, 1], [1, 2]]


class TestGraphs:
    def test_get(self, client):
        assert [client.get({"k": i}, "k") for i in range(5)] == [0, 1, 2, 3, 4]
        assert [client.get({"k": (inc, i), "l": (inc, "k")}, "l") for i in range(3)] == [2, 3, 4]

    def test_large_data(self, client):
        seen = [client.get({"k": np.full(300_000, i), "l": (np.sum, "k")}, "l") for i in range(3)]
        assert seen == [0, 300_000, 600_000]

    def test_a_graph_whose_end_alone_has_changed(self, client):
        graph = {"a": (int, 1), "b": (inc, "a")}
        assert client.get({**graph, "c": (inc, "b")}, "c") == 3
        assert client.get({**graph, "c": (operator.neg, "b")}, "c") == -2

    def test_a_graph_whose_beginning_has_changed_while_its_end_runs(self, client):
        futures = [
            client.get({"a": (int, i), "b": (inc, "a"), f"c{i}": (sum, ["b", "a"])}, f"c{i}", sync=False)
            for i in range(10)
        ]
        assert client.gather(futures) == [2 * i + 1 for i in range(10)]

    def test_a_graph_that_is_sent_in_pieces(self, client):
        def graph(i):
            return {**{("x", n): (int, i + n) for n in range(1200)}, "total": (sum, [("x", n) for n in range(1200)])}

        futures = [client.get(graph(i), "total", sync=False) for i in range(2)]
        base = sum(range(1200))
        assert futures[0].result() == base
        futures.clear()
        assert [client.get(graph(i), "total") for i in range(3)] == [base, base + 1200, base + 2400]

    def test_delayed_with_a_name(self, client):
        assert [delayed(inc)(i, dask_key_name="d").compute() for i in range(4)] == [1, 2, 3, 4]
        assert [delayed(inc)(i, dask_key_name="d").persist().compute() for i in range(4)] == [1, 2, 3, 4]

    @pytest.mark.parametrize(
        ("key", "rename", "new_key"),
        [("a", {}, "a"), ("a", {"a": "b"}, "b"), (("a", 1), {"a": "b"}, ("b", 1)), (("a", 1), {"z": "b"}, ("a", 1))],
    )
    def test_a_delayed_value_that_is_persisted_under_another_name(self, client, key, rename, new_key):
        # As dask's own test of it, which computes both in one process.
        value = Delayed(key, {key: 1})
        assert value.compute() == 1
        rebuild, arguments = value.__dask_postpersist__()
        persisted = rebuild({new_key: 2}, *arguments, rename=rename)
        assert persisted.compute() == 2
        assert persisted.key == new_key

    def test_an_array_with_a_name(self, client):
        def array(i):
            return da.from_array(np.arange(4) + i, chunks=2, name="mine")

        assert [int(array(i).sum().compute()) for i in range(3)] == [6, 10, 14]
        kept = [(array(i) + 1).persist() for i in range(1)]
        assert [int(x.sum().compute()) for x in kept] == [10]


class TestScatter:
    def test_a_dictionary(self, client):
        results = []
        for i in range(3):
            future = client.scatter({"s": i})["s"]
            results.append(client.submit(inc, future))
            del future
        assert client.gather(results) == [1, 2, 3]

    def test_data_where_a_call_was_and_the_other_way_round(self, client):
        assert client.submit(int, 1, key="k").result() == 1
        assert client.scatter({"k": 2})["k"].result() == 2
        assert client.submit(int, 3, key="k").result() == 3


class TestHeld:
    def test_by_this_client(self, client):
        held = client.submit(int, 1, key="held")
        with pytest.warns(UserWarning, match="'held' is held by futures of this client for another call") as warned:
            future = client.submit(int, 5, key="held")
        assert warned[0].filename == __file__
        assert future.result() == held.result() == 1
        assert client.submit(int, 1, key="held").result() == 1

    def test_for_a_failure(self, client):
        held = client.submit(boom, 1, key="held")
        wait(held)
        with pytest.warns(UserWarning, match="'held'"):
            future = client.submit(int, 5, key="held")
        assert isinstance(future.exception(), ValueError)

    def test_for_what_can_not_be_compared_cheaply(self, client):
        data = np.ones(300_000)
        held = client.submit(np.sum, data, key="held")
        assert client.submit(np.sum, data, key="held").result() == held.result() == 300_000

    def test_by_another_client(self, client, other, caplog):
        held = other.submit(int, 1, key="held")
        assert held.result() == 1
        with caplog.at_level(logging.WARNING):
            assert client.submit(int, 5, key="held").result() == 1
        assert "in use by others: 'held'" in caplog.text

    def test_by_another_client_for_the_same(self, client, other, caplog):
        held = other.submit(int, 1, key="held")
        with caplog.at_level(logging.WARNING):
            assert client.submit(int, 1, key="held").result() == held.result() == 1
        assert not caplog.records

    def test_by_a_dataset(self, client, caplog, eventually):
        future = client.submit(int, 1, key="published")
        client.publish_dataset(d=future)
        future.release()
        with caplog.at_level(logging.WARNING):
            assert client.submit(int, 5, key="published").result() == 1
        assert "in use by others: 'published'" in caplog.text
        client.unpublish_dataset("d")
        assert client.submit(int, 6, key="published").result() == 6

    def test_another_client_used_it_before(self, client, other, eventually):
        for i in range(3):
            one = (client, other)[i % 2]
            future = one.submit(int, i, key="turns")
            assert future.result() == i
            del future
            eventually(lambda: "turns" not in client.who_has(), what="the scheduler hears that the key is free")

    def test_another_client_is_gone(self, client, cluster, eventually):
        with Client(cluster, set_as_default=False) as gone:
            futures = gone.map(int, range(100), key=[f"gone-{n}" for n in range(100)])
            wait(futures)
        eventually(lambda: not any(str(key).startswith("gone") for key in client.who_has()), what="they are released")
        again = client.map(inc, range(100), key=[f"gone-{n}" for n in range(100)])
        assert client.gather(again) == list(range(1, 101))
