"""Events between clients, threads and tasks."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from holdfast import Client, Event
from tests.support.interrupts import Interrupt
from tests.support.waiting import until

DEADLINE_SECONDS = 30


@pytest.fixture
def other(cluster):
    """Another client of the same cluster, which isn't the default."""
    with Client(cluster, set_as_default=False) as other:
        yield other


class TestEvents:
    def test_it_is_set_cleared_and_waited_for(self, run):
        async def case(client, got):
            event = await Event("plain", client=client)
            assert not await got(event.is_set())
            assert not await got(event.wait(timeout=0))
            assert not await got(event.wait(timeout="10 ms"))
            await got(event.set())
            assert await got(Event("plain", client=client).is_set())
            assert await got(event.wait())
            assert await got(event.wait(timeout=0))
            await got(event.clear())
            assert not await got(event.is_set())
            await got(event.clear())
            assert repr(event) == "<Event: 'plain'>"
            assert Event(client=client).name.startswith("event-")

        run(case)

    def test_all_that_wait_go_on(self, client, other):
        event = Event("all")
        waiting = client.map(wait_for, [event] * 5, range(5))
        threads = [threading.Thread(target=Event("all", client=other).wait) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: len(other._core.session._answers) == 3, "they wait")
        event.set()
        for thread in threads:
            thread.join(DEADLINE_SECONDS)
        assert client.gather(waiting) == [(True, number) for number in range(5)]
        event.clear()

    def test_a_task_sets_it_and_it_stays_when_the_client_has_gone(self, cluster, client):
        with Client(cluster, set_as_default=False) as gone:
            gone.submit(set_event, Event("stays", client=gone)).result()
        assert Event("stays").wait(timeout=0)
        Event("stays").clear()

    def test_waits_that_are_given_up_take_no_room(self, run_outside_of_tasks, monkeypatch):
        async def case(client, got):
            if not client.asynchronous:
                return
            for _ in range(1_100):  # more than may wait at a time
                waiting = asyncio.ensure_future(Event("never", client=client).wait())
                await asyncio.sleep(0)
                waiting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await waiting
            assert not await Event("never", client=client).wait(timeout=0.01)

        run_outside_of_tasks(case)

    def test_a_wait_that_is_interrupted_anywhere(self, client):
        event = Event("interrupted")
        event.set()
        at = untouched = 0
        while untouched < 3:
            at += 1
            interrupt = Interrupt("holdfast.c", at)
            with contextlib.suppress(KeyboardInterrupt), interrupt.armed():
                event.wait()
            untouched += interrupt.where is None
        assert at > 10
        assert not client._core.session._answers
        event.clear()


def wait_for(event, number):
    return event.wait(), number


def set_event(event):
    event.set()
