"""Where tasks run: graphs on pretended hosts in pretended time."""

from __future__ import annotations

import pytest
from simulated_cluster import MB, SimulatedCluster

CHUNK = 8 * MB


def tree(leaves: int, fan_in: int) -> dict:
    """A reduction of many leaves to one, depth first, as `dask.order` has it."""
    graph: dict = {}

    def add(level: int, number: int) -> tuple:
        size = fan_in**level
        key = ("sum" if level else "leaf", level, number)
        reads = []
        if level:
            first = number * fan_in
            reads = [add(level - 1, n) for n in range(first, first + fan_in) if n * size // fan_in < leaves]
        graph[key] = tuple(reads)
        return key

    height = 0
    while fan_in**height < leaves:
        height += 1
    add(height, 0)
    return graph


def ten_milliseconds(key) -> float:
    return 0.01


def large(key) -> int:
    return CHUNK


@pytest.mark.parametrize(("fan_in", "hosts"), [(2, 2), (4, 2), (8, 2), (4, 4)])
def test_what_is_read_together_is_made_on_one_host(fan_in, hosts):
    graph = tree(256, fan_in)
    cluster = SimulatedCluster(hosts, 2, seconds=ten_milliseconds, nbytes=large, validate=False)
    cluster.run(graph)
    host_of = {key: worker.rpartition("/")[0] for key, worker in cluster.ran_on.items()}
    families = [reads for key, reads in graph.items() if key[1] == 1]
    together = sum(len({host_of[leaf] for leaf in family}) == 1 for family in families)
    assert together >= 0.7 * len(families)
    assert {host_of[key] for key in graph} == {f"tcp://host{n}:1" for n in range(hosts)}
    # If the leaves were dealt out like cards, all but one in ``hosts`` of a family would have to be brought.
    assert cluster.moved_nbytes < 0.4 * 256 * CHUNK * (1 - 1 / hosts)


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_a_long_reduction_keeps_few_of_its_leaves_at_a_time(hosts):
    """However long it is: what is ready and reads results comes before what makes more of them."""
    peaks = []
    for leaves in (256, 1024):
        cluster = SimulatedCluster(hosts, 2, seconds=ten_milliseconds, nbytes=large, validate=False)
        cluster.run(tree(leaves, 4))
        peaks.append(cluster.peak_roots)
    assert max(peaks) <= 12 * hosts
    assert peaks[1] <= 1.5 * peaks[0]


def test_a_long_reduction_of_short_tasks_keeps_few_of_its_leaves_too():
    """They are sent ahead: only as much as keeps the workers busy for a moment."""
    cluster = SimulatedCluster(1, 2, seconds=lambda key: 0.001, nbytes=large, validate=False)
    cluster.run(tree(1024, 4))
    assert cluster.peak_roots <= 60


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_that_claimed_much_keep_nobody_idle(hosts):
    """However few tasks there are for each host, and however unevenly they were claimed."""
    for leaves in (4, 16, 48):
        graph = tree(leaves, 4)
        cluster = SimulatedCluster(hosts, 4, seconds=lambda key: 1.0, nbytes=large)
        cluster.run(graph)
        height = max(key[1] for key in graph)
        assert max(cluster.finished_at.values()) < -(-len(graph) // (4 * hosts)) + height + 0.1


def test_tasks_that_nobody_reads_are_dealt_out_one_by_one():
    cluster = SimulatedCluster(4, 1, seconds=lambda key: 1.0, nbytes=large)
    cluster.run({("f", n): () for n in range(16)}, [("f", n) for n in range(16)])
    assert max(cluster.finished_at.values()) < 4.1


def test_what_a_host_claimed_goes_elsewhere_when_it_leaves():
    cluster = SimulatedCluster(2, 1, seconds=ten_milliseconds, nbytes=large)
    cluster.submit(tree(64, 4))
    cluster.work(until=0.05)
    cluster.lose_host("tcp://host0:1")
    cluster.work()
    assert cluster.state.tasks[("sum", 3, 0)].state == "memory"
    assert not cluster.state.placement.queues()


@pytest.mark.parametrize("seconds", [0.001, 0.1])
def test_a_store_that_is_nearly_full_gets_no_more_than_there_are_threads(seconds):
    """Even if what fills it comes first, is short, and is sent ahead."""
    graph: dict = {("make", n): () for n in range(100)}
    graph.update({("use", n): (("make", n),) for n in range(100)})
    cluster = SimulatedCluster(
        1, 4, seconds=lambda key: seconds, nbytes=lambda key: CHUNK if key[0] == "make" else 100, capacity=20 * CHUNK
    )
    cluster.run(graph, [("use", n) for n in range(100)])
    assert cluster.peak_nbytes <= (0.7 * 20 + 4 + 1) * CHUNK
