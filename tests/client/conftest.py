from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scripted_scheduler import TOKEN, Peer, ScriptedScheduler

from holdfast import Client, LocalCluster
from tests.support.kinds import KINDS, OUTSIDE, Case, run_in_task, run_outside


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two workers on one host."""
    with LocalCluster(n_workers=2, threads_per_worker=1, object_store_memory="256 MiB") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def two_hosts() -> Iterator[LocalCluster]:
    """Two hosts with a store and a worker each."""
    with LocalCluster(n_workers=2, threads_per_worker=1, n_hosts=2, object_store_memory="128 MiB") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def in_process() -> Iterator[LocalCluster]:
    """Two workers in this process."""
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, object_store_memory="256 MiB") as cluster:
        yield cluster


@pytest.fixture(params=OUTSIDE)
def run_outside_of_tasks(request: pytest.FixtureRequest, cluster: LocalCluster) -> Callable[..., None]:
    """Runs ``case(client, got)`` with a client of each kind outside of tasks, which has the options that are given."""

    def run(case: Case, **options: Any) -> None:
        run_outside(request.param, cluster, case, **options)

    return run


@pytest.fixture(params=KINDS)
def run(request: pytest.FixtureRequest) -> Callable[[Case], None]:
    """Runs ``case(client, got)`` with a client of each kind, also in a task (`tests.support.kinds`)."""

    def run(case: Case) -> None:
        if request.param == "task":
            run_in_task(request.getfixturevalue("in_process"), case)
        else:
            run_outside(request.param, request.getfixturevalue("cluster"), case)

    return run


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster) as client:
        yield client


@pytest.fixture
def remote(cluster: LocalCluster) -> Iterator[Client]:
    """A client as on a host without a store."""
    with Client(cluster, attach=False, set_as_default=False) as client:
        yield client


class Script:
    """A client, and the scheduler that it talks to, which does what the test says."""

    def __init__(self, scheduler: ScriptedScheduler, client: Client) -> None:
        self.scheduler = scheduler
        self.client = client
        self.peer: Peer = scheduler.wait(lambda: scheduler.peers and scheduler.peers[-1], "the client connects")

    def next(self, operation: str) -> tuple[Any, ...]:
        """Take the next message of an operation."""

        def take() -> tuple[Any, ...] | None:
            for index, message in enumerate(self.peer.received):
                if message[0] == operation:
                    return self.peer.received.pop(index)
            return None

        found: tuple[Any, ...] = self.scheduler.wait(take, f"the client sends {operation!r}")
        return found

    def send(self, *messages: tuple[Any, ...], turn: int = 2**32) -> None:
        """Send messages; reports as of a turn, by default one that nothing is too new for."""
        reports = ("memory", "erred", "pending", "cancelled")
        self.scheduler.send(self.peer, *((*m, turn) if m[0] in reports else m for m in messages))

    def answer(self, value: Any, ok: bool = True) -> tuple[Any, ...]:
        """Answer the next request."""
        request = self.next("request")
        self.send(("reply", request[1], ok, value))
        return request


@pytest.fixture
def script() -> Iterator[Script]:
    with ScriptedScheduler() as scheduler, Client(scheduler.address, token=TOKEN, set_as_default=False) as client:
        yield Script(scheduler, client)
