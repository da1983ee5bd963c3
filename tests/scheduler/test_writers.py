"""Which runs get private views of what they read."""

from __future__ import annotations

import pytest
from scheduler_harness import FUNCTION, Cluster

from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.writers import Writers


@pytest.fixture
def cluster():
    cluster = Cluster(hosts=1, workers=1, nthreads=8)
    cluster.add_client()
    return cluster


def private(cluster, *keys):
    return [cluster.entry(key)[1][5] for key in keys]


def submit_node(cluster, key, **options):
    """A node of a dask graph, which has no function of its own."""
    cluster.clients["client"][key] = "pending"
    cluster.handle(events.TasksSubmitted("client", [(key, None, b"node", ())], None, options))


def test_those_of_tasks_that_say_so(cluster):
    cluster.submit("client", {"a": ()}, writable=True)
    cluster.submit("client", {"b": (), "c": ()}, per_key={"c": {"writable": True}})
    assert private(cluster, "a", "b", "c") == [True, False, True]


def test_those_of_functions_that_workers_found(cluster):
    cluster.submit("client", {"before": ()})
    cluster.handle(events.FunctionsWrote(cluster.running["before"], [("before", FUNCTION)]))
    cluster.submit("client", {"after": ()})
    submit_node(cluster, "a node")
    assert private(cluster, "before", "after", "a node") == [False, True, False]


def test_those_of_nodes_of_a_layer_and_of_layers_of_that_name(cluster):
    submit_node(cluster, ("invert-1234", 0))
    worker = cluster.running[("invert-1234", 0)]
    cluster.handle(events.FunctionsWrote(worker, [(("invert-1234", 0), None)]))
    for key in (("invert-1234", 1), ("invert-5678", 0), ("inverted-1234", 0), "invert-9"):
        submit_node(cluster, key)
    keys = [("invert-1234", 1), ("invert-5678", 0), ("inverted-1234", 0), "invert-9"]
    assert private(cluster, *keys) == [True, True, False, True]


def test_the_table_has_a_limit():
    writers = Writers(limit=2)
    for number in (1, 2, 1, 3):
        writers.add(number, None)
    assert len(writers) == 2
    assert [writers.know(number, None) for number in (1, 2, 3)] == [True, False, True]
