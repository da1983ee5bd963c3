"""Runs that wait for other runs: what they have is lent, and few of them wait at a time."""

from __future__ import annotations

import random

import pytest
from scheduler_harness import SMALL, Cluster

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.naming import id_of_tasks
from holdfast.cluster.scheduler.placing import lending
from holdfast.cluster.scheduler.placing.revocation import STOPPED_SECONDS
from holdfast.cluster.scheduler.placing.suspects import SUSPECTED_BY_CHILDREN
from holdfast.cluster.scheduler.tasks import events

CLIENT = "client"


def started(hosts=1, workers=1, nthreads=1, resources=None, **options):
    cluster = Cluster(hosts=hosts, **options)
    for host in list(cluster.stores):
        for _ in range(workers):
            cluster.add_worker(host, nthreads, resources)
    cluster.add_client(CLIENT)
    return cluster


def learn(cluster, name, seconds=1e-4):
    """The scheduler learns how long tasks of a name take."""
    cluster.submit(CLIENT, {(name, "known"): []})
    cluster.finish((name, "known"), nbytes=SMALL, inline=b"value", seconds=seconds)
    cluster.release(CLIENT, (name, "known"))


def failures(cluster, key):
    return cluster.state.tasks[key].failures


def worker_of(cluster, key):
    return cluster.state.workers[cluster.entry(key)[0]]


def test_a_task_that_waits_for_its_child_makes_room_for_it():
    cluster = started()
    cluster.submit(CLIENT, {"parent": []})
    cluster.submit_in("parent", {"child": []})
    assert list(cluster.running) == ["parent"]
    cluster.block("parent")
    assert cluster.startable == ["child"]
    tasks = cluster.finish("child", inline=b"value", nbytes=SMALL)
    assert tasks
    assert cluster.clients[id_of_tasks(worker_of(cluster, "parent").address)] == {"child": "memory"}
    cluster.unblock("parent")
    cluster.finish("parent")
    assert cluster.clients[CLIENT] == {"parent": "memory"}


def test_what_a_task_submits_comes_before_what_it_did_not_and_the_deepest_first():
    cluster = started()
    cluster.submit(CLIENT, {("root", n): [] for n in range(3)})
    order = []
    for key, child in ((("root", 0), "child"), ("child", "grandchild")):
        cluster.submit_in(key, {child: [], f"{child}'s brother": []})
        cluster.block(key)
        order += cluster.startable
    assert order == ["child", "grandchild"]
    ended = []
    while keys := cluster.startable:
        cluster.finish(keys[0], inline=b"value", nbytes=SMALL)
        ended.append(keys[0])
    assert ended[:3] == ["grandchild", "grandchild's brother", "child's brother"]
    assert set(ended[3:]) == {("root", 1), ("root", 2)}


def test_tasks_that_submit_each_other_without_end_have_an_order_that_can_be_sent(monkeypatch):
    monkeypatch.setattr(lending, "_DEEPEST", 3)
    cluster = started()
    cluster.submit(CLIENT, {0: []})
    orders = []
    for number in range(5):
        cluster.submit_in(number, {number + 1: []})
        orders.append(cluster.state.tasks[number + 1].priority[1])
        cluster.finish(number)
    assert [-(order // lending._DEPTH) for order in orders] == [1, 2, 3, 3, 3]
    assert orders[2:] == sorted(orders[2:])


def test_children_have_the_priority_of_their_parent_and_their_own():
    cluster = started()
    cluster.submit(CLIENT, {"parent": []}, priority=10)
    cluster.submit(CLIENT, {"high": []}, priority=5)
    cluster.submit_in("parent", {"child": []})
    cluster.submit_in("parent", {"low child": []}, priority=-6)
    cluster.block("parent")
    ended = []
    while keys := cluster.startable:
        cluster.finish(keys[0])
        ended.append(keys[0])
    assert ended == ["child", "high", "low child"]


@pytest.mark.parametrize("priority", [float("inf"), float("-inf")])
def test_priorities_without_end_have_an_order_still(priority):
    cluster = started()
    cluster.submit(CLIENT, {"parent": []}, priority=priority)
    cluster.submit_in("parent", {"child": []}, priority=-priority)
    cluster.block("parent")
    assert cluster.startable == ["child"]


def test_only_the_tasks_of_a_worker_can_say_which_task_submits_something():
    cluster = started()
    cluster.submit(CLIENT, {"parent": []})
    run_id = cluster.entry("parent")[1][1]
    cluster.submit(CLIENT, {"other": []}, parent=run_id)
    assert not cluster.state.life.parents
    cluster.submit_in("parent", {"child": []})
    assert cluster.state.life.parents == {cluster.state.tasks["child"]: run_id}
    cluster.block("parent")
    cluster.run_all()
    cluster.remove_worker(next(iter(cluster.runs)))
    assert not cluster.state.life.parents, "it is forgotten with its tasks"


def test_tasks_of_a_kind_that_waits_are_not_sent_ahead_and_those_that_were_are_taken_back():
    cluster = started()
    learn(cluster, "f")
    cluster.submit(CLIENT, {("f", n): [] for n in range(20)})
    assert len(cluster.running) == 20
    cluster.submit_in(("f", 0), {"child": []})
    cluster.block(("f", 0))
    cluster.drop_all()
    assert cluster.startable == ["child"], "it would have come behind the others"
    cluster.finish("child", inline=b"value", nbytes=SMALL)
    assert len(cluster.startable) == 1


def test_nothing_is_lined_up_behind_a_run_that_waits():
    cluster = started()
    for name in ("f", "g"):
        learn(cluster, name)
    cluster.submit(CLIENT, {("f", 0): [], ("g", 0): [("f", 0)]})
    assert len(cluster.running) == 2
    cluster.submit_in(("f", 0), {"child": []})
    cluster.block(("f", 0))
    cluster.drop_all()
    assert cluster.startable == ["child"]
    assert cluster.state.tasks["g", 0].state == "waiting"
    cluster.submit(CLIENT, {("g", 1): [("f", 0)]})
    assert ("g", 1) not in cluster.running
    cluster.finish("child", inline=b"value", nbytes=SMALL)
    cluster.unblock(("f", 0))
    cluster.run_all()
    assert set(cluster.clients[CLIENT].values()) == {"memory"}


def test_it_lends_its_resources_and_does_not_go_on_without_them():
    cluster = started(nthreads=2, resources={"GPU": 1.0})
    gpu = {"resources": {"GPU": 1}}
    cluster.submit(CLIENT, {"parent": []}, **gpu)
    cluster.submit_in("parent", {"child": [], "other": []}, **gpu)
    assert list(cluster.running) == ["parent"]
    cluster.block("parent")
    assert cluster.startable == ["child"]
    assert not cluster.reclaim("parent"), "the child has the GPU"
    cluster.finish("child")
    assert cluster.entry("parent")[1][1] in cluster.granted
    assert "other" not in cluster.running, "the parent had it before"
    cluster.unblock("parent")
    cluster.finish("parent")
    assert cluster.startable == ["other"]


def test_of_those_that_want_resources_back_the_one_that_waited_last_has_them_first():
    cluster = started(nthreads=4, resources={"GPU": 1.0})
    gpu = {"resources": {"GPU": 1}}
    keys = ["a", "b", "c"]
    for key in keys:
        cluster.submit(CLIENT, {key: []}, **gpu)
        if key != "c":
            cluster.block(key)
    assert not cluster.reclaim("a")
    assert not cluster.reclaim("b")
    cluster.finish("c")
    assert cluster.entry("b")[1][1] in cluster.granted
    assert cluster.entry("a")[1][1] not in cluster.granted
    cluster.unblock("b")
    cluster.finish("b")
    assert cluster.entry("a")[1][1] in cluster.granted


def test_one_that_is_to_run_alone_does_not_take_what_was_given_back_to_one_that_waits_for_its_slot():
    cluster = started(workers=2, nthreads=2, resources={"GPU": 1.0})
    first, second = cluster.runs
    gpu = {"GPU": 1}
    cluster.submit(CLIENT, {"parent": []}, workers=[first], resources=gpu)
    cluster.submit(CLIENT, {"suspect": []}, workers=[second], resources=gpu, allow_other_workers=True)
    cluster.submit(CLIENT, {"another": []}, workers=[second])
    cluster.block("parent")
    cluster.submit(CLIENT, {"runs": []}, workers=[first])
    cluster.remove_worker(second, ["suspect", "another"])
    assert cluster.startable == ["runs"]
    assert cluster.reclaim("parent")
    cluster.finish("runs")
    assert not cluster.startable, "the only GPU is given away"
    cluster.unblock("parent")
    cluster.finish("parent")
    assert cluster.startable == ["suspect"]


def test_one_that_wants_resources_back_may_die_with_its_worker():
    cluster = started(nthreads=2, resources={"GPU": 1.0})
    gpu = {"resources": {"GPU": 1}}
    cluster.submit(CLIENT, {"parent": []}, **gpu)
    cluster.block("parent")
    cluster.submit(CLIENT, {"other": []}, **gpu)
    assert not cluster.reclaim("parent")
    (address,) = cluster.runs
    cluster.remove_worker(address, ["other"])
    assert not cluster.state.lending.reclaiming
    cluster.add_worker("tcp://host0:1", 1, {"GPU": 1.0})
    cluster.run_all()
    assert cluster.clients[CLIENT] == {"parent": "memory", "other": "memory"}


def test_one_that_was_cancelled_gives_back_what_it_has_when_it_ends():
    cluster = started(nthreads=1, resources={"GPU": 1.0})
    cluster.submit(CLIENT, {"parent": []}, resources={"GPU": 1})
    cluster.submit_in("parent", {"child": []})
    cluster.block("parent")
    cluster.handle(events.KeysCancelled(CLIENT, ["parent"], False))
    assert cluster.clients[CLIENT] == {"parent": "cancelled"}
    assert cluster.startable == ["child"]
    cluster.finish("child")
    assert cluster.reclaim("parent")
    cluster.unblock("parent")
    cluster.finish("parent")
    (worker,) = cluster.state.workers.values()
    assert worker.free_resources == {"GPU": 1.0}
    assert not worker.runs


def test_the_client_of_its_tasks_goes_with_a_worker():
    cluster = started(workers=2)
    cluster.submit(CLIENT, {"parent": []})
    tasks = cluster.submit_in("parent", {"child": []})
    assert cluster.running["child"] != cluster.running["parent"]
    cluster.remove_worker(cluster.running["parent"], [])
    assert tasks not in cluster.state.clients
    assert "child" not in cluster.state.tasks
    assert cluster.state.tasks["parent"].state in ("ready", "processing")


def test_no_tasks_are_a_client_without_their_worker():
    cluster = started()
    with pytest.raises(ProtocolError, match="no such worker"):
        cluster.handle(events.ClientJoined("tasks", "tasks", "tcp://nowhere:1/0"))


def test_what_a_worker_says_of_runs_that_are_not_as_it_says_is_refused():
    cluster = started(resources={"GPU": 1.0})
    cluster.submit(CLIENT, {"parent": []}, resources={"GPU": 1})
    worker, entry = cluster.entry("parent")
    for event in (events.RunsReturned, events.ResourcesReclaimed):
        with pytest.raises(ProtocolError):
            cluster.handle(event(worker, [entry[1]]))
    cluster.block("parent")
    for event in (events.RunsBlocked, events.RunsReturned):
        with pytest.raises(ProtocolError):
            cluster.handle(event(worker, [entry[1]]))
    cluster.handle(events.RunsBlocked(worker, [99]))  # one that was taken away


def test_a_run_that_waits_is_never_taken_away_from_a_worker_that_does_not_answer():
    cluster = started(workers=2)
    cluster.submit(CLIENT, {"parent": []})
    worker = cluster.running["parent"]
    cluster.block("parent")
    cluster.see(worker, "stopped", 1.0)
    assert not cluster.asked
    cluster.see(worker, "stopped", STOPPED_SECONDS)
    assert len(cluster.runs[worker]) == 1
    assert cluster.startable_entry("parent")[0] != worker, "it has stood still for long enough"


# -- which task is to blame when a worker dies


def test_one_that_waits_is_not_charged_for_what_others_do():
    cluster = started(nthreads=2)
    cluster.submit(CLIENT, {"waits": []})
    cluster.block("waits")
    cluster.submit(CLIENT, {"kills": []})
    cluster.remove_worker(cluster.running["kills"], ["kills"])
    assert failures(cluster, "waits") == 0
    assert failures(cluster, "kills") == 1


@pytest.mark.parametrize("known", [True, False])
def test_if_nothing_else_was_going_on_one_that_waits_is_charged(known):
    cluster = started()
    cluster.submit(CLIENT, {"waits": []})
    cluster.block("waits")
    cluster.remove_worker(cluster.running["waits"], [] if known else None)
    assert failures(cluster, "waits") == 1


def test_what_a_task_has_submitted_is_charged_to_it_too_as_far_as_it_was_there():
    cluster = started(hosts=1, workers=1, nthreads=1)
    cluster.submit(CLIENT, {"grandparent": []})
    cluster.submit_in("grandparent", {"parent": []})
    cluster.block("grandparent")
    cluster.submit_in("parent", {"child": []})
    cluster.block("parent")
    cluster.remove_worker(cluster.running["child"], ["child"])
    assert failures(cluster, "grandparent") == 1
    elsewhere = cluster.add_worker("tcp://host0:1", 1)
    assert cluster.running == {"grandparent": elsewhere}
    here = cluster.add_worker("tcp://host0:1", 1)
    cluster.submit_in("grandparent", {"parent": []})
    assert cluster.running["parent"] == here
    cluster.remove_worker(here, ["parent"])
    assert failures(cluster, "grandparent") == 1, "it was not there"
    assert failures(cluster, "parent") == 1


@pytest.mark.parametrize("nthreads", [1, 2, 3])
def test_one_whose_children_kill_every_worker_fails_in_the_end(nthreads):
    cluster = started(nthreads=nthreads)
    cluster.submit(CLIENT, {"parent": [], "innocent": []})
    deaths = 0
    while cluster.clients[CLIENT]["parent"] == "pending":
        deaths += 1
        assert deaths < 20
        worker = cluster.startable_entry("parent")[0] if "parent" in cluster.startable else None
        if worker is None:
            cluster.finish(cluster.startable[0])
            continue
        cluster.submit_in("parent", {("child", deaths, n): [] for n in range(nthreads)})
        cluster.block("parent")
        for _ in range(100):
            children = [key for key in cluster.startable if key[0] == "child"]
            if children or not cluster.startable:
                break
            cluster.finish(cluster.startable[0])
        while not children:
            deadline = cluster.state.next_deadline
            assert deadline is not None
            cluster.now = max(cluster.now, deadline)
            cluster.handle(events.TimePassed())
            children = [key for key in cluster.startable if key[0] == "child"]
        cluster.remove_worker(worker, children)
        cluster.add_worker("tcp://host0:1", nthreads)
    assert "was running on 3 workers that died" in cluster.reasons["parent"]
    assert deaths <= 3 + SUSPECTED_BY_CHILDREN + 1
    cluster.run_all()
    assert cluster.clients[CLIENT]["innocent"] == "memory"


# -- histories


class Tree:
    """Tasks that submit two tasks each and wait for both, in any order of what happens; workers die in between."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.nthreads = self.rng.randint(1, 3)
        self.cluster = started(self.rng.randint(1, 2), self.rng.randint(1, 2), self.nthreads, {"GPU": 1.0})
        self.deaths = 0
        self.waits: dict[int, list[object]] = {}  # run -> what it waits for
        self.most = 0
        self.reclaimed: set[int] = set()

    def run(self) -> None:
        cluster, rng = self.cluster, self.rng
        roots = [("root", n) for n in range(3)]
        cluster.submit(CLIENT, dict.fromkeys(roots, ()))
        for _ in range(20_000):
            if all(cluster.clients[CLIENT][root] == "memory" for root in roots):
                break
            self.most = max(self.most, sum(w.nblocked for w in cluster.state.workers.values()))
            if self.deaths < 5 and rng.random() < 0.01:
                self.kill()
            self.step()
        assert [cluster.clients[CLIENT][root] for root in roots] == ["memory"] * 3
        for worker in cluster.state.workers.values():
            assert not worker.nblocked
            assert worker.free_resources == {"GPU": 1.0}

    def kill(self) -> None:
        worker = self.rng.choice(list(self.cluster.runs))
        self.deaths += 1
        keys = [e[0] for e in self.cluster.runs[worker].values() if e[1] not in self.cluster.blocked]
        self.cluster.remove_worker(worker, keys[: self.nthreads])
        self.cluster.add_worker(worker.rpartition("/")[0], self.nthreads, {"GPU": 1.0})

    def step(self) -> None:
        cluster, rng = self.cluster, self.rng
        cluster.drop_all()
        todo = []
        for worker, runs in cluster.runs.items():
            begun = 0
            for key, run_id, *_ in runs.values():
                if run_id in cluster.blocked:
                    told = cluster.clients[id_of_tasks(worker)]
                    if all(told.get(child) == "memory" for child in self.waits[run_id]):
                        todo.append((self.go_on, key, run_id))
                elif begun < self.nthreads:
                    begun += 1
                    todo.append((self.advance, key, run_id))
        if todo:
            action, key, run_id = rng.choice(todo)
            action(key, run_id)
        else:
            deadline = cluster.state.next_deadline
            assert deadline is not None, "nothing goes on any more"
            cluster.now = max(cluster.now, deadline)
            cluster.handle(events.TimePassed())

    def advance(self, key, run_id) -> None:
        depth = key[2] if key[0] == "node" else 4
        if depth and run_id not in self.waits and key in self.cluster.startable:
            children = [("node", (key[:2], run_id, n), depth - 1) for n in range(2)]
            resources = {"resources": {"GPU": 1}} if self.rng.random() < 0.3 else {}
            self.cluster.submit_in(key, dict.fromkeys(children, ()), **resources)
            self.waits[run_id] = children
            self.cluster.block(key)
        elif key in self.cluster.startable:
            self.cluster.finish(key, inline=b"value", nbytes=SMALL)

    def go_on(self, key, run_id) -> None:
        cluster = self.cluster
        if run_id in cluster.holding and run_id not in self.reclaimed:
            self.reclaimed.add(run_id)
            cluster.reclaim(key)
        elif run_id not in cluster.holding or run_id in cluster.granted:
            cluster.unblock(key)
        else:
            cluster.now += 0.01
            cluster.handle(events.TimePassed())


@pytest.mark.parametrize("seed", range(6))
def test_trees_of_tasks_that_wait_for_tasks_end_whatever_happens(seed):
    tree = Tree(seed)
    tree.run()
    assert tree.most > 3
