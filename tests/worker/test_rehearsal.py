"""Going through the motions before the first task leaves nothing behind, and goes through all of them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from holdfast.cluster.scheduler import rehearsal as schedulers
from holdfast.cluster.worker.execution import TaskRunner
from holdfast.cluster.worker.functions import FunctionTable
from holdfast.cluster.worker.nursery import Nursery
from holdfast.cluster.worker.rehearsal import rehearse
from holdfast.objectstore import Store, StoreFullError, StoreServer, connect


@pytest.fixture
def parts(store):
    functions = FunctionTable()
    nursery = Nursery(store, "holdfast-nursery-test")
    yield store, functions, nursery, TaskRunner(store, functions, nursery, "test")
    nursery.close()


def test_a_worker_rehearses_reading_and_writing_and_leaves_nothing(parts, server, monkeypatch, eventually):
    outcomes = []
    run = TaskRunner.run

    def noting(self, task):
        outcomes.append(run(self, task))
        return outcomes[-1]

    monkeypatch.setattr(TaskRunner, "run", noting)
    rehearse(*parts)
    assert {operation for operation, _ in outcomes} == {"finished"}
    assert {entry[4] is None for _, entry in outcomes} == {True, False}  # small ones and large ones
    eventually(lambda: server.stats()["objects"] == 0, what="the store is empty again")
    assert server.stats()["pins"] == 0
    _, functions, nursery, _ = parts
    assert not functions._functions
    assert not functions._blobs
    assert not nursery._young


def test_a_rehearsal_that_fails_is_no_failure(parts, server, monkeypatch):
    def refuse(*arguments, **options):
        raise StoreFullError("no room")

    monkeypatch.setattr(Store, "put_encoded", refuse)
    rehearse(*parts)
    assert server.stats()["objects"] == 0


def test_a_store_that_is_gone_is_no_failure_of_it():
    with StoreServer("1 MiB") as server:
        store = connect(server.socket_path)
        functions, nursery = FunctionTable(), Nursery(store, "holdfast-nursery-test")
    rehearse(store, functions, nursery, TaskRunner(store, functions, nursery, "test"))
    nursery.close()
    store.close()


def test_workers_that_have_a_process_to_themselves_rehearse_and_others_do_not(
    scheduler, start_worker, server, eventually
):
    _, peer = start_worker()
    assert scheduler.value(peer, scheduler.task(peer, abs, -1)) == 1
    assert server.stats()["sealed"] == 0
    start_worker(1, own_process=True)
    eventually(lambda: server.stats()["sealed"] > 0 and server.stats()["objects"] == 0, what="it has rehearsed")


def test_a_scheduler_rehearses_every_way_of_a_task(monkeypatch):
    seen = []
    message_of = schedulers.message_of

    def noting(instruction):
        message = message_of(instruction)
        seen.append(message[0])
        return message

    monkeypatch.setattr(schedulers, "message_of", noting)
    schedulers.rehearse()
    assert {"functions", "run", "memory", "delete", "discard", "forget"} <= set(seen)


def test_what_is_imported_in_the_rehearsal_is_not_imported_before_it():
    code = "import sys, holdfast.cluster.worker.__main__; print('holdfast.cluster.worker.practice' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
