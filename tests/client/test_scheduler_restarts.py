"""The scheduler is killed, and another one goes on: what clients wait for comes, and what they say counts once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import threading

import pytest
import uvloop
from mortal_scheduler import TOKEN, MortalScheduler
from waiting import until

from holdfast import Client, Event, Lock, Queue, Semaphore, Variable
from holdfast.cluster.errors import ConnectError


@pytest.fixture(autouse=True)
def token(monkeypatch):
    monkeypatch.setenv("HOLDFAST_TOKEN", TOKEN)


@pytest.fixture(params=["port kept", "port free"])
def scheduler(request, tmp_path):
    with MortalScheduler(tmp_path / "state", keeps_port=request.param == "port kept") as scheduler:
        yield scheduler


@pytest.fixture
def client(scheduler):
    with Client(scheduler.address, timeout=30) as client:
        yield client


@pytest.fixture
def other(scheduler):
    with Client(scheduler.address, timeout=30, set_as_default=False) as client:
        yield client


class Waiting(threading.Thread):
    """Calls something that waits."""

    def __init__(self, call):
        super().__init__(daemon=True)
        self._call = call
        self.result = self.error = None
        self.start()

    def run(self):
        try:
            self.result = self._call()
        except BaseException as error:
            self.error = error

    def value(self):
        self.join(30)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.result


def is_broken(client):
    return client._core.session.transport.connection.is_broken


def asks(client):
    """Whether something waits for an answer of the scheduler's."""
    return bool(client._core.session._answers)


def test_what_waits_for_others_goes_on(scheduler, client, other):
    """In a queue, at a lock, a semaphore, an event and a variable."""
    lock, semaphore = Lock("lock", client=client), Semaphore(1, "semaphore", client=client)
    assert lock.acquire()
    assert semaphore.acquire()
    waiting = [
        Waiting(Queue("queue", client=other).get),
        Waiting(Lock("lock", client=other).acquire),
        Waiting(Semaphore(1, "semaphore", client=other).acquire),
        Waiting(Event("event", client=other).wait),
        Waiting(Variable("variable", client=other).get),
    ]
    until(lambda: len(other._core.session._answers) == 5)
    for _ in range(2):
        scheduler.restart()
        assert client.get_metadata(["nothing"], None) is None
        assert all(each.is_alive() for each in waiting)
    Queue("queue", client=client).put(1)
    lock.release()
    semaphore.release()
    Event("event", client=client).set()
    Variable("variable", client=client).set(2)
    assert [each.value() for each in waiting] == [1, True, True, True, 2]


def test_what_is_asked_while_no_scheduler_is_there_is_answered_by_the_next(scheduler, client):
    client.set_metadata(["a"], 1)
    scheduler.kill()
    asked = Waiting(lambda: client.get_metadata(["a"]))
    said = Waiting(lambda: client.set_metadata(["b"], 2))
    until(lambda: is_broken(client))
    scheduler.begin()
    assert asked.value() == 1
    said.value()
    assert client.get_metadata(["b"]) == 2


def test_items_come_once_and_in_order_whatever_schedulers_die(scheduler, client, other):
    count = 300
    queue = Queue("queue", client=client)

    def put():
        for number in range(count):
            queue.put(number)

    def get():
        there = Queue("queue", client=other)
        return [there.get() for _ in range(count)]

    putting, getting = Waiting(put), Waiting(get)
    for _ in range(3):
        scheduler.restart()
        assert client.get_metadata(["nothing"], None) is None
    putting.value()
    assert getting.value() == list(range(count))


WAYS = {
    "one": lambda queue: [queue.get()],
    "one, for a moment": lambda queue: [queue.get(timeout="10 ms")],
    "one, without waiting": lambda queue: [queue.get(timeout=0)],
    "what is there": lambda queue: queue.get(batch=True),
}


@pytest.mark.parametrize("ways", [["one", "what is there"], list(WAYS)], ids=["with patience", "in all ways"])
def test_each_item_is_got_once_by_whatever_client_and_whenever_schedulers_die(scheduler, client, ways):
    """One client after the other gets the next items. In order, if none of them gives an item back."""
    count, chance = 400, random.Random(0)
    getters = [Client(scheduler.address, timeout=30, set_as_default=False) for _ in range(3)]
    over = threading.Event()
    got = []

    def put():
        queue = Queue("queue", client=client)
        for number in range(count):
            queue.put(number)
            over.wait(0.02 * chance.random() ** 4)

    def get():
        try:
            while len(got) < count:
                with contextlib.suppress(TimeoutError):
                    got.extend(WAYS[chance.choice(ways)](Queue("queue", client=chance.choice(getters))))
                if ways != list(WAYS):
                    assert got == list(range(len(got)))
        finally:
            over.set()

    try:
        putting, getting = Waiting(put), Waiting(get)
        pauses = random.Random(1)
        while not over.wait(0.2 + 0.5 * pauses.random()):  # whatever they are doing then
            scheduler.restart()
        getting.value()
        putting.value()
        assert sorted(got) == list(range(count))
    finally:
        for getter in getters:
            getter.close()


def test_data_without_a_place_is_told_of_when_its_node_is_gone(scheduler, client):
    """There is no node: what was submitted waits, before and after."""
    futures = client.map(abs, range(-1200, 0))
    scheduler.restart()
    assert client.get_metadata(["nothing"], None) is None
    assert {future.status for future in futures} == {"pending"}
    assert len(client.who_has()) == 0
    del futures


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_an_asynchronous_client_goes_on(scheduler, new_loop):
    async def main():
        async with Client(scheduler.address, asynchronous=True, timeout=30) as client:
            await client.set_metadata(["a"], 1)
            getting = asyncio.ensure_future(Queue("queue", client=client).get())
            await asyncio.sleep(0)
            await asyncio.to_thread(scheduler.restart)
            assert await client.get_metadata(["a"]) == 1
            await Queue("queue", client=client).put(5)
            assert await asyncio.wait_for(getting, 30) == 5

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


def test_a_timeout_counts_while_no_scheduler_is_there(scheduler, client):
    future = client.submit(abs, -1)
    assert client.get_metadata(["nothing"], None) is None
    scheduler.kill()
    until(lambda: is_broken(client))
    with pytest.raises(TimeoutError):
        future.result(timeout=0.2)
    with pytest.raises(TimeoutError):
        Queue("queue", client=client).get(timeout=0.2)
    with pytest.raises(TimeoutError):
        client.wait_for_workers(1, timeout=0.2)


def test_a_client_may_be_closed_while_no_scheduler_is_there(scheduler, other):
    client = Client(scheduler.address, timeout=30)
    future = client.submit(abs, -1)
    waiting = Waiting(future.result)
    scheduler.kill()
    until(lambda: is_broken(client))
    client.close()
    with pytest.raises(BaseException, match="closed"):
        waiting.value()
    # The next scheduler never hears of it, and lets go of what it held.
    scheduler.begin()
    assert other.get_metadata(["nothing"], None) is None


def test_ctrl_c_is_heard_while_no_scheduler_is_there(scheduler, client):
    future = client.submit(abs, -1)
    scheduler.kill()
    until(lambda: is_broken(client))
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        future.result()
    scheduler.begin()
    assert client.get_metadata(["nothing"], None) is None


def test_a_fork_is_told_whose_client_it_is_while_no_scheduler_is_there(scheduler, client):
    scheduler.kill()
    until(lambda: is_broken(client))
    pid = os.fork()
    if pid == 0:
        try:
            client.get_metadata(["nothing"], None)
        except ConnectError as error:
            os._exit(0 if "belongs to the parent" in str(error) else 1)
        os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    scheduler.begin()
    assert client.get_metadata(["nothing"], None) is None


def test_after_the_time_to_wait_everything_says_that_the_scheduler_has_not_come_back(tmp_path):
    with MortalScheduler(tmp_path / "state", environment={"HOLDFAST_SCHEDULER_TIMEOUT": "0.5"}) as scheduler:
        client = Client(scheduler.address, timeout=30)
        with client:
            client._core.session.transport.connection.session.terms = (
                client._core.session.transport.connection.session.terms._replace(seconds=0.0)
            )
            future = client.submit(abs, -1)
            waiting = [
                Waiting(future.result),
                Waiting(Queue("queue", client=client).get),
                Waiting(lambda: client.gather([future])),
                Waiting(lambda: client.wait_for_workers(1)),
            ]
            until(lambda: len(client._core.session._answers) >= 2)
            scheduler.kill()
            for each in waiting:
                with pytest.raises(ConnectError, match=r"has not come back within 0.5 s") as caught:
                    each.value()
                assert scheduler.address in str(caught.value)
            with pytest.raises(ConnectError, match="has not come back"):
                client.submit(abs, 1)
