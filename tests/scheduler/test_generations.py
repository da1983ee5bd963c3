"""A key that nobody holds is free: what is submitted under it is its next generation, and dependents keep theirs."""

import pytest
from scheduler_harness import FUNCTION, Cluster, value_of

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.protocol.answers import merged
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks import instructions as to_do
from holdfast.cluster.scheduler.watching import introspection, memory

HOST = "tcp://host0:1"


@pytest.fixture
def cluster():
    return Cluster(hosts=1, workers=2)


@pytest.fixture
def client(cluster):
    return cluster.add_client()


def value(cluster, key):
    """What a key's result is now."""
    return cluster.values[cluster.state.tasks[key].object_id]


def kept(instructions):
    return [(i.peer, key) for i in instructions if isinstance(i, to_do.ReportKept) for key in i.items]


def answer(steps):
    """What a request gives that is answered in steps."""
    fragments = []
    while True:
        try:
            fragments.append(next(steps))
        except StopIteration as end:
            return merged([*[fragment for fragment in fragments if fragment is not None], end.value])


def specify(cluster, client, payload, graph=None, wants=None):
    """Submit, and see which keys the client is told that mean something else."""
    graph = graph or {"k": ()}
    tasks = [(key, FUNCTION, payload, tuple(dependencies)) for key, dependencies in graph.items()]
    cluster.clients[client].update(dict.fromkeys(graph if wants is None else wants, "pending"))
    return kept(cluster.handle(events.TasksSubmitted(client, tasks, wants, {})))


def with_dependent(cluster, client, *, run=()):
    """A key that only a dependent of it needs any more."""
    specify(cluster, client, b"one", {"k": (), "d": ["k"]}, ["d"])
    for key in run:
        cluster.finish(key)


@pytest.mark.parametrize("run", [(), ("k",), ("k", "d")], ids=["processing", "memory", "released"])
def test_dependents_keep_the_earlier_generation_whatever_state_it_is_in(cluster, client, run):
    with_dependent(cluster, client, run=run)
    assert not specify(cluster, client, b"two")
    cluster.run_all()
    assert value(cluster, "k") == value_of(b"two", [])
    assert value(cluster, "d") == value_of(b"one", [value_of(b"one", [])])
    cluster.release(client, "d")
    assert set(cluster.state.tasks) == {"k"}
    assert not cluster.state.life.generations.earlier


def test_the_earlier_generation_is_computed_again_for_its_dependents(cluster, client):
    with_dependent(cluster, client, run=("k", "d"))
    specify(cluster, client, b"two")
    cluster.run_all()
    cluster.remove_host(HOST)
    cluster.add_worker(cluster.add_host())
    cluster.run_all()
    assert value(cluster, "k") == value_of(b"two", [])
    assert value(cluster, "d") == value_of(b"one", [value_of(b"one", [])])


def test_an_earlier_generation_that_failed_fails_only_its_dependents(cluster, client):
    with_dependent(cluster, client)
    cluster.err("k")
    specify(cluster, client, b"two", {"k": (), "e": ["k"]})
    cluster.run_all()
    assert cluster.clients[client] == {"d": "erred", "k": "memory", "e": "memory"}


def test_the_very_specification_is_no_other_generation(cluster, client):
    with_dependent(cluster, client, run=("k",))
    before = cluster.state.tasks["k"]
    assert not specify(cluster, client, b"one")
    assert cluster.state.tasks["k"] is before
    assert before.state == "memory"


def test_a_specification_is_another_if_what_it_depends_on_is(cluster, client):
    specify(cluster, client, b"one", {"k": (), "d": ["k"], "e": ["d"]}, ["e"])
    cluster.run_all()
    specify(cluster, client, b"two", {"k": ()}, ["k"])
    specify(cluster, client, b"one", {"d": ["k"]}, ["d"])
    cluster.run_all()
    assert value(cluster, "d") == value_of(b"one", [value_of(b"two", [])])
    assert value(cluster, "e") == value_of(b"one", [value_of(b"one", [value_of(b"one", [])])])


def test_a_run_of_the_earlier_generation_does_not_end_the_next_one(cluster, client):
    specify(cluster, client, b"one")
    worker, entry = cluster.entry("k")
    cluster.begin("k")
    cluster.release(client, "k")
    specify(cluster, client, b"two")
    del cluster.runs[worker][entry[1]]
    late = cluster.new_object()
    cluster.stores[HOST].add(late)
    done = cluster.handle(events.TasksFinished(worker, [(entry[6], entry[1], late, 10, None, "bytes", 0.1)]))
    assert to_do.DeleteObjects(HOST, [late]) in done
    cluster.run_all()
    assert value(cluster, "k") == value_of(b"two", [])


@pytest.mark.parametrize("holder", ["client", "another client", "dataset"])
def test_what_somebody_holds_stays_what_it_is_and_the_client_hears_of_it(cluster, client, holder):
    specify(cluster, client, b"one")
    other = cluster.add_client("other")
    if holder == "dataset":
        cluster.publish(client, 1, "name", ["k"])
        cluster.release(client, "k")
    told = client if holder == "client" else other
    assert specify(cluster, told, b"two") == [(told, "k")]
    assert specify(cluster, told, b"one") == []
    cluster.run_all()
    assert value(cluster, "k") == value_of(b"one", [])


def test_a_key_is_free_when_its_holders_are_gone():
    cluster = Cluster(hosts=1, workers=1, follow_up_limit=1)
    one, other = cluster.add_client("one"), cluster.add_client("other")
    cluster.submit(one, {f"k{n}": () for n in range(5)}, payload=b"one")
    cluster.run_all()
    cluster.remove_client(one)
    assert cluster.state.life.follow_up.has_more, "its holds are given up one by one"
    graph = {f"k{n}": () for n in range(5)}
    assert specify(cluster, other, b"two", graph) == []
    cluster.run_all()
    assert {value(cluster, key) for key in graph} == {value_of(b"two", [])}
    cluster.catch_up()
    assert not cluster.state.life.generations.earlier


def test_a_key_is_free_when_the_dataset_that_held_it_was_unpublished():
    cluster = Cluster(hosts=1, workers=1, follow_up_limit=1)
    client = cluster.add_client()
    keys = [f"k{n}" for n in range(5)]
    cluster.submit(client, dict.fromkeys(keys, ()), payload=b"one")
    cluster.publish(client, 1, "name", keys)
    cluster.release(client, *keys)
    cluster.unpublish(client, 1, "name")
    assert specify(cluster, client, b"two", dict.fromkeys(keys, ())) == []
    cluster.run_all()
    assert {value(cluster, key) for key in keys} == {value_of(b"two", [])}


def test_a_dependency_that_is_missing_is_the_generation_that_the_run_was_to_read(cluster, client):
    with_dependent(cluster, client, run=("k",))
    earlier = cluster.state.tasks["k"]
    specify(cluster, client, b"two")
    cluster.finish("k")
    for _ in range(3):
        cluster.miss("d")
    assert earlier.state == "processing", "it is computed again"
    cluster.run_all()
    assert value(cluster, "d") == value_of(b"one", [value_of(b"one", [])])


def test_what_a_host_had_of_an_earlier_generation_comes_back_to_that():
    cluster = Cluster(hosts=1, workers=1, patience_seconds=5.0)
    client = cluster.add_client()
    with_dependent(cluster, client, run=("k",))
    earlier = cluster.state.tasks["k"]
    object_id = earlier.object_id
    specify(cluster, client, b"two")
    cluster.cut_off_host(HOST)
    assert earlier.state != "memory"
    cluster.join_again(HOST)
    assert earlier.object_id == object_id
    assert cluster.state.tasks["k"].object_id != object_id
    cluster.add_worker(HOST)
    cluster.run_all()
    assert value(cluster, "k") == value_of(b"two", [])
    assert value(cluster, "d") == value_of(b"one", [cluster.values[object_id]])


def test_scattered_data_under_a_chosen_key_is_the_next_generation(cluster, client):
    first = cluster.scatter(client, "k", HOST, chosen=True)
    specify(cluster, client, b"one", {"d": ["k"]})
    cluster.release(client, "k")
    second = cluster.scatter(client, "k", HOST, chosen=True)
    cluster.submit(client, {"e": ["k"]}, payload=b"one")
    cluster.run_all()
    assert value(cluster, "d") == value_of(b"one", [first])
    assert value(cluster, "e") == value_of(b"one", [second])


def test_scattered_data_under_a_key_that_is_made_of_it_is_the_same_data(cluster, client):
    first = cluster.scatter(client, "k", HOST)
    specify(cluster, client, b"one", {"d": ["k"]})
    cluster.release(client, "k")
    cluster.scatter(client, "k", HOST)
    assert cluster.state.tasks["k"].object_id == first


@pytest.mark.parametrize("state", ["processing", "memory", "erred"])
def test_scattered_data_does_not_take_the_place_of_what_somebody_holds(cluster, client, state):
    specify(cluster, client, b"one")
    if state == "memory":
        cluster.finish("k")
    elif state == "erred":
        cluster.err("k")
    other = cluster.add_client("other")
    cluster.scatter(other, "k", HOST, chosen=True)
    cluster.run_all()
    if state == "erred":
        assert cluster.clients[other]["k"] == "erred"
    else:
        assert value(cluster, "k") == value_of(b"one", [])


def test_lost_data_that_is_held_can_be_computed_from_then_on_and_what_is_not_is_another_generation():
    cluster = Cluster(hosts=1)
    client = cluster.add_client()
    cluster.scatter(client, "k", HOST)
    cluster.scatter(client, "free", HOST)
    cluster.submit(client, {"d": ["k"], "e": ["free"]}, payload=b"one")
    cluster.release(client, "free")
    cluster.remove_host(HOST)
    cluster.add_worker(cluster.add_host())
    lost = cluster.state.tasks["k"], cluster.state.tasks["free"]
    cluster.submit(client, {"k": (), "free": ()}, payload=b"two")
    assert cluster.state.tasks["k"] is lost[0]
    assert cluster.state.tasks["free"] is not lost[1]


def test_of_a_key_that_one_message_specifies_twice_the_client_gets_the_last(cluster, client):
    tasks = [
        ("k", FUNCTION, b"one", ()),
        ("d", FUNCTION, b"one", ("k",)),
        ("k", FUNCTION, b"two", ()),
        ("e", FUNCTION, b"one", ("k",)),
    ]
    cluster.handle(events.TasksSubmitted(client, tasks, None, {}))
    cluster.run_all()
    assert value(cluster, "k") == value_of(b"two", [])
    assert value(cluster, "d") == value_of(b"one", [value_of(b"one", [])])
    assert value(cluster, "e") == value_of(b"one", [value_of(b"two", [])])


def test_a_message_that_can_not_be_right_frees_no_key(cluster, client):
    with_dependent(cluster, client)
    before = cluster.state.tasks["k"]
    for task in [("k", b"unknown digest!!", b"two", ()), ("k", FUNCTION, b"two", ("k",))]:
        with pytest.raises(ProtocolError):
            cluster.handle(events.TasksSubmitted(client, [task], None, {}))
    assert cluster.state.tasks["k"] is before


def test_a_next_generation_may_depend_on_what_the_earlier_one_was_made_into(cluster, client):
    with_dependent(cluster, client)
    specify(cluster, client, b"two", {"k": ["d"]})
    cluster.run_all()
    earlier = value_of(b"one", [value_of(b"one", [])])
    assert value(cluster, "k") == value_of(b"two", [earlier])


def test_options_of_single_keys_are_those_of_the_next_generation(cluster, client):
    with_dependent(cluster, client)
    earlier = cluster.state.tasks["k"]
    tasks = [("k", FUNCTION, b"two", ())]
    cluster.handle(events.TasksSubmitted(client, tasks, None, {"per_key": {"k": {"retries": 3}}}))
    assert (cluster.state.tasks["k"].retries, earlier.retries) == (3, 0)


def test_cancelling_and_missing_are_about_what_the_client_holds(cluster, client):
    with_dependent(cluster, client, run=("k",))
    specify(cluster, client, b"two")
    cluster.finish("k")
    stale = cluster.new_object()
    cluster.handle(events.ResultsMissing(client, [("k", stale, HOST)]))
    assert cluster.state.tasks["k"].state == "memory"
    cluster.handle(events.KeysCancelled(client, ["k"], False))
    cluster.run_all()
    assert cluster.clients[client] == {"k": "cancelled", "d": "memory"}
    assert value(cluster, "d") == value_of(b"one", [value_of(b"one", [])])


def test_what_is_told_of_memory_and_tasks_counts_every_generation_and_keys_mean_the_last(cluster, client):
    with_dependent(cluster, client, run=("k",))
    earlier = cluster.state.tasks["k"].object_id
    specify(cluster, client, b"two")
    cluster.finish("k")
    objects = answer(memory.memory(cluster.state, lambda client: (0.0, False), (), None))["objects"]
    later = cluster.state.tasks["k"].object_id
    assert {entry["object_id"] for entry in objects if entry["key"] == "k"} == {earlier.hex(), later.hex()}
    assert answer(introspection.status(cluster.state, {}, {}, []))["tasks"]["memory"] == 2
    cluster.copy("k", cluster.add_host())
    hosts = [HOST, "tcp://host1:1"]
    assert answer(introspection.who_has(cluster.state, None)) == {"k": hosts}
    assert answer(introspection.who_has(cluster.state, ["k"])) == {"k": hosts}
