"""An interrupt (Ctrl-C) while a client submits and waits leaves it in order, and nobody else waits in vain."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import queue
import signal
import threading

import pytest

from holdfast import CancelledError, Future, wait
from holdfast.client.operations import graphs
from tests.support.interrupts import Interrupt
from tests.support.waiting import until

DEADLINE_SECONDS = 30


def submit(client, number):
    return client.submit(pow, number, 2).result(timeout=DEADLINE_SECONDS)


def map_and_gather(client, number):
    return client.gather(client.map(pow, [number, number + 1], [2, 2]))[0]


def scatter(client, number):
    return client.gather(client.scatter(number**2))


def name_a_key(client, number):
    made = client.submit(pow, number, 2)
    return Future(made.key, client).result(timeout=DEADLINE_SECONDS)


def submit_under_a_key_that_was_used_before(client, number):
    return client.submit(pow, number, 2, key="used").result(timeout=DEADLINE_SECONDS)


def submit_a_new_function(client, number):
    return client.submit(functools.partial(pow, number), 2).result(timeout=DEADLINE_SECONDS)


def compute_a_graph_in_several_messages(client, number):
    squares = {f"square-{number}-{i}": (pow, number, 2, number**2 + 1 + i) for i in range(5)}
    return client.get({**squares, f"largest-{number}": (max, list(squares))}, f"largest-{number}")


def wait_and_ask(client, number):
    made = client.submit(pow, number, 2)
    wait([made], timeout=DEADLINE_SECONDS)
    assert made.key in client.who_has(made)
    return made.result()


@pytest.mark.parametrize(
    "call",
    [
        wait_and_ask,
        submit,
        submit_a_new_function,
        submit_under_a_key_that_was_used_before,
        map_and_gather,
        scatter,
        name_a_key,
        compute_a_graph_in_several_messages,
    ],
)
def test_a_call_that_is_interrupted_anywhere(client, call, monkeypatch):
    """Another thread waits for a result that the interrupted one may have been receiving."""
    monkeypatch.setattr(graphs, "MAX_ITEMS", 2)
    asked, answers = queue.SimpleQueue(), queue.SimpleQueue()

    def wait_for_others():
        while (future := asked.get()) is not None:
            answers.put(future.result(timeout=DEADLINE_SECONDS))

    other = threading.Thread(target=wait_for_others)
    other.start()
    at = untouched = 0
    try:
        while untouched < 20:  # it isn't always the same number of points
            at += 1
            interrupt = Interrupt("holdfast.c", at)  # the client, and what it uses of the cluster's modules
            theirs = client.submit(divmod, at, 7, pure=False)
            with contextlib.suppress(KeyboardInterrupt), interrupt.armed():
                asked.put(theirs)
                assert call(client, at) == at**2
            assert answers.get(timeout=DEADLINE_SECONDS) == divmod(at, 7), interrupt.where
            assert call(client, at) == at**2, interrupt.where  # the same key again
            del theirs
            untouched += interrupt.where is None
    finally:
        asked.put(None)
        other.join()
    assert at - untouched > 10
    until(lambda: not client._core.table.states, "nothing is held any more")
    assert not client._core.session._answers
    until(lambda: not client.who_has(), "the cluster holds nothing either")


def test_a_call_of_an_actor_that_is_interrupted_anywhere_is_made_once_or_never(client):
    """Later calls are made in order, and none waits in vain."""
    calls = client.submit(list, actor=True).result(timeout=DEADLINE_SECONDS)
    at = untouched = 0
    while untouched < 20:
        at += 1
        interrupt = Interrupt("holdfast.c", at)
        with contextlib.suppress(KeyboardInterrupt), interrupt.armed():
            calls.append(at).result(timeout=DEADLINE_SECONDS)
        assert calls.count(at).result(timeout=DEADLINE_SECONDS) <= 1, interrupt.where
        untouched += interrupt.where is None
    assert at - untouched > 10
    until(lambda: not client._core.session.calls._lines, "no call is under way")
    made = calls.copy().result(timeout=DEADLINE_SECONDS)
    assert made == sorted(made)
    assert set(range(at - untouched + 1, at)) <= set(made)
    del calls
    until(lambda: not client._core.table.states, "nothing is held any more")


def test_a_signal_handler_that_submits_wherever_a_submit_is(client):
    done = queue.SimpleQueue()

    def submit_within_submits(at):
        inside = []
        interrupt = Interrupt("holdfast.c", at, lambda: inside.append(client.submit(divmod, at, 7, pure=False)))
        with interrupt.armed():
            outside = client.submit(pow, at, 2)
        assert outside.result(timeout=DEADLINE_SECONDS) == at**2, interrupt.where
        assert client.gather(inside) == [divmod(at, 7)] * len(inside), interrupt.where
        return interrupt.where

    def submit_at_every_point():
        done.put(next(at for at in itertools.count(1) if submit_within_submits(at) is None))

    threading.Thread(target=submit_at_every_point, daemon=True).start()
    assert done.get(timeout=DEADLINE_SECONDS) > 20


def test_a_signal_handler_that_waits_while_the_thread_that_it_interrupts_does(client):
    never = client.submit(pow, 2, 2, resources={"what nobody has": 1})
    transport = client._core.session.transport.connection._transport
    descriptors = len(os.listdir("/proc/self/fd"))
    answers = []

    def handle(number, frame):
        answers.extend(client.submit(pow, 2, i, pure=False).result(timeout=DEADLINE_SECONDS) for i in range(2))
        client.cancel(never)

    def send_signal(thread):
        until(lambda: transport._reader_idles, "the other thread waits")
        signal.pthread_kill(thread, signal.SIGUSR1)

    sender = threading.Thread(target=send_signal, args=[threading.get_ident()])
    before = signal.signal(signal.SIGUSR1, handle)
    try:
        sender.start()
        with pytest.raises(CancelledError):
            never.result(timeout=DEADLINE_SECONDS)
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)
    assert answers == [1, 2]
    assert client.submit(pow, 2, 5).result(timeout=DEADLINE_SECONDS) == 32
    assert len(os.listdir("/proc/self/fd")) == descriptors
