"""What an agent says that a worker is doing: real processes, and a clock of the test's."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import until

from holdfast.cluster.clock import ListeningClock
from holdfast.cluster.node.conditions import DEAF_SECONDS, LOOK_SECONDS, Conditions
from holdfast.cluster.node.ledger import AgentLedger
from holdfast.cluster.worker.ledger import WorkerLedger

COMPUTE = "while True: pass"
SLEEP = "import time; time.sleep(1000)"


class Worker:
    """A place for a worker, with a process that runs some code."""

    def __init__(self, code):
        self.address = "tcp://host:1/0"
        self.process = subprocess.Popen([sys.executable, "-c", code])
        self.pid = self.process.pid
        self.ledger = AgentLedger(1, 1)
        self.side = WorkerLedger.of_descriptor(os.dup(self.ledger.fd), 1)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.ledger.close()

    @property
    def _fields(self):
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()

    @property
    def ticks(self):
        return int(self._fields[11]) + int(self._fields[12])

    def signal(self, number):
        """Have it stopped, or go on."""
        self.process.send_signal(number)
        until(lambda: (self._fields[0] == "T") == (number == signal.SIGSTOP), "the signal has come")


@pytest.fixture
def start():
    with contextlib.ExitStack() as stack:
        yield lambda code: stack.enter_context(contextlib.closing(Worker(code)))


class Agent:
    """Looks every second, unless it is stopped for longer."""

    def __init__(self, worker):
        self.worker = worker
        self.conditions = Conditions()
        self.now = 1000.0
        self.clock = ListeningClock(2 * LOOK_SECONDS, lambda: self.now)

    def look(self, seconds=LOOK_SECONDS):
        self.now += seconds
        self.clock.tick()
        return self.conditions.look([self.worker], self.clock.time())

    @property
    def report(self):
        (condition,) = self.conditions.report().values()
        return condition["condition"], condition["seconds"]


def test_one_that_hears_is_running_for_as_long_as_it_does(start):
    agent = Agent(start(SLEEP))
    for _ in range(10):
        agent.worker.side.hear()
        assert not agent.look()
    assert agent.report == ("running", pytest.approx(9 * LOOK_SECONDS, abs=2 * LOOK_SECONDS))


@pytest.mark.parametrize(("code", "condition"), [(COMPUTE, "computing"), (SLEEP, "blocked")])
def test_one_that_hears_nothing_is_said_to_compute_or_not(start, eventually, code, condition):
    worker = start(code)
    agent = Agent(worker)
    eventually(lambda: worker.ticks > 0, what="it has started")
    worker.side.hear()
    agent.look()
    before = worker.ticks
    if code is COMPUTE:
        eventually(lambda: worker.ticks > before + 100, timeout=60, what="it uses the processor")
    looks = int(DEAF_SECONDS / LOOK_SECONDS)
    for _ in range(looks - 1):
        assert not agent.look()
    assert agent.report[0] == "running"
    assert agent.look()
    assert agent.report == (condition, pytest.approx(DEAF_SECONDS))
    worker.side.hear()
    assert agent.look()
    assert agent.report == ("running", 0.0)


def test_one_that_has_not_heard_yet_has_still_to_start(start):
    agent = Agent(start(SLEEP))
    for _ in range(10):
        assert not agent.look()
    assert agent.report[0] == "running"


def test_a_stopped_one_is_seen_at_the_next_look_and_for_how_long(start):
    worker = start(SLEEP)
    agent = Agent(worker)
    worker.side.hear()
    agent.look()
    worker.signal(signal.SIGSTOP)
    assert agent.look()
    for _ in range(5):
        agent.look()
    assert agent.report == ("stopped", 5 * LOOK_SECONDS)
    worker.signal(signal.SIGCONT)
    assert agent.look()
    assert agent.report == ("running", 0.0)


def test_time_in_which_the_agent_did_not_look_does_not_count(start):
    worker = start(SLEEP)
    agent = Agent(worker)
    worker.side.hear()
    agent.look()
    agent.look(1000.0)
    assert agent.report[0] == "running"
    worker.signal(signal.SIGSTOP)
    assert agent.look()
    agent.look(1000.0)
    assert agent.report == ("stopped", 2 * LOOK_SECONDS)


def test_another_process_in_the_same_place_begins_anew(start):
    worker, successor = start(SLEEP), start(SLEEP)
    agent = Agent(worker)
    worker.signal(signal.SIGSTOP)
    assert agent.look()
    agent.worker = successor
    agent.look()
    assert agent.report[0] == "running"
    successor.process.kill()
    successor.process.wait()
    agent.look()
    assert agent.conditions.report() == {}
