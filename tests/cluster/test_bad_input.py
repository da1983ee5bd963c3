"""What bad input gets: an error that names the thing and the way out, and nothing lost."""

from __future__ import annotations

import os
import re
import threading
import traceback

import numpy as np
import pytest

import holdfast
from holdfast import (
    AuthenticationError,
    Client,
    ConnectError,
    DatasetExistsError,
    DatasetNotFoundError,
    LocalCluster,
    NoWorkerError,
    StoreFullError,
    VersionMismatchError,
)
from holdfast.cluster.comm import opening


def inc(x):
    return x + 1


def divide(x, y):
    return x / y


@pytest.fixture(scope="module")
def cluster():
    os.environ["HOLDFAST_NO_WORKER_TIMEOUT"] = "0.5"
    try:
        with LocalCluster(
            n_workers=1, threads_per_worker=1, object_store_memory="64 MiB", memory_limit="1 GB"
        ) as cluster:
            yield cluster
    finally:
        del os.environ["HOLDFAST_NO_WORKER_TIMEOUT"]


@pytest.fixture
def client(cluster):
    with Client(cluster) as client:
        yield client
        assert client.submit(inc, 1, pure=False).result(30) == 2  # nothing was lost


def test_no_scheduler_at_the_address():
    with pytest.raises(ConnectError, match=r"no scheduler answered at tcp://127.0.0.1:9: tried \d+ times") as info:
        Client("127.0.0.1:9", timeout=0.3)
    assert "holdfast start --head" in str(info.value)


def test_an_address_that_is_none():
    with pytest.raises(ValueError, match="HOST:PORT"):
        Client("http://localhost:8786")


def test_a_port_in_use(cluster):
    port = int(cluster.scheduler_address.rpartition(":")[2])
    with pytest.raises(ConnectError, match=f"port {port} .*in use"):
        LocalCluster(n_workers=1, scheduler_port=port)


def test_a_wrong_token_and_none(cluster, monkeypatch, tmp_path):
    with pytest.raises(AuthenticationError, match=r"tokens differ.*token file"):
        Client(cluster.scheduler_address, token=b"x" * 32)
    monkeypatch.setenv("HOLDFAST_TOKEN_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(AuthenticationError, match=f"no token at {re.escape(str(tmp_path))}"):
        Client(cluster.scheduler_address)


def test_another_version_of_the_protocol(cluster, monkeypatch):
    monkeypatch.setattr(opening, "PROTOCOL_VERSION", 999)
    with pytest.raises(VersionMismatchError, match=r"speaks version \d+ .*this end speaks version 999.*same version"):
        Client(cluster.scheduler_address)


def test_datasets(client):
    client.publish_dataset([1, 2], name="numbers")
    with pytest.raises(DatasetNotFoundError, match="'nubmers' is published; there are 'numbers'"):
        client.get_dataset("nubmers")
    client.unpublish_dataset("letters")
    assert client.list_datasets() == ("numbers",)
    with pytest.raises(DatasetExistsError, match="override=True"):
        client.publish_dataset([3], name="numbers")
    assert client.get_dataset("numbers") == [1, 2]
    client.unpublish_dataset("numbers")
    assert not client.list_datasets()


def test_what_cannot_be_pickled_is_named_at_submit(client):
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"lock"):
        client.submit(inc, lock)
    with pytest.raises(TypeError, match=r"lock|<lambda>"):
        client.submit(lambda: lock)
    with pytest.raises(TypeError, match=r"lock"):
        client.map(inc, [1, 2, lock])


def test_a_task_that_raises(client):
    future = client.submit(divide, 1, 0)
    with pytest.raises(ZeroDivisionError, match="division by zero") as info:
        future.result(30)
    assert "return x / y" in "".join(traceback.format_exception(info.value))
    assert isinstance(future.exception(30), ZeroDivisionError)
    assert any(frame.name == "divide" for frame in traceback.extract_tb(future.traceback(30)))
    with pytest.raises(ZeroDivisionError):
        client.submit(inc, future).result(30)


def test_a_task_for_a_worker_that_is_not_there(client):
    worker = next(iter(client.scheduler_info()["workers"].values()))["name"]
    with pytest.raises(NoWorkerError, match=rf"for a worker called alice.*there are .*{worker}.*allow_other_workers"):
        client.submit(inc, 1, workers=["alice"], pure=False).result(30)


def test_a_task_that_needs_more_than_there_is(client):
    with pytest.raises(NoWorkerError, match=r"with 2e\+09 memory.*1e\+09 memory.*start a bigger worker"):
        client.submit(inc, 1, resources={"memory": 2e9}, pure=False).result(30)


def test_more_workers_than_there_are(client):
    with pytest.raises(TimeoutError, match=r"for 5 workers, 1 are there.*holdfast start --address"):
        client.wait_for_workers(5, timeout=0.2)


def test_a_result_larger_than_the_store(client):
    held = client.submit(np.ones, 1_000_000, pure=False)
    held.result(30)
    with pytest.raises(StoreFullError) as info:
        client.submit(np.ones, 10_000_000, pure=False, key="too-large").result(30)
    assert "no room for the result of task 'too-large'" in str(info.value)
    assert "80.0 MB requested, more than the 67.1 MB that the store has" in str(info.value)
    assert re.search(r"largest holders: .* 8\.0 MB \(1 object\)", str(info.value))
    assert "Make smaller pieces, let go of futures and datasets ('holdfast memory'" in str(info.value)


def test_scattered_data_larger_than_the_store(client):
    with pytest.raises(StoreFullError) as info:
        client.scatter(np.ones(10_000_000))
    assert "no room for data of this client: 80.0 MB requested, more than the 67.1 MB" in str(info.value)
    assert "start the host with a larger object store" in str(info.value)


def test_a_store_that_is_full_names_the_holders_of_its_space(client):
    held = client.submit(np.ones, 6_000_000, pure=False)
    viewed = held.result(30)  # what is looked at stays in memory
    with pytest.raises(StoreFullError, match=r"40\.0 MB requested, 19\.\d MB free of 67\.1 MB .*holders: .*48\.0 MB"):
        client.store.put(np.ones(5_000_000), timeout=0.1)
    assert viewed[-1] == 1


def test_options_that_do_not_exist(cluster):
    with pytest.raises(TypeError, match="n_worker"):
        Client(cluster.scheduler_address, n_worker=3)
    with pytest.raises(ValueError, match="n_workers"):
        LocalCluster(n_workers=-1)


def test_names_that_do_not_exist():
    with pytest.raises(AttributeError, match="Cleint"):
        _ = holdfast.Cleint
