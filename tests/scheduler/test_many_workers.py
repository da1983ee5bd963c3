"""What a task costs does not grow with the number of workers that have nothing to do.

Work is counted in calls of Python functions, which nothing else on the machine changes.
"""

from __future__ import annotations

import sys

import pytest

from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.instructions import RunTasks

FUNCTION = b"f" * 16
LARGE = 1 << 40  # bytes that no host would bring from another one
FEW, MANY = 10, 200
CHAINS, LENGTH = 5, 20


class Cluster:
    """A state machine, hosts with a worker each, and a client."""

    def __init__(self, hosts):
        self.state = SchedulerState()
        self.calls = 0
        self.sent = {}
        self.now = 0.0
        for number in range(hosts):
            address = f"tcp://host{number}:1"
            self.handle(events.HostJoined(address, {"hostname": f"host{number}", "capacity": 1 << 60}))
            self.handle(events.HostReady(address))
            self.handle(events.WorkerJoined(f"{address}/0", f"worker-{number}", address, 1, {}))
        self.handle(events.ClientJoined("client", "client"))
        self.handle(events.FunctionsSent("client", [(FUNCTION, b"function")]))
        self.calls = 0

    def handle(self, event):
        def count(frame, what, argument):
            self.calls += what == "call"

        sys.setprofile(count)
        try:
            instructions = self.state.handle(event, self.now)
            while self.state.life.follow_up.has_more:
                instructions += self.state.handle(events.TimePassed(), self.now)
        finally:
            sys.setprofile(None)
        for instruction in instructions:
            if type(instruction) is RunTasks:
                self.sent.setdefault(instruction.peer, []).extend(instruction.items)

    def submit(self, tasks, **options):
        entries = [(key, FUNCTION, b"", reads) for key, reads in tasks.items()]
        self.handle(events.TasksSubmitted("client", entries, None, options))

    def finish(self, worker, nbytes, seconds=1.0):
        """The worker ends the first of its runs."""
        entry = self.sent[worker].pop(0)
        if not self.sent[worker]:
            del self.sent[worker]
        self.now += 0.01
        result = (entry[6], entry[1], entry[6].to_bytes(16, "big"), nbytes, None, "bytes", seconds)
        self.handle(events.TasksFinished(worker, [result]))
        return entry[0]


def chains(hosts):
    """How many calls some chains take, each task of which is ready for the host of the one before."""
    cluster = Cluster(hosts)
    cluster.submit({f"k{c}-{n}": (f"k{c}-{n - 1}",) if n else () for c in range(CHAINS) for n in range(LENGTH)})
    while cluster.sent:
        cluster.finish(next(iter(cluster.sent)), 1_000_000)
    assert {task.state for task in cluster.state.tasks.values()} == {"memory"}
    return cluster.calls


def tasks_that_wait_for_a_busy_host(hosts):
    """How many calls tasks take that run elsewhere, while others wait for a host that has what these read."""
    cluster = Cluster(hosts)
    cluster.submit({"data": ()})
    (worker,) = cluster.sent
    cluster.finish(worker, LARGE)
    cluster.submit({f"reader{n}": ("data",) for n in range(10)})
    assert list(cluster.sent) == [worker]
    cluster.calls = 0
    for n in range(CHAINS * LENGTH):
        cluster.submit({f"other{n}": ()})
        (other,) = (name for name in cluster.sent if name != worker)
        assert cluster.finish(other, 0) == f"other{n}"
    assert list(cluster.sent) == [worker]
    return cluster.calls


@pytest.mark.parametrize("work", [chains, tasks_that_wait_for_a_busy_host])
def test_idle_workers_cost_a_task_nothing(work):
    few, many = work(FEW), work(MANY)
    assert many <= few + 3 * CHAINS * LENGTH


def test_a_task_that_waits_for_a_busy_host_goes_to_one_that_has_its_data_too():
    """Whichever of the idle ones comes first, and has none of it."""
    cluster = Cluster(MANY)
    cluster.submit({"data": ()})
    (worker,) = cluster.sent
    cluster.finish(worker, LARGE)
    (task,) = cluster.state.tasks.values()
    cluster.submit({"reader0": ("data",)})
    copy = f"tcp://host{MANY // 2}:1"
    cluster.handle(events.ObjectsFound(copy, [task.object_id]))
    cluster.submit({"reader1": ("data",)})
    assert sorted(cluster.sent) == sorted([worker, f"{copy}/0"])


def test_all_hosts_that_have_too_much_to_do_give_some_of_it_away():
    """However many there are: not all of them are looked at each time."""
    hosts = 40
    cluster = Cluster(hosts)
    cluster.submit({f"data{n}": () for n in range(hosts // 2)})
    workers = list(cluster.sent)
    for worker in workers:
        cluster.finish(worker, 1_000_000, 100.0)
    for number in range(hosts // 2):  # two tasks for each host that has data; the second one has to wait there
        cluster.submit({f"reader{number}-{n}": (f"data{number}",) for n in range(2)})
    assert len(cluster.sent) == hosts
