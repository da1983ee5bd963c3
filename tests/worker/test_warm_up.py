"""Warming up before the first task leaves nothing behind, and goes every way that a task goes."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading

import pytest

from holdfast.cluster import protocol
from holdfast.cluster.scheduler.io import warm_up as schedulers
from holdfast.cluster.worker import Worker, warm_up
from holdfast.cluster.worker.execution import TaskRunner
from holdfast.cluster.worker.hearing import Hearing
from holdfast.objectstore import Store, StoreFullError, StoreServer, connect


@pytest.fixture
def outcomes(monkeypatch):
    """What the tasks of this process's workers come to."""
    outcomes = []
    run = TaskRunner.run

    def noting(self, task):
        outcomes.append(run(self, task))
        return outcomes[-1]

    monkeypatch.setattr(TaskRunner, "run", noting)
    return outcomes


@pytest.mark.parametrize("nthreads", [1, 3])
def test_a_worker_warms_up_reading_and_writing_and_leaves_nothing(
    nthreads, outcomes, start_worker, scheduler, server, eventually
):
    worker, peer = start_worker(own_process=True, nthreads=nthreads)
    assert {message for message, _ in outcomes} == {protocol.worker.FINISHED}
    assert {entry[4] is None for _, entry in outcomes} == {True, False}  # small ones and large ones
    eventually(lambda: server.stats()["objects"] == 0, what="the store is empty again")
    assert server.stats()["pins"] == 0
    assert not worker.functions._functions
    assert not worker.functions._blobs
    assert not worker._write_behind._young
    assert not peer.received, "the scheduler hears of it"
    assert scheduler.value(peer, scheduler.task(peer, abs, -1)) == 1


def test_it_goes_the_way_of_a_task_from_socket_to_socket(start_worker, monkeypatch):
    seen = []
    for owner, name in ((Hearing, "on_batch_elsewhere"), (Worker, "_deliver"), (Worker, "_run")):
        method = getattr(owner, name)

        def noting(self, *arguments, name=name, method=method):
            seen.append((name, threading.current_thread().name))
            return method(self, *arguments)

        monkeypatch.setattr(owner, name, noting)
    start_worker(own_process=True)
    thread = "holdfast-task-host-0-0"
    assert {("on_batch_elsewhere", thread), ("_run", thread), ("_deliver", thread)} <= set(seen)


def test_a_worker_that_is_warm_reads_in_the_thread_of_a_task(start_worker, scheduler, eventually):
    worker, peer = start_worker(own_process=True)
    (thread,) = worker._threads.threads
    eventually(lambda: worker._connection._transport._reader == thread.ident, what="it reads before there is a task")
    assert scheduler.value(peer, scheduler.task(peer, abs, -1)) == 1


def test_a_warm_up_that_fails_is_no_failure(start_worker, scheduler, server, monkeypatch):
    put_encoded = Store.put_encoded

    def refuse(*arguments, **options):
        raise StoreFullError("no room")

    monkeypatch.setattr(Store, "put_encoded", refuse)
    _, peer = start_worker(own_process=True)
    monkeypatch.setattr(Store, "put_encoded", put_encoded)
    assert server.stats()["objects"] == 0
    assert scheduler.value(peer, scheduler.task(peer, abs, -1)) == 1


def test_tasks_of_a_warm_up_that_fail_are_no_failure(
    start_worker, scheduler, server, monkeypatch, outcomes, eventually
):
    monkeypatch.setattr(warm_up, "_READ", b"cholfast.nowhere\nread\n.")
    _, peer = start_worker(own_process=True)
    assert [message for message, _ in outcomes] == [protocol.worker.ERRED]
    assert scheduler.value(peer, scheduler.task(peer, abs, -1)) == 1
    eventually(lambda: server.stats()["objects"] == 0, what="the store is empty again")


def test_a_worker_that_does_not_answer_is_no_failure_of_it(store):
    ours, theirs = socket.socketpair()
    ours.close()
    warm_up.warm_up(theirs, store)
    assert theirs.fileno() == -1


def test_a_store_that_is_gone_is_no_failure_of_it():
    with StoreServer("1 MiB") as server:
        store = connect(server.socket_path)
    ours, theirs = socket.socketpair()
    with ours:
        warm_up.warm_up(theirs, store)
    store.close()


def test_workers_that_have_a_process_to_themselves_warm_up_and_others_do_not(
    scheduler, start_worker, server, eventually
):
    _, peer = start_worker()
    assert scheduler.value(peer, scheduler.task(peer, abs, -1)) == 1
    assert server.stats()["sealed"] == 0
    start_worker(1, own_process=True)
    eventually(lambda: server.stats()["sealed"] > 0 and server.stats()["objects"] == 0, what="it has warmed up")


def test_a_scheduler_warms_up_every_way_of_a_task(monkeypatch):
    seen = []
    message_of = schedulers.message_of

    def noting(instruction):
        message = message_of(instruction)
        seen.append(message[0])
        return message

    monkeypatch.setattr(schedulers, "message_of", noting)
    schedulers.warm_up()
    assert {"functions", "run", "memory", "delete", "discard", "forget"} <= set(seen)


def test_what_is_imported_in_the_warm_up_is_not_imported_before_it():
    code = "import sys, holdfast.cluster.worker.__main__; print('holdfast.cluster.worker.warm_up_task' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
