"""How a client opens and ends, and what it knows of its cluster."""

from __future__ import annotations

import asyncio
import gc
import operator
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref

import dask
import numpy as np
import pytest

from holdfast import AuthenticationError, Client, ConnectError, LocalCluster
from holdfast.client.core.session import RELEASE_PAUSE_SECONDS
from holdfast.cluster.comm.loops import LoopThread
from tests.support.waiting import until


class TestOpening:
    def test_by_address_with_and_without_its_scheme_and_by_cluster(self, cluster):
        for address in (cluster, cluster.scheduler_address, cluster.scheduler_address.removeprefix("tcp://")):
            with Client(address, name="opening") as client:
                assert client.scheduler_address == cluster.scheduler_address
                assert client.submit(operator.neg, 1).result(timeout=20) == -1
                assert "threads: 2" in repr(client)
            assert client.closed
            assert "closed" in repr(client)

    def test_without_an_address_it_owns_its_cluster(self):
        with Client(n_workers=1, threads_per_worker=1, object_store_memory="64 MiB") as client:
            assert list(client.nthreads().values()) == [1]
            assert client.submit(operator.neg, 1).result(timeout=20) == -1
            address = client.scheduler_address
            cluster = client.cluster
        assert cluster.closed
        with pytest.raises(ConnectError, match=r"tried \d+ times"):
            Client(address, timeout=0.3)

    def test_nobody_there(self):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        with pytest.raises(ConnectError, match=rf"no scheduler answered at tcp://127.0.0.1:{port}.*in 0\.[1-9]"):
            Client(f"127.0.0.1:{port}", timeout="300 ms")

    def test_a_wrong_token(self, cluster):
        with pytest.raises(AuthenticationError, match="token"):
            Client(cluster.scheduler_address, token=b"another token than that one")

    def test_wrong_keywords(self, cluster):
        with pytest.raises(TypeError, match=r"unexpected keyword 'nonsense'; there are"):
            Client(cluster, n_workers=2, nonsense=1)
        with pytest.raises(TypeError, match=r"'n_workers', 'local_directory' configure the cluster.*LocalCluster"):
            Client(cluster, n_workers=2, local_directory="/tmp")
        with pytest.raises(TypeError, match="address"):
            Client(3)

    def test_a_timeout_that_is_none(self, cluster, client):
        before = threading.active_count()
        for timeout in ("abc", "5 parsecs", ""):
            with pytest.raises(ValueError, match=rf"timeout '{timeout}' is no time.*'500 ms'"):
                Client(cluster, timeout=timeout)
            with pytest.raises(ValueError, match="is no time"):
                client.submit(operator.neg, 1).result(timeout=timeout)
            with pytest.raises(ValueError, match="is no time"):
                client.close(timeout)
        assert threading.active_count() == before
        assert client.submit(operator.neg, 1).result(timeout="20 s") == -1


class TestInformation:
    def test_what_there_is(self, client):
        assert list(client.nthreads().values()) == [1, 1]
        assert client.ncores() == client.nthreads()
        first = next(iter(client.nthreads()))
        assert client.nthreads(first) == {first: 1}
        info = client.scheduler_info()
        assert set(info["workers"]) == set(client.nthreads())
        future = client.scatter(np.arange(1000))
        (node,) = client.has_what()
        assert client.who_has(future) == {future.key: [node]}
        assert future.key in client.has_what()[node]
        assert client.who_has([future])[future.key] == client.who_has()[future.key]

    def test_waiting_for_workers(self, client):
        client.wait_for_workers(2, timeout=10)
        with pytest.raises(TimeoutError, match=r"3 workers, 2 are there.*holdfast start"):
            client.wait_for_workers(3, timeout="100 ms")
        with pytest.raises(ValueError, match="number of workers"):
            client.wait_for_workers("many")


_FORKING = """
import os, sys, threading, warnings
import dask
import numpy as np
from holdfast import Client, Future
from holdfast.client import in_task
from holdfast.client.core.registry import registry

warnings.simplefilter("ignore")  # later Pythons warn of forks beside threads
client = Client(sys.argv[1], timeout="20 s")
done = client.submit(np.arange, 1000, key="done")
done.result(timeout=20)
pending = client.submit(pow, 2, 5)
held, go_on = threading.Event(), threading.Event()

def hold():
    core = client._core
    with registry.lock, in_task._lock, core.table.lock, core.resources._lock, core.stores._lock:
        held.set()
        go_on.wait()

holder = threading.Thread(target=hold)
holder.start()
held.wait()
pid = os.fork()
if pid == 0:
    calls = {
        "result": done.result,
        "exception": done.exception,
        "callback": lambda: done.add_done_callback(print),
        "cancel": done.cancel,
        "future": lambda: Future("done", client),
        "submit": lambda: client.submit(pow, 2, 3),
        "same": lambda: client.submit(np.arange, 1000, key="done"),
        "map": lambda: client.map(abs, range(3)),
        "gather": lambda: client.gather([done, pending]),
        "scatter": lambda: client.scatter(np.ones(10)),
        "compute": lambda: dask.delayed(pow)(2, 3).compute(),
        "on a future": lambda: dask.delayed(done).compute(),
        "info": client.scheduler_info,
        "publish": lambda: client.publish_dataset(done, name="forked"),
        "shutdown": client.shutdown,
    }
    for name, call in calls.items():
        try:
            print(name, "returned", call())
        except Exception as error:
            if "belongs to the parent process" not in str(error):
                print(name, "raised", repr(error))
    assert "parent process" in repr(client)
    del done
    client.close()
    with Client(sys.argv[1], timeout="20 s") as own:
        assert Client.current() is own
        print(dask.delayed(pow)(2, 3).compute(), own.submit(pow, 3, 3).result(timeout=20))
    print("child")
    sys.exit()  # what is registered for the end runs
go_on.set()
holder.join()
assert os.waitpid(pid, 0)[1] == 0
print(client.submit(pow, 2, 4).result(timeout=20), pending.result(timeout=20), len(done.result(timeout=20)))
"""


class TestForks:
    def test_a_child_has_no_part_in_its_parent_s_client_and_may_have_its_own(self, cluster):
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-u", "-c", _FORKING, cluster.scheduler_address],
            capture_output=True,
            text=True,
            timeout=50,
            env={**os.environ, "HOLDFAST_TOKEN": cluster.token.decode()},
        )
        assert (done.stdout, done.stderr, done.returncode) == ("8 27\nchild\n16 32 1000\n", "", 0)
        assert time.monotonic() - started < 20  # nobody waited for a thread that is not there

    def test_a_loop_s_thread_is_the_parent_s(self):
        with LoopThread("parent") as thread:
            if (pid := os.fork()) == 0:
                try:
                    with pytest.raises(RuntimeError, match="parent process"):
                        thread.run(asyncio.sleep(0))
                    thread.call_soon(os.abort)
                    thread.close()
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitpid(pid, 0)[1] == 0
            assert thread.run(asyncio.sleep(0, 3)) == 3


class TestTheDefault:
    def test_it_is_kept_though_nothing_refers_to_it(self, cluster):
        Client(cluster)
        gc.collect()
        with Client.current() as client:
            assert dask.config.get("scheduler") is client
            assert dask.delayed(os.getpid)().compute() != os.getpid()
        assert dask.config.get("scheduler", None) is None

    def test_one_that_was_the_default_ends_with_the_last_reference_to_it(self, cluster):
        def ours():
            return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("holdfast"))

        def sockets():
            links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
            return sum("socket:" in os.readlink(link) for link in links if os.path.lexists(link))

        before = ours(), sockets()
        for _ in range(3):  # as in a function that is called again and again, or in a cell that is run again
            client = Client(cluster)
            future = client.submit(operator.neg, 3)
            assert future.result() == -3
        face, core = weakref.ref(client), weakref.ref(client._core)
        with Client(cluster) as last:
            del client
            gc.collect()
            assert face() is None
            assert future.result() == -3  # a future keeps the connection that it has its result by
            assert future.client.submit(operator.neg, future).result() == 3
            del future
            until(lambda: gc.collect() is not None and core() is None, "nothing keeps it")
            assert Client.current() is last
        until(lambda: (ours(), sockets()) == before, "their threads and sockets have gone")
        with pytest.raises(ValueError, match="no client"):
            Client.current()

    def test_one_that_a_future_keeps_is_the_default_again(self, cluster):
        future = Client(cluster).submit(operator.neg, 3)
        with Client(cluster):
            gc.collect()
        assert Client.current() is future.client
        assert dask.delayed(os.getpid)().compute() != os.getpid()
        Client.current().close()


def test_a_client_imports_nothing_of_a_worker():
    code = "import sys, holdfast.client; print([name for name in sys.modules if '.cluster.worker' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


class TestEnding:
    def test_a_future_outlives_its_client_and_has_another_one(self, cluster, eventually):
        client = Client(cluster, set_as_default=False)
        client_id, session = client.id, client._core.session
        future = client.submit(pow, 2, 3)
        del client
        assert future.result(timeout=20) == 8
        again = future.client
        assert again.id == client_id
        assert again.submit(pow, future, 2).result(timeout=20) == 64
        del future, again
        eventually(lambda: session.ended is not None, what="the last that refers to it is gone")

    def test_shutdown_stops_the_cluster_for_everybody(self, eventually):
        with LocalCluster(n_workers=1, threads_per_worker=1, object_store_memory="64 MiB") as cluster:
            other = Client(cluster, set_as_default=False)
            pending = other.submit(time.sleep, 30)
            with Client(cluster, set_as_default=False) as client:
                client.shutdown()
                assert client.closed
            with pytest.raises(ConnectError, match=r"shut down|lost"):
                pending.result(timeout=20)
            other.close()

    def test_a_killed_scheduler_that_nobody_waits_for_ends_every_wait(self, monkeypatch):
        monkeypatch.setenv("HOLDFAST_SCHEDULER_TIMEOUT", "0")
        with (
            LocalCluster(n_workers=1, threads_per_worker=1, object_store_memory="64 MiB") as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            array = client.submit(np.arange, 100_000)
            value = array.result(timeout=20)
            future = client.submit(time.sleep, 30)
            os.kill(cluster.scheduler_pid, signal.SIGKILL)
            with pytest.raises(ConnectError, match="lost"):
                future.result(timeout=20)
            assert value.sum() == 4999950000

    def test_a_process_that_ends_closes_its_client_and_its_cluster(self):
        code = (
            "from holdfast import Client\n"
            "if __name__ == '__main__':\n"
            "    client = Client(n_workers=1, threads_per_worker=1, object_store_memory='64 MiB')\n"
            "    future = client.submit(pow, 2, 3)\n"
            "    print(future.result(timeout=20))\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert (done.stdout, done.stderr, done.returncode) == ("8\n", "", 0)

    def test_a_worker_that_dies_takes_no_result_with_it(self, eventually):
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, object_store_memory="64 MiB") as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            futures = client.map(lambda i: (os.getpid(), np.full(10_000, i)), range(8), pure=False)
            pids = {pid for pid, _ in client.gather(futures)}
            assert len(pids) == 2
            os.kill(next(iter(pids)), signal.SIGKILL)
            assert [int(array[0]) for _, array in client.gather(futures)] == list(range(8))
            assert client.submit(operator.neg, 1).result(timeout=30) == -1

    def test_a_host_that_dies_has_its_results_computed_again(self):
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, n_hosts=2, object_store_memory="64 MiB") as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            nodes = {info["address"]: info["pid"] for info in cluster.nodes}
            futures = client.map(np.full, [10_000] * 8, range(8))
            [array[0] for array in client.gather(futures)]
            far = next(node for node in nodes if node != client._core.stores.local[1])
            os.kill(nodes[far], signal.SIGKILL)
            assert [int(array[0]) for array in client.gather(futures)] == list(range(8))
            near = client._core.stores.local[1]
            assert near in nodes

    def test_a_cluster_of_threads(self):
        with (
            LocalCluster(n_workers=1, threads_per_worker=2, processes=False, object_store_memory="64 MiB") as cluster,
            Client(cluster) as client,
        ):
            assert client.submit(os.getpid).result(timeout=20) == os.getpid()

            def nested():
                return Client.current().submit(operator.neg, 4).result(timeout=20)

            assert client.submit(nested).result(timeout=20) == -4
            assert client.gather(client.map(np.full, [1000] * 3, range(3)))[2][0] == 2


def test_results_are_released_even_if_the_loop_is_quicker_than_the_thread_that_receives_them(client):
    session, loop = client._core.session, client._core.driver.thread

    def call_soon_in_a_quick_loop(callback):
        loop.loop.call_soon_threadsafe(callback)
        if callback == session._linger:
            loop.run(asyncio.sleep(2 * RELEASE_PAUSE_SECONDS))

    session._call_soon = call_soon_in_a_quick_loop
    for number in range(5):
        assert client.submit(pow, 2, number, pure=False).result(timeout=10) == 2**number
    until(lambda: not client._core.table.lingers, "the loop doesn't linger for ever")
    until(lambda: not client.who_has(), "nothing is kept")
