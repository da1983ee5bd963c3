"""Workers that come to a host and go from it while it runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from holdfast.cluster import protocol
from holdfast.cluster.node import supervisor
from holdfast.cluster.node.worker_plan import WorkerPlan
from holdfast.objectstore.errors import HoldfastError


def places(message: Any) -> list[str]:
    return [name for _, name, _, _ in message[1]]


def test_the_scheduler_has_it_keep_more_workers_and_close_some(scheduler: Any, start_host: Any) -> None:
    host = start_host(n_workers=1, resources={"GPU": 1})
    scheduler.send(host.node, protocol.node.ADD_WORKERS([0, 4]))
    assert places(scheduler.message(host.node, "places")) == ["host-0", "host-4"]
    worker = host.worker(4)
    assert (worker.info["name"], worker.info["resources"]) == ("host-4", {"GPU": 1})
    assert scheduler.value(worker, scheduler.task(worker, pow, 2, 5)) == 32
    pid = host.worker(0).info["pid"]
    scheduler.send(host.node, protocol.node.REMOVE_WORKERS([f"{host.address}/0", "tcp://unknown:1/7"]))
    assert places(scheduler.message(host.node, "places")) == ["host-4"]
    _, address, reason, running, crashed, fault, asked, incarnation, log = scheduler.message(host.node, "exited")
    assert (address, reason, list(running), crashed) == (f"{host.address}/0", "was closed", [], None)
    assert (fault, asked, incarnation, log) == (False, True, 1, "")
    assert not Path(f"/proc/{pid}").exists()
    assert list(host.in_loop(host.agent.workers.describe)) == [f"{host.address}/4"]


def test_a_worker_that_was_added_is_started_again_and_one_that_was_closed_is_not(
    scheduler: Any, start_host: Any
) -> None:
    host = start_host(n_workers=0)
    scheduler.send(host.node, protocol.node.ADD_WORKERS([1]))
    pid = host.worker(1).info["pid"]
    os.kill(pid, 9)
    until(lambda: host.worker(1).info["pid"] != pid, "another one is there")
    scheduler.send(host.node, protocol.node.REMOVE_WORKERS([f"{host.address}/1"]))
    until(lambda: host.in_loop(lambda: dict(host.agent.workers.pids)) == {}, "it is gone")


@pytest.mark.parametrize("in_process", [True, False])
def test_each_worker_may_be_another_one(scheduler: Any, start_host: Any, in_process: bool) -> None:
    host = start_host(n_workers=0)
    workers = host.agent.workers
    plan = WorkerPlan(3, "big", nthreads=2, resources={"GPU": 2}, in_process=in_process)
    assert host.thread.run(workers.add(plan), 60) == f"{host.address}/3"
    assert scheduler.message(host.node, "places")[1] == ((f"{host.address}/3", "big", 2, {"GPU": 2}),)
    info = host.worker(3).info
    assert (info["name"], info["nthreads"]) == ("big", 2)
    assert (info["pid"] == os.getpid()) == in_process
    with pytest.raises(ValueError, match="already"):
        host.thread.run(workers.add(plan), 60)
    host.thread.run(workers.remove(f"{host.address}/3"), 60)
    assert scheduler.message(host.node, "places")[1] == ()
    assert scheduler.message(host.node, "exited")[2] == "was closed"
    assert host.thread.run(workers.add(plan), 60) == f"{host.address}/3"


def test_one_that_can_not_start_is_forgotten(scheduler: Any, start_host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "READY_TIMEOUT_SECONDS", 1e-3)
    host = start_host(n_workers=0)
    plan = WorkerPlan(0, "broken")
    with pytest.raises(HoldfastError, match="broken"):
        host.thread.run(host.agent.workers.add(plan), 60)
    assert host.in_loop(host.agent.workers.places) == []


def test_the_environment_of_a_worker_is_its_own(scheduler: Any, start_host: Any) -> None:
    host = start_host(n_workers=1, environment={"ONLY_THERE": "yes"})
    worker = host.worker()
    assert scheduler.value(worker, scheduler.task(worker, os.getenv, "ONLY_THERE")) == "yes"
    assert "ONLY_THERE" not in os.environ
