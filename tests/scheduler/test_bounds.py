"""No event keeps the scheduler for longer than others, however much it is about: what is left over is done in steps.

Work is counted in calls of Python functions, which nothing else on the machine changes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from holdfast.cluster.errors import ObjectLostError
from holdfast.cluster.failures import dumping
from holdfast.cluster.protocol import requests
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks import events, lifecycle

LIMIT = 40
FEW, MANY = 500, 2_000
FUNCTION = b"f" * 16
HOST, OTHER = "tcp://host0:1", "tcp://host1:1"
WORKER = f"{HOST}/0"


class Cluster:
    """A state machine, and a client."""

    def __init__(self, *, workers: int = 1, **options) -> None:
        self.state = SchedulerState(follow_up_limit=LIMIT, **options)
        self.now = 0.0
        self.handle(events.ClientJoined("client", "client"))
        self.handle(events.FunctionsSent("client", [(FUNCTION, b"function")]))
        for host in (HOST, OTHER):
            self.handle(events.HostJoined(host, {"hostname": host[6:11], "capacity": 1 << 40}))
            self.handle(events.HostReady(host))
        if workers:
            self.handle(joined())

    def handle(self, event):
        """Handle an event, and see to all that it leaves over; how many functions the longest turn of these calls."""
        longest = 0
        while True:
            calls = 0

            def count(frame, what, argument):
                nonlocal calls
                calls += what == "call"

            sys.setprofile(count)
            try:
                self.state.handle(event, self.now)
            finally:
                sys.setprofile(None)
            longest, event = max(longest, calls), events.TimePassed()
            due = self.state.next_deadline
            if due is None or due > self.now:
                return longest

    def submit(self, tasks, wants=None, **options):
        entries = [(key, FUNCTION, b"", reads) for key, reads in tasks.items()]
        self.handle(events.TasksSubmitted("client", entries, wants, options))
        return self

    def release(self, keys):
        for key in keys:
            self.handle(events.KeysReleased("client", [key]))
        return self

    def scatter(self, count):
        """All on one host."""
        for n in range(count):
            entry = (f"k{n}", n.to_bytes(16, "big"), 1_000, "bytes", HOST, None)
            self.handle(events.ObjectsScattered("client", [entry]))
        return self

    def finished(self, key, seconds=0.01):
        task = self.state.tasks[key]
        result = (task.serial, task.run_id, task.serial.to_bytes(16, "little"), 1_000, None, "bytes", seconds)
        return events.TasksFinished(WORKER, [result])

    def run_all(self):
        """One task after the other, as long as there are some."""
        worker = self.state.workers[WORKER]
        while worker.runs:
            self.handle(self.finished(next(iter(worker.runs.values())).task.key))
        return self

    @property
    def states(self):
        return {task.state for task in self.state.tasks.values()}


def joined(nthreads=1, **resources):
    return events.WorkerJoined(WORKER, "worker", HOST, nthreads, resources)


def independent(count):
    return {f"k{n}": () for n in range(count)}


def below_one(count):
    return {"root": (), **{f"k{n}": ("root",) for n in range(count)}}


def chain(count):
    return {f"k{n}": (f"k{n - 1}",) if n else () for n in range(count)}


#: Gives a cluster, an event that is about so many tasks, and the states of all tasks in the end.
Case = Callable[[int], tuple[Cluster, events.Event, set[str]]]
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


LOST = events.HostLeft(HOST, "lost")


@case
def data_of_a_host_that_is_lost(count):
    return Cluster(patience_seconds=0.0).scatter(count), LOST, {"erred"}


@case
def data_of_a_host_that_may_come_back(count):
    return Cluster().scatter(count), LOST, {"lost"}


@case
def data_whose_host_has_not_come_back(count):
    cluster = Cluster().scatter(count)
    cluster.handle(LOST)
    cluster.now = 1e6
    return cluster, events.TimePassed(), {"erred"}


@case
def results_of_a_host_that_is_lost(count):
    return Cluster().submit(independent(count)).run_all(), LOST, {"no-worker"}


@case
def a_chain_of_which_the_last_result_is_lost(count):
    names = chain(count)
    cluster = Cluster().submit(names, wants=list(names)[-1:])
    return cluster.run_all(), LOST, {"no-worker", "waiting"}


@case
def tasks_that_wait_again_for_one_that_is_lost(count):
    cluster = Cluster().submit(below_one(count))
    cluster.handle(cluster.finished("root"))
    return cluster, LOST, {"no-worker", "waiting"}


@case
def ready_tasks_whose_last_worker_goes(count):
    return Cluster().submit(independent(count)), LOST, {"no-worker"}


@case
def tasks_whose_first_worker_comes(count):
    return Cluster(workers=0).submit(independent(count)), joined(), {"ready", "processing"}


@case
def short_tasks_and_a_worker_that_has_room_for_all(count):
    cluster = Cluster().submit({"k0": ()})
    cluster.handle(cluster.finished("k0", 1e-6))
    cluster.handle(LOST)
    cluster.handle(events.HostJoined(HOST, {"hostname": "host0", "capacity": 1 << 40}))
    cluster.submit(independent(count))
    return cluster, joined(nthreads=64), {"processing"}


@case
def tasks_with_resources_whose_first_worker_comes(count):
    cluster = Cluster(workers=0).submit(independent(count), resources={"gpu": 1.0})
    return cluster, joined(gpu=1.0), {"ready", "processing"}


@case
def tasks_that_have_waited_for_too_long(count):
    cluster = Cluster(workers=0).submit(independent(count))
    cluster.now = 1e6
    return cluster, events.TimePassed(), {"erred"}


@case
def tasks_that_are_cancelled_with_one(count):
    return Cluster().submit(below_one(count)), events.KeysCancelled("client", ["root"], False), set()


@case
def tasks_that_are_cancelled_and_ended_with_one(count):
    return Cluster().submit(below_one(count)), events.KeysCancelled("client", ["root"], False, 1), set()


@case
def a_chain_that_is_cancelled(count):
    return Cluster().submit(chain(count)), events.KeysCancelled("client", ["k0"], False), set()


@case
def tasks_that_one_makes_ready(count):
    cluster = Cluster().submit(below_one(count))
    return cluster, cluster.finished("root"), {"memory", "ready", "processing"}


@case
def tasks_that_fail_with_one(count):
    cluster = Cluster().submit(below_one(count))
    root = cluster.state.tasks["root"]
    return cluster, events.TasksErred(WORKER, [(root.serial, root.run_id, b"", "failed", 0.01)]), {"erred"}


@case
def a_client_that_leaves(count):
    return Cluster().submit(independent(count)), events.ClientLeft("client"), set()


@case
def a_chain_whose_result_is_let_go(count):
    names = list(chain(count))
    cluster = Cluster().submit(chain(count), wants=names[-1:])
    return cluster, events.KeysReleased("client", names[-1:]), set()


@case
def a_dataset_that_is_unpublished(count):
    cluster = Cluster().submit(independent(count))
    dataset = ("name", b"data", list(independent(count)), {})
    cluster.handle(events.Requested("client", 1, *requests.PUBLISH(datasets=[dataset])))
    cluster.release(independent(count))
    return cluster, events.Requested("client", 2, *requests.UNPUBLISH(name="name")), set()


@case
def a_cluster_that_is_restarted(count):
    cluster = Cluster().submit(independent(count))
    return cluster, events.Requested("client", 1, *requests.RESTART(timeout=60.0)), set()


@case
def a_host_that_is_retired(count):
    asked = requests.RETIRE_WORKERS(workers=[WORKER], close_workers=True, close_hosts=True)
    return Cluster().scatter(count), events.Requested("client", 1, *asked), {"memory"}


@pytest.mark.parametrize("name", CASES)
def test_an_event_takes_no_longer_if_it_is_about_more(name, monkeypatch):
    longest = []
    monkeypatch.setattr(lifecycle, "SENT_AT_ONCE", LIMIT)
    for count in (FEW, MANY):
        cluster, event, states = CASES[name](count)
        longest.append(cluster.handle(event))
        assert cluster.states == states
    assert longest[1] < 1.2 * longest[0] + 50


def test_data_that_is_lost_is_told_of_without_pickling_an_error_for_each(monkeypatch):
    """Its class and its text say all of it, and a million objects may be lost together."""
    monkeypatch.setattr(dumping, "dump_exception", None)
    cluster = Cluster(patience_seconds=0.0).scatter(3)
    cluster.state.handle(LOST, 0.0)
    errors = [cluster.state.tasks[key].error for key in independent(3)]
    assert [error.raised for error in errors] == [ObjectLostError.__name__] * 3
    assert all(key in error.text for key, error in zip(independent(3), errors, strict=True))
