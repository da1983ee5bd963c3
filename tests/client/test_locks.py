"""Locks between clients, threads and tasks: which of them has one, and that none has one without knowing."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
from dask.base import tokenize

from holdfast import (
    Client,
    ConnectError,
    Event,
    LocalCluster,
    Lock,
    MultiLock,
    Queue,
    RLock,
    Semaphore,
    Variable,
    get_client,
)
from tests.support.interrupts import Interrupt
from tests.support.waiting import until

DEADLINE_SECONDS = 30


@pytest.fixture
def other(cluster):
    """Another client of the same cluster, which isn't the default."""
    with Client(cluster, set_as_default=False) as other:
        yield other


def is_free(client, name):
    """Whether it comes to be free."""
    lock = Lock(name, client=client)
    assert lock.acquire(timeout=DEADLINE_SECONDS)
    lock.release()
    return True


class TestInAllKindsOfClients:
    def test_it_is_acquired_and_released(self, run):
        async def case(client, got):
            lock = Lock("plain", client=client)
            assert not await got(lock.locked())
            assert await got(lock.acquire())
            assert await got(lock.locked())
            other = Lock("plain", client=client)
            assert not await got(other.acquire(blocking=False))
            assert not await got(other.acquire(timeout="10 ms"))
            assert not await got(other.acquire(timeout=0.01))
            assert not await got(other.acquire(timeout=-1))
            await got(lock.release())
            assert await got(other.acquire(timeout=DEADLINE_SECONDS))
            await got(other.release())
            assert not await got(lock.locked())

        run(case)

    def test_those_that_wait_get_it_in_order(self, run):
        order = []

        async def wait_for(lock, number):
            async with lock:
                order.append(number)

        async def case(client, got):
            lock, waiting = Lock("in order", client=client), []
            async with lock:
                for number in range(3):
                    waiting.append(asyncio.ensure_future(wait_for(Lock("in order", client=client), number)))
                    await asyncio.sleep(0)
                    await got(lock.locked())  # the scheduler has heard of the one before it
                assert order == []
            await asyncio.gather(*waiting)
            assert order == [0, 1, 2]

        run(case)

    def test_a_release_without_an_acquire_is_an_error(self, run):
        async def case(client, got):
            lock = Lock("never acquired", client=client)
            with pytest.raises(RuntimeError, match=r"<Lock: 'never acquired'> was released, but this object has not"):
                await got(lock.release())
            async with Lock("never acquired", client=client):
                with pytest.raises(RuntimeError, match="has not acquired it"):
                    await got(lock.release())

        run(case)

    def test_a_timeout_of_a_call_that_does_not_wait_is_an_error(self, run):
        async def case(client, got):
            with pytest.raises(ValueError, match="can't specify a timeout for a non-blocking call"):
                await got(Lock("x", client=client).acquire(blocking=False, timeout=1))
            with pytest.raises(ValueError, match="is no time"):
                await got(Lock("x", client=client).acquire(timeout="soon"))

        run(case)

    def test_one_that_makes_up_its_name_shares_it_with_nobody(self, run):
        async def case(client, got):
            one, two = Lock(client=client), Lock(client=client)
            async with one, two:
                assert one.name != two.name
                assert one.name.startswith("lock-")
            assert (await one) is one

        run(case)


class TestNames:
    def test_a_name_is_a_key(self, client):
        with Lock(("a", 1)):
            assert Lock(("a", 1)).locked()
            assert not Lock("('a', 1)").locked()
        with pytest.raises(TypeError, match="can't be a key"):
            Lock({"a": 1})

    def test_it_is_shared_between_clients_and_processes(self, cluster, client):
        code = f"""
            from holdfast import Client, Lock
            with Client({cluster.scheduler_address!r}):
                print(Lock("shared").acquire(timeout=0.01), Lock("other").acquire(timeout=0.01))
        """
        with Lock("shared"):
            lines = [line.strip() for line in code.splitlines() if line.strip()]
            program = "\n".join([lines[0], lines[1], f"    {lines[2]}"])
            done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        assert done.stdout.split() == ["False", "True"], done.stderr
        assert is_free(client, "other"), "its process has ended"

    def test_one_name_is_one_thing_in_a_graph(self, client):
        assert tokenize(Lock("x")) == tokenize(Lock("x", client=client)) != tokenize(Lock("y"))
        assert tokenize(Lock("x")) != tokenize(RLock("x"))

    def test_it_is_found_where_it_is_used(self, cluster, client, other):
        lock = Lock("found")
        assert lock.client is client
        assert Lock("found", client=other).client is other
        assert repr(lock) == "<Lock: 'found'>"

    @pytest.mark.parametrize("kind", [Event, Lock, MultiLock, Queue, RLock, Semaphore, Variable])
    def test_each_kind_has_the_client_that_is_given_or_the_current_one(self, client, other, kind):
        names = {"names": ["whose"]} if kind is MultiLock else {"name": "whose"}
        assert kind(**names).client is client
        assert kind(**names, client=other).client is other

    def test_without_a_client_it_says_so_when_it_is_used(self):
        lock = Lock("none")
        with pytest.raises(ValueError, match="no client"):
            lock.acquire()

    def test_one_that_a_closed_client_has_used_goes_on_with_the_next(self, cluster):
        lock = Lock("again")
        for _ in range(2):
            with Client(cluster), lock:
                assert lock.locked()


def add_one(path, lock, n):
    for _ in range(n):
        with lock:
            count = int(path.read_text())
            path.write_text(str(count + 1))


def whose(lock):
    return lock.client.id == get_client().id, lock


def acquire_and_die(name):
    import os

    Lock(name).acquire()
    os._exit(1)


#: What tasks have that outlives them.
kept = []


def acquire(kind, end):
    """Acquire something without a ``with``, by an object that stays, and end in some way."""
    lock = KINDS[kind]()
    assert lock.acquire()
    kept.append(lock)
    return end()


async def acquire_on_a_loop(kind):
    lock = KINDS[kind]()
    assert await lock.acquire()
    kept.append(lock)
    await asyncio.to_thread(acquire_in_a_helper, f"{kind} of a helper")


def acquire_in_a_helper(name):
    kept.append(Lock(name))
    assert kept[-1].acquire()


KINDS = {
    "lock": lambda: Lock("of a run"),
    "rlock": lambda: RLock("of a run"),
    "multi-lock": lambda: MultiLock(["of a run", "of a run 2"]),
    "semaphore": lambda: Semaphore(1, "of a run"),
}
ENDS = {
    "returns": lambda: 1,
    "raises": lambda: 1 / 0,
    "exits": lambda: sys.exit(1),
    "fails to be pickled": lambda: threading.Lock(),
}


class Keeper:
    """An actor that has a lock."""

    def __init__(self, name, fails=False):
        self.lock = Lock(name)
        self.lock.acquire()
        kept.append(self.lock)
        if fails:
            raise ValueError("as it was asked to")

    def another(self, name):
        kept.append(Lock(name))
        return kept[-1].acquire(blocking=False)


def write_in_place(array, name):
    """Runs twice: with a private view once more, when the first try has failed."""
    lock = Lock(name)
    kept.append(lock)
    assert lock.acquire(timeout=DEADLINE_SECONDS)
    array[0] = 1
    return int(array[0])


def leave_and_wait(name, event):
    kept.append(Lock(name))
    kept[-1].acquire()
    Event(event).wait(timeout=DEADLINE_SECONDS)


class TestInTasks:
    def test_one_at_a_time_has_it(self, client, tmp_path):
        path = tmp_path / "count"
        path.write_text("0")
        lock = Lock("counter")
        futures = [client.submit(add_one, path, lock, 25, pure=False) for _ in range(6)]
        client.gather(futures)
        assert path.read_text() == "150"

    def test_it_is_the_task_s_there_and_the_client_s_here(self, client, other):
        lock = Lock("sent", client=other)
        for each in (client, other):
            was_the_tasks, returned = each.submit(whose, lock, pure=False).result()
            assert was_the_tasks
            assert returned.name == "sent"
            assert returned.client is each
        future = client.scatter({"lock": lock})
        was_the_tasks, _ = client.submit(lambda held: whose(held["lock"]), future).result()
        assert was_the_tasks

    def test_tasks_that_wait_for_it_lend_their_slots(self, client):
        """More tasks wait than there are slots, and the one that can end that comes last."""
        lock = Lock("lent")
        lock.acquire()
        waiting = [client.submit(whose_with, "lent", i, pure=False) for i in range(6)]
        assert client.submit(abs, -1, pure=False).result(timeout=DEADLINE_SECONDS) == 1
        lock.release()
        assert client.gather(waiting) == list(range(6))

    @pytest.mark.parametrize("end", ENDS)
    @pytest.mark.parametrize("kind", KINDS)
    def test_what_a_run_has_not_released_ends_with_it(self, client, kind, end):
        run = client.submit(acquire, kind, ENDS[end], pure=False)
        waiting = KINDS[kind]()
        run.exception(timeout=DEADLINE_SECONDS)
        # The end of a task is known only when what it had is free.
        assert waiting.acquire(timeout=0)
        waiting.release()

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_task_that_is_a_coroutine_is_a_run_like_any_other(self, client, kind):
        client.submit(acquire_on_a_loop, kind, pure=False).result(timeout=DEADLINE_SECONDS)
        for lock in (KINDS[kind](), Lock(f"{kind} of a helper")):
            assert lock.acquire(timeout=0)
            lock.release()

    def test_a_cancelled_run_has_it_until_its_end(self, client):
        run = client.submit(leave_and_wait, "cancelled", "go on", pure=False)
        until(lambda: Lock("cancelled").locked(), "it has it")
        run.cancel()
        assert Lock("cancelled").locked()
        Event("go on").set()
        assert is_free(client, "cancelled")

    def test_a_second_try_of_a_run_finds_it_free(self, client):
        array = client.scatter(np.zeros(100_000))
        assert client.submit(write_in_place, array, "twice", pure=False).result(timeout=2 * DEADLINE_SECONDS) == 1

    def test_an_actor_has_it_as_long_as_it_lives(self, client):
        keeper = client.submit(Keeper, "an actor's", actor=True).result(timeout=DEADLINE_SECONDS)
        assert keeper.another("an actor's 2").result(timeout=DEADLINE_SECONDS)
        assert client.submit(abs, -1, pure=False).result() == 1
        assert Lock("an actor's").locked()
        assert Lock("an actor's 2").locked()
        del keeper
        assert is_free(client, "an actor's")
        assert is_free(client, "an actor's 2")

    def test_an_actor_that_was_not_made_has_nothing(self, client):
        failed = client.submit(Keeper, "never made", fails=True, actor=True)
        assert isinstance(failed.exception(timeout=DEADLINE_SECONDS), ValueError)
        assert Lock("never made").acquire(timeout=0)

    def test_one_whose_worker_dies_has_it_no_longer(self, client):
        dying = client.submit(acquire_and_die, "dead", pure=False)
        assert dying.exception(timeout=2 * DEADLINE_SECONDS) is not None
        assert is_free(client, "dead")


def whose_with(name, value):
    with Lock(name):
        return value


class TestClientsThatGo:
    def test_one_that_closes_lets_go(self, cluster, client):
        with Client(cluster, set_as_default=False) as other:
            assert Lock("closed", client=other).acquire()
            waiting = threading.Thread(target=lambda: Lock("closed", client=client).acquire())
            waiting.start()
        waiting.join(DEADLINE_SECONDS)
        assert not waiting.is_alive()

    def test_a_process_that_is_killed_lets_go(self, cluster, client):
        code = (
            "import sys, time\n"
            "from holdfast import Client, Lock\n"
            f"client = Client({cluster.scheduler_address!r})\n"
            "print(Lock('killed').acquire(), flush=True)\n"
            "time.sleep(600)\n"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout.readline() == "True\n"
            assert not Lock("killed").acquire(blocking=False)
        finally:
            process.kill()
            process.communicate()
        assert is_free(client, "killed")

    def test_with_a_client_that_is_closed_it_says_so(self, cluster):
        with Client(cluster, set_as_default=False) as closed:
            lock = Lock("gone", client=closed)
            lock.acquire()
        for call in (lock.acquire, lock.release, lock.locked):
            with pytest.raises(ConnectError, match="closed"):
                call()

    def test_a_wait_ends_with_its_cluster(self):
        failed = []

        def wait(client):
            try:
                Lock("x", client=client).acquire()
            except ConnectError as error:
                failed.append(error)

        with LocalCluster(n_workers=1) as cluster, Client(cluster, set_as_default=False) as client:
            Lock("x", client=client).acquire()
            waiting = threading.Thread(target=wait, args=[client])
            waiting.start()
            until(lambda: client._core.session._answers, "it waits")
            cluster.close()
            waiting.join(DEADLINE_SECONDS)
        assert failed


class TestWaitsThatAreAbandoned:
    def test_one_that_is_interrupted_anywhere_has_no_lock(self, client, other):
        """Python looks for signals where a function begins: where ``__exit__`` does, it goes with its object."""
        at = untouched = 0
        while untouched < 3:
            at += 1
            interrupt = Interrupt("holdfast.c", at)
            lock = Lock("interrupted", client=client)
            with contextlib.suppress(KeyboardInterrupt), interrupt.armed(), lock:
                pass
            if lock._held:
                assert "__exit__" in interrupt.where
                del lock
            untouched += interrupt.where is None
            assert is_free(other, "interrupted"), interrupt.where
        assert at > 20
        assert not client._core.session._answers

    def test_what_was_acquired_without_with_stays_when_its_object_goes(self, cluster, other):
        """As a script does that is to run once at a time."""
        with Client(cluster, set_as_default=False) as once:
            assert Lock("once", client=once).acquire()
            assert not Lock("once", client=other).acquire(timeout=0.05)
        assert is_free(other, "once")

    def test_one_that_is_cancelled_at_any_step_has_no_lock(self, run_outside_of_tasks):
        async def case(client, got):
            if not client.asynchronous:
                return
            for n_turns in range(6):
                async with Lock("held", client=client) as holding:
                    waiting = asyncio.ensure_future(Lock("held", client=client).acquire())
                    for _ in range(n_turns):
                        await asyncio.sleep(0)
                    if n_turns > 3:
                        await holding.locked()
                    waiting.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await waiting
                lock = Lock("held", client=client)
                assert await lock.acquire(timeout=DEADLINE_SECONDS)
                await lock.release()

        run_outside_of_tasks(case)

    def test_one_that_is_cancelled_as_it_is_granted_passes_it_on(self, run_outside_of_tasks):
        async def case(client, got):
            if not client.asynchronous:
                return
            for _ in range(20):
                holding = Lock("passed on", client=client)
                await holding.acquire()
                waiting = asyncio.ensure_future(Lock("passed on", client=client).acquire())
                await holding.locked()
                await holding.release()
                await asyncio.sleep(0)
                waiting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    if await waiting:
                        raise AssertionError("it was cancelled before the answer could be read")
                assert await holding.acquire(timeout=DEADLINE_SECONDS)
                await holding.release()

        run_outside_of_tasks(case)

    def test_a_timeout_of_the_caller_s_own(self, run_outside_of_tasks):
        async def case(client, got):
            if not client.asynchronous:
                return
            async with Lock("late", client=client):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(Lock("late", client=client).acquire(), 0.01)
            async with Lock("late", client=client):
                pass

        run_outside_of_tasks(case)


class TestKinds:
    def test_with_is_for_blocking_clients(self, cluster):
        async def main():
            async with Client(cluster, asynchronous=True, set_as_default=False) as client:
                with pytest.raises(TypeError, match=r"use 'async with Lock\(\.\.\.\)'"), Lock("x", client=client):
                    pass

        asyncio.run(main())

    def test_a_coroutine_may_use_one_of_a_blocking_client(self, client):
        async def count(lock):
            async with lock:
                counts.append(len(counts))

        async def main():
            await asyncio.gather(*[count(Lock("coroutines")) for _ in range(5)])

        counts = []
        asyncio.run(main())
        assert counts == [0, 1, 2, 3, 4]

    def test_threads_share_an_object(self, client):
        lock, inside = Lock("threads"), []

        def work():
            for _ in range(20):
                with lock:
                    inside.append(1)
                    assert len(inside) == 1
                    inside.pop()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not lock._held

    def test_it_is_pickled_without_its_lease(self, client):
        with Lock("pickled") as lock:
            copy = pickle.loads(pickle.dumps(lock))
            assert copy.name == "pickled"
            with pytest.raises(RuntimeError, match="has not acquired"):
                copy.release()
            assert lock.locked()
