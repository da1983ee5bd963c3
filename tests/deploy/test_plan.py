"""What a cluster on this machine consists of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.cluster.deploy import plan
from holdfast.cluster.deploy.plan import plan_nodes, workers_and_threads
from holdfast.objectstore.system import memory_limits


@pytest.mark.parametrize("n_cores", [1, 2, 3, 4, 7, 8, 12, 16, 30, 64, 96, 128])
def test_by_default_workers_times_threads_is_the_number_of_cores(n_cores: int) -> None:
    n_workers, threads = workers_and_threads(None, None, n_cores=n_cores)
    assert n_workers * threads == n_cores
    assert n_workers >= threads


def test_what_is_given_stays_and_the_rest_fills_the_cores() -> None:
    assert workers_and_threads(3, None, n_cores=8) == (3, 2)
    assert workers_and_threads(None, 3, n_cores=8) == (2, 3)
    assert workers_and_threads(16, None, n_cores=8) == (16, 1)
    assert workers_and_threads(None, 16, n_cores=8) == (1, 16)
    assert workers_and_threads(5, 7, n_cores=8) == (5, 7)


def test_without_processes_one_worker_has_all_threads() -> None:
    assert workers_and_threads(None, None, processes=False, n_cores=8) == (1, 8)


def test_workers_are_spread_over_hosts() -> None:
    plans = plan_nodes(5, 2, n_hosts=3, name="h")
    assert [each.n_workers for each in plans] == [2, 2, 1]
    assert [each.name for each in plans] == ["h-0", "h-1", "h-2"]
    assert all(each.threads_per_worker == 2 for each in plans)


def test_every_host_gets_a_worker_unless_the_number_was_given() -> None:
    assert [each.n_workers for each in plan_nodes(n_hosts=500, object_store_memory="1MB")] == [1] * 500
    with pytest.raises(ValueError, match="n_hosts=3 hosts need a worker each, but n_workers is 2"):
        plan_nodes(2, n_hosts=3)


def test_stores_share_a_default_and_take_what_they_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "default_capacity", lambda: 9_000)
    assert [each.store_capacity for each in plan_nodes(3, n_hosts=3)] == [3_000] * 3
    assert [each.store_capacity for each in plan_nodes(2, n_hosts=2, object_store_memory="3 MB")] == [3_000_000] * 2
    assert plan_nodes(1, memory_limit="1GiB")[0].memory_limit == 2**30


MIB = 1 << 20


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are 10 GiB."""
    monkeypatch.setattr(memory_limits, "memory_limit", lambda: 10240 * MIB)


@pytest.mark.usefixtures("memory")
def test_workers_share_what_is_left_beside_the_stores() -> None:
    left = 10240 - 4096 - 1024 - 128
    for limit in (None, "auto"):
        plans = plan_nodes(4, n_hosts=2, object_store_memory=2048 * MIB, memory_limit=limit)
        assert [each.memory_limit for each in plans] == [left // 4 * MIB] * 2
    (plan,) = plan_nodes(2)
    assert plan.memory_limit is not None
    assert plan.store_capacity + 2 * plan.memory_limit + 1152 * MIB == pytest.approx(10240 * MIB, abs=2 * MIB)


@pytest.mark.usefixtures("memory")
def test_what_is_spilled_to_memory_is_not_the_workers(tmp_path: Path) -> None:
    arguments = {"n_workers": 1, "object_store_memory": 2048 * MIB}
    on_disk = plan_nodes(**arguments, spill_directory=tmp_path)[0].memory_limit
    in_memory = plan_nodes(**arguments, spill_directory="/dev/shm/not/there/yet")[0].memory_limit
    assert on_disk is not None
    assert in_memory == on_disk - 2048 * MIB


@pytest.mark.usefixtures("memory")
def test_a_limit_is_never_less_than_an_idle_worker_takes() -> None:
    assert plan_nodes(500, 1, object_store_memory=9000 * MIB)[0].memory_limit == 64 * MIB


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("none", [0, False, "0"])
def test_workers_may_have_no_limit(none: Any) -> None:
    assert plan_nodes(1, memory_limit=none)[0].memory_limit is None


@pytest.mark.usefixtures("memory")
def test_nothing_limits_workers_that_are_parts_of_this_process() -> None:
    assert plan_nodes(1, processes=False)[0].memory_limit is None


def test_there_are_no_more_workers_than_there_is_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_limits, "memory_limit", lambda: 1000 * MIB)
    monkeypatch.setattr(plan, "cores", lambda: 64)
    (few,) = plan_nodes(object_store_memory=200 * MIB)  # 200 for the store and 228 for everybody else
    assert (few.n_workers, few.threads_per_worker) == (2, 32)
    assert plan_nodes(threads_per_worker=4, object_store_memory=200 * MIB)[0].n_workers == 2
    assert plan_nodes(16, object_store_memory=200 * MIB)[0].n_workers == 16, "as many as are asked for"
    monkeypatch.setattr(memory_limits, "memory_limit", lambda: 100 * MIB)
    assert plan_nodes(object_store_memory=20 * MIB)[0].n_workers == 1


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"n_workers": -2}, ValueError, "n_workers must be from 0 to"),
        ({"n_workers": 2.5}, TypeError, "n_workers must be a whole number, not 2.5"),
        ({"threads_per_worker": 0}, ValueError, "threads_per_worker must be from 1 to"),
        ({"n_hosts": 0}, ValueError, "n_hosts must be from 1 to"),
        ({"object_store_memory": "lots"}, ValueError, "object_store_memory: 'lots' is not a size"),
        ({"object_store_memory": 0}, ValueError, "object_store_memory: "),
        ({"object_store_memory": 4}, ValueError, "object_store_memory: 4 B is too little for a store: give 65.5 kB"),
        ({"memory_limit": 4}, ValueError, "memory_limit: 4 B is less than a worker takes to start.*, or 0 for no"),
        ({"object_store_memory": "900TB"}, ValueError, "object_store_memory: 900.0 TB is more than the"),
        ({"memory_limit": "1 parsec"}, ValueError, "memory_limit: '1 parsec' is not a size"),
        ({"resources": "GPU=2"}, TypeError, r"resources must map names to numbers, as in {'GPU': 1}; 'GPU=2' is no"),
        ({"resources": {"GPU": "two"}}, TypeError, "resources must map names to numbers"),
        ({"resources": {"GPU": -1}}, ValueError, "resources: 'GPU' can't be negative"),
    ],
)
def test_what_can_not_be_is_named(arguments: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        plan_nodes(**arguments)  # type: ignore[arg-type]
