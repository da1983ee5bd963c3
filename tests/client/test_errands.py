"""Errands from a client to workers and back, in every kind of client."""

from __future__ import annotations

import pytest
from waiting import until

import holdfast
from holdfast.client.operations.errands import have_done
from holdfast.cluster.protocol.errands import VERSIONS


def versions(client, *names, **options):
    return client._run(have_done(client._core, VERSIONS, *names, **options))


def test_every_worker_answers(run):
    async def case(client, got):
        outcomes = await got(versions(client, packages=["zarr", "no-such-package"]))
        assert list(outcomes) == sorted(await got(client.nthreads()))
        for value, error in outcomes.values():
            assert error is None
            assert value["packages"]["holdfast"] == holdfast.__version__
            assert value["packages"]["zarr"]
            assert value["packages"]["no-such-package"] is None
            assert value["host"]["python"] == value["packages"]["python"]

    run(case)


def test_those_that_are_named(run):
    async def case(client, got):
        workers = list(await got(client.nthreads()))
        assert list(await got(versions(client, workers[:1]))) == workers[:1]
        with pytest.raises(ValueError, match="no worker is called 'nobody'"):
            await got(versions(client, ["nobody"]))

    run(case)


def test_a_task_that_runs_does_not_hold_them_up(client, tmp_path):
    def busy(path):
        import pathlib

        from tests.support.waiting import until

        pathlib.Path(path, "begun").touch()
        until(lambda: pathlib.Path(path, "end").exists(), "the test says so")

    address = next(iter(client.nthreads()))
    future = client.submit(busy, str(tmp_path), workers=address)
    until(lambda: (tmp_path / "begun").exists(), "it runs")
    assert list(versions(client, [address], 20.0)) == [address]
    assert not future.done()
    (tmp_path / "end").touch()
    future.result(20)
