"""Versions are compared: what can't work is refused, what may not is a warning."""

from __future__ import annotations

import warnings

import pytest
from scheduler_peers import Setup

import holdfast
from holdfast import Client
from holdfast.cluster import versions
from holdfast.cluster.comm.loops import run as run_loop
from holdfast.cluster.errors import VersionMismatchError


def test_everybody_says_what_they_have(run):
    async def case(client, got):
        found = await got(client.get_versions(packages=["zarr", "no-such-package"]))
        assert set(found) == {"scheduler", "workers", "client"}
        assert sorted(found["workers"]) == sorted(await got(client.nthreads()))
        for each in (found["scheduler"], found["client"], *found["workers"].values()):
            assert each["host"]["python"] == each["packages"]["python"]
            assert each["packages"]["holdfast"] == holdfast.__version__
            assert each["packages"]["zarr"]
            assert each["packages"]["no-such-package"] is None
        assert await got(client.get_versions(check=True))

    run(case)


def test_wrong_packages_are_refused(client):
    for wrong, error in (([3], TypeError), ([""], TypeError), (["x"] * 101, ValueError)):
        with pytest.raises(error, match="packages"):
            client.get_versions(packages=wrong)
    assert "zarr" in client.get_versions(packages="zarr")["client"]["packages"]


@pytest.fixture
def other_numpy(monkeypatch):
    """This process says that it has another numpy."""
    own = versions.own()
    monkeypatch.setattr(versions, "own", lambda: {**own, "numpy": "0.1"})


def test_a_difference_is_a_warning_and_an_error_if_it_is_checked(cluster, other_numpy):
    with pytest.warns(UserWarning, match=r"different versions(.|\n)*numpy +0\.1 ") as caught:
        client = Client(cluster, set_as_default=False)
    with client:
        assert len(caught) == 1
        assert caught[0].filename == __file__
        with pytest.raises(ValueError, match=r"package +client +scheduler +workers\n *numpy +0\.1 "):
            client.get_versions(check=True)
        assert client.get_versions()["client"]["packages"]["numpy"] == "0.1"


def test_no_difference_is_no_warning(cluster):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Client(cluster, set_as_default=False).close()


def test_another_python_is_refused_with_both_named(cluster, monkeypatch):
    own = versions.own()
    monkeypatch.setattr(versions, "own", lambda: {**own, "python": "3.9.1"})
    with pytest.raises(VersionMismatchError, match=r"the client runs Python 3\.9\.1 and the scheduler Python 3\.1"):
        Client(cluster, set_as_default=False)


def test_so_is_a_worker():
    async def main():
        async with Setup() as setup:
            with pytest.raises(VersionMismatchError, match=r"the worker runs Python 2\.7\.18"):
                await setup.add_worker(versions={"python": "2.7.18"})

    run_loop(main())


def test_the_scheduler_counts_for_what_it_exchanges_only():
    one = {"python": "3.11.1", "numpy": "1.0", "msgpack": "1.0"}
    assert versions.differences(one, {"python": "3.11.1", "msgpack": "1.0", "numpy": None}, {"w": one}) is None
    table = versions.differences(one, {**one, "msgpack": "0.9"}, {"w": one, "v": {**one, "numpy": None}})
    assert table is not None
    assert [line.split() for line in table.splitlines()[1:]] == [
        ["numpy", "1.0", "1.0", "1.0,", "None"],
        ["msgpack", "1.0", "0.9", "1.0"],
    ]
    assert versions.differences(one, one, {}) is None
