"""A process of the lowest priority makes the pages of a host's store; without it the store makes them itself."""

from __future__ import annotations

import os
import signal

import numpy as np
import psutil
import pytest

from holdfast.cluster.processes import restarts
from holdfast.objectstore import connect
from holdfast.objectstore.memory.arena import Arena

CAPACITY = 64 << 20
HEADROOM = CAPACITY // 4
#: What has the lowest priority hardly gets on while the machine is busy.
PATIENCE_SECONDS = 90


@pytest.fixture
def host(start_host, eventually):
    host = start_host(n_workers=1, store_capacity=CAPACITY)
    eventually(lambda: host.agent._page_maker.pid, what="the page maker is there")
    return host


def maker_of(host):
    return psutil.Process(host.agent._page_maker.pid)


def resident(host):
    return os.fstat(host.agent.store.arena_fd).st_blocks * 512


def use(host):
    with connect(host.node.info["store_socket"]) as store:
        store.stats()


def test_it_makes_the_headroom_and_nobody_else_does(host, eventually):
    use(host)
    eventually(lambda: resident(host) >= HEADROOM, PATIENCE_SECONDS, "the headroom is made")
    assert os.sched_getscheduler(maker_of(host).pid) == os.SCHED_IDLE
    assert any("page_maker" in word for word in maker_of(host).cmdline())


def test_the_agents_own_process_makes_none(host, monkeypatch, eventually):
    def refuse(self, *arguments):
        raise AssertionError("the agent makes pages")

    monkeypatch.setattr(Arena, "make_huge_page", refuse)
    monkeypatch.setattr(Arena, "populate", refuse)
    with connect(host.node.info["store_socket"]) as store:
        array = np.ones(10 << 20, "u1")
        store.put(array)
        filled = HEADROOM + array.nbytes
        eventually(lambda: resident(host) >= filled, PATIENCE_SECONDS, "what was used is made up for")


def test_when_it_is_killed_the_store_makes_its_pages_itself(host, monkeypatch, eventually, caplog):
    monkeypatch.setattr(restarts, "FIRST_PAUSE_SECONDS", 600.0)
    monkeypatch.setattr(restarts, "MAX_PAUSE_SECONDS", 600.0)
    maker_of(host).kill()
    eventually(lambda: host.agent._page_maker.pid is None, what="it is known to be gone")
    use(host)
    eventually(lambda: resident(host) >= HEADROOM, what="the headroom is made")
    assert "the page maker was killed by SIGKILL: the store makes its pages itself for 6e+02 s" in caplog.text


def test_and_another_one_is_started(host, eventually):
    killed = maker_of(host)
    killed.kill()
    eventually(lambda: host.agent._page_maker.pid not in (None, killed.pid), what="there is another one")
    use(host)
    eventually(lambda: resident(host) >= HEADROOM, PATIENCE_SECONDS, "the headroom is made")
    # The store may have made the headroom before the new one has come to say how it is to be scheduled.
    eventually(lambda: os.sched_getscheduler(maker_of(host).pid) == os.SCHED_IDLE, what="it is of the idle class")


def test_one_that_does_not_come_to_it_keeps_nobody_waiting(host, eventually):
    maker_of(host).send_signal(signal.SIGSTOP)
    headroom = host.agent.store._upkeep.headroom
    host.in_loop(headroom.pause)
    host.in_loop(headroom.touch)
    eventually(lambda: headroom._thread is not None, what="a pass has begun")
    host.in_loop(headroom.pause)
    assert not headroom.busy
    maker_of(host).send_signal(signal.SIGCONT)
    host.in_loop(headroom.touch)
    eventually(lambda: resident(host) >= HEADROOM, PATIENCE_SECONDS, "the headroom is made")


def test_hosts_whose_workers_are_threads_have_none(start_host, eventually):
    host = start_host(n_workers=1, processes=False, store_capacity=CAPACITY)
    use(host)
    assert host.agent._page_maker is None
    eventually(lambda: resident(host) >= HEADROOM, what="the headroom is made")
