"""Semaphores between clients and tasks: how many leases are granted, and what closing one means."""

from __future__ import annotations

import asyncio
import os

import pytest

from holdfast import Client, Semaphore

DEADLINE_SECONDS = 30


@pytest.fixture
def other(cluster):
    """Another client of the same cluster, which isn't the default."""
    with Client(cluster, set_as_default=False) as other:
        yield other


class TestSemaphores:
    def test_so_many_leases_are_granted(self, run):
        async def case(client, got):
            semaphore = await Semaphore(max_leases=2, name="two", client=client)
            other = Semaphore(2, "two", client)
            assert await got(semaphore.acquire())
            assert await got(other.acquire(timeout=DEADLINE_SECONDS))
            assert await got(semaphore.get_value()) == 2
            assert not await got(other.acquire(timeout="10 ms"))
            assert not await got(other.acquire(timeout=0))
            await got(semaphore.release())
            assert await got(other.acquire(timeout=DEADLINE_SECONDS))
            await got(other.release())
            await got(other.release())
            with pytest.raises(RuntimeError, match="has not acquired it"):
                await got(other.release())
            async with semaphore:
                assert await got(semaphore.get_value()) == 1
            assert await got(semaphore.get_value()) == 0
            await got(semaphore.close())

        run(case)

    def test_one_name_has_one_number_of_leases(self, run):
        async def case(client, got):
            first = await Semaphore(2, "inconsistent", client)
            with pytest.raises(ValueError, match=r"Inconsistent max leases: 1, expected: 2"):
                await Semaphore(1, "inconsistent", client)
            await got(first.close())
            assert (await Semaphore(1, "inconsistent", client)).max_leases == 1
            await got(Semaphore(1, "inconsistent", client).close())

        run(case)

    def test_one_that_is_closed_is_closed_for_all(self, run):
        async def case(client, got):
            semaphore = await Semaphore(1, "closing", client)
            await got(semaphore.acquire())
            other = await Semaphore(1, "closing", client)
            waiting = asyncio.ensure_future(enter(other))
            await asyncio.sleep(0)
            await got(semaphore.get_value())
            with pytest.warns(RuntimeWarning, match="'closing' was closed, and one lease was not released yet"):
                await got(semaphore.close())
            with pytest.raises(RuntimeError, match="the semaphore 'closing' was closed"):
                await waiting
            with pytest.raises(RuntimeError, match="there is no semaphore 'closing'"):
                await got(semaphore.acquire())
            await got(semaphore.release())
            await got(semaphore.close())
            assert await got(semaphore.get_value()) == 0

        async def enter(semaphore):
            async with semaphore:
                pass

        run(case)

    @pytest.mark.parametrize(("number", "error"), [(0, ValueError), (1.5, TypeError), ("2", TypeError)])
    def test_the_number_of_leases_is_a_number(self, client, number, error):
        with pytest.raises(error, match="max_leases is"):
            Semaphore(number)

    def test_tasks_share_it(self, client, tmp_path):
        semaphore = Semaphore(2, "tasks")
        futures = client.map(enter_together, range(12), semaphore=semaphore, path=tmp_path)
        assert max(client.gather(futures)) <= 2
        assert semaphore.get_value() == 0
        semaphore.close()
        late = client.submit(enter_together, 0, semaphore, tmp_path, pure=False)
        with pytest.raises(RuntimeError, match="there is no semaphore 'tasks'"):
            late.result()

    def test_one_that_nobody_has_awaited_is_opened_by_the_task_that_it_is_sent_to(self, cluster):
        async def main():
            async with Client(cluster, asynchronous=True, set_as_default=False) as client:
                semaphore = Semaphore(1, "not awaited", client)
                assert await client.submit(value_within, semaphore) == 1
                await semaphore.close()

        asyncio.run(main())

    def test_with_its_worker_goes_what_a_task_has_of_it(self, client):
        semaphore = Semaphore(1, "worker")
        dying = client.submit(acquire_and_die, semaphore, pure=False)
        assert dying.exception(timeout=2 * DEADLINE_SECONDS) is not None
        assert semaphore.acquire(timeout=DEADLINE_SECONDS)
        semaphore.release()
        semaphore.close()

    def test_one_that_was_made_without_a_client_is_opened_when_it_is_used(self, cluster):
        semaphore = Semaphore(3, "before any client")
        with Client(cluster), semaphore:
            assert semaphore.get_value() == 1
        with Client(cluster):
            semaphore.close()


def enter_together(number, semaphore, path):
    with semaphore:
        mine = path / str(number)
        mine.touch()
        inside = len(list(path.iterdir()))
        mine.unlink()
        return inside


def value_within(semaphore):
    with semaphore:
        return semaphore.get_value()


def acquire_and_die(semaphore):
    semaphore.acquire()
    os._exit(1)
