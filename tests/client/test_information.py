"""What a client can find out about workers, tasks and results, in numbers and names."""

from __future__ import annotations

import json
import operator
import os
import stat
import threading

import numpy as np
import pytest
from dask.utils import key_split
from waiting import until

from holdfast import Client, Future, HoldfastError
from holdfast.cluster.key_prefixes import prefix_of
from holdfast.objectstore import ObjectID

_gates = {}


def held(name):
    _gates[name].wait(30)


class TestPlaces:
    def test_results_lie_at_hosts_and_are_read_by_their_workers(self, run):
        async def case(client, got):
            future = await got(client.scatter(np.arange(200_000), hash=False))
            workers = (await got(client.scheduler_info()))["workers"]
            (node,) = (await got(client.who_has([future])))[future.key]
            at = (await got(client.who_has([future], by="worker")))[future.key]
            assert sorted(at) == sorted(address for address, worker in workers.items() if worker["node"] == node)
            assert future.key in (await got(client.has_what()))[node]
            names = [worker["name"] for worker in workers.values()]
            assert future.key in (await got(client.has_what(names[0])))[node]
            for address, worker in workers.items():
                assert future.key in (await got(client.has_what(worker["name"], by="worker")))[address]
            assert set(await got(client.has_what(by="worker"))) == set(workers)
            for method in (client.who_has, client.has_what):
                with pytest.raises(ValueError, match="by='rack' is unknown: results lie at each 'host' or 'worker'"):
                    await got(method(by="rack"))

        run(case)


class TestTheClient:
    def test_says_how_it_is_and_where_its_scheduler_is(self, run):
        async def case(client, got):
            assert client.status == "running"
            assert client.scheduler.address == client.scheduler_address

        run(case)

    def test_is_new_and_closed(self, cluster):
        client = Client(cluster.scheduler_address, asynchronous=True)
        assert client.status == "newly-created"
        with Client(cluster, set_as_default=False) as client:
            assert client.status == "running"
        assert client.status == "closed"


class TestWorkers:
    def test_what_is_known_of_each(self, run):
        async def case(client, got):
            info = await got(client.scheduler_info())
            assert info["n_workers"] == 2
            assert info["total_threads"] == 2
            for address, worker in info["workers"].items():
                assert worker["nthreads"] == 1
                assert worker["id"] == address
                assert worker["name"].endswith(address.rpartition("/")[2])
                assert worker["pid"] > 0
                assert worker["host"]
                assert set(worker["metrics"]) >= {"memory", "cpu", "executing", "ready", "time", "store"}
                assert worker["memory_limit"] is None or worker["memory_limit"] > 0
                assert worker["status"] == "running"
                assert worker["last_seen"] == worker["last-seen"]
                assert (worker["services"], worker["nanny"]) == ({}, None)
            assert len((await got(client.scheduler_info(n_workers=1)))["workers"]) == 1
            assert (await got(client.scheduler_info(n_workers=0)))["n_workers"] == 2
            for wrong in (-2, 1.5, True, "all"):
                with pytest.raises(ValueError, match="n_workers is a number of workers"):
                    await got(client.scheduler_info(n_workers=wrong))

        run(case)

    def test_metrics_are_those_of_the_last_heartbeat(self, client):
        workers = until(
            lambda: [w for w in client.scheduler_info()["workers"].values() if w["metrics"]["memory"]], "it is measured"
        )
        for worker in workers:
            assert worker["metrics"]["memory"] > 1_000_000
            assert worker["metrics"]["cpu"] >= 0
            assert worker["metrics"]["store"]["capacity"] > 0
            assert worker["memory_limit"] > worker["metrics"]["memory"]

    def test_there_is_no_dashboard_and_what_looks_for_one_gets_a_text(self, client):
        assert client.dashboard_link == ""
        assert not client.dashboard_link.replace("/status", "")


class TestSchedulerFile:
    def test_others_find_the_cluster_by_it(self, run, tmp_path):
        async def case(client, got):
            file = tmp_path / "scheduler.json"
            file.write_text("something else")
            assert await got(client.write_scheduler_file(file)) is None
            said = json.loads(file.read_text())
            info = await got(client.scheduler_info(n_workers=-1))
            assert (said["address"], said["id"]) == (client.scheduler_address, info["id"])
            assert said["workers"].keys() == info["workers"].keys()
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert os.listdir(tmp_path) == [file.name]
            async with Client(scheduler_file=str(file), asynchronous=True, set_as_default=False) as other:
                assert other.scheduler_address == client.scheduler_address
                assert await other.submit(abs, -1) == 1

        run(case)

    def test_it_says_where_it_can_not_be_written(self, run, tmp_path):
        async def case(client, got):
            with pytest.raises(HoldfastError, match=r"scheduler file .*/none/file can't be written: No such file"):
                await got(client.write_scheduler_file(tmp_path / "none" / "file"))
            (tmp_path / "directory").mkdir()
            with pytest.raises(HoldfastError, match="can't be written: Is a directory"):
                await got(client.write_scheduler_file(tmp_path / "directory"))
            assert os.listdir(tmp_path) == ["directory"]

        run(case)


class TestProcessing:
    def test_which_worker_has_been_sent_what(self, in_process):
        with Client(in_process, set_as_default=False) as client:
            gate = _gates["processing"] = threading.Event()
            workers = {worker["name"]: address for address, worker in client.scheduler_info()["workers"].items()}
            name, address = next(iter(workers.items()))
            try:
                future = client.submit(held, "processing", workers=name, key="held")
                until(lambda: client.processing()[address] == ("held",), "it runs")
                assert client.processing(name) == {address: ("held",)}
                assert sum(map(len, client.processing().values())) == 1
            finally:
                gate.set()
            future.result(timeout=30)
            until(lambda: not any(client.processing().values()), "it has ended")


class TestSizes:
    def test_by_prefix_and_by_key(self, run):
        async def case(client, got):
            futures = client.map(operator.mul, [b"x" * 1000] * 3, [1, 2, 3], pure=False)
            other = client.submit(bytes, 5000, pure=False)
            await got(client.gather([*futures, other]))
            sizes = await got(client.nbytes([*futures, other], summary=False))
            assert list(sizes) == [future.key for future in (*futures, other)]
            assert [size // 1000 for size in sizes.values()] == [1, 2, 3, 5]
            by_prefix = await got(client.nbytes([*futures, other]))
            assert by_prefix == {"mul": sum(list(sizes.values())[:3]), "bytes": sizes[other.key]}
            assert (await got(client.nbytes()))["mul"] >= by_prefix["mul"]
            assert (await got(client.nbytes(summary=False)))[other.key] == sizes[other.key]
            assert await got(client.nbytes(["no such key"])) == {}
            assert await got(client.nbytes(other.key, summary=False)) == {other.key: sizes[other.key]}

        run(case)

    def test_of_the_object_of_one_result(self, run):
        async def case(client, got):
            future = await got(client.scatter(np.zeros(1_000_000), hash=False))
            assert 8_000_000 <= future.nbytes < 8_010_000
            assert isinstance(future.object_id, ObjectID)
            nothing = Future("nothing yet", client)
            assert (nothing.nbytes, nothing.object_id) == (None, None)

        run(case)

    def test_how_many_tasks_of_each_prefix_are_in_each_state(self, run):
        async def case(client, got):
            good = client.map(operator.pos, range(7), pure=False)
            bad = client.submit(operator.truediv, 1, 0, pure=False)
            await got(client.gather([*good, bad], errors="skip"))
            states = await got(client.get_task_prefix_states())
            assert states["pos"] == {"memory": 7}
            assert states["truediv"]["erred"] >= 1

        run(case)


KEYS = [
    "x",
    "x-1-2",
    ("x-2", 1),
    "('x-2', 1)",
    "hello-world-1",
    b"hello-world-1",
    "ae05086432ca935f6eba409a8ecd4896",
    "<module.submodule.myclass object at 0xdaf372>",
    None,
    7,
    "_x",
    "read_csv-operation-abcdefab-3",
    "sum-aggregate-12ab",
    "inc-1e297fc27658d7b67b3a758f16bcf47a",
    "getitem-<lambda>-3",
    "0x-1",
    "",
    ("sum-partial", 1),
    "x-deadbeef",
]


@pytest.mark.parametrize("key", KEYS)
def test_a_prefix_is_what_dask_takes_for_it(key):
    assert prefix_of(key) == key_split(key)
