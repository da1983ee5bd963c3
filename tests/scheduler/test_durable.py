"""Durable datasets in the state machine: written whatever dies, published when all is safe, loaded as keys only."""

from __future__ import annotations

import random
import re

import pytest
from durable_places import Places
from scheduler_harness import FUNCTION, LARGE, Cluster

from holdfast.cluster.protocol import errands, requests
from holdfast.cluster.scheduler.parts import durable as parts
from holdfast.cluster.scheduler.parts import places as places_module
from holdfast.cluster.scheduler.tasks import events

PLACE = "/place"
HOSTS = ["tcp://host0:1", "tcp://host1:1"]
ABOUT = {"kind": "persisted"}


@pytest.fixture
def places():
    return Places()


def a_cluster(hosts=2):
    cluster = Cluster(hosts=hosts, workers=1, durable_place=PLACE)
    cluster.add_client("client")
    return cluster


@pytest.fixture
def cluster():
    return a_cluster()


def publish(cluster, named, client="client", durable="", **options):
    """Publish keys by names; the number of the request."""
    number = cluster.new_number()
    datasets = [(name, b"recipe of " + name.encode(), list(keys), ABOUT) for name, keys in named.items()]
    further = {} if durable is None else {"durable": durable}
    cluster.request(client, number, requests.PUBLISH(datasets=datasets, **further, **options))
    return number


def ask(cluster, places, request, client="client"):
    """The answer to a request, when all errands are done."""
    number = cluster.new_number()
    cluster.request(client, number, request)
    places.answer_all(cluster)
    reply = cluster.answer_of(client, number)
    assert reply is not None
    return reply


def computed(cluster, *keys, nbytes=LARGE):
    """Results of tasks, which a client holds."""
    cluster.submit("client", {key: [] for key in keys})
    for key in keys:
        cluster.finish(key, nbytes=nbytes)


def is_durable(cluster, key):
    return cluster.state.tasks[key] in cluster.state.life.results.durable


def test_a_dataset_has_its_name_when_it_is_durable(cluster, places):
    computed(cluster, "x", "y")
    number = publish(cluster, {"flights": ["x"], "wind": ["y"]})
    while places.open(cluster):
        assert cluster.answer_of("client", number) is None
        assert cluster.state.datasets.names() == []
        assert places[PLACE].datasets == {}
        places.answer(cluster, places.open(cluster)[0])
        if places[PLACE].datasets:
            assert set(places[PLACE].datasets) == {"flights", "wind"}, "all or none"
            break
    places.answer_all(cluster)
    assert cluster.answer_of("client", number).ok
    assert cluster.state.datasets.names() == ["flights", "wind"]
    assert is_durable(cluster, "x")
    assert places[PLACE].writers == set()


def test_results_that_are_not_there_yet_are_awaited(cluster, places):
    cluster.submit("client", {"x": [], "y": []})
    number = publish(cluster, {"flights": ["x", "y"]})
    places.answer_all(cluster)
    cluster.finish("x")
    places.answer_all(cluster)
    assert places[PLACE].datasets == {}
    cluster.remove_client("client")  # who wants it needn't stay
    cluster.add_client("other")
    cluster.finish("y")
    places.answer_all(cluster)
    assert set(places[PLACE].datasets) == {"flights"}
    assert cluster.state.datasets.names() == ["flights"]
    assert cluster.answer_of("client", number) is None


def test_a_result_that_fails_is_the_error_of_the_publisher(cluster, places):
    cluster.submit("client", {"x": []})
    number = publish(cluster, {"flights": ["x"]})
    places.answer_all(cluster)
    cluster.err("x", "it has divided by zero")
    places.answer_all(cluster)
    reply = cluster.answer_of("client", number)
    assert not reply.ok
    assert "it has divided by zero" in reply.value[1]
    assert cluster.state.datasets.names() == []
    assert places[PLACE].writers == set()
    assert places[PLACE].swept


def test_another_host_writes_what_one_that_dies_had_not_written(cluster, places):
    cluster.scatter("client", "x", HOSTS[0])
    cluster.copy("x", HOSTS[1])
    number = publish(cluster, {"flights": ["x"]})
    while not any(errand.operation == "write-objects" for errand in cluster.errands):
        places.answer(cluster, places.open(cluster)[0])
    (errand,) = [errand for errand in cluster.errands if errand.operation == "write-objects"]
    cluster.errands.remove(errand)
    cluster.remove_host(errand.peer)
    places.answer_all(cluster)
    assert cluster.answer_of("client", number).ok
    assert set(places[PLACE].datasets) == {"flights"}


@pytest.mark.parametrize("operation", ["enter-writer", "write-table", "publish-durably"])
def test_every_step_is_done_by_another_host_if_one_dies(cluster, places, operation):
    computed(cluster, "x")
    cluster.copy("x", next(host for host in HOSTS if host not in cluster.state.tasks["x"].where[0].address))
    number = publish(cluster, {"flights": ["x"]})
    while not any(errand.operation == operation for errand in cluster.errands):
        places.answer(cluster, places.open(cluster)[0])
    (errand,) = [errand for errand in cluster.errands if errand.operation == operation]
    if operation == "publish-durably":  # it is done, and nobody hears of that
        places._publish_durably(cluster, errand.peer, places[PLACE], **{
            name: value for name, value in errand.arguments.items() if name != "place"
        })  # fmt: skip
    cluster.errands.remove(errand)
    cluster.remove_host(errand.peer)
    places.answer_all(cluster)
    assert cluster.answer_of("client", number).ok
    assert set(places[PLACE].datasets) == {"flights"}


def test_a_host_that_does_not_see_the_place_has_its_results_brought_to_one_that_does(cluster, places):
    places[PLACE].blind.add(HOSTS[0])
    cluster.scatter("client", "x", HOSTS[0])
    publish(cluster, {"flights": ["x"]})
    while not any(errand.operation == "write-objects" for errand in cluster.errands):
        places.answer(cluster, places.open(cluster)[0])
    (errand,) = [errand for errand in cluster.errands if errand.operation == "write-objects"]
    assert errand.peer == HOSTS[1]
    assert errand.arguments["objects"][0][2] == [HOSTS[0]]
    places.answer_all(cluster)
    assert is_durable(cluster, "x")


def test_no_other_place_is_made_where_one_was_seen_before(cluster, places):
    places[PLACE].blind.add(HOSTS[1])
    durable_one(cluster, places)
    cluster.remove_host(HOSTS[0])
    number = publish(cluster, {"wind": []})
    places.answer_all(cluster)
    assert cluster.answer_of("client", number) is None, "it waits for a host that sees the place"
    assert not any(errand.arguments.get("create") for errand in cluster.errands)
    cluster.add_host()
    places.answer_all(cluster)
    assert cluster.answer_of("client", number).ok


def test_a_place_that_stays_away_is_an_error_that_says_what_to_do(cluster, places):
    places[PLACE].blind.add(HOSTS[1])
    durable_one(cluster, places)
    cluster.remove_host(HOSTS[0])
    number = publish(cluster, {"wind": []})
    places.answer_all(cluster)
    cluster.now += places_module.HOST_SECONDS
    cluster.handle(events.TimePassed())
    assert re.search(
        r"sees .*is its disk mounted\?\), or name another place", cluster.answer_of("client", number).value[1]
    )


def test_an_error_of_all_hosts_is_that_of_the_publisher(cluster, places):
    computed(cluster, "x")
    for host in HOSTS:
        places[PLACE].broken[host, "write-objects"] = ("DurableError", "the disk is full")
    number = publish(cluster, {"flights": ["x"]})
    places.answer_all(cluster)
    reply = cluster.answer_of("client", number)
    assert not reply.ok
    assert "the disk is full" in reply.value[1]
    assert places[PLACE].writers == set()


def test_one_host_that_can_write_is_enough(cluster, places):
    computed(cluster, "x", "y")
    places[PLACE].broken[HOSTS[0], "write-objects"] = ("DurableError", "it has no permission")
    places[PLACE].broken[HOSTS[0], "see-place"] = ("DurableError", "it has no permission")
    number = publish(cluster, {"flights": ["x", "y"]})
    places.answer_all(cluster)
    assert cluster.answer_of("client", number).ok


def test_a_place_that_no_host_can_open_is_an_error_that_says_why(cluster, places):
    computed(cluster, "x")
    for host in HOSTS:
        places[PLACE].broken[host, "see-place"] = ("DurableError", "install s3fs")
    number = publish(cluster, {"flights": ["x"]})
    places.answer_all(cluster)
    reply = cluster.answer_of("client", number)
    assert reply.value == ["DurableError", "install s3fs"]
    places[PLACE].broken.clear()
    again = publish(cluster, {"flights": ["x"]})
    places.answer_all(cluster)
    assert cluster.answer_of("client", again).ok, "it is looked at anew"


def test_without_a_host_it_waits_and_then_says_so(places):
    cluster = Cluster(durable_place=PLACE)
    cluster.add_client("client")
    number = publish(cluster, {"flights": []})
    cluster.now += places_module.HOST_SECONDS
    cluster.handle(events.TimePassed())
    assert "no host" in cluster.answer_of("client", number).value[1]


def test_the_name_is_taken_while_it_is_written(cluster, places):
    computed(cluster, "x")
    publish(cluster, {"flights": ["x"]})
    places.answer(cluster, places.open(cluster)[0])
    for durable in ("", None):
        other = publish(cluster, {"flights": ["x"]}, durable=durable, override=True)
        assert cluster.answer_of("client", other).value[0] == "DatasetExistsError"


def test_the_old_one_stays_until_the_new_one_is_there(cluster, places):
    computed(cluster, "x")
    publish(cluster, {"flights": ["x"]})
    places.answer_all(cluster)
    old = cluster.state.datasets.published["flights"]
    cluster.submit("client", {"y": []})
    publish(cluster, {"flights": ["y"]}, override=True)
    places.answer_all(cluster)
    assert cluster.state.datasets.published["flights"] is old
    cluster.finish("y")
    places.answer_all(cluster)
    assert cluster.state.datasets.published["flights"] is not old


# -- durable copies


def durable_one(cluster, places, key="x", name="flights"):
    computed(cluster, key)
    publish(cluster, {name: [key]})
    places.answer_all(cluster)


def test_to_lose_the_last_host_of_a_result_loses_nothing(cluster, places):
    durable_one(cluster, places)
    cluster.remove_host(cluster.state.tasks["x"].where[0].address)
    assert cluster.state.tasks["x"].state == "memory"
    cluster.submit("client", {"z": ["x"]})
    (entry,) = [entry for runs in cluster.runs.values() for entry in runs.values()]
    ((key, _object_id, inline, sources),) = entry[4]
    assert (key, inline) == ("x", None)
    assert sources[0].startswith("durable:")
    assert sources[0].endswith(PLACE)
    cluster.finish("z")


def test_data_of_a_client_that_is_durable_needs_no_second_host(cluster, places):
    cluster.scatter("client", "x", HOSTS[0])
    publish(cluster, {"flights": ["x"]})
    places.answer_all(cluster)
    assert cluster.copying == []
    assert not cluster.state.copies.wanting


def test_what_is_inside_of_results_is_durable_too(cluster, places):
    computed(cluster, "inner")
    cluster.scatter("client", "outer", HOSTS[0])
    cluster.handle(events.ReferencesFound("client", [("outer", ["inner"])]))
    publish(cluster, {"flights": ["outer"]})
    places.answer_all(cluster)
    assert is_durable(cluster, "inner")
    other = a_cluster()
    assert ask(other, places, requests.GET_DATASET(name="flights")).ok
    contents = other.state.life.holding.contents[other.state.tasks["outer"]]
    assert [task.key for task in contents.holds] == ["inner"]


def test_a_result_that_can_be_computed_is_computed_when_its_file_can_not_be_read(cluster, places):
    durable_one(cluster, places)
    task = cluster.state.tasks["x"]
    cluster.remove_host(task.where[0].address)
    cluster.submit("client", {"z": ["x"]})
    for _ in range(5):
        if "z" not in cluster.startable:
            break
        worker, entry = cluster.entry("z")
        del cluster.runs[worker][entry[1]]
        cluster.handle(events.DependenciesMissing(worker, [(entry[6], entry[1], "x", task.object_id)]))
    assert task.state in ("ready", "processing")
    assert not is_durable(cluster, "x")


def test_a_client_without_a_store_reads_what_a_host_brings(cluster, places):
    durable_one(cluster, places)
    other = a_cluster()
    ask(other, places, requests.GET_DATASET(name="flights"))
    task = other.state.tasks["x"]
    other.handle(events.ResultsMissing("client", [("x", task.object_id, "")]))
    assert len(other.copying) == 1
    other.bring_copies()
    assert [host.address for host in task.where]
    assert other.clients["client"]["x"] == "memory"


def test_a_file_that_no_host_can_read_is_an_error_of_the_client(cluster, places):
    durable_one(cluster, places)
    other = a_cluster()
    ask(other, places, requests.GET_DATASET(name="flights"))
    task = other.state.tasks["x"]
    other.handle(events.ResultsMissing("client", [("x", task.object_id, "")]))
    while other.copying:
        other.bring_copies(reason="the file is damaged")
    assert other.clients["client"]["x"] == "erred"
    assert "the file is damaged" in other.reasons["x"]


# -- loading


def test_another_cluster_loads_keys_and_no_data(cluster, places):
    durable_one(cluster, places)
    other = a_cluster()
    assert ask(other, places, requests.LIST_DATASETS()).value == ["flights"]
    answer = ask(other, places, requests.GET_DATASET(name="flights")).value
    assert answer["data"] == b"recipe of flights"
    assert answer["keys"] == ["x"]
    assert other.state.tasks["x"].state == "memory"
    assert other.state.tasks["x"].where == ()
    ((name, about),) = ask(other, places, requests.DESCRIBE_DATASETS()).value
    assert name == "flights"
    nbytes = LARGE + len(b"recipe of flights")
    assert (about["durable"], about["nbytes"], about["kind"]) == (PLACE, nbytes, "persisted")


def test_a_place_that_another_cluster_makes_later_is_seen(cluster, places):
    other = a_cluster()
    assert ask(other, places, requests.LIST_DATASETS()).value == []
    durable_one(cluster, places)
    assert ask(other, places, requests.LIST_DATASETS()).value == ["flights"]


def test_many_keys_are_loaded_list_by_list(cluster, places, monkeypatch):
    monkeypatch.setattr(parts, "MAX_TABLE_ENTRIES", 3)
    keys = [("x", n) for n in range(10)]
    computed(cluster, *keys)
    publish(cluster, {"flights": keys})
    places.answer_all(cluster)
    other = a_cluster()
    assert sorted(ask(other, places, requests.GET_DATASET(name="flights")).value["keys"]) == keys


def test_two_that_get_it_at_once_get_the_same(cluster, places):
    durable_one(cluster, places)
    other = a_cluster()
    other.add_client("second")
    for client in ("client", "second"):
        other.request(client, 77, requests.GET_DATASET(name="flights"))
    places.answer_all(other)
    assert other.answer_of("client", 77).value["keys"] == other.answer_of("second", 77).value["keys"] == ["x"]


def test_one_that_is_not_there_is_an_error_that_names_those_that_are(cluster, places):
    durable_one(cluster, places)
    reply = ask(cluster, places, requests.GET_DATASET(name="nope"))
    assert reply.value[0] == "DatasetNotFoundError"
    assert "'flights'" in reply.value[1]


def test_a_key_that_means_something_else_here_is_renamed(cluster, places):
    durable_one(cluster, places)
    other = a_cluster()
    computed(other, "x")
    answer = ask(other, places, requests.GET_DATASET(name="flights")).value
    ((key, here),) = answer["renamed"]
    assert key == "x"
    assert answer["keys"] == [here]
    assert other.state.tasks["x"].payload is not None
    assert ask(other, places, requests.GET_DATASET(name="flights")).value["renamed"] == [["x", here]]


def test_a_key_that_nobody_holds_is_the_next_generation(cluster, places):
    durable_one(cluster, places)
    other = a_cluster()
    other.submit("client", {"x": [], "z": ["x"]}, wants=["z"])
    answer = ask(other, places, requests.GET_DATASET(name="flights")).value
    assert answer["keys"] == ["x"]
    assert "renamed" not in answer
    other.finish("x")
    other.finish("z")


def test_a_place_that_does_not_answer_keeps_nobody_waiting(cluster, places):
    cluster.request("client", 5, requests.LIST_DATASETS())
    cluster.request("client", 6, requests.GET_DATASET(name="flights"))
    for _ in range(3):
        cluster.now += 10
        cluster.handle(events.TimePassed())
    assert cluster.answer_of("client", 5).value == []
    assert not cluster.answer_of("client", 6).ok


# -- names that go


def test_one_of_another_place_is_loaded_where_that_is_named_and_has_no_name_here(cluster, places):
    computed(cluster, "x", "y")
    publish(cluster, {"flights": ["x"]}, durable="/elsewhere")
    publish(cluster, {"wind": ["y"]}, durable="/elsewhere")
    places.answer_all(cluster)
    other = a_cluster()
    assert ask(other, places, requests.LIST_DATASETS()).value == []
    assert ask(other, places, requests.LIST_DATASETS(durable="/elsewhere")).value == ["flights", "wind"]
    about = dict(ask(other, places, requests.DESCRIBE_DATASETS(durable="/elsewhere")).value)
    assert about["flights"]["durable"] == "/elsewhere"
    computed(other, "z")
    publish(other, {"flights": ["z"]}, durable=None)
    places.answer_all(other)
    numbers = [other.new_number() for _ in range(2)]
    for number in numbers:  # both of one loading
        other.request("client", number, requests.GET_DATASET(name="flights", durable="/elsewhere"))
    places.answer_all(other)
    for number in numbers:
        assert other.answer_of("client", number).value["keys"] == ["x"]
    assert is_durable(other, "x")
    assert other.state.tasks["x"].state == "memory"
    assert ask(other, places, requests.GET_DATASET(name="flights")).value["keys"] == ["z"]
    ask(other, places, requests.UNPUBLISH(name="flights", durable="/elsewhere"))
    assert list(places["/elsewhere"].datasets) == ["wind"]
    assert list(other.state.datasets.published) == ["flights"]
    other.release("client", "x")
    assert "x" not in other.state.tasks


@pytest.mark.parametrize(
    "request_", [requests.GET_DATASET(name="x", durable="/nowhere"), requests.LIST_DATASETS(durable="/nowhere")]
)
def test_another_place_that_can_not_be_read_is_an_error(cluster, places, request_):
    for host in HOSTS:
        places["/nowhere"].broken[host, "see-place"] = ("DurableError", "it is on fire")
    reply = ask(cluster, places, request_)
    assert not reply.ok
    assert "on fire" in reply.value[1]


def test_a_cluster_without_a_place_says_so(places):
    cluster = Cluster(hosts=1)
    cluster.add_client("client")
    for request in (requests.LIST_DATASETS(durable=""), requests.GET_DATASET(name="x", durable="")):
        assert "has no place for durable datasets" in ask(cluster, places, request).value[1]


def test_unpublishing_removes_it_from_the_place(cluster, places):
    durable_one(cluster, places)
    cluster.release("client", "x")
    assert ask(cluster, places, requests.UNPUBLISH(name="flights")).ok
    assert places[PLACE].datasets == {}
    cluster.now += parts.SWEEP_SECONDS
    cluster.handle(events.TimePassed())
    places.answer_all(cluster)
    assert places[PLACE].swept
    assert not cluster.state.tasks


def test_one_that_was_not_loaded_is_removed_too(cluster, places):
    durable_one(cluster, places)
    other = a_cluster()
    assert ask(other, places, requests.UNPUBLISH(name="flights")).ok
    assert places[PLACE].datasets == {}


def test_files_stay_as_long_as_a_client_holds_what_is_in_them(cluster, places):
    durable_one(cluster, places)
    other = a_cluster()
    ask(other, places, requests.GET_DATASET(name="flights"))
    before = places[PLACE].swept
    ask(other, places, requests.UNPUBLISH(name="flights"))
    for _ in range(3):
        other.now += parts.SWEEP_SECONDS
        other.handle(events.TimePassed())
        places.answer_all(other)
    assert places[PLACE].swept == before
    other.release("client", "x")
    other.now += parts.SWEEP_SECONDS
    other.handle(events.TimePassed())
    places.answer_all(other)
    assert places[PLACE].swept > before


def test_one_that_is_published_anew_and_not_durably_does_not_come_back(cluster, places):
    durable_one(cluster, places)
    number = publish(cluster, {"flights": ["x"]}, durable=None, override=True)
    places.answer_all(cluster)
    assert cluster.answer_of("client", number).ok
    assert places[PLACE].datasets == {}


def test_a_durable_name_is_taken_in_a_cluster_that_has_not_loaded_it(cluster, places):
    durable_one(cluster, places)
    other = a_cluster()
    number = publish(other, {"flights": []}, durable=None)
    places.answer_all(other)
    assert other.answer_of("client", number).value[0] == "DatasetExistsError"


# -- copies on several hosts


@pytest.mark.parametrize("count", [1, 2, 3])
def test_copies_are_made_on_so_many_hosts(places, count):
    cluster = a_cluster(hosts=4)
    computed(cluster, "x", "y")
    cluster.submit("client", {"later": []})
    number = publish(cluster, {"flights": ["x", "y", "later"]}, durable=None, copies=count)
    places.answer_all(cluster)
    while cluster.bring_copies():
        pass
    assert cluster.answer_of("client", number).ok
    cluster.finish("later")
    while cluster.bring_copies():
        pass
    assert {len(cluster.state.tasks[key].where) for key in ("x", "y", "later")} == {count}
    host = cluster.state.tasks["x"].where[0].address
    cluster.remove_host(host)
    while cluster.bring_copies():
        pass
    assert len(cluster.state.tasks["x"].where) == (0 if count == 1 else count)


def test_more_copies_than_hosts_are_made_when_hosts_come(places):
    cluster = a_cluster(hosts=1)
    computed(cluster, "x")
    number = publish(cluster, {"flights": ["x"]}, durable=None, copies=3)
    places.answer_all(cluster)
    assert cluster.answer_of("client", number).ok
    for count in (2, 3, 3):
        cluster.add_host()
        cluster.bring_copies()
        assert len(cluster.state.tasks["x"].where) == count


# -- anything at any time


@pytest.mark.parametrize("seed", range(12))
def test_any_history_keeps_every_invariant_and_all_or_none(seed):
    chance = random.Random(seed)
    places = Places()
    cluster = a_cluster(hosts=3)
    for host in range(3):
        if chance.random() < 0.2:
            places[PLACE].blind.add(f"tcp://host{host}:1")
    keys = [f"k{n}" for n in range(6)]
    names = ["a", "b", "c"]
    pairs = 0
    for _ in range(100):
        cluster.now += chance.random()
        step = chance.random()
        if step < 0.15:
            key = chance.choice(keys)
            cluster.submit("client", {key: []}, payload=bytes([chance.randrange(3)]))
        elif step < 0.3 and cluster.startable:
            key = chance.choice(cluster.startable)
            if chance.random() < 0.9:
                cluster.finish(key)
            else:
                cluster.err(key)
        elif step < 0.4:
            known = [key for key in keys if key in cluster.state.tasks]
            chosen = {name: chance.sample(known, min(2, len(known))) for name in chance.sample(names, 2)}
            publish(cluster, chosen, durable=chance.choice(["", None]), override=True, copies=chance.choice([1, 2]))
            pairs += 1
        elif step < 0.75 and places.open(cluster):
            places.answer(cluster, chance.choice(places.open(cluster)))
        elif step < 0.8:
            cluster.request("client", cluster.new_number(), requests.GET_DATASET(name=chance.choice(names)))
        elif step < 0.84:
            cluster.request("client", cluster.new_number(), requests.UNPUBLISH(name=chance.choice(names)))
        elif step < 0.88 and len(cluster.state.hosts) > 1:
            gone = chance.choice(list(cluster.state.hosts))
            cluster.errands = [errand for errand in cluster.errands if errand.peer != gone]
            cluster.remove_host(gone)
        elif step < 0.92 and len(cluster.state.hosts) < 3:
            cluster.add_worker(cluster.add_host())
        elif step < 0.95:
            cluster.bring_copies()
        elif step < 0.98:
            cluster.release("client", chance.choice(keys))
        else:
            cluster.handle(events.TimePassed())
    for _ in range(200):
        places.answer_all(cluster)
        cluster.bring_copies()
        cluster.drop_all()
        for key in cluster.startable:
            cluster.finish(key)
        cluster.now += 5
        cluster.handle(events.TimePassed())
        if not cluster.open:
            break
    assert not cluster.open, "somebody waits for ever"
    assert not places[PLACE].writers or places[PLACE].blind.issuperset(cluster.state.hosts)
    for name, (_, _, tables, _, _) in places[PLACE].datasets.items():
        for digest, _ in tables:
            assert all(stored[0] in places[PLACE].values for _, stored, _, _ in places[PLACE].tables[digest]), name


def test_the_moves_of_a_writing_lead_to_an_end():
    ends = {state for state, further in parts.WRITING_MOVES.items() if not further}
    assert ends == {"published", "failed"}
    for state in parts.WRITING_MOVES:
        seen = {state}
        while more := {n for each in seen for n in parts.WRITING_MOVES[each]} - seen:
            seen |= more
        assert seen & ends


def test_every_errand_is_answered_here():
    ours = {errand.operation for errand in errands.ERRANDS if "place" in errand.arguments.known}
    assert ours <= set(Places.__dict__["open"].__globals__["_OPERATIONS"])


assert FUNCTION
