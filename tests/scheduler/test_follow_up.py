"""What follows from an event is seen to in pieces, and what happens in between finds the scheduler in order.

Every event is validated (see `scheduler_harness`).
"""

from __future__ import annotations

import pytest
from scheduler_harness import Cluster

from holdfast.cluster.scheduler.tasks import events

CHAIN = {"a": (), "b": ["a"], "c": ["b"], "d": ["c"], "e": ["d"]}


@pytest.fixture
def cluster():
    """Sees to one task at a time."""
    return Cluster(hosts=1, workers=1, follow_up_limit=1)


def states(cluster):
    return {key: task.state for key, task in cluster.state.tasks.items()}


def test_a_graph_is_forgotten_piece_by_piece_and_the_time_to_go_on_is_at_once(cluster):
    client = cluster.add_client()
    cluster.submit(client, CHAIN, ["e"])
    cluster.catch_up()
    cluster.run_all()
    cluster.catch_up()
    assert cluster.state.next_deadline is None
    cluster.release(client, "e")
    assert len(cluster.state.tasks) == 3
    assert cluster.state.next_deadline == cluster.now
    assert cluster.catch_up() == 3
    assert not cluster.state.tasks
    assert cluster.state.next_deadline is None


def test_a_failure_spreads_piece_by_piece_and_is_reported_where_it_ends(cluster):
    client = cluster.add_client()
    cluster.submit(client, CHAIN, ["e"])
    cluster.catch_up()
    cluster.err("a")
    assert cluster.clients[client] == {"e": "pending"}
    cluster.catch_up()
    assert cluster.clients[client] == {"e": "erred"}


def test_what_a_client_held_goes_piece_by_piece_and_nothing_is_left_behind(cluster):
    client, other = cluster.add_client(), cluster.add_client("other")
    cluster.submit(client, dict.fromkeys(CHAIN, ()))
    cluster.handle(events.KeysWanted(other, ["a"]))
    cluster.remove_client(client)
    assert len(cluster.state.tasks) > 1
    cluster.run_all()  # reports to the client that has left would fail here
    cluster.catch_up()
    cluster.drop_all()
    assert states(cluster) == {"a": "memory"}
    cluster.release("other", "a")
    assert not cluster.state.tasks
    assert not any(cluster.stores.values())


def test_a_client_that_comes_back_holds_nothing_of_what_it_held(cluster):
    client = cluster.add_client()
    cluster.submit(client, dict.fromkeys(CHAIN, ()))
    cluster.remove_client(client)
    cluster.add_client(client)
    cluster.submit(client, {"a": ()})
    cluster.run_all()
    cluster.catch_up()
    cluster.drop_all()
    assert states(cluster) == {"a": "memory"}
    assert cluster.clients[client] == {"a": "memory"}


def test_an_unpublished_dataset_goes_piece_by_piece(cluster):
    client = cluster.add_client()
    cluster.submit(client, dict.fromkeys(CHAIN, ()))
    cluster.run_all()
    cluster.publish(client, 1, "data", list(CHAIN))
    cluster.release(client, *CHAIN)
    cluster.unpublish(client, 2, "data")
    assert states(cluster)
    cluster.catch_up()
    assert not cluster.state.tasks


def test_what_is_submitted_again_before_its_error_is_forgotten_runs_again(cluster):
    client = cluster.add_client()
    cluster.submit(client, CHAIN, ["e"])
    cluster.catch_up()
    cluster.err("a")
    cluster.catch_up()
    cluster.release(client, "e")
    assert cluster.state.life.follow_up.has_more
    cluster.submit(client, CHAIN, ["e"])
    cluster.catch_up()
    cluster.run_all()
    cluster.catch_up()
    assert cluster.clients[client] == {"e": "memory"}


def test_what_is_released_in_the_middle_of_a_failure_is_forgotten(cluster):
    client = cluster.add_client()
    cluster.submit(client, CHAIN, ["e"])
    cluster.catch_up()
    cluster.err("a")
    cluster.release(client, "e")
    cluster.catch_up()
    assert not cluster.state.tasks


def test_what_is_let_go_of_stays_until_it_is_known_whether_something_needs_it(cluster):
    client = cluster.add_client()
    cluster.scatter(client, "data", next(iter(cluster.stores)))
    cluster.submit(client, {"a": ["data"], **{key: needs for key, needs in CHAIN.items() if needs}}, ["e"])
    cluster.release(client, "data")
    cluster.catch_up()
    cluster.run_all()
    cluster.catch_up()
    assert cluster.clients[client] == {"e": "memory"}
    cluster.release(client, "e")
    cluster.catch_up()
    assert not cluster.state.tasks
