"""Several locks at once, and locks that their owner acquires again."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import threading

import pytest

from holdfast import Client, Lock, MultiLock, RLock
from tests.support.interrupts import Interrupt

DEADLINE_SECONDS = 30


@pytest.fixture
def other(cluster):
    """Another client of the same cluster, which isn't the default."""
    with Client(cluster, set_as_default=False) as other:
        yield other


class TestSeveralLocks:
    def test_all_at_once(self, run):
        async def case(client, got):
            lock = MultiLock(["a", "b", "a"], client=client)
            other = MultiLock(("b", "c"), client=client)
            assert lock.names == ["a", "b"]
            assert await got(lock.acquire())
            assert lock.locked()
            assert await got(Lock("a", client=client).locked())
            assert not await got(other.acquire(timeout="10 ms"))
            assert not await got(other.acquire(blocking=False))
            assert not other.locked()
            assert await got(other.acquire(num_locks=1))
            await got(lock.release())
            await got(other.release())
            async with lock:
                assert not await got(Lock("b", client=client).acquire(blocking=False))
            assert not await got(Lock("b", client=client).locked())
            with pytest.raises(RuntimeError, match="has not acquired"):
                await got(lock.release())
            assert repr(lock) == "<MultiLock: ('a', 'b')>"

        run(case)

    def test_tasks_that_want_some_of_the_same_come_to_an_end(self, client):
        names = ["x", "y", "z"]
        futures = [client.submit(within, names[i % 3 :] + names[: i % 3], pure=False) for i in range(20)]
        assert client.gather(futures) == [True] * 20

    def test_what_can_not_be(self, client):
        with pytest.raises(ValueError, match="needs the name of a lock"):
            MultiLock([])
        with pytest.raises(TypeError, match=r"the names of locks are a list, not 'x': \['x'\]"):
            MultiLock("x")
        for number in (0, 3):
            with pytest.raises(ValueError, match="num_locks is from 1 to 2"):
                MultiLock(["x", "y"]).acquire(num_locks=number)

    def test_it_is_pickled(self, client):
        assert pickle.loads(pickle.dumps(MultiLock(["x", ("y", 1)]))).names == ["x", ("y", 1)]


def within(names):
    for _ in range(5):
        with MultiLock(names) as lock:
            assert lock.locked()
    return True


class TestReentrantLocks:
    def test_its_owner_acquires_it_again(self, run):
        async def case(client, got):
            lock = RLock("again", client=client)
            assert await got(lock.acquire())
            assert await got(RLock("again", client=client).acquire(blocking=False))
            async with lock:
                assert await got(lock.locked())
            assert not await got(Lock("again", client=client).acquire(blocking=False))
            await got(lock.release())
            assert await got(lock.locked())
            await got(lock.release())
            assert await got(Lock("again", client=client).acquire(timeout=DEADLINE_SECONDS))
            with pytest.raises(RuntimeError, match="what runs here does not own it"):
                await got(lock.release())
            assert not await got(lock.acquire(timeout=0.01))

        run(case)

    def test_another_thread_is_another_owner(self, client):
        lock, seen = RLock("threads"), []

        def look():
            seen.append(lock.acquire(blocking=False))
            with pytest.raises(RuntimeError, match="does not own it"):
                lock.release()

        with lock:
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
        assert seen == [False]
        assert lock.acquire(timeout=DEADLINE_SECONDS)
        lock.release()

    def test_another_coroutine_is_another_owner(self, cluster):
        async def main():
            async with Client(cluster, asynchronous=True, set_as_default=False) as client:
                lock = RLock("coroutines", client=client)
                async with lock, lock:
                    assert not await asyncio.create_task(try_it(lock))
                    assert await asyncio.wait_for(lock.acquire(), DEADLINE_SECONDS)
                    await lock.release()
                assert await asyncio.create_task(try_it(lock))

        async def try_it(lock):
            acquired = await lock.acquire(timeout=0.05)
            if acquired:
                await lock.release()
            return acquired

        asyncio.run(main())

    def test_a_task_that_ends_without_a_release_lets_go(self, client):
        """The same thread may run several."""
        worker = next(iter(client.nthreads()))
        for _ in range(3):
            assert client.submit(acquire_recursive, "left", 2, workers=worker, pure=False).result()
        assert RLock("left").acquire(timeout=DEADLINE_SECONDS)
        RLock("left").release()

    def test_one_that_is_interrupted_anywhere(self, client, other):
        at = untouched = 0
        while untouched < 3:
            at += 1
            interrupt = Interrupt("holdfast.c", at)
            lock = RLock("interrupted r", client=client)
            acquired = False
            with contextlib.suppress(KeyboardInterrupt), interrupt.armed():
                acquired = lock.acquire()
            if acquired:
                lock.release()
            untouched += interrupt.where is None
            free = Lock("interrupted r", client=other)
            assert free.acquire(timeout=DEADLINE_SECONDS), interrupt.where
            free.release()
        assert at > 20


def acquire_recursive(name, count):
    return all(RLock(name).acquire(blocking=False) for _ in range(count))
