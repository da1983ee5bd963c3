"""What goes wrong for a user is a clear error in each kind of client; client and cluster are in order afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import operator
import os
import random
import signal
import threading
import time

import pytest

from holdfast import (
    CancelledError,
    Client,
    KilledWorker,
    Lock,
    Queue,
    Variable,
    as_completed,
    get_client,
    wait,
)
from tests.support.waiting import DEADLINE_SECONDS

SOON = 0.1


async def check_in_order(client, got):
    """It computes, cancels and reads as ever."""
    futures = client.map(operator.add, range(5), range(5), pure=False)
    assert await got(client.gather(futures)) == [0, 2, 4, 6, 8]
    await got(client.cancel(futures))
    assert await got(client.submit(sum, [1, 2], pure=False).result()) == 3


def hang(until=None):
    """Until there is this file, if one is named: what takes the slot of a task that waits would hold that up."""
    end = time.monotonic() + (1.5 if until is None else DEADLINE_SECONDS)
    while time.monotonic() < end and not (until is not None and until.exists()):
        time.sleep(0.01)


TIMEOUTS = {
    "result": (lambda client, future: future.result(timeout=SOON), r"not done within 0\.1 s: 'hang-"),
    "exception": (lambda client, future: future.exception(timeout=SOON), r"not done within 0\.1 s: 'hang-"),
    "wait": (lambda client, future: wait([future], timeout=SOON), r"not done within 0\.1 s: 'hang-"),
    "workers": (lambda client, future: client.wait_for_workers(99, timeout=SOON), "for 99 workers, 2 are there"),
    "variable": (lambda client, future: Variable("edges", client=client).get(timeout=SOON), "variable 'edges'"),
    "queue": (lambda client, future: Queue("edges", client=client).get(timeout=SOON), "queue 'edges'"),
}


@pytest.mark.parametrize("what", TIMEOUTS)
def test_a_timeout_says_what_was_waited_for(run, what, tmp_path):
    call, message = TIMEOUTS[what]
    goes_on = tmp_path / "goes on"

    async def case(client, got):
        goes_on.unlink(missing_ok=True)
        future = client.submit(hang, goes_on, pure=False)
        try:
            with pytest.raises(TimeoutError, match=message):
                await got(call(client, future))
        finally:
            goes_on.touch()
        await check_in_order(client, got)

    run(case)


def test_a_timeout_of_as_completed_says_what_was_waited_for(client):
    future = client.submit(hang, pure=False)
    with pytest.raises(TimeoutError, match="hang-"):
        list(as_completed([future], timeout=SOON))
    asyncio.run(check_in_order(client, _given))


async def _given(value):
    return value


def test_a_wait_for_a_lock_that_is_over_is_no_error(client):
    with Lock("edges"):
        assert Lock("edges").acquire(timeout=SOON) is False
    asyncio.run(check_in_order(client, _given))


def test_a_future_that_is_cancelled_says_by_whom(run):
    async def case(client, got):
        future = client.submit(hang, pure=False)
        below = client.submit(str, future, pure=False)
        await got(client.cancel(future, reason="changed my mind"))
        for each in (future, below):
            assert each.cancelled()
            with pytest.raises(CancelledError, match=r"'(hang|str)-.*' has no result: cancelled by .*changed my mind"):
                await got(each.result())
        with pytest.raises(CancelledError, match="'hang-"):
            client.submit(str, future)
        await check_in_order(client, got)

    run(case)


def test_a_task_that_kills_its_workers_is_named_and_what_to_do(run_outside_of_tasks):
    async def case(client, got):
        future = client.submit(os._exit, 3, key=f"kills-{random.random()}")
        what = r"'kills-.*' was running on 3 workers that died.*holdfast logs"
        with pytest.raises(KilledWorker, match=what) as caught:
            await got(future.result())
        assert caught.value.task == future.key
        assert caught.value.last_worker in str(caught.value)
        assert caught.value.allowed_failures == 2
        await got(client.wait_for_workers(2))
        await check_in_order(client, got)

    run_outside_of_tasks(case)


class Unpicklable(Exception):
    def __reduce__(self):
        raise RuntimeError("not with me")


def fail_without_a_pickle():
    raise Unpicklable("what happened", threading.Lock())


def test_an_error_that_can_not_be_pickled_arrives_with_its_words(run):
    async def case(client, got):
        future = client.submit(fail_without_a_pickle, pure=False)
        with pytest.raises(Exception, match="what happened") as caught:
            await got(future.result())
        assert "Unpicklable" in f"{type(caught.value)} {caught.value}"
        await check_in_order(client, got)

    run(case)


def test_a_result_that_can_not_be_pickled_names_the_task_and_the_class(run):
    async def case(client, got):
        future = client.submit(threading.Lock, pure=False)
        with pytest.raises(Exception, match=r"the result of task '.*', a _thread\.lock, can't be pickled"):
            await got(future.result())
        await check_in_order(client, got)

    run(case)


def test_a_key_for_two_calls_is_a_warning_and_stands_for_the_first(run):
    async def case(client, got):
        key = f"two-{random.random()}"
        first = client.submit(operator.add, 1, 2, key=key)
        with pytest.warns(UserWarning, match="held by futures of this client for another call"):
            second = client.submit(operator.mul, 5, 5, key=key)
        assert await got(client.gather([first, second])) == [3, 3]
        await check_in_order(client, got)

    run(case)


CALLS = {
    "submit": lambda client, future: client.submit(sum, [1]),
    "map": lambda client, future: client.map(abs, [1]),
    "gather": lambda client, future: client.gather(client.submit(sum, [1])),
    "scatter": lambda client, future: client.scatter([1]),
    "cancel": lambda client, future: client.cancel(future),
    "kill": lambda client, future: client.cancel(future, kill=True),
    "who_has": lambda client, future: client.who_has(),
    "lock": lambda client, future: Lock("edges", client=client).acquire(),
    "compute": lambda client, future: client.get({"x": (sum, [1])}, "x"),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_on_a_closed_client_says_so_and_others_go_on(cluster, client, call):
    with Client(cluster, set_as_default=False) as closed:
        future = closed.submit(hang, pure=False)
    with pytest.raises((OSError, CancelledError), match="closed"):
        CALLS[call](closed, future)
    asyncio.run(check_in_order(client, _given))


def test_many_threads_use_one_client_for_all_there_is(client):
    failures = []

    def work(number):
        try:
            chance = random.Random(number)
            for turn in range(15):
                kind = chance.randrange(6)
                if kind == 0:
                    assert (
                        client.submit(operator.add, number, turn, pure=False).result(DEADLINE_SECONDS) == number + turn
                    )
                elif kind == 1:
                    assert client.gather(client.map(operator.neg, range(20))) == [-n for n in range(20)]
                elif kind == 2:
                    assert client.gather(client.scatter([number, turn])) == [number, turn]
                elif kind == 3:
                    future = client.submit(operator.add, number, turn, pure=False)
                    future.cancel()
                    with pytest.raises(CancelledError):
                        future.result(DEADLINE_SECONDS)
                elif kind == 4:
                    futures = client.map(operator.add, range(10), [turn] * 10)
                    results = {future.result() for future in as_completed(futures, timeout=DEADLINE_SECONDS)}
                    assert results == set(range(turn, turn + 10))
                else:
                    with pytest.raises(ZeroDivisionError):
                        client.submit(operator.truediv, number, 0, pure=False).result(DEADLINE_SECONDS)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    asyncio.run(check_in_order(client, _given))


@contextlib.contextmanager
def interrupted_soon():
    """Ctrl-C is pressed in a moment."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        yield
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


WAITS = {
    "result": lambda client, future: future.result(),
    "gather": lambda client, future: client.gather([future]),
    "wait": lambda client, future: wait([future]),
    "as_completed": lambda client, future: list(as_completed([future])),
    "queue": lambda client, future: Queue("interrupted").get(),
}


@pytest.mark.parametrize("call", WAITS)
def test_ctrl_c_ends_a_wait_and_the_task_goes_on(client, call):
    future = client.submit(hang, pure=False)
    with pytest.raises(KeyboardInterrupt), interrupted_soon():
        WAITS[call](client, future)
    assert future.status == "pending"
    assert future.result(DEADLINE_SECONDS) is None
    asyncio.run(check_in_order(client, _given))


@pytest.mark.parametrize("call", ["result", "gather", "wait", "kill"])
def test_an_await_that_is_cancelled_cancels_nothing_else(cluster, call):
    async def main():
        async with Client(cluster, asynchronous=True, set_as_default=False) as client:
            future = client.submit(hang, pure=False)
            waits = {
                "result": lambda: future.result(),
                "gather": lambda: client.gather([future]),
                "wait": lambda: wait([future]),
                "kill": lambda: client.cancel(client.submit(hang, pure=False), kill=True),
            }
            waiting = asyncio.ensure_future(waits[call]())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await future.result() is None
            await check_in_order(client, _awaited)

    asyncio.run(main())


async def _awaited(value):
    return await value


LENGTH = 1_000_000


def fail_at_length():
    raise ValueError("begin " + "x" * LENGTH + " end")


def test_a_very_long_error_is_short_where_it_is_shown_and_whole_where_it_is_caught(run, caplog):
    async def case(client, got):
        future = client.submit(fail_at_length, pure=False)
        with pytest.raises(ValueError, match=r"^begin ") as caught:
            await got(future.result())
        assert len(caught.value.args[0]) > LENGTH
        assert len(repr(future)) < 1_000
        below = client.submit(str, future, pure=False)
        with pytest.raises(ValueError, match=r"^begin "):
            await got(below.result())
        await check_in_order(client, got)

    run(case)
    assert all(len(record.getMessage()) < 20_000 for record in caplog.records)


def fails_in_a_task():
    return get_client().submit(operator.truediv, 1, 0, pure=False).result()


def test_a_traceback_has_the_frames_of_the_user(run):
    async def case(client, got):
        future = client.submit(fails_in_a_task, pure=False)
        with pytest.raises(ZeroDivisionError) as caught:
            await got(future.result())
        names = [entry.name for entry in caught.traceback]
        assert "fails_in_a_task" in names
        own = [entry for entry in caught.traceback if f"{os.sep}holdfast{os.sep}cluster" in str(entry.path)]
        assert not own, "none of ours"
        await check_in_order(client, got)

    run(case)
