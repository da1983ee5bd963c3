"""Actors in the state machine: where calls wait, what they come to, and which peers are told."""

from __future__ import annotations

import random

import pytest
from actor_cluster import ActorCluster
from scheduler_harness import SMALL

from holdfast.cluster.errors import ActorLostError, CancelledError, ProtocolError
from holdfast.cluster.protocol.limits import MAX_CALLS
from holdfast.cluster.protocol.requests import RETIRE_WORKERS
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.watching.closing import workers_to_close

HOST = "tcp://host0:1"


@pytest.fixture
def cluster():
    cluster = ActorCluster(hosts=1, workers=2)
    cluster.add_client("a")
    cluster.add_client("b")
    return cluster


def test_a_call_goes_to_the_worker_that_has_the_actor_and_back(cluster):
    actor = cluster.make("a", "counter")
    request = cluster.call("a", actor)
    assert cluster.waiting(actor) == [request]
    cluster.end_next(actor)
    assert cluster.answer("a", request) == (request, True, b"value", None, "", ())
    assert cluster.waiting(actor) == []


def test_calls_are_sent_in_their_order(cluster):
    actor = cluster.make("a", "counter")
    requests = [cluster.call("a" if n % 2 else "b", actor) for n in range(6)]
    assert cluster.waiting(actor) == requests


def test_a_call_waits_for_what_it_depends_on_and_later_ones_of_its_client_behind_it(cluster):
    actor = cluster.make("a", "counter")
    cluster.submit("a", {"x": []})
    first = cluster.call("a", actor, ["x"])
    second = cluster.call("a", actor)
    other = cluster.call("b", actor)
    assert cluster.waiting(actor) == [other]
    cluster.release("a", "x")
    cluster.finish("x")
    assert cluster.waiting(actor) == [other, first, second]
    assert "x" in cluster.state.tasks, "a call holds what it depends on"
    for _ in range(3):
        cluster.end_next(actor)
    cluster.catch_up()
    assert "x" not in cluster.state.tasks


def test_a_call_fails_with_what_it_depends_on(cluster):
    actor = cluster.make("a", "counter")
    cluster.submit("a", {"x": []})
    first, second = cluster.call("a", actor, ["x"]), cluster.call("a", actor)
    cluster.err("x")
    assert cluster.answer("a", first)[1] is False
    assert cluster.waiting(actor) == [second]
    third = cluster.call("a", actor, ["gone"])
    assert isinstance(cluster.error("a", third), CancelledError)
    assert cluster.waiting(actor) == [second]


def test_a_large_result_is_data_that_its_client_holds(cluster):
    actor = cluster.make("a", "counter")
    request = cluster.call("a", actor)
    cluster.end_next(actor, stored=True)
    _, ok, value, (key, object_id, _, nodes), _, _ = cluster.answer("a", request)
    assert (ok, value, nodes) == (True, None, (HOST,))
    task = cluster.state.tasks[key]
    assert task.object_id == object_id
    assert [holder.describe() for holder in task.holders] == [("client", "a")]
    cluster.release("a", key)
    cluster.catch_up()
    assert object_id not in cluster.stores[HOST]


def test_futures_in_a_result_are_its_clients(cluster):
    actor = cluster.make("a", "counter")
    cluster.submit("a", {"x": []})
    request = cluster.call("b", actor)
    cluster.end_next(actor, keys=["x"])
    assert cluster.answer("b", request)[5] == ("x",)
    cluster.release("a", "x")
    cluster.catch_up()
    assert "x" in cluster.state.tasks


def test_an_actor_is_dropped_when_its_task_is_let_go_of(cluster):
    actor = cluster.make("a", "counter")
    assert cluster.dropped_actors == []
    cluster.release("a", "counter")
    cluster.catch_up()
    assert cluster.dropped_actors == [actor]
    late = cluster.call("a", actor)
    assert isinstance(cluster.error("a", late), ActorLostError)


def test_calls_under_way_come_to_their_end_before_it_is_dropped(cluster):
    actor = cluster.make("a", "counter")
    cluster.submit("a", {"x": []})
    requests = [cluster.call("a", actor), cluster.call("a", actor, ["x"])]
    cluster.release("a", "counter")
    cluster.catch_up()
    assert cluster.dropped_actors == []
    cluster.end_next(actor)
    cluster.finish("x")
    assert cluster.waiting(actor) == requests[1:]
    cluster.end_next(actor)
    assert cluster.dropped_actors == [actor]


def test_calls_and_the_task_fail_when_the_worker_dies_and_nothing_is_made_again(cluster):
    actor = cluster.make("a", "counter")
    cluster.submit("a", {"x": [], "reader": ["counter", "x"]})
    sent, waits = cluster.call("a", actor), cluster.call("b", actor, ["x"])
    worker = cluster.worker_of(actor)
    cluster.remove_worker(worker)
    cluster.forget_calls()
    for client, request in (("a", sent), ("b", waits)):
        error = cluster.error(client, request)
        assert isinstance(error, ActorLostError)
        for part in ("the actor Counter ('counter')", worker, "killed by signal 9"):
            assert part in str(error)
    assert cluster.clients["a"]["counter"] == "erred"
    cluster.catch_up()
    assert cluster.clients["a"]["reader"] == "erred"
    assert "counter" not in cluster.running
    assert "is lost with its worker" in str(cluster.error("a", cluster.call("a", actor)))
    cluster.release("a", "counter", "x", "reader")
    cluster.catch_up()
    assert not cluster.state.actors._actors


def test_another_try_of_an_actor_that_is_lost_makes_another_one(cluster):
    lost = cluster.make("a", "counter")
    cluster.remove_worker(cluster.worker_of(lost))
    cluster.forget_calls()
    cluster.clients["a"]["counter"] = "pending"
    cluster.handle(events.KeysRetried("a", ["counter"]))
    cluster.catch_up()
    actor = cluster.end_making("counter")
    assert isinstance(cluster.error("a", cluster.call("a", lost)), ActorLostError)
    request = cluster.call("a", actor)
    cluster.end_next(actor)
    assert cluster.answer("a", request)[1]


def test_a_constructor_is_run_again_when_its_worker_dies_before_there_was_a_handle(cluster):
    cluster.submit("a", {"counter": []}, actor=True)
    first = cluster.begin_making("counter")
    cluster.remove_worker(cluster.worker_of(first))
    cluster.forget_calls()
    assert cluster.clients["a"]["counter"] == "pending"
    second = cluster.end_making("counter")
    assert second != first
    request = cluster.call("a", second)
    cluster.end_next(second)
    assert cluster.answer("a", request)[1]


def test_an_actor_that_is_not_wanted_any_more_when_it_is_made_is_dropped(cluster):
    cluster.submit("a", {"counter": []}, actor=True)
    worker, entry = cluster.startable_entry("counter")
    cluster.release("a", "counter")
    cluster.catch_up()
    cluster.actors[worker].add(entry[1])
    cluster.handle(events.ActorsMade(worker, [(entry[1], "Counter")]))
    assert cluster.dropped_actors == [entry[1]]


def test_the_calls_of_a_client_that_has_left_are_dropped(cluster):
    actor = cluster.make("a", "counter")
    cluster.handle(events.KeysWanted("b", ["counter"]))
    cluster.submit("a", {"x": []})
    kept = cluster.call("a", actor)
    cluster.call("b", actor)
    cluster.call("b", actor, ["x"])
    cluster.remove_client("b")
    assert cluster.waiting(actor) == [kept]
    cluster.finish("x")
    assert cluster.waiting(actor) == [kept]


def test_a_call_that_could_not_read_a_dependency_comes_once_more_or_fails(cluster):
    actor = cluster.make("a", "counter")
    cluster.submit("a", {"x": []})
    cluster.finish("x")
    request = cluster.call("a", actor, ["x"])
    assert cluster.miss_call(actor) == request
    assert cluster.waiting(actor) == [request], "it is tried again"
    for _ in range(2):
        cluster.miss_call(actor)
    assert cluster.waiting(actor) == [], "x is computed again"
    cluster.finish("x")
    assert cluster.waiting(actor) == [request]
    cluster.scatter("a", "data", HOST)
    failed = cluster.call("a", actor, ["data"])
    cluster.end_next(actor)
    for _ in range(3):
        cluster.miss_call(actor)
    assert cluster.answer("a", failed)[1] is False
    assert cluster.waiting(actor) == []


def test_a_client_may_have_so_many_calls_under_way_and_no_more(cluster):
    actor = cluster.make("a", "counter")
    for _ in range(MAX_CALLS):
        cluster.call("a", actor)
    with pytest.raises(ProtocolError, match="1,000 calls of this client"):
        cluster.call("a", actor)
    cluster.call("b", actor)


def test_actors_go_where_few_are():
    cluster = ActorCluster(hosts=1, workers=3)
    cluster.add_client("a")
    actors = [cluster.make("a", f"counter-{n}") for n in range(6)]
    places = [cluster.worker_of(actor) for actor in actors]
    assert sorted(map(places.count, set(places))) == [2, 2, 2]
    cluster.submit("a", {f"more-{n}": [] for n in range(3)}, actor=True)
    assert len({cluster.running[f"more-{n}"] for n in range(3)}) == 3


def test_a_worker_that_has_actors_is_not_retired(cluster):
    actor = cluster.make("a", "counter")
    worker = cluster.worker_of(actor)
    cluster.request("a", 1, RETIRE_WORKERS(workers=[worker]))
    answer = cluster.answer_of("a", 1)
    assert not answer.ok
    assert answer.value[0] == "RuntimeError"
    assert "actors can't be moved" in answer.value[1]
    assert not cluster.state.workers[worker].retiring
    cluster.release("a", "counter")
    cluster.catch_up()
    cluster.request("a", 2, RETIRE_WORKERS(workers=[worker], close_hosts=False, awaits_end=False))
    assert cluster.state.workers[worker].retiring or cluster.state.workers[worker].ending


def test_a_worker_that_has_actors_is_not_among_those_to_be_closed(cluster):
    actor = cluster.make("a", "counter")
    (closed,) = workers_to_close(cluster.state, 2, None, None, 0.0, None)
    assert closed != cluster.worker_of(actor)


class History:
    """What happens to actors, by chance."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.cluster = ActorCluster(hosts=2, workers=2)
        self.clients = ["a", "b", "c"]
        for name in self.clients:
            self.cluster.add_client(name)
        self.known = []  # actors that were made
        self.left = set()
        self.lost = set()
        self.number = 0

    def run(self, steps=150):
        for _ in range(steps):
            step = self.chance.choice(
                [self.make, self.call, self.call, self.call, self.end, self.end, self.task, self.work, self.work]
                + [self.release, self.miss]
                + ([self.kill, self.leave] if self.chance.random() < 0.2 else [])
            )
            step()
            self.cluster.catch_up()
        self.finish()

    def key(self, what):
        self.number += 1
        return f"{what}-{self.number}"

    def make(self):
        self.cluster.submit(self.chance.choice(self.clients), {self.key("actor"): []}, actor=True)

    def task(self):
        self.cluster.submit(self.chance.choice(self.clients), {self.key("task"): []})

    def call(self):
        if self.known:
            client = self.chance.choice(self.clients)
            tasks = [key for key in self.cluster.clients[client] if str(key).startswith("task")]
            keys = self.chance.sample(tasks, min(len(tasks), self.chance.choice([0, 0, 0, 1, 2])))
            self.cluster.call(client, self.chance.choice(self.known), keys)

    def work(self):
        cluster = self.cluster
        cluster.drop_all()
        if not cluster.startable:
            return
        key = self.chance.choice(cluster.startable)
        if str(key).startswith("actor"):
            number = cluster.begin_making(key)
            if cluster.worker_of(number) is not None:
                cluster.finish(key, inline=b"handle", nbytes=SMALL)
                self.known.append(number)
        elif self.chance.random() < 0.2:
            cluster.err(key)
        else:
            cluster.finish(key)

    def end(self):
        worker = self.chance.choice(list(self.cluster.calls) or [None])
        first = {}
        for number, entry in self.cluster.calls.get(worker, {}).items():
            first.setdefault(entry[1], number)
        if first:
            number = self.chance.choice(list(first.values()))
            self.cluster.end_call(worker, number, ok=self.chance.random() < 0.8, stored=self.chance.random() < 0.2)

    def miss(self):
        for actor in self.known:
            worker = self.cluster.worker_of(actor)
            entries = [e for e in self.cluster.calls.get(worker, {}).values() if e[1] == actor]
            # A worker that can't read what a call depends on holds back the later ones of its caller.
            if entries and entries[0][5] and not any(e[2] == entries[0][2] for e in entries[1:]):
                self.cluster.miss_call(actor)
                return

    def release(self):
        client = self.chance.choice(self.clients)
        keys = list(self.cluster.clients[client])
        if keys:
            self.cluster.release(client, self.chance.choice(keys))

    def kill(self):
        workers = list(self.cluster.runs)
        if workers:
            worker = self.chance.choice(workers)
            self.cluster.remove_worker(worker)
            self.cluster.forget_calls()
            self.cluster.add_worker(worker.rpartition("/")[0])

    def leave(self):
        client = self.chance.choice(self.clients)
        self.cluster.remove_client(client)
        self.left |= {sent for sent in self.cluster.sent if sent[1] == client}
        self.clients[self.clients.index(client)] = new = self.key("client")
        self.cluster.add_client(new)

    def finish(self):
        """Everything that can end ends."""
        for _ in range(10_000):
            self.cluster.drop_all()
            if self.cluster.startable:
                self.work()
            elif any(self.cluster.calls.values()):
                self.end()
            else:
                break
            self.cluster.catch_up()


@pytest.mark.parametrize("seed", range(40))
def test_each_call_has_one_answer_and_those_of_one_caller_end_in_order(seed):
    history = History(seed)
    history.run()
    cluster = history.cluster
    assert all(len(answers) == 1 for answers in cluster.answers.values())
    unanswered = [sent for sent in cluster.sent if (sent[1], sent[2]) not in cluster.answers]
    assert set(unanswered) <= history.left, "a client that is there has an answer to each call"
    for actor in history.known:
        for client in {sent[1] for sent in cluster.sent}:
            ended = [request for at, caller, request in cluster.ended if (at, caller) == (actor, client)]
            assert ended == sorted(ended)
    assert cluster.ended, "nothing happened"
    assert not cluster.state.actors._calls
    for client in list(history.clients):
        cluster.remove_client(client)
    cluster.catch_up()
    assert not cluster.state.actors._actors
    assert not any(worker.actors for worker in cluster.state.workers.values())
    assert not cluster.state.tasks
