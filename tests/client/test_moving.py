"""Results on several hosts, and evened out among stores: with each kind of client."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast import NoWorkerError
from holdfast.cluster import protocol
from tests.support.kinds import KINDS, run_in_task, run_outside

MB = 1_000_000


@pytest.fixture(params=KINDS)
def run(request, two_hosts):
    """Runs a case with each kind of client; outside of tasks on two hosts."""

    def run(case):
        if request.param == "task":
            run_in_task(request.getfixturevalue("in_process"), case)
        else:
            run_outside(request.param, two_hosts, case)

    return run


async def nodes_of(client, got):
    return sorted((await got(client._request(protocol.requests.STATUS)))["nodes"])


def test_results_are_copied_to_all_hosts_and_forgotten_again(run):
    async def case(client, got):
        nodes = await nodes_of(client, got)
        future = client.submit(np.arange, MB, pure=False)
        assert await got(client.replicate(future)) is None
        assert sorted((await got(client.who_has(future)))[future.key]) == nodes
        await got(client.replicate([future], n=1))
        assert len((await got(client.who_has(future)))[future.key]) == 1
        await got(client.replicate([[future]], n=len(nodes), branching_factor=1))
        assert len((await got(client.who_has(future)))[future.key]) == len(nodes)
        assert (await got(client.gather(future))).sum() == MB * (MB - 1) // 2

    run(case)


def test_small_results_too(run):
    async def case(client, got):
        future = client.submit(abs, -7, pure=False)
        await got(client.replicate(future))
        assert sorted((await got(client.who_has(future)))[future.key]) == await nodes_of(client, got)

    run(case)


def test_stores_are_evened_out(run):
    async def case(client, got):
        nodes = await nodes_of(client, got)
        futures = [await got(client.scatter(np.full(MB // 4, n), workers=nodes[:1], hash=False)) for n in range(8)]
        assert await got(client.rebalance(futures)) is None
        where = (await got(client.who_has(futures))).values()
        assert all(len(each) == 1 for each in where)
        if len(nodes) > 1:
            assert 2 <= sum(each == nodes[:1] for each in where) <= 6
        await got(client.rebalance())
        assert [int(value[0]) for value in await got(client.gather(futures))] == list(range(8))

    run(case)


def test_what_can_not_be_done_is_said(run):
    async def case(client, got):
        future = client.submit(abs, -1, pure=False)
        with pytest.raises(NoWorkerError, match="'nobody'"):
            await got(client.replicate(future, workers="nobody"))
        with pytest.raises(NoWorkerError, match="'nobody'"):
            await got(client.rebalance(workers="nobody"))
        with pytest.raises(ValueError, match="n is a number from 1 on, not 0"):
            await got(client.replicate(future, n=0))
        with pytest.raises(ValueError, match="branching_factor"):
            await got(client.replicate(future, branching_factor=0))
        with pytest.raises(ZeroDivisionError):
            await got(client.replicate(client.submit(divmod, 1, 0, pure=False)))
        assert await got(client.replicate([])) is None

    run(case)


def test_what_was_let_go_of_is_gone_when_the_next_question_is_answered(run):
    async def case(client, got):
        for number in range(20):
            future = client.submit(np.arange, 10 + number, pure=False)
            await got(client.gather(future))
            key = future.key
            if number % 2:
                future.release()
            del future
            assert key not in await got(client.who_has())

    run(case)


def test_those_that_it_costs_least_to_close(run):
    async def case(client, got):
        workers = list(await got(client.nthreads()))
        (one,) = await got(client.workers_to_close(n=1))
        assert one in workers
        assert await got(client.workers_to_close(target=1)) == [one]
        assert sorted(await got(client.workers_to_close(target=0))) == sorted(workers)
        assert await got(client.workers_to_close(n=2, minimum=2)) == []
        assert await got(client.workers_to_close(n=1, key=lambda worker: "all")) == [], "all go or stay"
        assert sorted(await got(client.workers_to_close(n=2, key=lambda worker: "all"))) == sorted(workers)

    run(case)
