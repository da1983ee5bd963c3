"""What a worker's process notices about itself."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading

import pytest

from holdfast.cluster.worker import watchdog as watchdog_module
from holdfast.cluster.worker.watchdog import BROKEN_LOOKS, DEAF_LOOKS, Watchdog, identity_of


class Process:
    """What a watchdog looks at, and what it says."""

    def __init__(self):
        self.ours, self.theirs = socket.socketpair()
        self.descriptors = [(self.ours.fileno(), identity_of(self.ours.fileno()))]
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self.ends.wait, name="the thread")
        self.thread.start()
        self.rounds = itertools.count(1)  # of a loop that goes round
        self.looks = 0
        self.reasons = []

    def heard(self):
        self.looks += 1
        return next(self.rounds)

    def watched(self):
        return Watchdog(
            lambda: {"the socket": self.descriptors},
            lambda: [self.thread],
            self.heard,
            self.reasons.append,
            "watchdog",
        )


@pytest.fixture
def process(monkeypatch):
    monkeypatch.setattr(watchdog_module, "LOOK_SECONDS", 0.001)
    process = Process()
    yield process
    process.ends.set()
    process.thread.join()
    with contextlib.suppress(OSError):
        process.ours.close()
    process.theirs.close()


@pytest.fixture
def watchdog(process, eventually):
    watchdog = process.watched()
    yield watchdog
    watchdog.stop()
    eventually(lambda: "watchdog" not in [thread.name for thread in threading.enumerate()])


def close(process):
    os.close(process.ours.fileno())


def replace(process):
    """Its number stands for another file now."""
    os.dup2(process.theirs.fileno(), process.ours.fileno())


def end(process):
    process.ends.set()


def stand_still(process):
    process.rounds = itertools.repeat(1)


@pytest.mark.parametrize(
    ("breaks", "reason"),
    [
        (close, "a task has closed the socket"),
        (replace, "a task has closed the socket"),
        (end, "its thread the thread has ended"),
        (stand_still, "its event loop did not go round"),
    ],
)
def test_what_is_wrong_is_said_once(process, watchdog, eventually, breaks, reason):
    eventually(lambda: process.looks > 5)
    before = process.looks
    breaks(process)
    eventually(lambda: process.reasons)
    assert process.reasons == [reason]
    assert process.looks - before >= (DEAF_LOOKS if breaks is stand_still else BROKEN_LOOKS)
    if breaks is close:
        process.ours.detach()


def test_nothing_is_said_while_nothing_is_wrong(process, watchdog, eventually):
    eventually(lambda: process.looks > 2 * DEAF_LOOKS)
    assert not process.reasons


def test_a_loop_that_goes_round_now_and_then_is_one(process, watchdog, eventually):
    process.rounds = (number // (DEAF_LOOKS - 1) for number in itertools.count())
    eventually(lambda: process.looks > 3 * DEAF_LOOKS)
    assert not process.reasons


def test_what_the_worker_lets_go_of_during_a_look_is_no_fault(process, eventually):
    """At every look another thread has ended, and another socket is closed, in an orderly way."""
    letting_go = itertools.cycle([True, False])

    def threads():
        if not next(letting_go):
            return []
        thread = threading.Thread(target=str)
        thread.start()
        thread.join()
        return [thread]

    def descriptors():
        return {"the socket": [(1 << 20, (0, 0))] if next(letting_go) else []}

    watchdog = Watchdog(descriptors, threads, process.heard, process.reasons.append, "watchdog")
    eventually(lambda: process.looks > 10 * BROKEN_LOOKS)
    watchdog.stop()
    assert not process.reasons


def test_a_process_that_is_closing_is_not_ended(process, watchdog, eventually):
    watchdog.stop()
    eventually(lambda: "watchdog" not in [thread.name for thread in threading.enumerate()])
    end(process)
    assert not process.reasons


def test_a_descriptor_that_was_closed_before_is_noticed_too(process, eventually):
    process.ours.close()
    none = [(1 << 20, (0, 0))]
    watchdog = Watchdog(lambda: {"the socket": none}, list, process.heard, process.reasons.append, "watchdog")
    eventually(lambda: process.reasons == ["a task has closed the socket"])
    watchdog.stop()
