"""Futures of one client in the calls, graphs and expressions of another one in the same process."""

from __future__ import annotations

import operator
import pickle
import threading
import time

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask import delayed
from dask.base import tokenize

from holdfast import CancelledError, Client, LocalCluster, futures_of, wait
from holdfast.client.operations import cancelling


@pytest.fixture
def other(cluster):
    """Another client of the same cluster, which isn't the default."""
    with Client(cluster, set_as_default=False) as other:
        yield other


@pytest.fixture(scope="module")
def elsewhere():
    """Another cluster."""
    with LocalCluster(n_workers=1, threads_per_worker=1, object_store_memory="32 MiB") as cluster:
        yield cluster


@pytest.fixture
def pandas_frame():
    return pd.DataFrame({"a": range(10)})


def using(client):
    return dask.config.set(scheduler=client)


COLLECTIONS = {
    "array": lambda: da.arange(10, chunks=5).persist(),
    "bag": lambda: db.from_sequence(range(10), npartitions=2).persist(),
    "frame": lambda: dd.from_pandas(pd.DataFrame({"a": range(10)}), npartitions=2).a.persist(),
    "delayed": lambda: delayed(np.arange)(10).persist(),
    "frame of futures": lambda: dd.from_delayed(
        Client.current().map(pd.Series, [range(5), range(5, 10)]), meta=pd.Series([0])
    ),
}
total = {
    "array": lambda x: x.sum(),
    "bag": lambda x: x.sum(),
    "frame": lambda x: x.sum(),
    "delayed": lambda x: x.sum(),
    "frame of futures": lambda x: x.sum(),
}


@pytest.mark.parametrize("kind", COLLECTIONS)
class TestACollectionOfAnotherClient:
    def test_gives_its_value(self, kind, client, other):
        collection = COLLECTIONS[kind]()
        with using(other):
            assert total[kind](collection).compute() == 45
            assert total[kind](collection.persist()).persist().compute() == 45
        assert other.compute(total[kind](collection)).result() == 45
        assert other.submit(list, futures_of(collection)).result()

    def test_is_held_by_what_is_made_of_it(self, kind, client, other, eventually):
        collection = COLLECTIONS[kind]()
        keys = [future.key for future in futures_of(collection)]
        result = other.compute(total[kind](collection))
        del collection
        assert result.result() == 45
        del result
        # And by nothing afterwards.
        assert eventually(lambda: not any(client.who_has().get(key) for key in keys), what=f"{keys} are freed")

    def test_after_that_client_has_closed(self, kind, cluster, client):
        with Client(cluster) as first:
            collection = COLLECTIONS[kind]()
            wait(collection)
            first.publish_dataset(kept=collection)
        try:
            with Client(cluster):
                assert total[kind](collection).compute() == 45
        finally:
            client.unpublish_dataset("kept")

    def test_that_is_gone_with_that_client_says_so(self, kind, cluster):
        with Client(cluster):
            collection = COLLECTIONS[kind]()
            wait(collection)
        with Client(cluster), pytest.raises(CancelledError, match=r"depends on .* cancelled or released: make that"):
            total[kind](collection).compute()

    def test_of_another_cluster_is_refused_with_both_addresses(self, kind, client, elsewhere):
        collection = COLLECTIONS[kind]()
        with Client(elsewhere) as far:
            addresses = f"{client.scheduler_address}, and the one of this client, at {far.scheduler_address}"
            with pytest.raises(ValueError, match=addresses):
                total[kind](collection).compute()

    def test_made_in_each_of_two_clusters(self, kind, client, elsewhere):
        here = COLLECTIONS[kind]()
        with Client(elsewhere) as far:
            there = COLLECTIONS[kind]()
            assert total[kind](there).compute() == 45
            assert {future.client for future in futures_of(there)} == {far}
        assert total[kind](here).compute() == 45

    def test_made_again_by_each_client(self, kind, client, cluster):
        first = COLLECTIONS[kind]()
        with Client(cluster) as second:
            own = COLLECTIONS[kind]()
            assert total[kind](own).compute() == 45
            assert {future.client for future in futures_of(own)} == {second}
        with Client(cluster):
            again = COLLECTIONS[kind]()
            assert total[kind](again).compute() == 45
        assert total[kind](first).compute() == 45

    def test_made_again_after_it_was_cancelled(self, kind, client):
        first = COLLECTIONS[kind]()
        wait(first)
        client.cancel(first)
        again = COLLECTIONS[kind]()
        assert total[kind](again).compute() == 45
        wait(again, timeout=10)
        del first

    def test_got_as_a_dataset_is_of_the_client_that_got_it(self, kind, client, cluster):
        with Client(cluster) as first:
            collection = COLLECTIONS[kind]()
            first.publish_dataset(x=collection, y=total[kind](collection))
        try:
            with Client(cluster) as second:
                got = second.get_dataset("x")
                assert {future.client for future in futures_of(got)} == {second}
                wait(got, timeout=10)
                assert total[kind](got).compute() == 45
                assert second.get_dataset("y").compute() == 45
                del got
            del collection
            with Client(cluster) as third:
                assert total[kind](third.get_dataset("x")).compute() == 45
        finally:
            for name in ("x", "y"):
                client.unpublish_dataset(name)

    def test_in_threads(self, kind, client, other):
        collections, results = {}, {}

        def work(which):
            collections[which] = which.persist(collection)
            results[which] = which.compute(total[kind](collections[which])).result()

        collection = COLLECTIONS[kind]()
        threads = [threading.Thread(target=work, args=(which,)) for which in (client, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == {client: 45, other: 45}
        assert {future.client for future in futures_of(collections[other])} == {other}


class TestFuturesOfAnotherClient:
    def test_in_submit_and_map(self, client, other):
        futures = client.map(operator.neg, range(3))
        assert other.submit(sum, futures).result() == -3
        assert other.gather(other.map(operator.neg, futures)) == [0, 1, 2]
        assert other.submit(dict, x=futures[1]).result() == {"x": -1}

    def test_in_a_closure(self, client, other, elsewhere):
        future = client.submit(operator.neg, 7, pure=False)
        later = other.submit(lambda: future.result())
        delayed_result = other.compute(delayed(lambda: future.result())())
        assert [later.result(), delayed_result.result()] == [-7, -7]
        gone = client.submit(operator.neg, 8, pure=False)
        gone.cancel()
        with pytest.raises(CancelledError):
            other.submit(lambda: gone.result())
        with Client(elsewhere, set_as_default=False) as far, pytest.raises(ValueError, match=r"cluster at"):
            far.submit(lambda: future.result())

    def test_in_gather(self, client, other):
        futures = {"a": client.submit(operator.neg, 1), "b": [client.submit(operator.neg, 2), 7]}
        assert other.gather(futures) == {"a": -1, "b": [-2, 7]}
        mine = other.submit(operator.neg, 3)
        assert client.gather([mine, futures["a"]]) == [-3, -1]
        assert other.gather([client.submit(operator.truediv, 1, 0), mine], errors="skip") == [-3]

    def test_in_wait(self, client, other):
        futures = [client.submit(operator.neg, 1), other.submit(operator.neg, 2), client.submit(operator.truediv, 1, 0)]
        done, not_done = wait(futures, timeout=20)
        assert done == set(futures)
        assert not not_done
        done, _ = wait([futures[0], other.submit(time.sleep, 0.5)], timeout=20, return_when="FIRST_COMPLETED")
        assert futures[0] in done

    def test_are_kept_until_the_scheduler_has_heard(self, client, other):
        for i in range(50):
            future = client.submit(operator.neg, i)
            later = other.submit(operator.neg, future)
            future.release()
            assert later.result(timeout=20) == i

    def test_are_kept_when_their_client_is_closed(self, cluster, client):
        for i in range(20):
            with Client(cluster, set_as_default=False) as first:
                later = client.submit(operator.neg, first.submit(operator.neg, i, pure=False))
            assert later.result(timeout=20) == i

    def test_in_publish(self, client, other):
        other.publish_dataset(x=[client.submit(operator.neg, 1)])
        try:
            assert client.gather(client.get_dataset("x")) == [-1]
        finally:
            client.unpublish_dataset("x")

    def test_are_cancelled_as_by_it(self, client, other):
        future = client.submit(operator.neg, 1)
        other.cancel([future])
        assert future.cancelled()

    def test_are_cancelled_while_it_closes(self, client, cluster, monkeypatch):
        gone = Client(cluster, set_as_default=False)
        future, cancel = gone.submit(operator.neg, 1), cancelling.cancel_keys

        def close_first(*arguments):
            gone.close()
            return cancel(*arguments)

        monkeypatch.setattr(cancelling, "cancel_keys", close_first)
        client.cancel([future])
        assert client.submit(operator.neg, 2).result() == -2

    def test_cancelled_ones_say_so(self, client, other):
        future = client.submit(operator.neg, 1)
        future.cancel()
        for call in (lambda: other.submit(operator.neg, future), lambda: other.gather(future)):
            with pytest.raises(CancelledError, match="neg"):
                call()

    def test_of_another_cluster_are_refused(self, client, elsewhere):
        with Client(elsewhere, set_as_default=False) as far:
            future = far.submit(operator.neg, 1)
            for call in (
                lambda: client.submit(operator.neg, [future]),
                lambda: client.gather([future]),
                lambda: client.publish_dataset(x=future),
                lambda: wait([client.submit(int), future], timeout=10),
            ):
                with pytest.raises(ValueError, match=r"cluster at .*scatter it here"):
                    call()

    def test_of_a_cluster_that_has_ended_are_refused_with_its_end(self, client):
        with LocalCluster(1, 1, processes=False, object_store_memory="32 MiB") as ended:
            before = Client(ended, set_as_default=False)
            theirs = before.submit(operator.neg, 1)
            wait(theirs)
        with pytest.raises(ValueError, match=r"is a result of another cluster, which .* \(the cluster at .* shut down"):
            client.submit(operator.neg, theirs)
        before.close()


class TestTokens:
    def test_are_one_as_long_as_a_key_is_held(self, client, other):
        future = client.submit(operator.neg, 1, key="token")
        assert tokenize(future) == tokenize(client.submit(operator.neg, 1, key="token"))
        assert tokenize(future) != tokenize(other.submit(operator.neg, 1, key="token"))
        before = tokenize(future)
        future.cancel()
        assert tokenize(client.submit(operator.neg, 1, key="token")) != before

    def test_a_frame_from_a_pickle_keeps_its_futures(self, client):
        frame = dd.from_pandas(pd.DataFrame({"a": range(10)}), npartitions=2).persist()
        copy = pickle.loads(pickle.dumps(frame))
        assert copy.a.sum().compute() == 45
