"""A host: its registration, its workers' lives and ends, and that nothing of it stays behind."""

from __future__ import annotations

import errno
import multiprocessing
import operator
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from scripted_scheduler import TOKEN
from waiting import until

from holdfast.cluster.comm.tokens import OPTION, handed_down
from holdfast.cluster.errors import ConnectError
from holdfast.cluster.node import heartbeat, scheduler_link, supervisor
from holdfast.cluster.node.heartbeat import WorkerVitals
from holdfast.cluster.processes import forking, restarts
from holdfast.cluster.processes.child import LEFT_EXIT_CODE
from holdfast.cluster.processes.host_id import host_id
from holdfast.cluster.processes.parent import spawn
from holdfast.cluster.protocol import references
from holdfast.cluster.protocol.payloads import Reference
from holdfast.cluster.worker.context import current_worker
from holdfast.objectstore import ObjectID, connect, encode
from holdfast.objectstore.errors import HoldfastError


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


# -- what it is


def test_it_registers_itself_and_its_workers(scheduler, start_host):
    host = start_host(n_workers=2, threads_per_worker=3, resources={"GPU": 1}, memory_limit=1 << 30)
    info = host.node.info
    assert info["address"] == host.address
    assert info["host_id"] == host_id()
    assert (info["hostname"], info["nthreads"], info["pid"]) == ("host", 6, os.getpid())
    assert info["capacity"] >= 128 << 20
    with connect(info["store_socket"]) as store:
        assert store.stats()["objects"] == 0
    for index in range(2):
        info = host.worker(index).info
        assert (info["name"], info["node"], info["nthreads"]) == (f"host-{index}", host.address, 3)
        assert info["resources"] == {"GPU": 1}
        assert info["pid"] != os.getpid()


def test_a_host_ends_where_the_paths_of_sockets_or_the_network_are_others(monkeypatch):
    namespaces = {"net": "net:[1]", "mnt": "mnt:[1]"}
    monkeypatch.setattr("os.readlink", lambda path: namespaces[path.rpartition("/")[2]])
    here = host_id.__wrapped__()
    assert here == host_id.__wrapped__()
    for kind in ("net", "mnt"):
        with monkeypatch.context() as elsewhere:
            elsewhere.setitem(namespaces, kind, f"{kind}:[2]")
            assert host_id.__wrapped__() != here


@pytest.mark.parametrize("processes", [True, False])
def test_its_workers_share_its_store(scheduler, start_host, processes, eventually):
    host = start_host(n_workers=2, processes=processes)
    first, second = host.worker(0), host.worker(1)
    _, made = scheduler.one(first, scheduler.task(first, np.ones, 100_000, key="x"))
    depends = [("x", made[2], None, [host.address])]
    total = scheduler.task(second, lambda x: float(x.sum()), Reference("x"), depends=depends)
    assert scheduler.value(second, total) == 100_000.0
    eventually(lambda: host.store_stats()["pins"] == 0)


ran = 0
enough_ran = threading.Event()


def count_up():
    global ran
    ran += 1
    if ran >= 1000:
        enough_ran.set()


def hold_up_the_loop():
    current_worker()._loop.call_soon_threadsafe(enough_ran.wait, 3)


def test_tasks_that_outrun_the_store_in_their_own_process_are_not_waited_for_by_it(scheduler, start_host):
    # The loop serves the store: if it waited for a thread that waits for the store, both would wait for ever.
    global ran
    ran = 0
    enough_ran.clear()
    host = start_host(n_workers=1, threads_per_worker=2, processes=False)
    worker = host.worker()
    tasks = [scheduler.task(worker, count_up) for _ in range(4000)]
    outcomes = scheduler.run(worker, scheduler.task(worker, hold_up_the_loop), *tasks)
    assert {operation for operation, _ in outcomes.values()} == {"finished"}


def test_it_says_how_it_is(scheduler, start_host):
    host = start_host(n_workers=1)
    (_, report) = scheduler.message(host.node, "heartbeat")
    assert report["store"]["capacity"] == host.node.info["capacity"]
    vitals = report["workers"][f"{host.address}/0"]
    assert vitals["memory"] > 1 << 20
    assert vitals["cpu"] >= 0


def test_it_says_at_once_when_a_worker_is_stopped(scheduler, start_host, monkeypatch):
    monkeypatch.setattr(scheduler_link, "INTERVAL_SECONDS", 1000.0)
    host = start_host(n_workers=2)
    os.kill(host.worker(1).info["pid"], signal.SIGSTOP)
    try:
        (_, report) = scheduler.message(host.node, "heartbeat")
    finally:
        os.kill(host.worker(1).info["pid"], signal.SIGCONT)
    said = {address[-1]: vitals["condition"] for address, vitals in report["workers"].items()}
    assert said == {"0": "running", "1": "stopped"}
    (_, report) = scheduler.message(host.node, "heartbeat")
    assert {vitals["condition"] for vitals in report["workers"].values()} == {"running"}


def test_it_revokes_what_a_worker_has_not_begun(scheduler, start_host):
    host = start_host(n_workers=1)
    worker = host.worker()
    scheduler.one(worker, done := scheduler.task(worker, int))
    runs = [scheduler.task(worker, os.getpid) for _ in range(3)]
    incarnation = worker.info["incarnation"]
    run_ids = [done[1], *(task[1] for task in runs)]
    scheduler.send(host.node, ("revoke", worker.info["address"], incarnation + 1, run_ids))  # no such process
    scheduler.send(host.node, ("revoke", worker.info["address"], incarnation, run_ids))
    answer = scheduler.message(host.node, "revoked")
    assert answer == ("revoked", worker.info["address"], incarnation, 1, tuple(run_ids[1:]), (done[1],))
    more = scheduler.task(worker, os.getpid)
    scheduler.send(worker, ("run", [*runs, more]), ("revoked", 1, run_ids[1:]))
    assert scheduler.message(worker, "confirmed") == ("confirmed", 1)
    scheduler.outcomes(worker, [more[1]])
    told = [entry[1] for message in worker.received if message[0] == "finished" for entry in message[1]]
    assert told == [done[1], more[1]]


def test_a_worker_in_this_process_has_nothing_to_revoke(scheduler, start_host):
    host = start_host(n_workers=1, processes=False)
    assert host.worker().info["incarnation"] is None


def test_it_leaves_out_what_there_is_no_process_of(monkeypatch):
    monkeypatch.setattr(heartbeat, "LEAST_SECONDS", 0.001)
    gone = subprocess.Popen(["true"])
    gone.wait()
    vitals = WorkerVitals()
    for _ in range(2):
        report = vitals.measure({"here": os.getpid(), "gone": gone.pid, "between two": None})
        assert list(report) == ["here"]


def test_it_deletes_what_it_is_told_to(scheduler, start_host, eventually):
    host = start_host(n_workers=1)
    worker = host.worker()
    _, made = scheduler.one(worker, scheduler.task(worker, bytes, 100_000))
    assert host.store_stats()["objects"] == 1
    scheduler.send(host.node, ("delete", [made[2]]))
    eventually(lambda: host.store_stats()["objects"] == 0)


# -- workers that die


def test_a_killed_worker_is_reported_and_started_again(scheduler, start_host, eventually):
    host = start_host(n_workers=2)
    killed, other = host.worker(0), host.worker(1)
    _, made = scheduler.one(killed, scheduler.task(killed, np.arange, 50_000, key="x"))
    os.kill(killed.info["pid"], signal.SIGKILL)
    _, address, reason, *_, incarnation, _ = scheduler.message(host.node, "exited")
    assert address == f"{host.address}/0"
    assert "SIGKILL" in reason
    assert incarnation == killed.info["incarnation"]
    scheduler.wait(lambda: killed.gone, "its connection ends")
    again = host.worker(0)
    assert again.info["incarnation"] != incarnation
    assert again.info["pid"] != killed.info["pid"]
    assert again.info["name"] == killed.info["name"]
    # What it had made is still there.
    depends = [("x", made[2], None, [host.address])]
    assert scheduler.value(other, scheduler.task(other, len, Reference("x"), depends=depends)) == 50_000
    assert scheduler.value(again, scheduler.task(again, abs, -1)) == 1


def test_a_worker_that_exits_without_being_asked_to_is_started_again(scheduler, start_host):
    host = start_host(n_workers=1)
    worker = host.worker()
    scheduler.send(worker, ("run", [scheduler.task(worker, os._exit, 0)]))
    _, address, reason, *_ = scheduler.message(host.node, "exited")
    assert address == f"{host.address}/0"
    assert reason.startswith("exited with code 0, ")
    scheduler.wait(lambda: worker.gone, "its connection ends")
    again = host.worker()
    assert scheduler.value(again, scheduler.task(again, abs, -1)) == 1


def test_a_worker_that_has_lost_the_scheduler_and_lives_on_is_started_again(scheduler, start_host, monkeypatch):
    monkeypatch.setattr(supervisor, "PARTED_SECONDS", 0.05)
    host = start_host(n_workers=2)
    worker, other = host.worker(0), host.worker(1)
    pid = worker.info["pid"]
    os.kill(pid, signal.SIGSTOP)  # so it can't end by itself
    scheduler.send(host.node, ("parted", other.info["address"], pid))  # a process that is gone, for all that is known
    scheduler.send(host.node, ("parted", worker.info["address"], pid))
    _, address, reason, *_ = scheduler.message(host.node, "exited")
    assert address == worker.info["address"]
    assert reason.startswith("had lost the scheduler, and did not end, ")
    until(lambda: host.worker(0).info["pid"] != pid, "another process has taken its place")
    assert not other.gone


def test_workers_outlive_what_has_forked_them_and_another_forks_the_next(scheduler, start_host):
    host = start_host(n_workers=2)
    worker, other = host.worker(0), host.worker(1)
    fork_server = psutil.Process(worker.info["pid"]).parent()
    fork_server.kill()
    assert scheduler.value(worker, scheduler.task(worker, abs, -1)) == 1
    os.kill(worker.info["pid"], signal.SIGKILL)
    _, address, reason, *_ = scheduler.message(host.node, "exited")
    assert address == f"{host.address}/0"
    assert "could not say how" in reason
    scheduler.wait(lambda: worker.gone, "its connection ends")
    again = host.worker(0)
    assert scheduler.value(again, scheduler.task(again, abs, -1)) == 1
    assert psutil.Process(again.info["pid"]).parent() != fork_server
    assert scheduler.value(other, scheduler.task(other, abs, -1)) == 1


def test_a_killed_workers_connection_ends_though_a_child_of_its_task_lives_on(scheduler, start_host, tmp_path):
    host = start_host(n_workers=1)
    worker = host.worker()
    child_pid = tmp_path / "child"

    def fork_and_die(child_pid):
        if (pid := os.fork()) == 0:
            signal.pause()
        child_pid.write_text(str(pid))
        os.kill(os.getpid(), signal.SIGKILL)

    scheduler.send(worker, ("run", [scheduler.task(worker, fork_and_die, child_pid)]))
    try:
        scheduler.wait(lambda: worker.gone, "its connection ends")
        assert alive(int(child_pid.read_text()))
        again = host.worker()
        assert scheduler.value(again, scheduler.task(again, abs, -1)) == 1
    finally:
        os.kill(int(child_pid.read_text()), signal.SIGKILL)


def test_a_task_may_use_processes_that_it_forks(scheduler, start_host):
    host = start_host(n_workers=1)
    worker = host.worker()

    def use_forked_processes():
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return pool.map(abs, [-1, -2])

    assert scheduler.value(worker, scheduler.task(worker, use_forked_processes)) == [1, 2]
    assert scheduler.value(worker, scheduler.task(worker, abs, -1)) == 1


def test_a_worker_that_uses_too_much_memory_is_killed_and_says_so(scheduler, start_host):
    host = start_host(n_workers=1, memory_limit=400 << 20)
    worker = host.worker()

    def devour():
        hoard = [np.ones(8 << 20)]
        while True:
            hoard.append(np.ones(1 << 20))
            time.sleep(0.005)

    scheduler.send(worker, ("run", [scheduler.task(worker, devour)]))
    _, _, reason, *_ = scheduler.message(host.node, "exited")
    assert "memory limit of 419.4 MB" in reason
    assert "used by itself" in reason
    host.worker()


def test_what_is_mapped_from_the_store_does_not_count_as_a_workers_memory(scheduler, start_host):
    host = start_host(n_workers=1, memory_limit=300 << 20, store_capacity=700 << 20)
    worker = host.worker()
    _, made = scheduler.one(worker, scheduler.task(worker, np.ones, 4 << 20, key="x"))
    copies = [made]
    for _ in range(5):
        copies.append(scheduler.one(worker, scheduler.task(worker, np.ones, 12 << 20))[1])
    depends = [(n, entry[2], None, [host.address]) for n, entry in enumerate(copies)]

    def read(arrays):
        deadline = time.monotonic() + 0.6  # longer than the watch takes to look
        while time.monotonic() < deadline:
            total = sum(float(array.sum()) for array in arrays)
        return total

    task = scheduler.task(worker, read, [Reference(n) for n in range(6)], depends=depends)
    assert scheduler.value(worker, task) == float((4 << 20) + 5 * (12 << 20))


def test_a_worker_that_keeps_dying_is_started_again_each_time(scheduler, start_host, eventually):
    host = start_host(n_workers=1)
    for _ in range(12):
        worker = host.worker()
        os.kill(worker.info["pid"], signal.SIGKILL)
        scheduler.message(host.node, "exited")
        scheduler.wait(lambda worker=worker: worker.gone, "its connection ends")
    last = host.worker()
    assert scheduler.value(last, scheduler.task(last, abs, -1)) == 1

    def place():
        (place,) = host.in_loop(host.agent._workers.describe).values()
        return place["state"], place["deaths"], place["last_death"]

    eventually(lambda: place() == ("running", 12, "was killed by SIGKILL"))


def test_a_worker_that_cannot_start_any_more_is_tried_after_growing_pauses_until_it_can(
    scheduler, start_host, eventually, monkeypatch
):
    monkeypatch.setattr(restarts, "FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(restarts, "MAX_PAUSE_SECONDS", 0.5)
    host = start_host(n_workers=1)
    socket_file = Path(host.agent.store.socket_path)
    hidden = socket_file.rename(socket_file.with_name("hidden"))
    os.kill(host.worker().info["pid"], signal.SIGKILL)

    def place():
        return host.in_loop(host.agent._workers.describe)[f"{host.address}/0"]

    eventually(lambda: place()["deaths"] > 4, 30, "it was tried more than once")
    down = eventually(lambda: place() if place()["state"] == "down" else None, what="there is a pause")
    assert "could not start" in down["last_death"]
    assert 0 <= down["next_start_seconds"] <= 0.5
    hidden.rename(socket_file)
    worker = host.worker()
    assert scheduler.value(worker, scheduler.task(worker, abs, -1)) == 1
    eventually(lambda: place()["state"] == "running")


# -- what it can't do


def test_without_a_scheduler_it_does_not_start(start_host, scheduler, monkeypatch):
    monkeypatch.setattr(scheduler_link, "CONNECT_TIMEOUT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    scheduler.address = f"tcp://127.0.0.1:{port}"
    with pytest.raises(ConnectError, match=f"no scheduler answered at tcp://127.0.0.1:{port}"):
        start_host(n_workers=1)


def test_a_port_in_use_is_named(start_host):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConnectError, match=f"port {port} .* in use"):
            start_host(port=port)


def test_a_worker_that_cannot_start_says_why(start_host, monkeypatch):
    fork = forking.Forker.fork_async

    async def with_wrong_token(fork_server, *arguments, **options):
        with handed_down(b"another token " * 3) as token_fd:
            return await fork(fork_server, *arguments, **{**options, "pass_fds": {OPTION: token_fd}})

    monkeypatch.setattr(forking.Forker, "fork_async", with_wrong_token)
    with pytest.raises(Exception, match=r"host-0 could not start: .*token"):
        start_host(n_workers=1)


def test_a_host_that_can_start_no_process_says_so(start_host, monkeypatch):
    def no_process(*arguments, **options):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(forking, "spawn", no_process)
    with pytest.raises(HoldfastError, match=r"host-0 could not be started: .*temporarily unavailable"):
        start_host(n_workers=1)


def test_a_worker_that_cannot_be_started_again_at_once_is_later(start_host, caplog, eventually):
    host = start_host(n_workers=1)
    worker = host.worker()
    fork_server = psutil.Process(worker.info["pid"]).parent()
    eventually(lambda: host.agent._page_maker.pid, what="all is forked that is to be")
    # No room for the descriptors of a request: the fork server says so, and is there for the next one.
    limits = resource.prlimit(fork_server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(fork_server.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    os.kill(worker.info["pid"], signal.SIGKILL)
    eventually(lambda: "Too many open files" in caplog.text)
    resource.prlimit(fork_server.pid, resource.RLIMIT_NOFILE, limits)
    eventually(lambda: worker.gone)
    again = host.worker()
    assert again.info["pid"] != worker.info["pid"]
    assert psutil.Process(again.info["pid"]).parent() == fork_server


# -- its end


@pytest.mark.parametrize("processes", [True, False])
def test_closing_leaves_nothing(scheduler, start_host, processes, eventually):
    host = start_host(n_workers=2, processes=processes)
    pids = [host.worker(index).info["pid"] for index in range(2)]
    directory = host.agent.run_directory.path
    assert directory.exists()
    host.close()
    host.close()
    assert host.agent.finished.is_set()
    assert not directory.exists()
    if processes:
        assert not any(map(alive, pids))
    assert not scheduler.outcomes(host.node, [])
    eventually(lambda: all(peer.gone for peer in scheduler.peers))
    assert not [message for message in host.node.received if message[0] == "exited"]


def test_it_closes_when_the_scheduler_says_so(scheduler, start_host, eventually):
    host = start_host(n_workers=1)
    scheduler.send(host.node, ("close",))
    eventually(host.agent.finished.is_set)
    assert host.agent.reason is None


def test_it_closes_when_the_scheduler_is_gone(scheduler, start_host, eventually):
    host = start_host(n_workers=1)
    scheduler.vanish()
    eventually(host.agent.finished.is_set)
    assert "no scheduler listens" in host.agent.reason


def test_it_closes_when_another_scheduler_answers(scheduler, start_host, eventually):
    host = start_host(n_workers=1)
    scheduler.id = "another"
    scheduler.cut(host.node)
    eventually(host.agent.finished.is_set)
    assert "the scheduler of another cluster answers" in host.agent.reason


@pytest.fixture
def mortal(scheduler):
    """A scheduler that may be started again."""
    scheduler.keep_journal()
    return scheduler


def test_it_joins_the_scheduler_that_goes_on_with_all_that_it_has_and_its_workers_live_on(mortal, start_host):
    host = start_host(n_workers=1)
    worker = host.worker()
    task = mortal.task(worker, np.arange, 100_000)
    _, made = mortal.one(worker, task)
    pid = worker.info["pid"]
    mortal.restart()
    again = mortal.peer(host.address, role="node")
    assert inventory(mortal, again)[made[2]]["label"] == task[6]
    assert again.info == host.node.info
    assert host.worker().info["pid"] == pid
    assert mortal.message(host.worker(), "runs-kept")[1:] == (mortal.epoch, ())


def test_each_scheduler_that_goes_on_is_joined_without_a_pause_for_those_before(mortal, start_host):
    host = start_host(n_workers=0)
    pauses = []
    for _ in range(4):
        mortal.restart()
        mortal.message(mortal.peer(host.address, role="node"), "ready")
        pauses.append(host.in_loop(lambda: host.agent._link._pause))
    assert pauses == [pauses[0]] * 4


def test_workers_that_end_while_there_is_no_scheduler_are_told_of(mortal, start_host, eventually):
    host = start_host(n_workers=1)
    worker = host.worker()
    mortal.die()
    eventually(lambda: host.in_loop(lambda: host.agent._link._connection.is_broken))
    os.kill(worker.info["pid"], signal.SIGKILL)
    eventually(lambda: host.in_loop(lambda: list(host.agent._link._untold)))
    mortal.restart()
    again = mortal.peer(host.address, role="node")
    _, address, reason, *_, incarnation, _ = mortal.message(again, "exited")
    assert (address, incarnation) == (worker.info["address"], worker.info["incarnation"])
    assert "SIGKILL" in reason
    assert mortal.message(host.worker(), "runs-kept")[1:] == (mortal.epoch, ()), "another process has come"


def test_it_waits_for_no_scheduler_longer_than_it_was_told(mortal, start_host, eventually):
    mortal.restart_seconds = 0.5
    mortal.keep_journal()
    host = start_host(n_workers=1)
    pid = host.worker().info["pid"]
    mortal.die()
    eventually(host.agent.finished.is_set)
    assert "has not come back within 0.5 s" in host.agent.reason
    assert not psutil.pid_exists(pid)
    assert not host.agent.run_directory.path.exists()


def test_the_scheduler_of_another_cluster_is_none_to_go_on_with(mortal, start_host, eventually):
    host = start_host(n_workers=1)
    mortal.id = "another"
    mortal.restart()
    eventually(host.agent.finished.is_set)
    assert "the scheduler of another cluster answers" in host.agent.reason


def test_it_closes_when_the_scheduler_is_silent_for_long(scheduler, start_host, eventually, monkeypatch):
    monkeypatch.setattr(scheduler_link, "RECONNECT_SECONDS", 0.2)
    monkeypatch.setattr(scheduler_link, "ATTEMPT_SECONDS", 0.1)
    host = start_host(n_workers=0)
    with scheduler.stopped(host.node):
        eventually(host.agent.finished.is_set)
    assert "no scheduler answered" in host.agent.reason


# -- connections that end


def inventory(scheduler, node):
    """All that a node says it has, once it has said that it was all."""
    scheduler.message(node, "ready")
    said = [has for message in node.received if message[0] == "inventory" for has in message[1]]
    return {has["id"]: {field: value for field, value in has.items() if field != "id"} for has in said}


def test_a_new_host_has_nothing(scheduler, start_host):
    host = start_host()
    assert inventory(scheduler, host.node) == {}


def test_when_its_connection_ends_it_joins_again_with_what_it_has(scheduler, start_host):
    host = start_host(n_workers=1)
    with connect(host.node.info["store_socket"], name="somebody") as store:
        first = store.put(np.ones(1000), key="first")
        gone = store.put(np.ones(1000))
        store.delete(gone)
        scheduler.cut(host.node)
        again = scheduler.peer(host.address, role="node")
        nbytes = store.stats()["object_nbytes"]
        assert inventory(scheduler, again) == {
            bytes(first): {"key": "first", "nbytes": nbytes, "type": "numpy.ndarray", "owner": "somebody"}
        }
    assert again.info == host.node.info
    scheduler.send(again, ("delete", [bytes(first)]))
    scheduler.wait(lambda: host.store_stats()["objects"] == 0, "it does what it is told")


def test_results_are_labelled_with_the_serials_of_their_tasks(scheduler, start_host, eventually):
    host = start_host(n_workers=1)
    worker = host.worker()
    tasks = [scheduler.task(worker, operator.mul, "x", nbytes) for nbytes in (10, 100_000)]
    made = {entry[2]: entry[0] for _, entry in scheduler.run(worker, *tasks).values()}
    eventually(lambda: host.store_stats()["objects"] == 2, what="the small one is stored")
    scheduler.cut(host.node)
    said = inventory(scheduler, scheduler.peer(host.address, role="node"))
    assert {object_id: known["label"] for object_id, known in said.items()} == made


@pytest.mark.parametrize("spilled", [False, True])
def test_references_inside_of_objects_go_where_these_go(scheduler, start_host, eventually, spilled):
    first, second = start_host(store_capacity=32 << 20), start_host(store_capacity=32 << 20)
    inside = ["inner", ("of a collection", 1)]
    with connect(first.node.info["store_socket"], name="first") as store:
        object_id = store.put_encoded(encode(np.ones(500_000)), references=references.pack(inside))
        many = store.put_encoded(encode(1), references=references.pack([f"key-{n}" for n in range(1_000)]))
        if spilled:
            kept = [store.put(np.ones(1_000_000)) for _ in range(5)]
            eventually(lambda: store.stats()["spilled"], what="it is on disk")
            store.delete(kept)
    with connect(second.node.info["store_socket"], name="second") as store:
        for each in (object_id, many):
            store.get(each, timeout=20, sources=[first.address])
    for host in (first, second):
        scheduler.cut(host.node)
        said = inventory(scheduler, scheduler.peer(host.address, role="node"))
        assert list(said[bytes(object_id)]["contains"]) == inside
        assert said[bytes(many)]["contains"] is None  # they are too many


def test_a_long_inventory_is_said_in_pieces(scheduler, start_host):
    host = start_host()
    with connect(host.node.info["store_socket"]) as store:
        made = {bytes(store.put(number)) for number in range(1200)}
        scheduler.cut(host.node)
        again = scheduler.peer(host.address, role="node")
        assert set(inventory(scheduler, again)) == made
    assert [len(message[1]) for message in again.received if message[0] == "inventory"] == [500, 500, 200]


def test_it_joins_again_as_often_as_it_takes_with_growing_pauses(scheduler, start_host):
    host = start_host()
    for _ in range(4):
        scheduler.cut(scheduler.peer(host.address, role="node"))
        scheduler.wait(lambda: all(peer.gone for peer in scheduler.peers[:-1]), "its connection ends")
        inventory(scheduler, scheduler.peer(host.address, role="node"))
    assert len({peer.info["incarnation"] for peer in scheduler.peers}) == 1
    assert host.agent.reason is None


def test_a_worker_that_does_not_end_is_killed(scheduler, start_host, monkeypatch):
    monkeypatch.setattr(supervisor, "STOP_TIMEOUT_SECONDS", 0.3)
    host = start_host(n_workers=1)
    worker = host.worker()

    os.kill(worker.info["pid"], signal.SIGSTOP)
    host.close()
    assert not alive(worker.info["pid"])


def test_a_worker_that_is_stopped_closes_with_the_others(scheduler, start_host, monkeypatch):
    monkeypatch.setattr(supervisor, "STOP_TIMEOUT_SECONDS", 1000.0)
    host = start_host(n_workers=2)
    os.kill(host.worker(1).info["pid"], signal.SIGSTOP)
    host.close()
    assert not any(alive(peer.info["pid"]) for peer in scheduler.peers if peer.role == "worker")


def test_a_launcher_that_hangs_does_not_hold_up_the_end(scheduler, start_host, monkeypatch):
    monkeypatch.setattr(supervisor, "STOP_TIMEOUT_SECONDS", 0.3)
    host = start_host(n_workers=1)
    worker = host.worker()
    fork_server = psutil.Process(worker.info["pid"]).parent()
    fork_server.suspend()
    os.kill(worker.info["pid"], signal.SIGKILL)
    _, _, reason, *_ = scheduler.message(host.node, "exited")
    assert "could not say how" in reason
    host.close()
    assert not alive(fork_server.pid)


def test_a_running_task_does_not_hold_up_the_end(scheduler, start_host):
    host = start_host(n_workers=1)
    worker = host.worker()
    scheduler.send(worker, ("run", [scheduler.task(worker, time.sleep, 60)]))
    started = time.monotonic()
    host.close()
    assert time.monotonic() - started < supervisor.STOP_TIMEOUT_SECONDS


# -- as a process


@pytest.fixture
def agent_process(scheduler):
    arguments = ["--scheduler", scheduler.address, "--workers", "2", "--name", "host"]
    arguments += ["--object-store-memory", str(64 << 20), "--resources", '{"GPU": 2}']
    child = spawn("holdfast.cluster.node", arguments, env={"HOLDFAST_TOKEN": TOKEN.decode()})
    try:
        yield child, child.wait_ready(30)
    finally:
        if child.returncode is None:
            child.kill()
        child.wait()


def test_as_a_process_it_is_ready_when_its_workers_are(scheduler, agent_process):
    child, ready = agent_process
    workers = [peer for peer in scheduler.peers if peer.role == "worker"]
    assert len(workers) == 2
    assert all(worker.info["resources"] == {"GPU": 2} for worker in workers)
    with connect(ready["store_socket"]) as store:
        assert store.get(store.put("here")) == "here"
    child.terminate()
    assert child.wait(10) == 0
    assert not Path(ready["run_directory"]).exists()
    assert not any(alive(worker.info["pid"]) for worker in workers)


def test_when_it_is_killed_its_workers_end_and_clean_up(scheduler, agent_process, eventually):
    child, ready = agent_process
    workers = [peer for peer in scheduler.peers if peer.role == "worker"]
    child.kill()
    eventually(lambda: not any(alive(worker.info["pid"]) for worker in workers))
    eventually(lambda: not Path(ready["run_directory"]).exists())


def test_when_its_scheduler_is_gone_it_exits_with_an_error(scheduler, agent_process, eventually):
    child, ready = agent_process
    scheduler.vanish()
    assert child.wait(10) == LEFT_EXIT_CODE
    assert not Path(ready["run_directory"]).exists()


def test_object_ids_of_results_are_the_stores(scheduler, start_host, eventually):
    host = start_host(n_workers=1)
    worker = host.worker()
    _, made = scheduler.one(worker, scheduler.task(worker, str, "x", key="k"))
    (meta,) = eventually(lambda: list(host.in_loop(host.agent.store.inventory)))
    assert meta.object_id == ObjectID(made[2])
    assert (meta.key, meta.owner, meta.type_name) == ("k", "host-0", "str")
