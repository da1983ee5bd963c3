"""Which of a worker's threads run what is queued."""

import asyncio
import contextlib
import threading

from holdfast.cluster.ledger import WorkerLedger
from holdfast.cluster.worker.threads import TaskThreads

DEADLINE_SECONDS = 10


def task(run_id):
    return ("key", run_id, None, b"", (), None)


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
