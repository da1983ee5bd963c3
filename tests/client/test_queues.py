"""Queues between clients, threads and tasks: what goes through them, what waits, and that no item is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import textwrap
import threading

import dask.array as da
import numpy as np
import pytest

from holdfast import Client, ConnectError, Future, Lock, Queue, UnreadableError, futures_of, get_client
from holdfast.client.coordination import queue as queue_module
from tests.support.interrupts import Interrupt
from tests.support.waiting import until

DEADLINE_SECONDS = 30


@pytest.fixture
def other(cluster):
    """Another client of the same cluster, which isn't the default."""
    with Client(cluster, set_as_default=False) as other:
        yield other


class TestInAllKindsOfClients:
    def test_what_is_put_is_got_in_order(self, run):
        async def case(client, got):
            queue = await Queue("plain", client=client)
            for value in (1, "two", None, [3, {"four": 4.5}], b"x" * 5_000):
                await got(queue.put(value))
            assert await got(queue.qsize()) == 5
            other = Queue("plain", client=client)
            assert [await got(other.get(timeout=DEADLINE_SECONDS)) for _ in range(3)] == [1, "two", None]
            assert await got(other.get(batch=2)) == [[3, {"four": 4.5}], b"x" * 5_000]
            assert await got(other.get(batch=True)) == []
            assert await got(other.get(batch=0)) == []
            assert await got(queue.qsize()) == 0

        run(case)

    def test_a_get_has_an_end(self, run):
        async def case(client, got):
            queue = Queue("empty", client=client)
            for timeout in (0, 0.01, "10 ms", -1):
                with pytest.raises(TimeoutError, match="the queue 'empty' ha"):
                    await got(queue.get(timeout=timeout))
            await got(queue.put(1))
            with pytest.raises(TimeoutError, match="the queue 'empty' had fewer items than were asked for"):
                await got(queue.get(timeout=0.01, batch=2))
            assert await got(queue.get(timeout=0)) == 1

        run(case)

    def test_one_with_a_limit_is_full(self, run):
        async def case(client, got):
            queue = await Queue("limited", client=client, maxsize=2)
            await got(queue.put(1))
            await got(Queue("limited", client=client).put(2))
            for each in (queue, Queue("limited", client=client)):
                with pytest.raises(TimeoutError, match=r"the queue 'limited' .*maxsize=2"):
                    await got(each.put(3, timeout="10 ms"))
                with pytest.raises(TimeoutError, match="the queue 'limited' is full: maxsize=2"):
                    await got(each.put(3, timeout=0))
            putting = asyncio.ensure_future(asyncio.to_thread(queue.put, 3)) if not client.asynchronous else None
            putting = putting or asyncio.ensure_future(queue.put(3))
            await asyncio.sleep(0)
            assert await got(queue.get(batch=2)) == [1, 2]
            await putting
            assert await got(queue.get(timeout=DEADLINE_SECONDS)) == 3
            with pytest.raises(ValueError, match="has maxsize=2, and can't have maxsize=3 as well"):
                await Queue("limited", client=client, maxsize=3)
            await got(queue.close())
            await got((await Queue("limited", client=client, maxsize=3)).close())

        run(case)

    def test_futures_go_through_it(self, run):
        async def case(client, got):
            queue = Queue("futures", client=client)
            future = client.submit(pow, 2, 10, pure=False)
            await got(queue.put(future))
            await got(queue.put({"a": [future, client.submit(pow, 2, 11, pure=False)]}))
            del future
            taken = await got(queue.get())
            assert isinstance(taken, Future)
            assert taken.client is client
            assert await got(taken.result()) == 1024
            inside = (await got(queue.get()))["a"]
            assert await got(client.gather(inside)) == [1024, 2048]

        run(case)

    def test_it_is_closed_for_all(self, run_outside_of_tasks):
        async def case(client, got):
            queue = Queue("closed", client=client)
            waiting = asyncio.ensure_future(queue.get() if client.asynchronous else asyncio.to_thread(queue.get))
            await asyncio.to_thread(until, lambda: client._core.session._answers or waiting.done(), "it waits")
            await asyncio.sleep(0.05)
            await got(queue.close())
            with pytest.raises(RuntimeError, match="the queue 'closed' was closed"):
                await waiting
            await got(queue.put(1))
            assert await got(queue.get()) == 1
            await got(queue.close())

        run_outside_of_tasks(case)


class TestWhatGoesThrough:
    def test_a_future_that_nobody_else_holds_is_kept_and_goes_with_its_last_taker(self, cluster, client, eventually):
        with Client(cluster, set_as_default=False) as gone:
            queue = Queue("kept", client=gone)
            future = gone.submit(np.ones, 10_000, pure=False)
            key = future.key
            queue.put(future)
        eventually(lambda: key in client.who_has(), what="it is computed")
        taken = Queue("kept").get(timeout=DEADLINE_SECONDS)
        assert taken.key == key
        assert taken.result().sum() == 10_000
        assert Queue("kept").qsize() == 0
        assert key in client.who_has()
        del taken
        eventually(lambda: key not in client.who_has(), what="nobody holds it any more")

    def test_memory_says_which_queue_holds_it(self, client):
        queue = Queue("holding")
        future = client.submit(np.ones, 10_000, pure=False)
        future.result()
        queue.put([future])
        key = future.key
        del future
        from holdfast.cluster.protocol.requests import MEMORY

        def holders():
            objects = client._request(MEMORY)["objects"]
            return [[(h["kind"], h["name"]) for h in each["holders"]] for each in objects if each["key"] == key]

        until(lambda: holders() == [[("queue", "'holding'")]], "the queue alone holds it")
        queue.close()
        until(lambda: not holders(), "it goes with the queue")

    def test_large_data_lies_in_the_store(self, client, eventually):
        queue = Queue("large")
        data = np.arange(1_000_000)
        queue.put({"data": data, "n": 1})
        queue.put("x" * 3_000_000)
        taken = queue.get()
        assert (taken["data"] == data).all()
        assert queue.get() == "x" * 3_000_000
        del taken, data
        eventually(lambda: not client.who_has(), what="nothing is left of it")

    def test_collections(self, client, other):
        queue = Queue("collections")
        x = da.arange(100, chunks=10).persist()
        queue.put(x + 1)
        del x
        taken = Queue("collections", client=other).get()
        with other.as_current() if hasattr(other, "as_current") else contextlib.nullcontext():
            assert other.gather(other.compute(taken.sum())) == 5050
        assert all(future.client is other for future in futures_of(taken))

    def test_what_can_not_be_pickled_is_refused_by_name(self, client):
        with pytest.raises(TypeError, match="what is put into the queue 'refused' can't be pickled"):
            Queue("refused").put(threading.Lock())

    def test_what_can_not_be_read_is_taken_and_said(self, client):
        queue = Queue("unreadable")
        queue.put(Unreadable())
        queue.put(1)
        with pytest.raises(UnreadableError, match="an item of the queue 'unreadable'"):
            queue.get()
        assert queue.get(timeout=DEADLINE_SECONDS) == 1

    def test_other_things_with_names(self, client):
        queue = Queue("names")
        queue.put((Lock("inside"), Queue("itself")))
        lock, itself = queue.get()
        with lock:
            itself.put(1)
        assert Queue("itself").get() == 1


class Unreadable:
    def __reduce__(self):
        return fail, ()


def fail():
    raise LookupError("no such thing")


class TestManyItems:
    def test_more_than_one_message_holds(self, client):
        queue = Queue("many")
        for number in range(1_234):
            queue.put(number)
        assert queue.get(batch=600) == list(range(600))
        assert queue.get(batch=True) == list(range(600, 1_234))
        assert queue.get(batch=True) == []

    def test_threads_and_tasks_share_them_out(self, client):
        queue, results = Queue("work"), Queue("results")
        workers = [client.submit(work, queue, results, pure=False) for _ in range(3)]
        for number in range(300):
            queue.put(number)
        for _ in workers:
            queue.put(None)
        client.gather(workers)
        assert sorted(results.get(batch=300)) == [number**2 for number in range(300)]
        assert queue.qsize() == 0

    def test_a_client_that_puts_much_waits_for_the_scheduler_now_and_then(self, client, monkeypatch):
        monkeypatch.setattr(queue_module, "MAX_QUIET_ITEMS", 3)
        asked, ask = [], client._core.session.ask

        def noting(*args, **kwargs):
            asked.append(args)
            return ask(*args, **kwargs)

        monkeypatch.setattr(client._core.session, "ask", noting)
        queue = Queue("quiet")
        for number in range(12):
            queue.put(number)
        assert len(asked) == 3
        monkeypatch.setattr(queue_module, "MAX_QUIET_NBYTES", 1_000)
        for _ in range(6):
            queue.put("x" * 400)
        assert len(asked) == 5
        assert len(queue.get(batch=True)) == 18

    def test_what_was_not_taken_is_said_by_the_next_call(self, client, monkeypatch, caplog):
        queue = Queue("full")
        queue.put(1)
        session = client._core.session
        tell = session.enqueue

        def spoiled(message):
            """The scheduler refuses the request, which comes without a name."""
            if message[2:3] == ("put-quietly",):
                message = (*message[:3], {"keys": ()})
            tell(message)

        with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
            patched.setattr(session, "enqueue", spoiled)
            queue.put(2)
            until(lambda: "an item was not put into the queue 'full'" in caplog.text, "it is logged")
        with pytest.raises(Exception, match=r"put-quietly\.name is missing"):
            queue.put(3)
        queue.put(4)
        assert queue.get(batch=2) == [1, 4]


def work(queue, results):
    while (number := queue.get()) is not None:
        results.put(number**2)


class TestClientsThatGo:
    def test_it_is_shared_between_processes(self, cluster, client):
        code = f"""
            from holdfast import Client, Queue
            with Client({cluster.scheduler_address!r}) as client:
                Queue("answers").put(client.submit(pow, Queue("questions").get(), 2))
        """
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
        Queue("questions").put(7)
        assert Queue("answers").get(timeout=2 * DEADLINE_SECONDS).result() == 49
        assert process.wait(DEADLINE_SECONDS) == 0

    def test_one_that_is_killed_while_it_waits_takes_nothing(self, cluster, client):
        code = (
            "from holdfast import Client, Queue\n"
            f"client = Client({cluster.scheduler_address!r})\n"
            "Queue('ready').put(1)\n"
            "Queue('killed').get()\n"
        )
        process = subprocess.Popen([sys.executable, "-c", code])
        try:
            Queue("ready").get(timeout=2 * DEADLINE_SECONDS)
        finally:
            process.kill()
            process.wait()
        Queue("killed").put("item")
        assert Queue("killed").get(timeout=DEADLINE_SECONDS) == "item"

    def test_a_task_that_dies_with_its_worker_has_taken_what_it_had(self, client):
        queue = Queue("died")
        for number in range(5):
            queue.put(number)
        dying = client.submit(take_and_die, queue, pure=False)
        assert dying.exception(timeout=2 * DEADLINE_SECONDS) is not None
        assert queue.get(batch=True) == [3, 4], "it has died three times"
        queue.close()

    def test_with_a_client_that_is_closed_it_says_so(self, cluster):
        with Client(cluster, set_as_default=False) as closed:
            queue = Queue("gone", client=closed)
            queue.put(1)
            queue.put(2)
        for call in (lambda: queue.put(1), queue.get, queue.qsize):
            with pytest.raises(ConnectError, match="closed"):
                call()
        queue.close()


def take_and_die(queue):
    queue.get()
    queue.qsize()
    os._exit(1)


class TestWaitsThatAreAbandoned:
    def test_an_interrupt_anywhere_loses_no_item(self, client):
        queue = Queue("interrupted")
        at = untouched = expected = 0
        while untouched < 3:
            at += 1
            queue.put(expected)
            interrupt = Interrupt("holdfast.c", at)
            taken = None
            with contextlib.suppress(KeyboardInterrupt), interrupt.armed():
                taken = queue.get()
            if taken is None:
                taken = queue.get(timeout=DEADLINE_SECONDS)
            assert taken == expected, interrupt.where
            expected += 1
            untouched += interrupt.where is None
        assert at > 20
        assert queue.qsize() == 0
        assert not client._core.session._answers

    def test_an_interrupt_anywhere_loses_no_future(self, client, eventually):
        queue = Queue("interrupted futures")
        at = untouched = 0
        while untouched < 3:
            at += 7
            queue.put(client.submit(pow, at, 2, pure=False))
            interrupt = Interrupt("holdfast.c", at)
            taken = None
            with contextlib.suppress(KeyboardInterrupt), interrupt.armed():
                taken = queue.get()
            if taken is None:
                taken = queue.get(timeout=DEADLINE_SECONDS)
            assert taken.result(timeout=DEADLINE_SECONDS) == at**2, interrupt.where
            untouched += interrupt.where is None
        del taken
        eventually(lambda: not client.who_has(), what="nothing is held any more")

    def test_an_await_that_is_cancelled_loses_no_item(self, run_outside_of_tasks):
        async def case(client, got):
            if not client.asynchronous:
                return
            queue = Queue("cancelled", client=client)
            for n_turns in range(30):
                getting = asyncio.ensure_future(queue.get())
                for _ in range(n_turns % 5):
                    await asyncio.sleep(0)
                await queue.put(n_turns)
                if n_turns % 2:
                    await queue.qsize()
                getting.cancel()
                try:
                    taken = await getting
                except asyncio.CancelledError:
                    taken = await queue.get(timeout=DEADLINE_SECONDS)
                assert taken == n_turns
            assert await queue.qsize() == 0

        run_outside_of_tasks(case)

    def test_a_put_that_is_cancelled_puts_nothing(self, run_outside_of_tasks):
        async def case(client, got):
            if not client.asynchronous:
                return
            queue = await Queue("cancelled put", client=client, maxsize=1)
            await queue.put(1)
            putting = asyncio.ensure_future(queue.put(2))
            await asyncio.sleep(0)
            await queue.qsize()
            putting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await putting
            assert await queue.get() == 1
            assert await queue.get(batch=True) == []
            await queue.close()

        run_outside_of_tasks(case)


class TestWrongCalls:
    def test_arguments(self, client):
        with pytest.raises(TypeError, match="maxsize is a whole number"):
            Queue("x", maxsize="3")
        for batch in (-1, "all", 1.5):
            with pytest.raises(ValueError, match="batch is true, false or a number of items"):
                Queue("x").get(batch=batch)
        assert Queue("x", maxsize=-1).maxsize == 0
        assert repr(Queue("x")) == "<Queue: 'x'>"
        assert Queue().name.startswith("queue-")

    def test_a_task_uses_the_client_of_its_worker(self, client):
        queue = Queue("whose", maxsize=4)
        future = client.submit(whose, queue, pure=False)
        assert future.result() == (True, 4)
        queue.close()


def whose(queue):
    return queue.client.id == get_client().id, queue.maxsize
