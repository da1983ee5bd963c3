"""Which objects are suspected to be there for nobody, which are not, and that to look for them takes small steps."""

from __future__ import annotations

import itertools

import pytest
from scheduler_harness import LARGE, Cluster

from holdfast.cluster.protocol import requests
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.watching import explaining, leaks, memory

HOST = "tcp://host0:1"
LINE = "etl.py:12 in load"
HOUR = 3_600.0


@pytest.fixture
def cluster():
    cluster = Cluster(hosts=1, workers=1)
    cluster.add_client("etl")
    return cluster


def suspects(cluster):
    cluster.request("watcher", cluster.new_number(), requests.MEMORY())
    cluster.report(HOST)
    return cluster.replies[-1].value["suspects"]


@pytest.fixture(autouse=True)
def watcher(cluster):
    return cluster.add_client("watcher")


def brought(cluster, *keys, client="etl", line=LINE, messages=1):
    """A client brings data of which three objects are large together."""
    for key in keys:
        object_id = cluster.new_object()
        cluster.values[object_id] = object_id
        cluster.nbytes[object_id] = LARGE
        cluster.stores[HOST].add(object_id)
        cluster.clients[client][key] = "pending"
        entries = [(key, object_id, LARGE, "bytes", HOST, None)]
        for _ in range(messages):
            cluster.handle(events.ObjectsScattered(client, entries, False, line))


class TestIdleClients:
    def test_what_only_a_client_keeps_that_has_said_nothing_for_long(self, cluster):
        brought(cluster, "a", "b")
        cluster.now = HOUR
        cluster.silences["etl"] = (HOUR, False)
        (found,) = suspects(cluster)
        assert found["suspicion"] == "idle"
        assert (found["objects"], found["nbytes"], set(found["keys"])) == (2, 2 * LARGE, {"a", "b"})
        assert found["call_site"] == LINE
        assert found["holders"] == [{"kind": "client", "name": "etl", "client": "etl", "silent_seconds": HOUR}]
        assert found["oldest_seconds"] == HOUR

    @pytest.mark.parametrize("why", ["it speaks", "new", "small", "published", "another client", "a task", "it waits"])
    def test_what_is_not_suspected(self, cluster, why):
        client = "etl"
        if why == "small":
            cluster.scatter("etl", "a", HOST, b"data")
        else:
            brought(cluster, "a")
        cluster.now = 60.0 if why == "new" else HOUR
        cluster.silences[client] = (5.0 if why == "it speaks" else HOUR, False)
        if why == "published":
            cluster.publish("etl", cluster.new_number(), "data", ["a"])
        elif why == "another client":
            cluster.add_client("other")
            cluster.clients["other"]["a"] = "pending"
            cluster.handle(events.KeysWanted("other", ["a"]))
        elif why == "a task":
            cluster.add_client("other")
            cluster.submit("other", {"b": ["a"]})
        elif why == "it waits":
            cluster.submit("etl", {"running": []})
        assert suspects(cluster) == []

    def test_one_that_waits_for_an_item_of_a_queue_is_not_idle(self, cluster):
        brought(cluster, "a")
        cluster.now = HOUR
        cluster.silences["etl"] = (HOUR, False)
        cluster.request("etl", cluster.new_number(), requests.GET(name="jobs", lease=1, timeout=2 * HOUR))
        assert suspects(cluster) == []

    def test_one_whose_connection_is_broken_is_told_so(self, cluster):
        brought(cluster, "a")
        cluster.now = HOUR
        cluster.silences["etl"] = (1.0, True)
        (found,) = suspects(cluster)
        assert found["holders"][0]["cut_off"] is True


class TestWhatGrows:
    def test_many_of_one_line_old_and_new_ones_of_one_client(self, cluster):
        for number in range(leaks.GROWING_OBJECTS):
            cluster.now = 10.0 * number
            brought(cluster, f"k{number}")
        (found,) = suspects(cluster)
        assert found["suspicion"] == "growing"
        assert found["objects"] == leaks.GROWING_OBJECTS
        assert found["newest_seconds"] == 0.0
        cluster.now += 2 * leaks.RECENT_SECONDS
        assert suspects(cluster) == [], "it grows no more"

    def test_results_of_one_call_that_come_one_after_the_other_are_none(self, cluster):
        keys = [f"k{number}" for number in range(leaks.GROWING_OBJECTS)]
        cluster.handle(events.TasksSubmitted("etl", [(key, None, b"node", ()) for key in keys], None, {}, LINE))
        for key in keys:
            cluster.now += 10.0
            cluster.finish(key)
        assert suspects(cluster) == []


class TestQueues:
    def test_what_nobody_takes_out_for_long(self, cluster):
        brought(cluster, "a")
        cluster.request("etl", cluster.new_number(), requests.PUT(name="jobs", data=b"item", keys=["a"], lease=1))
        cluster.release("etl", "a")
        cluster.now = HOUR / 2
        assert suspects(cluster) == []
        cluster.now = HOUR
        (found,) = suspects(cluster)
        assert found["suspicion"] == "queue"
        assert found["holders"] == [{"kind": "queue", "name": "'jobs'"}]


class TestCycles:
    def contain(self, cluster, key, *others):
        cluster.handle(events.ReferencesFound("etl", [(key, list(others))]))

    def ring(self, cluster, *keys):
        brought(cluster, *keys)
        for key, other in zip(keys, (*keys[1:], keys[0]), strict=True):
            self.contain(cluster, key, other)

    def test_objects_that_only_keep_each_other(self, cluster):
        self.ring(cluster, "a", "b", "c")
        brought(cluster, "below")
        self.contain(cluster, "a", "below")
        assert suspects(cluster) == [], "the client has them"
        cluster.release("etl", "a", "b", "c", "below")
        (found,) = suspects(cluster)
        assert found["suspicion"] == "cycle"
        assert found["objects"] == 4, "and what they keep"

    def test_small_ones_too_and_those_that_something_else_keeps_are_none(self, cluster):
        self.ring(cluster, "a", "b")
        self.ring(cluster, "c", "d")
        brought(cluster, "top")
        self.contain(cluster, "top", "c")
        cluster.release("etl", "a", "b", "c", "d")
        (found,) = suspects(cluster)
        assert found["objects"] == 2
        assert set(found["keys"]) == {"a", "b"}

    def test_a_long_chain_is_followed_in_steps(self, cluster, monkeypatch):
        monkeypatch.setattr(leaks, "STEP_FOLLOWED", 10)
        keys = [f"k{number:03}" for number in range(100)]
        brought(cluster, *keys)
        for above, below in itertools.pairwise(keys):
            self.contain(cluster, above, below)
        cluster.release("etl", *keys[1:])
        suspicions = leaks.Suspicions(0.0, lambda client: (0.0, False), 1)
        steps = list(suspicions.add([cluster.state.tasks[key] for key in reversed(keys)]))
        assert len(steps) >= 100 * 99 / 2 / 10 - 1
        assert suspects(cluster) == []

    def test_the_search_has_an_end(self, cluster, monkeypatch):
        monkeypatch.setattr(leaks, "MAX_FOLLOWED", 5)
        self.ring(cluster, *"abcdefgh")
        cluster.release("etl", *"abcdefgh")
        assert suspects(cluster) == []


def test_what_was_deleted_and_is_read_still(cluster):
    store = {"deleted_but_pinned": 2, "deleted_but_pinned_nbytes": LARGE, "deleted_but_pinned_by": ["etl"]}
    cluster.request("watcher", cluster.new_number(), requests.MEMORY())
    cluster.report(HOST, store=store)
    (found,) = cluster.replies[-1].value["suspects"]
    assert (found["suspicion"], found["objects"], found["nbytes"]) == ("read", 2, LARGE)
    assert found["holders"] == [{"kind": "process", "name": "etl"}]


def test_of_very_many_suspicions_the_largest_are_told(cluster, monkeypatch):
    monkeypatch.setattr(leaks, "MAX_TOLD", 3)
    for number in range(6):
        brought(cluster, *[f"{number}-{n}" for n in range(number + 1)], line=f"line {number}")
    cluster.now = HOUR
    cluster.silences["etl"] = (HOUR, False)
    assert [found["call_site"] for found in suspects(cluster)] == ["line 5", "line 4", "line 3"]


class TestGroups:
    def groups(self, cluster, *by):
        cluster.request("watcher", cluster.new_number(), requests.MEMORY(by=list(by)))
        cluster.report(HOST)
        return cluster.replies[-1]

    def test_by_everything_that_there_is(self, cluster):
        brought(cluster, ("x", 0), ("x", 1), "inc-1")
        cluster.publish("etl", cluster.new_number(), "data", [("x", 0)])
        cluster.now = 50.0
        groups = self.groups(cluster, *requests.looking.GROUPINGS).value["groups"]
        assert groups["owner"] == {"etl": (3, 3 * LARGE, 50.0, 50.0)}
        assert groups["holder"] == {"client etl": (3, 3 * LARGE, 50.0, 50.0), "dataset 'data'": (1, LARGE, 50.0, 50.0)}
        assert groups["dataset"] == {"'data'": (1, LARGE, 50.0, 50.0)}
        assert groups["collection"] == {"x": (2, 2 * LARGE, 50.0, 50.0)}
        assert groups["prefix"] == {"x": (2, 2 * LARGE, 50.0, 50.0), "inc": (1, LARGE, 50.0, 50.0)}
        assert groups["line"] == {LINE: (3, 3 * LARGE, 50.0, 50.0)}
        assert groups["type"] == {"bytes": (3, 3 * LARGE, 50.0, 50.0)}
        assert groups["host"] == {"host0": (3, 3 * LARGE, 50.0, 50.0)}

    def test_by_something_else_is_refused(self, cluster):
        cluster.request("watcher", cluster.new_number(), requests.MEMORY(by=["colour"]))
        assert cluster.replies[-1].value[0] == "ValueError"

    def test_of_very_many_groups_the_small_ones_are_told_together(self, cluster, monkeypatch):
        monkeypatch.setattr(memory, "MAX_GROUPS", 10)
        monkeypatch.setattr(memory, "MAX_GROUPS_LISTED", 4)
        monkeypatch.setattr(memory, "STEP_ITEMS", 7)
        for number in range(100):
            cluster.scatter("etl", f"{chr(97 + number // 26)}{chr(97 + number % 26)}", HOST, b"small")
        brought(cluster, *[f"large-{number}" for number in range(5)])
        value = self.groups(cluster, "prefix").value
        groups = value["groups"]["prefix"]
        assert len(groups) == 4
        assert groups["large"][0] == 5
        assert value["left_out"]["prefix"][0] + sum(group[0] for group in groups.values()) == 105


class TestExplaining:
    def explained(self, cluster, key):
        cluster.request("watcher", cluster.new_number(), requests.EXPLAIN(key=key))
        return cluster.replies[-1].value

    def read(self, cluster, key):
        steps = explaining.explain(cluster.state, lambda client: (3.0, False), key)
        count = 0
        while True:
            try:
                next(steps)
                count += 1
            except StopIteration as end:
                return end.value, count

    def test_by_the_id_of_its_object(self, cluster):
        brought(cluster, "a")
        task = cluster.state.tasks["a"]
        assert self.read(cluster, task.object_id.hex())[0]["key"] == "a"
        assert self.read(cluster, "0" * 32)[0] == {"near": [], "n_near": 0}
        assert self.read(cluster, "x" * 32)[0] == {"near": [], "n_near": 0}

    def test_keys_that_begin_or_begin_and_end_like_it(self, cluster, monkeypatch):
        monkeypatch.setattr(explaining, "STEP_KEYS", 10)
        keys = [("coll-1", number) for number in range(30)]
        brought(cluster, *keys, "inc-123", "inc-143", "dec-123")
        found, steps = self.read(cluster, "coll-1")
        assert (found["n_near"], len(found["near"])) == (30, explaining.MAX_NAMED)
        assert steps >= 3
        assert self.read(cluster, "inc-")[0]["n_near"] == 2
        assert self.read(cluster, "in…23")[0]["near"] == ["inc-123"]
        assert self.read(cluster, "('coll…7)")[0]["n_near"] == 3
        assert self.read(cluster, "coll-")[0]["n_near"] == 30
        assert self.read(cluster, "co…-1")[0]["n_near"] == 30
        assert self.read(cluster, "co…-2")[0]["n_near"] == 0
        assert self.read(cluster, ("coll-1", 99))[0]["n_near"] == 0
        assert self.read(cluster, "")[0]["n_near"] == 0

    def test_who_has_brought_it_and_what_keeps_it(self, cluster):
        cluster.handle(events.ClientJoined("c", "mine", None, {"user": "ada", "hostname": "alpha", "pid": 7}))
        cluster.clients["c"], cluster.read["c"] = {}, {}
        brought(cluster, "a", client="c")
        found, _ = self.read(cluster, "a")
        about = {"client": "c", "user": "ada", "hostname": "alpha", "pid": 7}
        assert found["origin"] == {"owner": "mine", **about, "call_site": LINE, "task": None}
        assert found["holders"] == [{"kind": "client", "name": "mine", **about, "silent_seconds": 3.0}]
        assert found["where"] == [{"node": HOST, "name": "host0"}]

    def test_the_task_that_has_submitted_it(self, cluster):
        cluster.submit("etl", {"parent": []})
        cluster.begin("parent")
        cluster.submit_in("parent", {"child": []})
        assert self.read(cluster, "child")[0]["origin"]["task"] == "parent"
