"""Which workers run what: how they can be called, annotations that say it for each key, and what nobody can run."""

from __future__ import annotations

import operator
import socket
import warnings

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from waiting import until

from holdfast import Client, LocalCluster, NoWorkerError
from holdfast.cluster.naming import names_of_host, names_of_worker
from holdfast.cluster.scheduler.placing import unrunnable
from tests.support.command_line import holdfast


def here(_value=None):
    from holdfast.cluster.worker.context import current_worker

    return current_worker().name


@pytest.fixture
def names(client):
    return {address: worker["name"] for address, worker in client.scheduler_info()["workers"].items()}


class TestNobody:
    @pytest.fixture
    def small(self, monkeypatch):
        """A cluster in this process that is quick to tell, and its client."""
        monkeypatch.setattr(unrunnable, "WARNING_SECONDS", 0.05)
        with (
            LocalCluster(1, 1, processes=False, object_store_memory="64 MiB", resources={"GPU": 1}, name="alpha") as c,
            Client(c, set_as_default=False) as client,
        ):
            yield client

    def test_the_client_is_warned_once_for_each_requirement_with_the_names_there_are(self, small):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            futures = small.map(operator.neg, range(20), workers="nope")
            futures += [small.submit(operator.neg, n, resources={"GPU": 2}, pure=False) for n in range(3)]
            # One that is not held itself, but is needed by one that is.
            with dask.annotate(workers="deep"):
                inner = dask.delayed(operator.neg)(1)
            futures.append(small.compute(dask.delayed(operator.neg)(inner)))
            # A wish is none that anybody has to be warned of.
            wish = small.submit(operator.neg, 1, workers="nope", allow_other_workers=True, pure=False)
            assert wish.result(timeout=30) == -1
            until(lambda: len(caught) >= 3, "the warnings are there")
            texts = sorted(str(warning.message) for warning in caught)
            assert len(texts) == 3
            # They show no line of code: none of the user's gave rise to them.
            assert {warning.filename for warning in caught} == {f"<the cluster at {small.scheduler_address}>"}
            (named,) = [text for text in texts if "called nope" in text]
            assert "and 19 more tasks wait for a worker called nope, and there is none; there are alpha-0" in named
            assert "After 30 s that fails: name one of these, or allow others with allow_other_workers=True" in named
            (short,) = [text for text in texts if "GPU" in text]
            assert (
                "and 2 more tasks wait for a worker with 2 GPU, and there is none; the most that one has: 1 GPU"
                in short
            )
            assert "'holdfast start --resources'" in short
            (deep,) = [text for text in texts if "called deep" in text]
            assert " waits for a worker called deep" in deep

            said = holdfast("status", "--address", small.scheduler_address, HOLDFAST_TOKEN=small.cluster.token.decode())
            assert "20 tasks wait for a worker called nope, and there is none; there are alpha-0" in said
            assert "3 tasks wait for a worker with 2 GPU" in said
            more = small.submit(operator.neg, 99, workers="nope")
            until(lambda: small.cluster.describe()["unplaced"][0]["tasks"] == 21, "it waits, too")
            del more
            assert len(caught) == 3

    def test_a_warning_that_is_an_error_harms_nothing(self, small):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".* waits? for a worker")
            future = small.submit(operator.neg, 1, workers="nowhere")
            until(lambda: small.cluster.describe()["unplaced"], "it is known")
            assert small.submit(operator.neg, 2).result(timeout=30) == -2
        assert future.status == "pending"


class TestNames:
    def test_each_way_to_call_one(self, client, names):
        (node,) = {worker["node"] for worker in client.scheduler_info()["workers"].values()}
        plain = node.removeprefix("tcp://")
        everybody = set(names.values())
        for called in (node, plain, "127.0.0.1", "localhost", socket.gethostname(), ("127.0.0.1", plain.split(":")[1])):
            workers = [called] if isinstance(called, tuple) else called
            assert client.submit(here, workers=workers, pure=False).result(timeout=30) in everybody
            assert client.scatter(1, workers=workers, hash=False).result() == 1
        for address, name in names.items():
            for called in (address, address.removeprefix("tcp://"), name):
                assert client.submit(here, workers=called, pure=False).result(timeout=30) == name
                assert list(client.nthreads(called)) == [address]
                assert client.scatter(1, workers=called, hash=False).result() == 1

    def test_of_ipv6(self):
        names = names_of_worker("tcp://[::1]:9/3", "a-3", names_of_host("tcp://[::1]:9", "a"))
        assert names >= {"::1", "[::1]", "[::1]:9", "tcp://[::1]:9", "[::1]:9/3", "localhost", "a", "a-3"}
        assert "localhost" not in names_of_host("tcp://10.0.0.1:9", "a")

    def test_what_is_no_name_is_refused(self, client):
        for wrong in (0, [0, 1], "", [""], [None], 3.5, {"x": 1}.values()):
            with pytest.raises(TypeError, match="workers"):
                client.submit(operator.neg, 1, workers=wrong)
        assert client.submit(operator.neg, 1, workers=[]).result(timeout=30) == -1

    def test_one_that_is_not_there_is_named_by_scatter(self, client):
        with pytest.raises(NoWorkerError, match=rf"no worker or host 'nope'.*{socket.gethostname()} \(tcp://127"):
            client.scatter(1, workers="nope")


class TestAnnotations:
    """`dask.annotate` takes functions of the key."""

    def test_while_it_is_made(self, client, names):
        first, second = names.values()
        with dask.annotate(workers=lambda key: [first, second][key[1]], retries=lambda key: 1, priority=lambda key: 2):
            numbers = da.ones(2, chunks=1)
            ran = da.map_blocks(_names_of_blocks, numbers, dtype=object, meta=np.array([], dtype=object))
        for result in (ran.compute(), client.compute(ran).result(timeout=30), ran.persist().compute()):
            assert result.tolist() == [first, second]
        with dask.annotate(workers=lambda key: first):
            made = dask.delayed(here)(1)
        assert made.compute() == first

    def test_while_it_is_computed(self, client, names):
        for number, wanted in enumerate(names.values()):
            frame = dd.from_pandas(pd.DataFrame({"a": range(number, 4)}), npartitions=2)
            ran = frame.map_partitions(_where, meta=pd.Series(dtype=object))
            with dask.annotate(workers=lambda key, wanted=wanted: wanted, priority=lambda key: 1, retries=2.0):
                assert client.submit(here, pure=False).result(timeout=30) == wanted
                assert set(client.gather(client.map(here, range(3), pure=False))) == {wanted}
                bag = [dask.delayed(here, pure=False)(n) for n in range(3)]
                assert {future.result(timeout=30) for future in client.compute(bag)} == {wanted}
                assert set(ran.compute()) == {wanted}

    def test_it_is_asked_for_each_key(self, client, names):
        first, second = names.values()
        keys = [f"annotated-{n}" for n in range(4)]
        with dask.annotate(workers=lambda key: [first, second][int(key[-1]) % 2]):
            assert client.gather(client.map(here, range(4), key=keys)) == [first, second, first, second]
            # What the call says has the last word.
            assert client.submit(here, key="annotated-0b", workers=second).result(timeout=30) == second

    def test_a_function_that_fails_says_so_and_sends_nothing(self, client):
        with dask.annotate(priority=lambda key: 1 / 0), pytest.raises(ZeroDivisionError):
            client.submit(operator.neg, 1, key="never")
        with dask.annotate(resources=lambda key: "GPU"), pytest.raises(TypeError, match="resources is a dictionary"):
            client.submit(operator.neg, 1, key="never")
        assert "never" not in client._core.table.states


def _names_of_blocks(block):
    return np.array([here()] * len(block), dtype=object)


def _where(part):
    return pd.Series([here()] * len(part), dtype=object)
