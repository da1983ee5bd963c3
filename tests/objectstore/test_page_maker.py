"""A page maker leaves the processor to others, and what asks it waits for nobody longer than it has to."""

from __future__ import annotations

import socket
import threading
from types import SimpleNamespace

import pytest

from holdfast.objectstore.memory import page_maker
from holdfast.objectstore.memory.page_maker import _Politeness
from holdfast.objectstore.memory.page_requests import RemoteFiller


def test_it_pauses_when_it_had_to_wait_and_the_longer_the_more_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worked = iter((5.0, 5.001, 5.002, 5.003, 5.003))
    monkeypatch.setattr(page_maker, "time", SimpleNamespace(process_time=lambda: next(worked)))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        politeness = _Politeness(theirs)
        pauses: list[float] = []
        politeness._poll = SimpleNamespace(poll=lambda milliseconds: pauses.append(milliseconds / 1000))
        for seconds in (0.001, 0.0011, 0.002, 60.0):
            politeness.pause(seconds)
    assert pauses == [0, 0, pytest.approx(0.002 * page_maker._PAUSE_FACTOR), page_maker._PAUSE_SECONDS_MAX]


def test_a_word_ends_its_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_maker, "_PAUSE_SECONDS_MAX", 60.0)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.send(b"stop")
        assert _Politeness(theirs).pause(60.0)


def test_an_answer_that_nobody_waited_for_is_not_taken_for_another() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    filler = RemoteFiller(ours)
    with theirs:
        stop = threading.Event()
        stop.set()
        filler.interrupt()
        filler.fill([(0, 1)], stop)  # returns at once
        stop.clear()
        thread = threading.Thread(target=filler.fill, args=([(0, 2)], stop))
        thread.start()
        requests = [theirs.recv(1000) for _ in range(3)]  # the first, its end, the second
        for request in requests[:2]:
            theirs.send(request[:8])
        assert thread.is_alive()
        theirs.send(requests[2][:8])
        thread.join(10)
        assert not thread.is_alive()
        assert filler.works
    filler.fill([(0, 3)], stop)
    assert not filler.works
    filler.close()
