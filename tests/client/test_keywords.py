"""Which cluster a client connects to or starts, by what it is given, and keywords that dask's documentation knows."""

from __future__ import annotations

import logging
import re
import warnings
from functools import partial
from pathlib import Path

import dask
import dask.array as da
import pytest

import holdfast
from holdfast import Client, ConnectError, Executor, LocalCluster, Queue, Variable, futures_of
from holdfast.cluster.deploy import keywords
from holdfast.cluster.deploy.plan import plan_nodes
from holdfast.objectstore.system import memory_limits


class TestWithoutAnAddress:
    def test_it_is_that_of_the_environment(self, cluster, monkeypatch):
        monkeypatch.setenv("HOLDFAST_ADDRESS", cluster.scheduler_address.removeprefix("tcp://"))
        with dask.config.set({"scheduler-address": "192.0.2.1:1"}), Client() as client:
            assert client.scheduler_address == cluster.scheduler_address
            assert client.cluster is None
            with Client(timeout=5, name="x", asynchronous=False) as another:
                assert another.scheduler_address == cluster.scheduler_address

    def test_it_is_that_of_dasks_configuration(self, cluster):
        for name in ("scheduler-address", "scheduler_address"):
            with dask.config.set({name: cluster.scheduler_address}), Client() as client:
                assert client.scheduler_address == cluster.scheduler_address

    def test_a_client_that_asks_for_workers_gets_a_cluster(self, monkeypatch):
        monkeypatch.setenv("HOLDFAST_ADDRESS", "192.0.2.1:1")
        with Client(n_workers=1, processes=False, object_store_memory="64 MiB") as client:
            assert isinstance(client.cluster, LocalCluster)

    def test_an_address_that_nobody_gave_says_where_it_is_from(self, monkeypatch):
        monkeypatch.setenv("HOLDFAST_ADDRESS", "127.0.0.1:1")
        with pytest.raises(ConnectError) as caught:
            Client(timeout=0.2)
        assert "that of the environment variable HOLDFAST_ADDRESS" in "".join(caught.value.__notes__)

    def test_as_a_keyword(self, cluster):
        with Client(address=cluster.scheduler_address) as client:
            assert client.scheduler_address == cluster.scheduler_address


class TestIdentity:
    def test_the_id_has_the_type_and_the_name(self, run_outside_of_tasks):
        async def case(client, got):
            assert re.fullmatch(r"Client-etl-[0-9a-f]{32}", client.id)
            assert client.name == "etl"
            assert await got(client.start()) is client
            total = client.submit(sum, [1, 2], key="total")
            assert client.futures["total"].key == total.key
            assert set(client.futures) == {"total"}

        run_outside_of_tasks(case, name="etl")

    def test_the_first_name_of_the_client(self, cluster):
        with Executor(cluster, set_as_default=False) as executor:
            assert type(executor) is Client
            assert executor.submit(pow, 2, 3).result() == 8


def test_the_error_of_every_timeout_can_be_imported_from_here():
    assert holdfast.TimeoutError is TimeoutError


class TestKeywordsOfDask:
    def test_those_that_ask_for_what_is_so_anyway_are_taken(self, tmp_path):
        with Client(
            n_workers=1,
            processes=False,
            object_store_memory="64 MiB",
            asynchronous=False,
            loop=None,
            security=None,
            protocol="tcp://",
            dashboard_address=None,
            local_directory=tmp_path,
            memory_limit=0,
            silence_logs="error",
            nanny=True,
            worker_class=None,
            direct_to_workers=True,
            connection_limit=512,
            heartbeat_interval=None,
            set_as_default=False,
            host=None,
            nthreads=2,
        ) as client:
            assert list(client.nthreads().values()) == [2]
            assert client.cluster._plans[0].spill_directory == str(tmp_path)
            assert client.cluster._plans[0].memory_limit is None

    @pytest.mark.parametrize(
        ("name", "value", "instead"),
        [
            ("security", object(), r"docs/security\.md"),
            ("protocol", "tls://", "not encrypted"),
            ("worker_class", int, "SpecCluster takes others"),
        ],
    )
    def test_what_must_not_be_ignored_is_refused_with_what_to_use_instead(self, name, value, instead):
        with pytest.raises(TypeError, match=rf"{name}=.*: .*{instead}"):
            Client(n_workers=1, host="0.0.0.0", **{name: value})

    @pytest.mark.parametrize("name", sorted(keywords.NO_EFFECT))
    def test_what_has_no_effect_in_a_cluster_says_why(self, name):
        known = keywords.NO_EFFECT[name]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for value in known.values:
                keywords.without_effect("LocalCluster", {name: value}, ())
        assert caught == [], "these ask for what is so anyway"
        with pytest.warns(UserWarning, match=f"{name}=.* has no effect: {re.escape(known.instead)}"):
            keywords.without_effect("LocalCluster", {name: object()}, ())

    def test_the_warning_is_shown_at_the_users_line(self):
        with pytest.warns(UserWarning, match="dashboard_address=':8787' has no effect: there is no dash") as caught:
            LocalCluster(0, 1, processes=False, dashboard_address=":8787", object_store_memory="64 MiB").close()
        assert [warning.filename for warning in caught] == [__file__]

    @pytest.mark.parametrize(
        ("name", "value", "why"),
        [
            ("heartbeat_interval", "5s", "no heartbeats"),
            ("serializers", ["pickle"], "__reduce__"),
            ("deserializers", ["pickle"], "__reduce__"),
            ("extensions", {"x": int}, "extended"),
            ("direct_to_workers", False, "scheduler"),
            ("connection_limit", 5, "one connection"),
            ("loop", object(), "an event loop of its own"),
        ],
    )
    def test_what_can_do_without_has_a_warning(self, cluster, name, value, why):
        with pytest.warns(UserWarning, match=rf"{name}=.* has no effect: .*{why}") as caught:
            Client(cluster, set_as_default=False, **{name: value}).close()
        assert caught[0].filename == __file__

    def test_arguments_of_calls_without_effect(self, client):
        x = da.ones(10, chunks=5)
        for call in (
            lambda: client.submit(abs, -1, fifo_timeout="1 s"),
            lambda: client.map(abs, [-1], fifo_timeout="1 s"),
            lambda: client.compute(x, fifo_timeout="1 s"),
            lambda: client.persist(x, fifo_timeout="1 s"),
            lambda: client.get({"x": (abs, -1)}, "x", fifo_timeout="1 s"),
        ):
            with pytest.warns(UserWarning, match="fifo_timeout='1 s' has no effect: tasks of one priority") as caught:
                call()
            assert caught[0].filename == __file__
        for call in (
            lambda: client.get({"x": (abs, -1)}, "x", direct=False),
            lambda: client.gather(client.scatter(1), direct=False),
            lambda: client.scatter(1, direct=False).result(),
        ):
            with pytest.warns(UserWarning, match="direct=False has no effect: results never pass through") as caught:
                assert call() == 1
            assert [warning.filename for warning in caught] == [__file__]
        with pytest.warns(UserWarning, match="maxsize=2 has no effect: a variable has one value"):
            Variable("one", client, 2)
        Variable(name="one", client=client, maxsize=0)

    def test_arguments_by_their_places(self, cluster):
        with Client(cluster.scheduler_address, None, "5 s", False, None, None, False, "etl") as client:
            assert client.name == "etl"
            assert client.asynchronous is False
            future = client.submit(abs, -1)
            assert client.gather([future], "skip", True, False) == [1]
            assert futures_of(o=[future], client=client) == [future]
            graph = {"x": (abs, -1)}
            assert client.get(graph, "x", None, None, None, True, None, None, 1, 0, None, False) == 1
            restrictions, loose = {"x": ["nobody"]}, ["x"]
            assert client.get(graph, "x", restrictions, loose, {}, False, None, True, 1).result() == 1
            assert client.gather(client.scatter([1], None, False, None, True, 5, False)) == [1]

    def test_the_kind_of_client_that_a_call_asks_for(self, run):
        async def case(client, got):
            kind = client.asynchronous
            [future] = await got(client.scatter([1], asynchronous=kind))
            assert await got(client.gather(future, asynchronous=kind)) == 1
            queue, variable = Queue(client=client), Variable(client=client)
            for call in (
                partial(queue.put, 1),
                queue.get,
                queue.qsize,
                partial(variable.set, 1),
                variable.get,
                future.exception,
                future.traceback,
                future.retry,
                client.list_datasets,
                partial(client.get_dataset, "unknown", default=None),
                partial(client.unpublish_dataset, "unknown"),
                client.who_has,
                client.has_what,
                client.nbytes,
                client.ncores,
                client.nthreads,
                client.scheduler_info,
                partial(client.replicate, [future]),
                client.rebalance,
                partial(client.upload_file, __file__, load=False),
                future.cancel,
            ):
                await got(call(asynchronous=kind))
                with pytest.raises(ValueError, match=r"asynchronous=.* is not what this client is"):
                    call(asynchronous=not kind)
            for call in (
                partial(client.gather, []),
                partial(client.scatter, []),
                client.restart,
                client.retire_workers,
            ):
                with pytest.raises(ValueError, match=r"what this client is: it is an? (blocking|asynchronous) one"):
                    call(asynchronous=not kind)

        run(case)

    def test_the_security_of_a_cluster_that_the_client_starts(self, cluster):
        with (
            pytest.warns(UserWarning, match="security=True has no effect: nobody beyond this machine"),
            Client(n_workers=1, processes=False, object_store_memory="64 MiB", security=True) as client,
        ):
            assert client.submit(abs, -1).result() == 1
        with pytest.raises(TypeError, match=r"security=True has no meaning here: .*docs/security\.md"):
            Client(cluster.scheduler_address, security=True)

    def test_what_nobody_knows_is_refused_with_what_may_have_been_meant(self):
        for wrong, right in {"adress": "address", "writeable": "writable", "nworkers": "n_workers"}.items():
            with pytest.raises(TypeError, match=f"Client got an unexpected keyword '{wrong}'; did you mean '{right}'"):
                Client(**{wrong: "10.0.0.1"})
        for make in (Client, LocalCluster):
            with pytest.raises(TypeError, match="unexpected keyword 'n_worker'; did you mean 'n_workers'"):
                make(n_worker=2)
            with pytest.raises(
                TypeError, match=rf"{make.__name__} got an unexpected keyword 'xyz'; there are .*threads_per_worker"
            ):
                make(xyz=2)

    def test_two_names_of_one_thing(self, tmp_path):
        for given in ({"spill_directory": tmp_path}, {}):
            with pytest.raises(TypeError, match="given twice"):
                LocalCluster(1, 1, nthreads=1, local_directory=tmp_path, **given)

    def test_levels_of_logging(self):
        with pytest.raises(ValueError, match=r"silence_logs is a level of logging.*not 'loud'"):
            LocalCluster(silence_logs="loud")
        with LocalCluster(1, processes=None, silence_logs=logging.ERROR, object_store_memory="64 MiB") as cluster:
            assert cluster.scheduler_pid


def test_memory_of_workers_as_dask_takes_it():
    total = memory_limits.memory_limit()
    assert plan_nodes(1, 1, memory_limit=0.25)[0].memory_limit == int(total * 0.25)
    assert plan_nodes(1, 1, memory_limit="auto") == plan_nodes(1, 1)
    assert plan_nodes(1, 1, memory_limit=0)[0].memory_limit is None
    assert plan_nodes(1, 1, memory_limit="100MB")[0].memory_limit == 100_000_000
    assert plan_nodes(1, 1, object_store_memory=0.1)[0].store_capacity == int(total * 0.1)
    with pytest.raises(TypeError, match="memory_limit is a size"):
        plan_nodes(1, 1, memory_limit=True)
    with pytest.raises(ValueError, match="memory_limit: '4 GBB' is not a size"):
        plan_nodes(1, 1, memory_limit="4 GBB")


def test_the_docs_say_of_all_of_them_why_they_have_no_effect():
    page = (Path(__file__).parents[2] / "docs" / "from-dask.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for name, known in keywords.NO_EFFECT.items():
        assert name == "loop" or any(f"`{name}`" in row and known.instead in row for row in rows), name
