"""A machine goes on where another one has ended: from the journal, and from what hosts and workers have."""

from __future__ import annotations

import itertools
import random

import msgpack
import pytest

from holdfast.cluster.journal import records
from holdfast.cluster.scheduler.machine.validation import CheckedState
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.decisions import Decisions
from holdfast.cluster.scheduler.tasks.instructions import DeleteObjects, GrantResources
from tests.support.journalled import Journalled


@pytest.fixture
def cluster():
    cluster = Journalled(hosts=2, workers=1)
    cluster.add_client("c")
    return cluster


def _states(cluster):
    return {key: task.state for key, task in cluster.state.tasks.items()}


def test_what_is_finished_is_not_computed_again(cluster):
    cluster.submit("c", {"a": [], "b": ["a"], "c": ["b"]}, ["c"])
    cluster.finish("a")
    cluster.finish("b")
    cluster.restart()
    assert _states(cluster) == {"a": "released", "b": "memory", "c": "processing"}
    assert list(cluster.running) == ["c"]
    cluster.finish("c")
    assert cluster.clients["c"]["c"] == "memory"


def test_a_run_goes_on_and_has_the_number_that_it_had(cluster):
    cluster.submit("c", {"a": []})
    worker, entry = cluster.entry("a")
    cluster.restart()
    assert cluster.entry("a") == (worker, entry)
    assert cluster.state.tasks["a"].run_id == entry[1]
    cluster.finish("a")
    assert _states(cluster) == {"a": "memory"}


def test_what_ran_on_a_worker_that_is_gone_runs_again(cluster):
    cluster.submit("c", {"a": [], "b": []})
    lost, _ = cluster.entry("a")
    kept, _ = cluster.entry("b")
    cluster.restart(lost_workers=[lost])
    cluster.run_all()
    assert cluster.clients["c"] == {"a": "memory", "b": "memory"}
    assert kept in cluster.state.workers


def test_small_results_that_only_workers_have_are_found(cluster):
    cluster.submit("c", {"a": [], "b": []})
    cluster.finish("a", inline=b"small")
    cluster.restart()
    assert cluster.state.tasks["a"].inline == b"small"
    assert _states(cluster) == {"a": "memory", "b": "processing"}


def test_what_a_host_had_that_is_gone_is_made_again_as_far_as_it_is_needed(cluster):
    graph = {"a": [], "b": ["a"], "c": ["b"], "d": ["b"]}
    cluster.submit("c", graph, ["c", "d"])
    for key in "abc":
        cluster.finish(key)
    host = next(iter(cluster.state.tasks["b"].where)).address
    cluster.restart(lost_hosts=[host])
    assert _states(cluster)["d"] != "memory"
    cluster.run_all()
    assert {key: _states(cluster)[key] for key in "cd"} == {"c": "memory", "d": "memory"}


def test_what_was_let_go_of_is_forgotten_and_its_objects_are_deleted(cluster):
    cluster.submit("c", {"a": [], "b": []})
    a, b = cluster.finish("a"), cluster.finish("b")
    # The scheduler dies when the release is in the journal, before anything that follows from it has left.
    cluster.journal.append(msgpack.packb([records.unhold("c", [cluster.state.tasks["a"].serial])]))
    assert set().union(*cluster.stores.values()) == {a, b}
    cluster.restart()
    assert _states(cluster) == {"b": "memory"}
    assert set().union(*cluster.stores.values()) == {b}


def test_where_the_journal_is_damaged_nothing_is_deleted(cluster):
    cluster.submit("c", {"a": []})
    cluster.finish("a")
    cluster.journal.clear()
    cluster.handle(events.ClientJoined("d", "d"))
    cluster.restart(is_damaged=True)
    assert not _states(cluster)
    assert len(set().union(*cluster.stores.values())) == 1


def test_data_is_found_by_its_object_and_data_without_a_host_is_lost_by_name(cluster):
    hosts = list(cluster.state.hosts)
    cluster.scatter("c", "x", hosts[0])
    cluster.scatter("c", "y", hosts[1])
    cluster.submit("c", {"z": ["y"]})
    cluster.restart(lost_hosts=[hosts[1]])
    assert _states(cluster) == {"x": "memory", "y": "erred", "z": "erred"}
    assert "'y' is lost" in cluster.reasons["z"]


def test_data_that_lies_in_no_store_is_in_the_journal(cluster):
    object_id = cluster.new_object()
    cluster.values[object_id] = object_id
    cluster.handle(events.ObjectsScattered("c", [("x", object_id, 5, "bytes", "tcp://nowhere:1", b"value")]))
    cluster.restart()
    assert cluster.state.tasks["x"].inline == b"value"


def test_errors_are_as_they_were(cluster):
    cluster.submit("c", {"a": [], "b": ["a"], "c": ["b"]}, ["b", "c"])
    cluster.err("a", "no such thing")
    cluster.restart()
    assert _states(cluster)["c"] == "erred"
    assert cluster.state.tasks["c"].error.text == "no such thing"
    assert cluster.state.tasks["c"].error is cluster.state.tasks["b"].error
    cluster.handle(events.KeysRetried("c", ["c"]))
    cluster.catch_up()
    cluster.run_all()
    assert _states(cluster)["c"] == "memory"


def test_a_task_that_depends_on_what_is_forgotten_does_so_still(cluster):
    cluster.submit("c", {"a": []})
    cluster.finish("a")
    cluster.release("c", "a")
    cluster.catch_up()
    cluster.submit("c", {"b": ["a"]})
    assert "which was cancelled or released" in cluster.reasons["b"]
    cluster.restart()
    assert _states(cluster) == {"b": "erred"}
    assert not cluster.state.tasks["b"].dependencies
    cluster.submit("c", {"c": ["b"]})
    cluster.restart()
    assert "depends on 'a', which was cancelled or released" in cluster.reasons["c"]


def test_retries_that_were_used_are_used(cluster):
    cluster.submit("c", {"a": []}, retries=2)
    cluster.err("a")
    cluster.restart()
    assert cluster.state.tasks["a"].retries == 1


def test_a_death_for_which_a_task_is_charged_is_remembered(cluster):
    cluster.submit("c", {"a": []})
    worker, _ = cluster.entry("a")
    cluster.remove_worker(worker, ["a"])
    assert cluster.state.tasks["a"].failures == 1
    cluster.restart()
    assert cluster.state.tasks["a"].failures == 1


def test_an_earlier_generation_of_a_key_stays_with_those_that_depend_on_it(cluster):
    cluster.submit("c", {"a": [], "b": ["a"]}, ["b"], payload=b"old")
    cluster.submit("c", {"a": [], "c": ["a"]}, ["c"], payload=b"new")
    cluster.restart()
    assert cluster.state.tasks["b"].dependencies[0].payload == b"old"
    assert cluster.state.tasks["c"].dependencies[0].payload == b"new"
    cluster.run_all()
    assert {key: _states(cluster)[key] for key in "bc"} == {"b": "memory", "c": "memory"}


def test_futures_inside_of_data_are_kept_with_it(cluster):
    cluster.submit("c", {"inner": []})
    cluster.finish("inner")
    cluster.scatter("c", "outer", next(iter(cluster.state.hosts)))
    cluster.handle(events.ReferencesFound("c", [("outer", ["inner"])]))
    cluster.release("c", "inner")
    cluster.restart()
    assert _states(cluster) == {"inner": "memory", "outer": "memory"}
    cluster.release("c", "outer")
    cluster.catch_up()
    assert not _states(cluster)


def test_a_function_lives_as_long_as_its_client_or_a_task_names_it(cluster):
    cluster.restart()
    cluster.submit("c", {"a": []})
    cluster.restart()
    assert cluster.state.life.functions.table.keys() == {b"f" * 16}
    cluster.remove_client("c")
    cluster.catch_up()
    assert not cluster.state.life.functions.table


def test_a_late_report_of_a_result_that_was_found_deletes_nothing(cluster):
    cluster.submit("c", {"a": []})
    worker, entry = cluster.entry("a")
    object_id = cluster.finish("a")
    cluster.restart()
    result = (entry[6], entry[1], object_id, 10, None, "bytes", 0.1)
    cluster.handle(events.TasksFinished(worker, [result]))
    assert _states(cluster) == {"a": "memory"}
    assert object_id in cluster.stores[worker.rpartition("/")[0]]


def test_it_is_known_who_is_expected_back_until_all_are():
    cluster = Journalled()
    kept, lost = cluster.add_host(places=1), cluster.add_host(places=1)
    (place,) = (place.address for place in cluster.state.hosts[kept].places)
    cluster.handle(events.PlacesChanged(lost, ()))
    state = CheckedState(patience_seconds=0.0, decisions=Decisions(True))
    state.recover(cluster.tables(), 2)
    recovery = state.recovery
    assert {address: host["places"] for address, host in recovery.expected.items()} == {
        kept: ((place, "host0-place0", 1, {}),),
        lost: (),
    }
    assert recovery.awaited == [kept, lost]
    state.handle(events.HostJoined(kept, cluster.state.hosts[kept].description), 0.0)
    assert recovery.awaited == [kept, lost]
    state.handle(events.HostReady(kept), 0.0)
    assert recovery.awaited == [place, lost]
    state.handle(events.WorkerJoined(place, "w", kept, 1, {}, 1), 0.0)
    state.handle(events.RunsKept(place, (), ()), 0.0)
    assert recovery.awaited == [lost]
    state.handle(events.Recovered(), 0.0)
    cluster.journal.append(msgpack.packb(state.decisions.take()))
    assert list(cluster.tables().entries["hosts"]) == [kept]


def _late(cluster, *, objects=(), ready=True):
    """A host joins when all others have been waited for."""
    state = cluster.state
    state.handle(events.HostJoined(LATE, {"capacity": 1 << 30, "places": ()}), 0.0)
    done = state.handle(events.ObjectsReported(LATE, objects), 0.0)
    if ready:
        done += state.handle(events.HostReady(LATE), 0.0)
    return done


LATE = "tcp://10.0.0.9:1"


@pytest.fixture
def without_one():
    """A restarted cluster of two hosts, one of which is not back; a task had its result there."""
    cluster = Journalled(hosts=2, workers=1)
    client = cluster.add_client("client")
    cluster.submit(client, {"x": []})
    worker, entry = cluster.entry("x")
    cluster.finish("x", nbytes=1000)
    object_id = cluster.state.tasks["x"].object_id
    cluster.restart(lost_hosts=[cluster.state.workers[worker].host.address])
    assert cluster.state.tasks["x"].state == "processing"
    return cluster, {"id": object_id, "nbytes": 1000, "type": "bytes", "label": entry[6]}


def test_a_host_that_comes_late_has_results_that_are_used_again(without_one):
    cluster, description = without_one
    stranger = {**description, "id": b"s" * 16, "label": 10**6}
    done = _late(cluster, objects=[description, stranger])
    task = cluster.state.tasks["x"]
    assert (task.state, task.object_id) == ("memory", description["id"])
    assert [i.items for i in done if type(i) is DeleteObjects] == [[stranger["id"]]]
    assert not cluster.state.life.lost.labels


def test_what_was_made_again_meanwhile_is_deleted_on_a_host_that_comes_late(without_one):
    cluster, description = without_one
    cluster.finish("x", nbytes=1000)
    done = _late(cluster, objects=[description])
    assert [i.items for i in done if type(i) is DeleteObjects] == [[description["id"]]]
    cluster.release("client", "x")
    cluster.catch_up()
    assert not cluster.state.life.lost.labels


def test_a_worker_that_comes_late_has_an_outcome_that_is_used(without_one):
    cluster, description = without_one
    _late(cluster)
    worker = f"{LATE}/0"
    cluster.state.handle(events.WorkerJoined(worker, "late-0", LATE, 1, {}, 1), 0.0)
    result = (description["label"], 3, description["id"], 10, b"v" * 10, "bytes", 0.1)
    cluster.state.handle(events.TasksFinished(worker, [result]), 0.0)
    assert cluster.state.tasks["x"].inline == b"v" * 10


def test_what_hosts_say_of_objects_is_heard_when_it_is_known_whose_they_are():
    cluster = Journalled(hosts=1, workers=1)
    client = cluster.add_client("client")
    cluster.submit(client, {"x": []})
    _, entry = cluster.entry("x")
    cluster.finish("x", nbytes=1000)
    before = cluster.state
    object_id = before.tasks["x"].object_id
    (host,) = before.hosts
    state = cluster.state = CheckedState(patience_seconds=0.0, decisions=Decisions(True))
    state.recover(cluster.tables(), 2)
    state.handle(events.HostJoined(host, before.hosts[host].description), 0.0)
    description = {"id": object_id, "nbytes": 1000, "type": "bytes", "label": entry[6]}
    state.handle(events.ObjectsReported(host, [description]), 0.0)
    state.handle(events.HostReady(host), 0.0)
    done = state.handle(events.ObjectsFound(host, [object_id]), 0.0)
    done += state.handle(events.OwnerLeft(host, [{"id": object_id}, {"id": b"s" * 16}], "h-0", 7), 0.0)
    assert not done
    done = state.handle(events.Recovered(), 0.0)
    assert state.tasks["x"].object_id == object_id
    assert [i.items for i in done if type(i) is DeleteObjects] == [[b"s" * 16]]


@pytest.mark.parametrize("seed", range(40))
def test_random_histories_with_restarts(seed):
    """Whatever a client holds is there in the end, with the value that it has to have, and nothing else is."""
    chance = random.Random(seed)
    cluster = Journalled(hosts=2, workers=2)
    clients = [cluster.add_client("c0"), cluster.add_client("c1")]
    counter = itertools.count()
    held: dict[str, list[str]] = {client: [] for client in clients}
    for _ in range(150):
        client = chance.choice(clients)
        what = chance.random()
        if what < 0.3:
            known = [key for key in held[client] if key in cluster.state.tasks]
            graph: dict[str, list[str]] = {}
            for _ in range(chance.randint(1, 5)):
                reads = chance.sample(known, min(len(known), chance.randint(0, 2)))
                key = f"k{next(counter)}"
                graph[key] = reads
                known.append(key)
            wants = chance.sample(list(graph), chance.randint(1, len(graph)))
            cluster.submit(client, graph, wants, retries=chance.randint(0, 1))
            held[client] += wants
        elif what < 0.65 and cluster.startable:
            key = chance.choice(cluster.startable)
            small = chance.random() < 0.5
            cluster.finish(key, inline=b"small" if small else None, nbytes=10 if small else 1000)
        elif what < 0.7 and cluster.startable:
            cluster.err(chance.choice(cluster.startable))
        elif what < 0.85 and held[client]:
            key = held[client].pop(chance.randrange(len(held[client])))
            cluster.release(client, key)
        elif what < 0.92:
            cluster.restart()
        else:
            cluster.drop_all()
            cluster.answer_revocations()
            cluster.confirm_revocations()
    cluster.catch_up()
    cluster.run_all()
    cluster.restart()
    cluster.run_all()
    cluster.catch_up()
    for client in clients:
        for key in held[client]:
            assert cluster.state.tasks[key].state in ("memory", "erred"), key
            cluster.release(client, key)
    cluster.catch_up()
    cluster.drop_all()
    assert not _states(cluster)
    assert not set().union(*cluster.stores.values())
    assert not cluster.tables().tasks


@pytest.mark.parametrize("force", [False, True])
def test_what_was_being_cancelled_is_cancelled_to_its_end(force):
    """The scheduler dies in the middle: its client has said it, and says it no more."""
    cluster = Journalled(hosts=1, workers=1, follow_up_limit=4)
    cluster.add_client("c")
    cluster.add_client("other")
    below = [f"b{n}" for n in range(20)]
    cluster.submit("c", {"a": [], **{key: ["a"] for key in below}})
    cluster.submit("other", {key: ["a"] for key in below})
    cluster.catch_up()
    cluster.handle(events.KeysCancelled("c", ["a"], force))
    assert cluster.state.holds_back("c")
    cluster.restart()
    cluster.catch_up()
    assert not cluster.state.holds_back("c")
    assert not cluster.state.clients["c"].holds
    assert len(cluster.state.clients["other"].holds) == (0 if force else len(below))
    cluster.restart()
    assert not cluster.state.holds_back("c")  # that was done


def test_what_a_worker_confirms_to_an_earlier_scheduler_says_nothing_to_this_one(cluster):
    worker = next(iter(cluster.runs))
    cluster.restart()
    cluster.handle(events.RevocationConfirmed(worker, 1))
    known = cluster.state.workers[worker]
    assert not known.barred
    known.unconfirmed.add(2)  # it is told of another
    cluster.state.revocation.confirmed(known, 1)
    assert known.barred
    cluster.handle(events.RevocationConfirmed(worker, 1))
    assert known.barred
    cluster.handle(events.RevocationConfirmed(worker, 2))
    assert not known.barred


def test_a_holder_that_is_gone_may_have_its_last_hold_taken_from_it(cluster):
    cluster.submit("c", {"a": []})
    holding = cluster.state.life.holding
    client, task = cluster.state.clients["c"], cluster.state.tasks["a"]
    holding.let_go(client)
    holding.free_from_objects(task)
    assert not client.holds
    assert not holding.departed
    cluster.catch_up()
    assert not cluster.state.tasks


def test_a_run_that_nobody_needs_any_more_gets_its_resources_back(cluster):
    cluster.submit("c", {"a": []})
    worker, entry = cluster.entry("a")
    cluster.handle(events.RunsBlocked(worker, [entry[1]]))
    cluster.handle(events.KeysReleased("c", ["a"]))
    cluster.restart()
    assert not cluster.state.workers[worker].runs
    done = cluster.state.handle(events.ResourcesReclaimed(worker, [entry[1]]), cluster.now)
    assert GrantResources(worker, [entry[1]]) in done


def test_all_that_is_needed_is_known_before_runs_are_taken_up_and_data_is_let_go_of():
    cluster = Journalled(hosts=2, workers=1, follow_up_limit=1)
    cluster.add_client("c")
    cluster.scatter("c", "data", next(iter(cluster.stores)))
    cluster.submit("c", {0: ["data"], **{n: [n - 1] for n in range(1, 10)}}, [9])
    cluster.catch_up()
    cluster.handle(events.KeysReleased("c", ["data"]))
    run = cluster.entry(0)
    cluster.restart()
    assert cluster.entry(0) == run
    cluster.run_all()
    assert cluster.clients["c"][9] == "memory"
