"""What a client has of locks, queues and variables is its own while its connection breaks and is taken up again."""

from __future__ import annotations

import random
import threading

import pytest
from cutting_proxy import CuttingProxy

from holdfast import Client, Lock, Queue, Variable
from tests.support.waiting import until

DEADLINE_SECONDS = 30


@pytest.fixture
def link(cluster):
    """A way to the scheduler that can be cut."""
    with CuttingProxy(cluster.scheduler_address, random.Random(0)) as link:
        yield link


@pytest.fixture
def behind(cluster, link):
    """A client that takes that way."""
    with Client(link.address, token=cluster.token, set_as_default=False) as behind:
        yield behind


def test_a_lock_stays_with_a_client_that_comes_back(client, link, behind):
    lock = Lock("cut", client=behind)
    lock.acquire()
    waiting = threading.Thread(target=lambda: Lock("cut 2", client=behind).acquire())
    with Lock("cut 2"):
        waiting.start()
        until(lambda: behind._core.session._answers, "it waits")
        assert link.cut()
        assert not Lock("cut").acquire(timeout=0.05)
        assert lock.locked()
    waiting.join(DEADLINE_SECONDS)
    assert not waiting.is_alive()
    assert Lock("cut 2").locked()
    lock.release()
    assert Lock("cut").acquire(timeout=DEADLINE_SECONDS)


def test_items_come_once_and_in_order_however_often_it_is_cut(client, link, behind):
    here, there = Queue("items"), Queue("items", client=behind)
    taken = []

    def take():
        while (item := there.get(timeout=DEADLINE_SECONDS)) is not None:
            taken.append(item)

    taking = threading.Thread(target=take)
    taking.start()
    for number in range(60):
        here.put(number)
        if number % 20 == 10:
            until(lambda n=number: len(taken) >= n - 5, "it takes some")
            link.cut()
    here.put(None)
    taking.join(DEADLINE_SECONDS)
    assert taken == list(range(60))


def test_what_is_put_and_set_arrives_once(client, link, behind):
    queue, variable = Queue("arrives", client=behind), Variable("arrives", client=behind)
    for number in range(30):
        if number % 10 == 5:
            link.cut()
        queue.put(behind.submit(abs, -number, pure=False) if number % 3 else number)
        variable.set(number)
    taken = Queue("arrives").get(batch=30, timeout=DEADLINE_SECONDS)
    values = [each.result(timeout=DEADLINE_SECONDS) if hasattr(each, "result") else each for each in taken]
    assert values == list(range(30))
    assert Queue("arrives").qsize() == 0
    assert Variable("arrives").get() == 29
    Variable("arrives").delete()
