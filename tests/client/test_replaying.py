"""Tasks that have failed run here, with what they read."""

from __future__ import annotations

import os

import dask
import numpy as np
import pytest

from holdfast import ObjectLostError


def ratio(x, y, *, scale=1):
    return scale * x / y


async def later(x, y):
    return x / y


def frames(raised):
    return [entry.name for entry in raised.traceback]


def test_the_task_that_failed_runs_here_with_what_it_read(run):
    async def case(client, got):
        zero = client.submit(abs, 0)
        first = client.submit(ratio, client.submit(abs, -1), zero, scale=2, pure=False)
        future = client.submit(abs, client.submit(abs, first, pure=False), pure=False)
        with pytest.raises(ZeroDivisionError) as raised:
            await got(client.recreate_error_locally(future))
        assert frames(raised)[-1] == "ratio"
        assert raised.traceback[-1].frame.f_locals == {"x": 1, "y": 0, "scale": 2}
        function, args, kwargs, dependencies = await got(client.get_futures_error(future))
        assert (function, kwargs) == (ratio, {"scale": 2})
        assert args[1] == zero.key
        assert set(args) == set(dependencies)

    run(case)


def test_any_task_can_run_here(run):
    async def case(client, got):
        array = await got(client.scatter(np.arange(100_000)))
        future = client.submit(np.sum, array)
        assert await got(client.recreate_task_locally(future)) == 4999950000
        here = await got(client.recreate_task_locally(client.submit(os.getpid, pure=False)))
        assert here == os.getpid()
        assert await got(client.recreate_task_locally(client.submit(later, 1, 2))) == 0.5

    run(case)


def test_of_a_collection_and_of_coroutines(client):
    failed = dask.delayed(ratio)(1, dask.delayed(abs)(0))
    (persisted,) = dask.persist(dask.delayed(abs)(failed))
    with pytest.raises(ZeroDivisionError) as raised:
        client.recreate_error_locally(persisted)
    assert frames(raised)[-1] == "ratio"
    assert client.get_futures_error(persisted).function is ratio
    with pytest.raises(ZeroDivisionError) as raised:
        client.recreate_error_locally(client.submit(later, 1, 0))
    assert frames(raised)[-1] == "later"
    assert client.recreate_task_locally(client.submit(later, 1, 2)) == 0.5


def test_what_is_no_failed_task_is_refused(client):
    with pytest.raises(ValueError, match="none of these has failed"):
        client.recreate_error_locally(client.submit(abs, -1))
    with pytest.raises(ValueError, match="no future"):
        client.recreate_error_locally([])
    with pytest.raises(ObjectLostError, match="data that a client has stored"):
        client.recreate_task_locally(client.scatter(1))
