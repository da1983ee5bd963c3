"""What is done about a scheduler that has died, with processes that do what the test says."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from holdfast.cluster.comm.loops import run
from holdfast.cluster.deploy import scheduler_place
from holdfast.cluster.deploy.scheduler_place import MOST_DEATHS, SchedulerPlace
from holdfast.objectstore.errors import HoldfastError


class Child:
    """A process that ends with the exit codes that it is given: before it is ready, or after."""

    name = "scheduler"
    pid = 1

    def __init__(self, code: int, *, is_ready: bool = True) -> None:
        self.code = code
        self.is_ready = is_ready
        self.killed = False

    async def ready(self, timeout: float) -> dict[str, Any]:
        if not self.is_ready:
            raise HoldfastError("scheduler could not start: it is ill")
        return {}

    async def exited(self) -> int:
        return self.code

    def kill(self) -> None:
        self.killed = True


class Clock:
    """Time that passes only while somebody sleeps."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(scheduler_place, "time", clock)
    monkeypatch.setattr(scheduler_place.asyncio, "sleep", clock.sleep)
    return clock


def lives(children: list[Child], timeout: float = 60.0, *, journal: bool = True) -> tuple[SchedulerPlace, int]:
    """A place in which these processes come one after the other; with how the last one has ended."""
    rest = iter(children)

    async def fork(sock: socket.socket) -> Any:
        assert sock.fileno() >= 0
        return next(rest)

    sock = socket.socket()
    place = SchedulerPlace(next(rest), sock, fork if journal else None, timeout)  # type: ignore[arg-type]
    place.is_ready()

    async def main() -> int:
        return await place.keep(lambda: None)

    code = run(main())
    assert sock.fileno() < 0, "others may listen there"
    return place, code


def test_another_one_goes_on_until_one_is_told_to_close(clock):
    place, code = lives([Child(-9), Child(-9), Child(0)])
    assert code == 0
    assert place.restarts.deaths == 2
    assert place.ended == "scheduler (pid 1) exited with code 0"
    assert not place.was_given_up


@pytest.mark.parametrize("options", [{"journal": False}, {"timeout": 0.0}])
def test_without_a_journal_or_peers_that_wait_the_first_death_is_the_end(clock, options):
    place, code = lives([Child(-9)], **options)
    assert (code, place.was_given_up) == (-9, False)
    assert place.ended == "scheduler (pid 1) was killed by SIGKILL"


def test_one_that_can_not_start_is_tried_for_as_long_as_peers_wait(clock):
    children = [Child(-9), *(Child(1, is_ready=False) for _ in range(50))]
    place, code = lives(children, timeout=3.0)
    assert (code, place.was_given_up) == (1, True)
    assert all(child.killed for child in children[1 : place.restarts.deaths])
    assert clock.now >= 103.0
    assert place.ended is not None
    assert "could not start: it is ill; it is given up after" in place.ended


def test_one_that_dies_again_and_again_is_given_up(clock):
    place, code = lives([Child(-11) for _ in range(2 * MOST_DEATHS)])
    assert (code, place.was_given_up) == (-11, True)
    assert place.restarts.deaths == MOST_DEATHS - 1


def test_one_that_can_not_be_forked_is_tried_again(clock):
    children = iter([Child(-9)])
    forked: list[int] = []

    async def fork(sock: socket.socket) -> Any:
        forked.append(1)
        if len(forked) < 3:
            raise BlockingIOError(11, "no process can be made")
        return Child(0)

    place = SchedulerPlace(next(children), socket.socket(), fork, 60.0)  # type: ignore[arg-type]
    place.is_ready()

    async def main() -> int:
        return await asyncio.wait_for(place.keep(lambda: None), 20)

    assert run(main()) == 0
    assert len(forked) == 3
