"""Calls on a real cluster."""

from __future__ import annotations

import operator
import os
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from holdfast import CancelledError, Client, wait
from holdfast.client.operations.submit import MAP_BATCH
from tests.support.waiting import until


def test_submit_and_map(client):
    assert client.submit(pow, 2, 10).result(timeout=20) == 1024
    assert client.submit(int, "ff", base=16).result(timeout=20) == 255
    assert client.gather(client.map(pow, [1, 2, 3], [2, 3, 4, 5])) == [1, 8, 81]
    assert client.gather(client.map(lambda x, y=0: x + y, range(5), y=10)) == [10, 11, 12, 13, 14]
    assert client.map(operator.neg, []) == []


def test_a_map_runs_while_it_is_still_being_packed(client):
    def numbers():
        yield from range(MAP_BATCH)
        until(client.who_has, "some of the first batch have results")
        yield MAP_BATCH

    assert client.gather(client.map(abs, numbers())) == list(range(MAP_BATCH + 1))


def test_futures_stand_for_their_values_however_deep(client):
    one, two = client.map(operator.neg, [1, 2])

    def same(*args, **kwargs):
        return args, kwargs

    future = client.submit(same, one, [one, (two, {"k": two})], {one.key: [one]}, frozenset([two]), named={"x": one})
    expected = ((-1, [-1, (-2, {"k": -2})], {one.key: [-1]}, frozenset([-2])), {"named": {"x": -1}})
    assert future.result(timeout=20) == expected


def test_chains_and_fans(client):
    future = client.submit(operator.neg, 1)
    for _ in range(50):
        future = client.submit(operator.add, future, 1)
    assert future.result(timeout=30) == 49
    assert client.submit(sum, client.map(lambda x: x * x, range(100))).result(timeout=30) == sum(
        x * x for x in range(100)
    )


def test_a_future_inside_an_object_is_a_future_of_the_worker_s_own_client(client):
    inner = client.submit(operator.neg, 21)

    def use(box):
        return box.future.result(timeout=20) * 2

    outer = client.submit(use, SimpleNamespace(future=inner))
    del inner
    assert outer.result(timeout=30) == -42


def test_a_future_in_a_closure_is_kept_for_the_tasks_of_the_function(client):
    inner = client.submit(operator.neg, 21)

    def use(number):
        return inner.result(timeout=20) + number

    assert client.gather(client.map(use, [1, 2])) == [-20, -19]


def test_tasks_can_submit_tasks(client):
    def outer(n):
        return sum(Client.current().gather(Client.current().map(operator.neg, range(n))))

    before = client.cluster.describe()["clients"]
    # One thread of two waits; the other one computes.
    assert client.submit(outer, 10).result(timeout=30) == -45
    assert client.cluster.describe()["clients"] == before, "the worker's own client is no user's"


def test_tasks_can_pass_futures_on_to_their_own_tasks(client):
    def outer():
        inner = Client.current().submit(operator.neg, 1)
        box = SimpleNamespace(future=inner)
        return Client.current().submit(lambda box, n: box.future.result(timeout=20) + n, box, inner).key

    assert client.submit(outer).result(timeout=20).startswith("lambda")


def test_pure_and_impure_calls(client):
    def draw():
        return os.urandom(8)

    one, two = client.submit(draw), client.submit(draw)
    assert one.result(timeout=20) == two.result(timeout=20)
    assert client.submit(draw, pure=False).result(timeout=20) != client.submit(draw, pure=False).result(timeout=20)
    assert len(set(client.gather([client.submit(draw, key=f"draw-{i}") for i in range(3)]))) == 3


def test_a_call_on_another_client_finds_the_same_computation(client, cluster):
    with Client(cluster, set_as_default=False) as other:
        one = client.submit(os.urandom, 8)
        two = other.submit(os.urandom, 8)
        assert one.key == two.key
        assert one.result(timeout=20) == two.result(timeout=20)


def test_keys_of_a_map(client):
    assert [f.key for f in client.map(operator.neg, [1, 2], key=["one", ("two", 2)])] == ["one", ("two", 2)]
    assert client.map(operator.neg, [1], key="prefix")[0].key.startswith("prefix-")
    with pytest.raises(ValueError, match="fewer keys"):
        client.map(operator.neg, [1, 2], key=["one"])
    with pytest.raises(TypeError, match="iterable"):
        client.map(operator.neg)


def test_a_failing_task(client):
    def divide(x, y):
        return x / y

    future = client.submit(divide, 1, 0)
    with pytest.raises(ZeroDivisionError) as caught:
        future.result(timeout=20)
    assert caught.traceback[-1].name == "divide"
    assert f"Raised by task {future.key!r} on worker" in caught.value.__notes__[0]
    assert isinstance(future.exception(), ZeroDivisionError)
    assert future.status == "error"
    dependent = client.submit(operator.neg, future)
    with pytest.raises(ZeroDivisionError):
        dependent.result(timeout=20)
    assert client.submit(operator.neg, 1).exception(timeout=20) is None


def test_retries(client, tmp_path):
    def flaky(path):
        with open(path, "a") as file:
            file.write("x")
        if os.path.getsize(path) < 3:
            raise OSError("not yet")
        return os.path.getsize(path)

    assert client.submit(flaky, str(tmp_path / "one"), retries=5).result(timeout=20) == 3
    with pytest.raises(OSError, match="not yet"):
        client.submit(flaky, str(tmp_path / "two"), retries=1).result(timeout=20)


def test_workers(client):
    from holdfast.cluster.worker.context import current_worker

    for address in client.nthreads():
        where = client.submit(lambda: current_worker().address, workers=address, pure=False)
        assert where.result(timeout=20) == address
    loose = client.submit(operator.neg, 1, workers="nobody", allow_other_workers=True, pure=False)
    assert loose.result(timeout=20) == -1


def test_priorities_go_before_the_order_of_submission(client, tmp_path):
    workers = list(client.nthreads())
    gate = str(tmp_path / "gate")

    def hold():
        while not os.path.exists(gate):
            time.sleep(0.01)

    holding = [client.submit(hold, workers=worker, pure=False) for worker in workers]
    later = client.map(lambda i: time.monotonic(), range(6), pure=False, workers=workers[0])
    first = client.submit(time.monotonic, pure=False, priority=10, workers=workers[0])
    client.nthreads()  # everything has arrived
    open(gate, "w").close()
    assert first.result(timeout=20) < sorted(client.gather(later))[-2]
    wait(holding, timeout=20)


class TestLargeArguments:
    def test_they_go_through_the_store(self, client):
        array = np.arange(500_000.0)
        future = client.submit(np.sum, array)
        assert future.result(timeout=20) == array.sum()
        assert len(client.who_has()) >= 2

    def test_one_for_a_whole_map(self, client):
        array = np.arange(500_000.0)
        before = set(client.who_has())
        futures = client.map(lambda i, values: float(values[i]), range(20), values=array)
        assert client.gather(futures) == list(range(20))
        stored = [key for key in set(client.who_has()) - before if str(key).startswith("numpy.ndarray-")]
        assert len(stored) == 1

    def test_a_large_argument_goes_with_its_call(self, client, eventually):
        future = client.submit(np.sum, np.ones(500_000))
        future.result(timeout=20)
        stored = [f.key for f in future._state.keeps]
        assert len(stored) == 1
        del future
        eventually(lambda: stored[0] not in client.who_has(), what="the argument is freed")


class TestCancel:
    def test_what_waits_is_cancelled_with_what_depends_on_it(self, client):
        event = client.submit(time.sleep, 0.3, pure=False)
        first = client.submit(lambda _: 1, event, pure=False)
        second = client.submit(operator.neg, first)
        client.cancel(first)
        assert first.cancelled()
        assert second.cancelled()
        for future in (first, second):
            with pytest.raises(CancelledError):
                future.result(timeout=20)
        with pytest.raises(CancelledError):
            client.submit(operator.neg, first)
        with pytest.raises(CancelledError):
            wait([first], timeout=20)
        assert event.result(timeout=20) is None

    def test_a_finished_one_is_forgotten_and_can_be_computed_anew(self, client):
        future = client.submit(os.urandom, 8)
        first = future.result(timeout=20)
        future.cancel()
        assert future.status == "cancelled"
        assert client.submit(os.urandom, 8).result(timeout=20) != first

    def test_others_keep_what_they_hold_unless_it_is_forced(self, client, cluster, eventually):
        with Client(cluster, set_as_default=False) as other:
            mine, theirs = client.submit(operator.neg, 77), other.submit(operator.neg, 77)
            wait([theirs], timeout=20)
            client.cancel([mine])
            assert theirs.result(timeout=20) == -77
            mine = client.submit(operator.neg, 77)
            client.cancel([mine], force=True)
            eventually(theirs.cancelled)


def test_many_threads_submit_at_once(client):
    results = {}

    def work(n):
        results[n] = client.gather([client.submit(operator.add, n, i) for i in range(50)])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {n: [n + i for i in range(50)] for n in range(8)}


def test_an_argument_that_lies_in_the_store_is_not_copied_there_again(client):
    store, _ = client._core.stores.local
    array = client.submit(np.ones, 3_000_000).result()
    before = store.stats()["shared_nbytes"]
    total = client.submit(lambda part: float(part.sum()), array[1_000_000:])
    assert total.result() == 2_000_000
    assert store.stats()["shared_nbytes"] > before + 15_000_000
