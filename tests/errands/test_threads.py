"""Threads that do errands: none waits for another, and whatever a handler does, there is an answer."""

from __future__ import annotations

import contextlib
import threading

import pytest
from waiting import until

from holdfast.cluster.errands import threads as threads_module
from holdfast.cluster.errands.threads import ErrandThreads, Stored
from holdfast.cluster.protocol import errands
from holdfast.cluster.protocol.errands import ERRAND_DONE, ERRAND_STORED, Errand
from holdfast.cluster.protocol.shapes import Integer, Listed

DOUBLE = Errand("double", "Twice a number.", by="worker", answer=Listed(Integer()), needed={"n": Integer()})


class Doer:
    """Does one errand, by a handler of the test's."""

    def __init__(self, handler, inside=contextlib.nullcontext):
        self.said = []
        self.threads = ErrandThreads("worker", {DOUBLE: handler}, self.said.append, "holdfast-errand-test", inside)
        self._number = 0

    def take(self, **arguments):
        self._number += 1
        self.threads.take(self._number, "double", arguments)
        return self._number

    def answers(self, count):
        until(lambda: len(self.said) == count, f"{count} answers")
        return {message[1]: message for message in self.said}


@pytest.fixture
def do(monkeypatch):
    monkeypatch.setattr(errands, "ERRANDS", (DOUBLE,))
    doers = []

    def do(handler, **options):
        doers.append(Doer(handler, **options))
        return doers[-1]

    yield do
    for doer in doers:
        doer.threads.stop()
        assert doer.threads.join(10)


def test_what_a_handler_returns_is_the_answer(do):
    doer = do(lambda n: [n, 2 * n])
    assert doer.answers(0) == {}
    number = doer.take(n=4)
    assert doer.answers(1) == {number: ERRAND_DONE(number, True, [4, 8])}


def test_an_answer_may_lie_in_the_store(do):
    doer = do(lambda n: Stored(b"o" * 16, n, "ndarray"))
    number = doer.take(n=4)
    assert doer.answers(1) == {number: ERRAND_STORED(number, b"o" * 16, 4, "ndarray")}


class OddError(Exception):
    def __str__(self):
        raise ValueError("not even that")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError("no disk"), ["OSError", "no disk"]),
        (SystemExit(3), ["SystemExit", "3"]),
        (ValueError("\udcff"), ["ValueError", "\\udcff"]),
        (OddError(1), ["OddError", "OddError(1)"]),
    ],
)
def test_whatever_it_raises_is_an_error_of_the_client(do, error, said):
    def fail(n):
        raise error

    doer = do(fail)
    number = doer.take(n=1)
    assert doer.answers(1) == {number: ERRAND_DONE(number, False, said)}
    assert doer.answers(1)


def test_a_wrong_answer_or_argument_is_an_error_too(do):
    doer = do(lambda n: "text")
    number = doer.take(n=1)
    other = doer.take(m=1)
    doer.threads.take(77, "no such", {})
    answers = doer.answers(3)
    assert answers[number][2:] == (
        False,
        ["ProtocolError", "double: an array of up to 67,108,864 expected, 'text' found"],
    )
    assert answers[other][3][0] == "RequestError"
    assert "no request 'no such'" in answers[77][3][1]


def test_one_that_blocks_keeps_no_other_waiting(do):
    go_on = threading.Event()
    doer = do(lambda n: [n] if n else go_on.wait(30) and [0])
    blocked = doer.take(n=0)
    others = [doer.take(n=n) for n in (1, 2, 3)]
    assert sorted(doer.answers(3)) == others
    go_on.set()
    assert blocked in doer.answers(4)


def test_there_are_so_many_threads_and_so_many_that_wait_for_one(do, monkeypatch):
    monkeypatch.setattr(threads_module, "MAX_THREADS", 2)
    monkeypatch.setattr(threads_module, "MAX_QUEUED", 3)
    go_on, begun = threading.Event(), []
    doer = do(lambda n: begun.append(n) or (go_on.wait(30) and [n]))
    doer.take(n=0)
    doer.take(n=1)
    until(lambda: len(begun) == 2, "two have begun")
    for n in range(2, 5):
        doer.take(n=n)
    refused = doer.take(n=5)
    assert doer.answers(1)[refused][2:] == (False, ["RuntimeError", "this worker has 3 errands to do already"])
    assert len(begun) == 2
    go_on.set()
    assert [message[3] for message in doer.answers(6).values() if message[2]]
    assert begun[2:] == [2, 3, 4]
    until(lambda: not doer.threads._threads, "the threads end")


def test_one_that_has_no_thread_is_refused(do, monkeypatch):
    doer = do(lambda n: [n])

    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        refused = doer.take(n=1)
    assert doer.answers(1)[refused][2:] == (False, ["RuntimeError", "can't start new thread"])
    number = doer.take(n=2)
    assert doer.answers(2)[number][2]


def test_nothing_begins_or_answers_after_the_end(do):
    go_on = threading.Event()
    doer = do(lambda n: go_on.wait(30) and [n])
    doer.take(n=1)
    doer.threads.stop()
    assert not doer.threads.join(0.0)
    doer.take(n=2)
    go_on.set()
    assert doer.threads.join(10)
    assert doer.said == []


def test_what_has_begun_is_answered_while_the_end_waits_for_it(do):
    go_on = threading.Event()
    doer = do(lambda n: go_on.wait(30) and [n])
    number = doer.take(n=1)
    doer.threads.begin_no_more()
    doer.take(n=2)
    go_on.set()
    assert doer.threads.join(10)
    assert doer.answers(1)[number][2]


def test_they_are_done_within_what_their_process_says(do):
    where = []

    @contextlib.contextmanager
    def inside():
        where.append("in")
        yield
        where.append("out")

    doer = do(lambda n: where.append(n) or [n], inside=inside)
    doer.take(n=1)
    until(lambda: where == ["in", 1, "out"], "it is over")


def test_an_errand_without_a_handler_is_noticed(monkeypatch):
    monkeypatch.setattr(errands, "ERRANDS", (DOUBLE,))
    with pytest.raises(ValueError, match="no handler"):
        ErrandThreads("worker", {}, print, "test")
