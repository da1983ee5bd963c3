"""Names of dask.distributed: those that are here, and those that say what to use instead."""

from __future__ import annotations

import operator

import dask.array as da
import pytest

from holdfast import Client, futures_of, get_worker
from holdfast.cluster.instead import INSTEAD


def test_names_that_there_are_not_say_what_to_use(client):
    for name, way_out in INSTEAD["a client"].items():
        with pytest.raises(AttributeError) as caught:
            getattr(client, name)
        assert str(caught.value) == f"a client has no attribute {name!r}: {way_out}"
    with pytest.raises(AttributeError, match="a client has no attribute 'submt'"):
        client.submt  # noqa: B018
    assert not hasattr(client, "amm")


def ask_worker():
    worker = get_worker()
    said = {}
    for name in INSTEAD["a worker"]:
        try:
            getattr(worker, name)
        except AttributeError as error:
            said[name] = str(error)
    return said


def test_those_of_workers_too(client):
    said = client.submit(ask_worker).result()
    assert said == {name: f"a worker has no attribute {name!r}: {text}" for name, text in INSTEAD["a worker"].items()}


def test_a_property_that_raises_an_attribute_error_raises_its_own(client):
    class Broken(Client):
        @property
        def amm(self):
            return self.not_there.at_all

    broken = Broken._of_core(client._core)
    with pytest.raises(AttributeError, match="no attribute 'not_there'"):
        broken.amm  # noqa: B018


def test_a_client_that_is_not_open_has_its_names_too():
    client = Client(asynchronous=True)
    with pytest.raises(AttributeError, match="what nothing holds is freed at once"):
        client.amm  # noqa: B018


# -- those that are here


def test_refcount_counts_the_futures_of_each_key(run):
    async def case(client, got):
        first = client.submit(operator.neg, 1, key="counted")
        again = client.submit(operator.neg, 1, key="counted")
        assert client.refcount["counted"] == 2
        again.release()
        assert client.refcount["counted"] == 1
        first.release()
        assert "counted" not in client.refcount

    run(case)


def test_futures_of_is_a_method_too(run):
    async def case(client, got):
        x = client.persist(da.ones(10, chunks=5))
        assert client.futures_of([x]) == futures_of(x)
        assert len(client.futures_of(x)) == 2

    run(case)


def test_scheduler_file_is_where_the_client_has_found_its_scheduler(client, cluster, tmp_path):
    assert client.scheduler_file is None
    file = tmp_path / "scheduler.json"
    client.write_scheduler_file(file)
    with Client(scheduler_file=file, token=cluster.token, set_as_default=False) as other:
        assert other.scheduler_file == str(file)
        assert Client._of_core(other._core).scheduler_file == str(file)


def where():
    worker = get_worker()
    return worker.host, worker.ip, worker.node_address


def test_a_worker_knows_its_host(client):
    host, ip, node = client.submit(where, pure=False).result()
    assert host == ip
    assert node.startswith(f"tcp://{host}:")
