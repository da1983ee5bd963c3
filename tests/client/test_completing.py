"""`as_completed`: futures in the order in which they are done, in every kind of client."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time

import pytest

from holdfast import CancelledError, Client, as_completed, wait
from holdfast.client.futures.holding import hold_all
from tests.support.waiting import until

DEADLINE_SECONDS = 30


def wait_for(path):
    until(path.exists, "the test lets it go on")
    return str(path.name)


async def each(client, completed):
    """What an iteration gives, in any kind of client."""
    return [one async for one in completed] if client.asynchronous else list(completed)


async def following(client, iterator):
    return await anext(iterator) if client.asynchronous else next(iterator)


def test_futures_come_as_they_are_done(run, tmp_path):
    async def case(client, got):
        slow = client.submit(wait_for, tmp_path / "slow")
        quick = client.submit(abs, -1, pure=False)
        ac = as_completed([slow, quick])
        assert ac.count() == 2
        assert await following(client, ac) is quick
        assert (ac.count(), ac.has_ready(), ac.is_empty()) == (1, False, False)
        (tmp_path / "slow").touch()
        assert await following(client, ac) is slow
        assert ac.is_empty()
        assert await each(client, ac) == []

    run(case)


def test_more_are_added_meanwhile(run):
    async def case(client, got):
        ac = as_completed(client.map(abs, [-1, -2], pure=False))
        found = []
        iterator = aiter(ac) if client.asynchronous else iter(ac)
        while not ac.is_empty():
            value = await got((await following(client, iterator)).result())
            found.append(value)
            if value < 8:
                ac.add(client.submit(pow, value + 1, 2, pure=False))
        assert sorted(found) == [1, 2, 4, 9, 25]

    run(case)


def test_several_are_added_at_once(run):
    async def case(client, got):
        ac = as_completed([])
        ac.update(client.map(abs, [-1, -2, -3], pure=False))
        assert ac.count() == 3
        assert sorted([await got(future.result()) for future in await each(client, ac)]) == [1, 2, 3]

    run(case)


def test_one_that_is_there_twice_comes_twice(run):
    async def case(client, got):
        future = client.submit(abs, -1)
        same = client.submit(abs, -1)
        assert await each(client, as_completed([future, future, same])) == [future, future, same]

    run(case)


def fail():
    raise ValueError("as it should")


def test_those_that_fail_and_those_that_are_cancelled_are_done(run, tmp_path):
    async def case(client, got):
        failed = client.submit(fail, pure=False)
        await got(wait(failed))
        waiting = client.submit(wait_for, tmp_path / "never", pure=False)
        ac = as_completed([waiting, failed])
        assert await following(client, ac) is failed
        await got(client.cancel(waiting))
        assert await following(client, ac) is waiting
        assert (failed.status, waiting.status) == ("error", "cancelled")
        (tmp_path / "never").touch()

    run(case)


def test_one_that_is_released_while_it_is_waited_for_is_done_too(run, tmp_path):
    async def case(client, got):
        future = client.submit(wait_for, tmp_path / "go", pure=False)
        ac = as_completed([future])
        future.release()
        assert await each(client, ac) == [future]
        assert await each(client, as_completed([future])) == [future]
        (tmp_path / "go").touch()

    run(case)


def test_with_results(run):
    async def case(client, got):
        futures = client.map(abs, [-1, -2], pure=False)
        found = await each(client, as_completed(futures, with_results=True))
        assert sorted(value for _, value in found) == [1, 2]
        assert {future for future, _ in found} == set(futures)

        failed = client.submit(fail, pure=False)
        with pytest.raises(ValueError, match="as it should"):
            await each(client, as_completed([failed], with_results=True))

    run(case)


def test_results_that_are_none_can_be_looked_at(run, tmp_path):
    async def case(client, got):
        failed = client.submit(fail, pure=False)
        await got(wait(failed))
        waiting = client.submit(wait_for, tmp_path / "never", pure=False)
        released = client.submit(abs, -1)
        ac = as_completed([failed, waiting, released], with_results=True, raise_errors=False)
        await got(client.cancel(waiting))
        released.release()
        found = dict(await each(client, ac))
        kind, error, trace = found[failed]
        assert (kind, str(error), trace.tb_frame.f_code.co_name) == (ValueError, "as it should", "fail")
        assert isinstance(found[waiting], CancelledError)
        assert isinstance(found[released], CancelledError)
        (tmp_path / "never").touch()

    run(case)


def test_batches_have_all_that_is_done(run, tmp_path):
    async def case(client, got):
        futures = client.map(abs, range(10), pure=False)
        await got(wait(futures))
        slow = client.submit(wait_for, tmp_path / "slow", pure=False)
        ac = as_completed([*futures, slow])
        assert ac.next_batch(block=False) == futures
        assert ac.next_batch(block=False) == []
        (tmp_path / "slow").touch()
        assert await got(ac.next_batch()) == [slow]
        assert await got(ac.next_batch()) == []

        ac = as_completed(futures, with_results=True)
        found = []
        if client.asynchronous:
            async for batch in ac.batches():
                found += batch
        else:
            for batch in ac.batches():
                found += batch
        assert [value for _, value in found] == list(range(10))

    run(case)


def test_what_a_batch_could_not_give_comes_again(run):
    async def case(client, got):
        first, last = client.map(abs, [-1, -2], pure=False)
        futures = [first, client.submit(fail, pure=False), last]
        await got(wait(futures))
        ac = as_completed(futures, with_results=True)
        with pytest.raises(ValueError, match="as it should"):
            await got(ac.next_batch())
        assert ac.count() == 2
        assert await got(ac.next_batch()) == [(first, 1), (last, 2)]

    run(case)


def test_what_is_cleared_does_not_come(run, tmp_path):
    async def case(client, got):
        done, slow = client.submit(abs, -1), client.submit(wait_for, tmp_path / "slow", pure=False)
        await got(wait(done))
        ac = as_completed([done, slow])
        ac.clear()
        assert (ac.count(), ac.has_ready(), ac.is_empty()) == (0, False, True)
        ac.add(slow)
        (tmp_path / "slow").touch()
        assert await each(client, ac) == [slow]

    run(case)


def test_a_timeout_says_what_was_waited_for(run, tmp_path):
    async def case(client, got):
        slow = client.submit(wait_for, tmp_path / "slow", key="slow")
        futures = [slow, client.submit(len, slow, key="behind it")]
        ac = as_completed(futures, timeout="100 ms")
        with pytest.raises(TimeoutError, match=r"not done within 0\.1 s: 'slow' and 1 more"):
            await following(client, ac)
        assert ac.count() == 2
        (tmp_path / "slow").touch()
        await got(wait(futures))

    run(case)


def test_futures_of_several_clients(run, cluster):
    async def case(client, got):
        if client.id.endswith("/tasks"):
            return
        with Client(cluster, set_as_default=False) as other:
            mine, others = client.submit(abs, -1, pure=False), other.submit(abs, -2, pure=False)
            assert set(await each(client, as_completed([mine, others]))) == {mine, others}

    run(case)


def test_whatever_gives_futures(client):
    dask_array = pytest.importorskip("dask.array")
    persisted = dask_array.ones(4, chunks=2).persist()
    assert len(list(as_completed(persisted))) == 2
    assert len(list(as_completed(iter(client.map(abs, range(3)))))) == 3
    assert len(list(as_completed(client.submit(abs, 1)))) == 1


def test_what_is_no_future_is_refused(client):
    with pytest.raises(TypeError, match="as_completed takes futures, not 1"):
        as_completed([1])
    with pytest.raises(TypeError, match="an iterable of futures"):
        as_completed(1)
    with pytest.raises(TypeError, match=r"concurrent\.futures"):
        as_completed([concurrent.futures.Future()])
    with pytest.raises(TypeError, match=r"as_completed\(\[x, y\]\)"):
        as_completed(client.submit(abs, 1), client.submit(abs, 2))


def test_a_blocking_client_has_no_async_for(client):
    async def iterate():
        async for _ in as_completed([client.submit(abs, 1)]):
            pass

    with pytest.raises(TypeError, match="iterate over as_completed with 'for'"):
        asyncio.run(iterate())


def test_several_threads_take_from_one(client):
    futures = client.map(abs, range(200), pure=False)
    ac = as_completed(futures)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        taken = [pool.submit(list, ac) for _ in range(4)]
        found = [future for each in taken for future in each.result(DEADLINE_SECONDS)]
    assert sorted(future.key for future in found) == sorted(future.key for future in futures)
    assert len(found) == 200


def test_a_thread_that_waits_hears_of_what_another_one_adds(client, tmp_path):
    slow = client.submit(wait_for, tmp_path / "slow", pure=False)
    ac = as_completed([slow])
    found = []
    thread = threading.Thread(target=lambda: found.append(next(ac)))
    thread.start()
    until(lambda: ac._completions.wakes, "it waits")
    quick = client.submit(abs, -1, pure=False)
    ac.add(quick)
    thread.join(DEADLINE_SECONDS)
    assert found == [quick]
    (tmp_path / "slow").touch()


def test_when_the_client_is_closed_all_are_done(cluster, tmp_path):
    client = Client(cluster, set_as_default=False)
    future = client.submit(wait_for, tmp_path / "slow", pure=False)
    ac = as_completed([future])
    client.close()
    assert list(ac) == [future]
    assert future.cancelled()
    (tmp_path / "slow").touch()


def test_it_costs_the_same_for_each_of_many(script):
    """No look at all of them for each that comes: a hundred thousand would take minutes."""
    futures = list(hold_all(script.client._core, [f"x-{n}" for n in range(100_000)]).values())
    ac = as_completed(futures)
    for start in range(0, 100_000, 500):
        entries = [(f"x-{n}", bytes(16), 1, b"x", ()) for n in range(start, start + 500)]
        script.send(("memory", entries))
    threads = threading.active_count()
    deadline = time.monotonic() + DEADLINE_SECONDS
    assert [future.key for future in ac] == [f"x-{n}" for n in range(100_000)]
    assert time.monotonic() < deadline
    assert threading.active_count() <= threads
