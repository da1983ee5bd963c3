"""A collection, or a graph, with a part that failed, was cancelled or is lost: what depends on it says why."""

from __future__ import annotations

import operator

import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask import delayed
from dask._task_spec import TaskRef

from holdfast import CancelledError, Client, Future, LocalCluster, ObjectLostError, futures_of, wait
from holdfast.cluster.failures.dumping import dump_exception


class Boom(Exception):
    pass


def boom(*args, **kwargs):
    raise Boom("of this part")


def boom_if_large(part):
    if len(part) > 2:
        raise Boom("of this part")
    return part


@pytest.fixture(autouse=True)
def _default(client):
    """A client is dask's default scheduler."""


def failed_array():
    return da.ones(4, chunks=2).map_blocks(boom, meta=np.ones(1)).persist()


def failed_bag():
    return db.from_sequence([1, 2, 3], npartitions=2).map(boom).persist()


def failed_frame():
    frame = pd.DataFrame({"a": [1, 2, 3]})
    return dd.from_pandas(frame, npartitions=2).map_partitions(boom, meta=frame).a.persist()


@pytest.mark.parametrize("make", [failed_array, failed_bag, failed_frame])
@pytest.mark.parametrize("done", [True, False])
class TestTheErrorOfAPart:
    @pytest.mark.parametrize(
        "use",
        [
            lambda x: x.compute(),
            lambda x: x.sum().compute(),
            lambda x: x.persist().compute(),
            lambda x: x.sum().persist().compute(),
            lambda x: delayed(len)(x).compute(),
            lambda x: Client.current().compute(x.sum()).result(),
            lambda x: Client.current().submit(len, futures_of(x)).result(),
        ],
    )
    def test_is_that_of_what_is_made_of_it(self, make, done, use):
        collection = make()
        if done:
            wait(collection)
        with pytest.raises(Boom, match="of this part"):
            use(collection)

    def test_is_published_with_it(self, make, done, client, cluster):
        collection = make()
        if done:
            wait(collection)
        client.publish_dataset(failed=collection)
        try:
            del collection
            with pytest.raises(Boom, match="of this part"):
                client.get_dataset("failed").sum().compute()
            with Client(cluster) as other, pytest.raises(Boom, match="of this part"):
                other.get_dataset("failed").sum().compute()
        finally:
            client.unpublish_dataset("failed")


class TestGraphs:
    @pytest.fixture
    def failed(self, client):
        future = client.submit(boom)
        wait(future)
        return future

    @pytest.mark.parametrize(
        "use",
        [
            lambda client, failed: delayed(operator.neg)(failed).compute(),
            lambda client, failed: delayed(list)([1, {"a": failed}]).compute(),
            lambda client, failed: delayed(failed).compute(),
            lambda client, failed: delayed(operator.neg)(delayed(failed).persist()).compute(),
            lambda client, failed: client.get({"k": failed, "l": (operator.neg, "k")}, "l"),
            lambda client, failed: client.get({"k": failed}, "k"),
            lambda client, failed: db.from_delayed([failed]).compute(),
            lambda client, failed: dd.from_delayed([failed], meta=pd.Series([1], name="a")).sum().compute(),
            lambda client, failed: da.from_delayed(delayed(failed), (2,), dtype=float).sum().compute(),
        ],
    )
    def test_that_stand_on_a_failed_future(self, client, failed, use):
        with pytest.raises(Boom, match="of this part"):
            use(client, failed)

    def test_only_what_is_needed_of_a_collection_counts(self, client):
        x = da.ones(5, chunks=((2, 3),)).map_blocks(boom_if_large, dtype=float).persist()
        wait(x)
        assert x.blocks[0].sum().compute() == 2
        with pytest.raises(Boom):
            x.blocks[1].sum().compute()
        with pytest.raises(Boom):
            x.sum().compute()


class TestACancelledPart:
    def test_says_so_and_which_it_is(self, client):
        x = (da.ones(4, chunks=2) + 1).persist()
        part, other = futures_of(x)
        client.cancel(part)
        for use in (lambda: x.sum().compute(), lambda: x.persist(), lambda: x.compute()):
            with pytest.raises(CancelledError, match=rf"{part.key[0]}.*cancelled by"):
                use()
        assert x.blocks[other.key[1]].sum().compute() == 4

    def test_of_a_frame(self, client):
        frame = dd.from_pandas(pd.DataFrame({"a": range(10)}), npartitions=2).persist()
        client.cancel(futures_of(frame)[0])
        with pytest.raises(CancelledError, match=r"from.*cancelled by"):
            frame.a.sum().compute()
        assert frame.partitions[1].a.sum().compute() == 35

    def test_is_made_again_where_the_graph_says_how(self, client):
        x = da.ones(4, chunks=2) + 1
        kept = x.persist()
        client.cancel(kept)
        assert x.sum().compute() == 8
        again = x.persist()
        assert again.sum().compute() == 8
        del kept


class TestALostPart:
    def test_says_that_it_is_lost(self, script):
        future = script.client.submit(operator.neg, 1, key="part")
        error = ObjectLostError("'part' is lost: the hosts that held it are gone")
        script.send(("erred", [("part", *dump_exception(error))]))
        wait(future, timeout=10)
        result = script.client.get({"l": (operator.neg, TaskRef("part"))}, "l", sync=False)
        # It is sent, and fails as everything does that depends on this part.
        submitted = [script.next("submit") for _ in range(2)][-1]
        assert submitted[1][0][0] == "l"
        assert list(submitted[1][0][3]) == ["part"]
        del result

    def test_of_a_client_without_a_connection(self, cluster):
        with LocalCluster(n_workers=1, threads_per_worker=1) as gone, Client(gone) as client:
            x = da.ones(4, chunks=2).persist()
            y = client.map(operator.neg, range(2))
            wait(x)
            gone.close()
            with pytest.raises(OSError, match=r"shut down|lost"):
                x.sum().compute()
            with Client(cluster) as other, pytest.raises(ValueError, match=r"another cluster, .* shut down"):
                other.submit(operator.neg, y[0])


def test_a_key_that_nobody_has_is_named(client):
    with pytest.raises(ValueError, match=r"'nobody-has-it'.*neither in it nor held by a future"):
        client.get({"l": (operator.neg, TaskRef("nobody-has-it"))}, "l")


def test_a_future_of_a_key_that_nobody_knows_waits_and_what_needs_it_says_so(client, cluster):
    future = Future("nobody-has-it", client)
    with pytest.raises(CancelledError, match="depends on 'nobody-has-it'"):
        client.submit(operator.neg, future).result(timeout=10)
    with pytest.raises(TimeoutError, match="'nobody-has-it'"):
        future.result(timeout="50 ms")
    with Client(cluster, set_as_default=False) as other:
        theirs = other.submit(abs, -7, key="nobody-has-it")
        assert future.result(timeout=10) == 7
        assert client.submit(operator.neg, future).result(timeout=10) == -7
        del theirs
