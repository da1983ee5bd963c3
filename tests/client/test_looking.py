"""What lies in a cluster, and why tasks are in their states."""

from __future__ import annotations

import getpass
import gzip
import itertools
import operator
import os
import socket
import threading
import time

import dask.array as da
import msgpack
import numpy as np
import pytest
import yaml
from waiting import until

from holdfast import Client, LocalCluster, get_client
from holdfast.cluster.reports.explanation import Explanation

_gates = {}


@pytest.fixture
def gate():
    name = f"gate-{time.monotonic()}"
    _gates[name] = threading.Event()
    yield name
    _gates.pop(name).set()


def wait_at_gate(name, *_):
    return _gates[name].wait(30)


def wait_for_another(name):
    return get_client().submit(wait_at_gate, name, pure=False).result()


class TestMemory:
    def test_objects_and_groups_of_them(self, run):
        async def case(client, got):
            one = await got(client.scatter(np.zeros(500_000), hash=False))
            two = client.submit(np.ones, 250_000, pure=False)
            await got(client.gather(two))
            report = await got(client.memory())
            of_key = {each["key"]: each for each in report.objects}
            assert 4_000_000 <= of_key[one.key]["nbytes"] < 4_100_000
            assert of_key[one.key]["type"] == "numpy.ndarray"
            assert of_key[one.key]["owner"] == (client._core.name or client.id)
            assert len(report) == report.count >= 2
            assert report.nbytes >= 6_000_000
            assert report.by_prefix["ones"].nbytes >= 2_000_000
            assert report.by_owner[(client._core.name or client.id)].nbytes >= 6_000_000
            assert report.by_holder[f"client {client._core.name or client.id}"].objects >= 2
            assert report.by_line[of_key[two.key]["call_site"]].objects >= 1
            assert of_key[one.key]["places"][0]["state"] == "in memory"
            assert len((await got(client.memory(by="type", limit=1))).objects) == 1
            assert set((await got(client.memory(by=["type", "host"]))).groups) == {"type", "host"}
            with pytest.raises(ValueError, match="by='colour' is unknown"):
                await got(client.memory(by="colour"))
            with pytest.raises(ValueError, match="limit is a number of objects, not -1"):
                await got(client.memory(limit=-1))
            sizes = [each["nbytes"] for each in report.objects]
            assert sizes == sorted(sizes, reverse=True)
            assert all(store["capacity"] for store in report.stores.values() if store)

        run(case)

    def test_datasets_and_how_it_is_shown(self, client):
        future = client.scatter(np.zeros(300_000), hash=False)
        client.publish_dataset(future, name="<numbers>")
        try:
            report = client.memory()
            group = report.by_dataset["'<numbers>'"]
            assert group.objects == 1
            assert group.oldest >= group.newest >= 0
            assert group.nbytes >= 2_400_000
            text = repr(report)
            assert f"{report.count:,} object" in text
            assert "'<numbers>'" in text
            assert "numpy.ndarray" in text
            shown = report._repr_html_()
            assert "&lt;numbers&gt;" in shown
            assert "<numbers>" not in shown
            frame = report.to_frame()
            assert list(frame["nbytes"]) == [each["nbytes"] for each in report.objects]
            assert future.key in set(frame["key"])
        finally:
            client.unpublish_dataset("<numbers>")


class TestExplain:
    def test_a_result_lies_in_stores_and_is_held(self, run):
        async def case(client, got):
            future = await got(client.scatter(np.zeros(300_000), hash=False))
            found = await got(client.explain(future))
            assert isinstance(found, Explanation)
            assert found.state == "memory"
            assert found.nbytes >= 2_400_000
            (holder,) = [each for each in found.holders if each["client"] == client.id]
            assert (holder["kind"], holder["name"]) == ("client", client._core.name or client.id)
            for about in (holder, found.origin):
                assert about["pid"] == os.getpid()
                assert about["user"] == getpass.getuser()
                assert about["hostname"] == socket.gethostname()
            assert 0 <= holder["silent_seconds"] < 60
            assert found.age >= 0
            (place,) = found.where
            assert place["state"] == "in memory"
            text = repr(found)
            assert text.startswith(f"<Explanation: {future.key} memory>")
            assert "It is in memory in the store of" in text
            assert "It is data that was brought, and can't be computed again." in text
            assert f"It is kept by the client {(client._core.name or client.id)} (" in text
            assert (await got(client.explain(future.object_id))).key == future.key
            assert "<table>" in found._repr_html_()

        run(case)

    def test_the_readers_of_an_object(self, client):
        future = client.submit(np.ones, 300_000, pure=False)
        view = future.result()
        found = client.explain(future)
        assert found.where[0]["readers"] == [client.id], found
        assert f"and {client.id} looks at it now" in repr(found)
        del view

    def test_what_was_spilled_is_on_disk(self, tmp_path):
        with (
            LocalCluster(1, 1, object_store_memory="16 MiB", spill_directory=tmp_path) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            futures = [client.submit(np.full, 500_000, n, pure=False) for n in range(8)]
            client.gather(futures)
            until(lambda: any(client.explain(f).where[0]["state"] == "on disk" for f in futures), "one is on disk")

    def test_tasks_that_run_wait_and_queue(self, in_process, gate):
        with Client(in_process, set_as_default=False) as client:
            running = client.submit(wait_at_gate, gate, key="running")
            until(lambda: "It runs on" in repr(client.explain(running)), "it runs")
            until(lambda: client.explain(running).running is not None, "its worker has begun with it")
            found = client.explain(running)
            until(lambda: client.explain(running).running["seconds"] > found.running["seconds"], "it runs on")
            assert found.running["line"].startswith(f"{__file__}:")
            assert found.running["line"].endswith(" in wait_at_gate")
            assert f"It is at {found.running['line']}." in repr(found)
            after = client.submit(wait_at_gate, gate, running, key=("after", 1))
            assert client.explain(after).waits_for == [("running", "processing")]
            assert "when 'running' (processing) has a result" in repr(client.explain(after)) or (
                "It waits until 'running' (processing) has a result." in repr(client.explain(after))
            )
            assert "1 task that read it" in repr(client.explain("running"))
            others = client.map(wait_at_gate, [gate] * 300, pure=False)
            until(lambda: any("waits for a free thread" in repr(client.explain(f)) for f in others[-5:]), "one queues")
            blocked = client.submit(wait_for_another, gate, key="blocked", priority=10)
            _gates[gate].set()
            client.gather([running, after, blocked, *others])
            assert client.explain(running).state == "memory"

    def test_a_task_that_waits_for_tasks_of_its_own(self, in_process, gate):
        with Client(in_process, set_as_default=False) as client:
            blocked = client.submit(wait_for_another, gate, key="blocked-there")
            until(lambda: "waits there for tasks that it has submitted" in repr(client.explain(blocked)), "it waits")
            _gates[gate].set()
            blocked.result(timeout=30)

    def test_why_there_is_no_worker(self, client):
        future = client.submit(abs, 1, workers="nobody", key="no-worker")
        until(lambda: client.explain(future).state == "no-worker", "it is known")
        assert "It waits for a worker called nobody, and there is none" in repr(client.explain(future))
        assert "name one of these" in repr(client.explain(future))
        future.cancel()

    def test_what_a_task_waits_for_when_workers_are_retired(self):
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, processes=False, object_store_memory="64 MiB") as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            first, second = client.nthreads()
            client.retire_workers([first], close_workers=False)
            named = client.submit(abs, 1, workers=[first], key="named")
            until(lambda: client.explain(named).state == "no-worker", "it is known")
            assert "which was retired and takes no tasks any more" in repr(client.explain(named))
            client.retire_workers([second], close_workers=False)
            anywhere = client.submit(abs, 2, key="anywhere")
            text = until(lambda: (said := repr(client.explain(anywhere))).count("was retired") == 2 and said, "it says")
            assert "It could run, but no worker takes it now" in text
            client.restart_workers([first])
            assert client.gather([named, anywhere]) == [1, 2]

    def test_failures_and_what_failed_for_them(self, client):
        bad = client.submit(operator.truediv, 1, 0, key="bad")
        later = client.submit(abs, bad, key="later")
        assert later.exception() is not None
        assert "It failed: ZeroDivisionError: division by zero" in repr(client.explain(bad))
        assert "'bad', which it depends on, failed: ZeroDivisionError" in repr(client.explain("later"))

    def test_what_nobody_knows(self, run):
        async def case(client, got):
            found = await got(client.explain("no such key"))
            assert found.state == "unknown"
            assert "The cluster knows no such key" in repr(found)
            assert found.where == []

        run(case)

    def test_one_thing_is_explained_at_a_time(self, run):
        async def case(client, got):
            future = client.submit(abs, -1)
            for several in ([future], {"a": future}, da.ones(4, chunks=2)):
                with pytest.raises(TypeError, match=r"explain takes one future or key.*: futures_of\(\) lists"):
                    await got(client.explain(several))

        run(case)


class Waiter:
    def takes(self, value):
        return value

    def wait(self, name):
        return wait_at_gate(name)


def test_where_an_actor_lives_and_how_many_calls_wait(in_process, gate):
    with Client(in_process, set_as_default=False) as client:
        actor = client.submit(Waiter, actor=True).result()
        assert client.explain(actor).actor["calls"] == 0
        assert "no call of it is under way" in repr(client.explain(actor))
        calls = [actor.wait(gate) for _ in range(3)]
        until(lambda: client.explain(actor).actor["calls"] == 3, "the scheduler has passed them on")
        behind = client.submit(wait_at_gate, gate, pure=False)
        calls.append(actor.takes(behind))
        until(lambda: client.explain(actor).actor["held_up"] == 1, "one waits for its argument")
        found = client.explain(actor)
        assert found.key == actor.key
        assert found.actor["worker"] in client.nthreads()
        assert f"The actor Waiter lives on {found.actor['worker_name']} ({found.actor['worker']})" in repr(found)
        assert "4 calls of 1 client have no answer yet, of which 1 waits for what they depend on" in repr(found)
        _gates[gate].set()
        for call in calls[:3]:
            assert call.result(timeout=30)
        assert behind.result(timeout=30)


class TestStory:
    def test_moves_of_tasks_from_the_first_time_on(self, run):
        async def case(client, got):
            await got(client.story())
            one = client.submit(operator.neg, 1, pure=False)
            two = client.submit(operator.neg, one, pure=False)
            await got(client.gather(two))
            story = await got(client.story(one, [two]))
            for future in (one, two):
                moves = [(before, after) for _, key, before, after, _, _ in story if key == future.key]
                assert moves[0] == (None, "released")
                assert moves[-1] == ("processing", "memory")
                assert all(a[1] == b[0] for a, b in itertools.pairwise(moves))
            assert [entry[-1] for entry in story] == sorted(entry[-1] for entry in story)
            assert {entry[0] for entry in story} == {"scheduler"}
            workers = await got(client.nthreads())
            assert all(entry[4] in workers for entry in story if entry[3] == "processing")
            assert await got(client.story("no such key", on_error="ignore")) == []
            with pytest.raises(ValueError, match="on_error='what' is unknown"):
                await got(client.story(one, on_error="what"))

        run(case)


class TestDump:
    def test_it_is_written_and_can_be_read(self, run, tmp_path):
        async def case(client, got):
            future = client.submit(operator.neg, 1, key=("tuple", 1))
            await got(client.gather(future))
            await got(client.dump_cluster_state(tmp_path / "dump"))
            with gzip.open(tmp_path / "dump.msgpack.gz") as file:
                state = msgpack.unpack(file)
            task = state["scheduler"]["tasks"]["('tuple', 1)"]
            assert task["state"] == "memory"
            assert "run_spec" not in task
            assert set(state["workers"]) == set(await got(client.nthreads()))
            assert set(state["versions"]["workers"]) == set(state["workers"])
            assert state["scheduler"]["events"]["all"]
            await got(client.dump_cluster_state(tmp_path / "missing" / "all", exclude=(), format="yaml"))
            task = yaml.safe_load((tmp_path / "missing" / "all.yaml").read_text())["scheduler"]["tasks"]["('tuple', 1)"]
            assert task["run_spec"]
            await got(client.dump_cluster_state(f"file://{tmp_path}/url/dump", exclude="events", auto_mkdir=True))
            with gzip.open(tmp_path / "url" / "dump.msgpack.gz") as file:
                assert "events" not in msgpack.unpack(file)["scheduler"]

        run(case)

    def test_what_can_not_be_is_refused(self, client, tmp_path):
        with pytest.raises(ValueError, match="the scheduler writes no files"):
            client.dump_cluster_state(tmp_path / "x", write_from_scheduler=True)
        with pytest.raises(ValueError, match="format='json' is unknown"):
            client.dump_cluster_state(tmp_path / "x", format="json")
        with pytest.raises(TypeError, match="options are for a URL"):
            client.dump_cluster_state(tmp_path / "x", key="secret")
        assert list(tmp_path.iterdir()) == []
