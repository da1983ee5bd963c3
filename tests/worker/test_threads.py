"""Which of a worker's threads run what is queued."""

import asyncio
import contextlib
import os
import threading

import pytest

from holdfast.cluster.ledger import REVOKES
from holdfast.cluster.node.ledger import AgentLedger
from holdfast.cluster.worker.ledger import WorkerLedger
from holdfast.cluster.worker.threads import TaskThreads

DEADLINE_SECONDS = 10

revokes = pytest.mark.skipif(not REVOKES, reason="nothing is revoked on this processor")


def task(run_id):
    return ("key", run_id, None, b"", (), None, 1)


def run_all(nthreads, first, run):
    """Have threads ``run(threads, run_id)``, beginning with ``first``, until one returns True."""

    async def main():
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def run_one(entry):
            if run(threads, entry[1]):
                loop.call_soon_threadsafe(done.set)

        threads = TaskThreads(
            nthreads, contextlib.nullcontext, run_one, lambda waits: False, lambda: None, WorkerLedger(nthreads), "test"
        )
        threads.submit([task(run_id) for run_id in first])
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await done.wait()
        finally:
            threads.stop()
            assert await threads.join(DEADLINE_SECONDS)

    asyncio.run(main())


def test_a_task_that_a_thread_queues_after_another_is_its_own_to_run():
    ran_in = set()

    def run(threads, run_id):
        ran_in.add(threading.get_ident())
        threads.submit([task(run_id + 1)])
        return run_id == 100

    run_all(4, [1], run)
    assert len(ran_in) == 1


def test_tasks_that_come_together_run_at_once():
    together = threading.Barrier(4)
    run_all(4, range(1, 5), lambda threads, run_id: together.wait(DEADLINE_SECONDS) == 0)


def test_tasks_that_a_thread_queues_together_run_at_once():
    together = threading.Barrier(4)

    def run(threads, run_id):
        if run_id:
            return together.wait(DEADLINE_SECONDS) == 0
        threads.submit([task(1), task(2)])
        threads.submit([task(3), task(4)])
        return False

    run_all(4, [0], run)


def test_a_dropped_task_never_starts():
    started = []

    def run(threads, run_id):
        started.append(run_id)
        if run_id == 1:
            threads.submit([task(2), task(3)])
            assert threads.drop([1, 2, 7]) == [2]
        return run_id == 3

    run_all(1, [1], run)
    assert started == [1, 3]


def test_whenever_there_is_something_to_read_a_thread_tries_to():
    async def main():
        tries = []
        tried = threading.Condition()

        def read_while(waits):
            with tried:
                tries.append(threading.get_ident())
                tried.notify_all()
            return False

        threads = TaskThreads(
            2, contextlib.nullcontext, lambda entry: None, read_while, lambda: None, WorkerLedger(2), "test"
        )
        try:
            for _ in range(200):
                with tried:
                    before = len(tries)
                threads.read()
                with tried:
                    assert tried.wait_for(lambda before=before: len(tries) > before, DEADLINE_SECONDS)
        finally:
            threads.stop()
            assert await threads.join(DEADLINE_SECONDS)

    asyncio.run(main())


class Threads:
    """Threads with a ledger, and a scheduler's part to play by the test."""

    def __init__(self, nthreads, run, wrap=lambda ledger: ledger):
        self.agent = AgentLedger(1, nthreads)
        ledger = wrap(WorkerLedger.of_descriptor(os.dup(self.agent.fd), nthreads))
        self.threads = TaskThreads(
            nthreads, contextlib.nullcontext, run, lambda waits: False, lambda: None, ledger, "test"
        )

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc_info):
        self.threads.stop()
        assert await self.threads.join(DEADLINE_SECONDS)
        self.agent.close()


@revokes
def test_nothing_begins_from_a_revocation_until_the_worker_is_told(eventually):
    async def main():
        ran = []
        async with Threads(1, lambda entry: ran.append(entry[1])) as both:
            number, revoked, _ = both.agent.revoke([1, 2])
            both.threads.submit([task(run_id) for run_id in range(1, 6)])
            last = both.agent.revoke([9])[0]

            def is_taken() -> bool:  # each look is a revocation, as long as it is not
                nonlocal last
                another, _, begun = both.agent.revoke([1])
                last = max(last, another)
                return 1 in begun

            eventually(is_taken, what="the first is taken")
            assert not ran
            assert sorted(both.threads.revoke(revoked)) == [1, 2]
            both.threads.confirm(number)
            assert not ran, "there was another revocation in between"
            both.threads.confirm(last)
            eventually(lambda: len(ran) == 3)
            assert ran == [3, 4, 5]

    asyncio.run(main())


@revokes
def test_a_thread_that_waits_for_word_ends_when_it_is_to_stop(eventually):
    async def main():
        ran = []
        async with Threads(2, lambda entry: ran.append(entry[1])) as both:
            both.agent.revoke([7])
            both.threads.submit([task(1)])
            eventually(lambda: 1 in both.agent.revoke([1])[2])
        assert not ran

    asyncio.run(main())


@revokes
def test_a_run_that_is_revoked_and_told_of_just_when_it_is_taken_does_not_begin(eventually):
    """The worker is told between the moment that a thread has taken the run and that in which it looks."""

    class Overtaken:
        """A ledger, with the agent and the scheduler quicker than the thread that takes run 1."""

        def __init__(self, ledger):
            self.ledger = ledger
            self.revocations = self
            self.tell = None

        @property
        def running(self):
            return self.ledger.running

        def hold(self, slot):
            self.ledger.hold(slot)

        def taker(self, slot):
            take = self.ledger.taker(slot)

            def overtaken(run_id):
                if run_id == 1:
                    self.tell = both.agent.revoke([1])
                take(run_id)

            return overtaken

        def __getitem__(self, index):
            if self.tell is not None:
                (number, revoked, _), self.tell = self.tell, None
                assert both.threads.revoke(revoked) == [1]
                both.threads.confirm(number)
            return self.ledger.revocations[index]

    ran = []
    both = None

    async def main():
        nonlocal both
        async with Threads(1, lambda entry: ran.append(entry[1]), Overtaken) as both:
            both.threads.submit([task(1), task(2)])
            eventually(lambda: ran == [2])

    asyncio.run(main())
