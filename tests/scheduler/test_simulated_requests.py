"""Whole clusters in pretended time, in which everybody comes and goes, works and asks: each request is answered.

Every event is validated. A history is made from its seed alone, so one that fails can be looked at again.
"""

from __future__ import annotations

import itertools
import random

import pytest
from simulated_cluster import LATENCY_SECONDS, MB, SimulatedCluster

from holdfast.cluster.protocol import requests
from holdfast.cluster.scheduler.parts.inquiries import REPORT_SECONDS
from holdfast.cluster.scheduler.tasks import events

PUBLISH_SECONDS = 5.0
#: A worker is known to be gone after that.
DEPARTURE_SECONDS = 3.0
WAIT_SECONDS = (0.0, 1.0, 3.0)
MOVE_SECONDS = (0.5, 5.0, 20.0)
STEPS = 160
CLIENTS = ("client", "b", "c")
NAMES = ("one", "two")
#: What the way of a message and some of a clock's rounding may add to a limit.
SLACK_SECONDS = 10 * LATENCY_SECONDS


class History:
    """What happens in a cluster, by chance."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.cluster = SimulatedCluster(
            2,
            1,
            seconds=lambda key: 0.05 + 0.01 * (hash(key[1]) % 7),
            nbytes=lambda key: 1000 * MB if key[0] == "data" else MB,
            publish_seconds=PUBLISH_SECONDS,
            no_worker_timeout=20.0,
        )
        self.keys = {name: [] for name in CLIENTS}
        self.leases = itertools.count(1)
        self.left = []  # requests of clients that have left before they were answered
        for name in CLIENTS[1:]:
            self.cluster.add_client(name)

    def run(self):
        for _ in range(STEPS):
            self.cluster.work(self.cluster.now + self.chance.choice([0.0, 0.0001, 0.01, 0.5]))
            rare = [self.work, self.scatter, self.come, self.go, self.mute, self.want_restart]
            self.chance.choice([*[self.ask] * 3, *[self.share] * 4, *rare])()
        self.cluster.work(self.cluster.now + 30.0)
        return [answered[:5] for answered in self.cluster.answers]

    def ask(self):
        chance, client = self.chance, self.chance.choice(CLIENTS)
        name = chance.choice(NAMES)
        keys = chance.sample(self.keys[client], min(2, len(self.keys[client])))
        asked = chance.choice(
            [
                requests.WAIT_FOR_WORKERS(n=chance.randrange(6), timeout=chance.choice(WAIT_SECONDS)),
                requests.STATUS(),
                requests.MEMORY(),
                requests.PUBLISH(datasets=[(name, b"data", keys, {})], override=chance.random() < 0.8),
                requests.UNPUBLISH(name=name),
                requests.GET_DATASET(name=name),
                requests.LIST_DATASETS(),
                requests.REGISTER_PLUGIN(kind="worker", name=name, call=b"plugin", keys=keys),
                requests.UNREGISTER_PLUGIN(kind="worker", name=name),
                requests.REGISTER_PLUGIN(kind="nanny", name=name, call=b"plugin", keys=keys),
                requests.UNREGISTER_PLUGIN(kind="nanny", name=name),
                requests.ERRAND(operation="versions", arguments={}, names=None, timeout=chance.choice(WAIT_SECONDS)),
                requests.ERRAND(
                    operation="run", arguments={"call": b"x"}, names=None, timeout=chance.choice(WAIT_SECONDS)
                ),
                self.moving(client),
            ]
        )
        if chance.random() < 0.1:
            asked = self.cancel(client)
        self.cluster.ask(asked, client=client)

    def moving(self, client):
        """Something about workers that are to go, or about where data lies."""
        state, chance = self.cluster.state, self.chance
        kind, timeout = chance.random(), chance.choice(MOVE_SECONDS)
        keys = chance.sample(self.keys[client], min(3, len(self.keys[client])))
        if kind < 0.3:
            return requests.REPLICATE(keys=keys, n=chance.choice([None, 1, 2]), timeout=timeout)
        if kind < 0.5:
            return requests.REBALANCE(keys=chance.choice([None, keys]), timeout=timeout)
        if kind < 0.6:
            return requests.RESTART(timeout=timeout, wait_for_workers=chance.random() < 0.5)
        there = [*state.workers, *(host.address for host in state.hosts.values() if host.workers)]
        return requests.RETIRE_WORKERS(
            workers=chance.sample(there, min(len(there), chance.choice([1, 1, 2]))),
            close_workers=chance.random() < 0.8,
            close_hosts=chance.random() < 0.8,
            awaits_end=chance.random() < 0.8,
            grace=chance.choice([0.0, 0.1, 1.0]),
            timeout=timeout,
        )

    def share(self):
        """Ask for something that clients share by name, or give it up."""
        chance, client, name = self.chance, self.chance.choice(CLIENTS), self.chance.choice(NAMES)
        timeout, lease = chance.choice(WAIT_SECONDS), next(self.leases)
        keys = chance.sample(self.keys[client], min(1, len(self.keys[client])))
        earlier = chance.randrange(max(1, lease - 20), lease + 1)
        asked = chance.choice(
            [
                requests.ACQUIRE_LOCKS(
                    names=chance.sample(NAMES, chance.randrange(1, 3)), lease=lease, timeout=timeout
                ),
                requests.ACQUIRE_SEMAPHORE(name=name, lease=lease, timeout=timeout, max_leases=2),
                requests.CLOSE_SEMAPHORE(name=name),
                requests.WAIT_FOR_EVENT(name=name, wait=lease, timeout=timeout),
                requests.SET_EVENT(name=name),
                requests.CLEAR_EVENT(name=name),
                requests.PUT(name=name, data=b"item", keys=keys, lease=lease, timeout=timeout),
                requests.PUT(name=name, data=b"item", keys=keys, lease=lease, timeout=timeout),
                requests.GET(name=name, lease=lease, count=chance.randrange(1, 3), timeout=timeout),
                requests.GET(name=name, lease=lease, timeout=timeout),
                requests.CLOSE_QUEUE(name=name),
                requests.OPEN_QUEUE(name=name, maxsize=2),
                requests.SET_VARIABLE(name=name, data=b"value", keys=keys),
                requests.GET_VARIABLE(name=name, lease=lease, timeout=timeout),
                requests.DELETE_VARIABLE(name=name),
                requests.RELEASE_LOCKS(lease=earlier),
                requests.RELEASE_SEMAPHORE(lease=earlier),
                requests.STOP_WAITING(wait=earlier),
                requests.CONFIRM_ITEMS(lease=earlier),
                requests.GIVE_UP_ITEMS(lease=earlier),
                requests.END_READING(lease=earlier),
            ]
        )
        self.cluster.ask(asked, client=client)

    def cancel(self, client):
        """Cancel something, and ask for the end of what runs."""
        number = len(self.cluster.asked)
        keys = [self.keys[client].pop(self.chance.randrange(len(self.keys[client])))] if self.keys[client] else []
        self.cluster.cancel(keys, number, client=client)
        return requests.AWAIT_KILLS(kill=number)

    def work(self):
        client = self.chance.choice(CLIENTS)
        number = len(self.cluster.asked) + len(self.keys[client])
        below = self.chance.sample(self.keys[client], min(1, len(self.keys[client])))
        key = (f"work-{client}", number)
        self.cluster.submit({key: below}, client=client)
        self.keys[client].append(key)

    def scatter(self):
        hosts = [host.address for host in self.cluster.state.hosts.values() if not host.leaving]
        if hosts:
            client = self.chance.choice(CLIENTS)
            key = ("data", (client, len(self.keys[client])))
            self.cluster.scatter(key, self.chance.choice(hosts), client=client)
            self.keys[client].append(key)

    def come(self):
        hosts = list(self.cluster.state.hosts)
        if not hosts or (len(hosts) < 4 and self.chance.random() < 0.3):
            self.cluster.add_host()
        elif len(self.cluster.state.workers) < 6:
            self.cluster.add_worker(self.chance.choice(hosts))

    def go(self):
        state, chance = self.cluster.state, self.chance
        kind = chance.random()
        if kind < 0.5:
            workers = [address for address in state.workers if not self.cluster.is_lost(address)]
            if workers:
                parts, is_noticed = chance.choice([(True, True), (True, False), (False, True)])
                self.cluster.lose_worker(chance.choice(workers), parts=parts, is_noticed=is_noticed)
        elif kind < 0.7:
            if state.hosts:
                self.cluster.lose_host(chance.choice(list(state.hosts)))
        else:
            client = chance.choice(CLIENTS)
            self.left += self.unanswered(client)
            self.cluster.lose_client(client)
            assert not state.waits.of(client)
            self.keys[client] = []
            self.cluster.add_client(client)

    def want_restart(self):
        """A plugin wants another process in the place of a worker."""
        workers = [address for address in self.cluster.state.workers if not self.cluster.is_lost(address)]
        if workers:
            self.cluster.tell(events.RestartWanted(self.chance.choice(workers), "it says so"))

    def mute(self):
        """An agent says nothing for a while, or speaks again."""
        hosts = list(self.cluster.state.hosts)
        if hosts:
            self.cluster.silent ^= {self.chance.choice(hosts)}

    def unanswered(self, client):
        answered = {(each.client, each.number) for each in self.cluster.answers}
        return [key for key in self.cluster.asked if key[0] == client and key not in answered]


@pytest.mark.parametrize("seed", range(30))
def test_each_request_is_answered_once_and_in_time(seed):
    history = History(seed)
    history.run()
    cluster = history.cluster
    # Twice is refused by the cluster itself. All but those whose client has left meanwhile were answered:
    answered = {(each.client, each.number) for each in cluster.answers}
    assert answered | set(history.left) == set(cluster.asked)
    assert answered.isdisjoint(history.left)
    limits = {"wait-for-workers": max(WAIT_SECONDS), "status": REPORT_SECONDS, "memory": REPORT_SECONDS}
    limits["publish"] = PUBLISH_SECONDS
    limits["register-plugin"] = limits["unregister-plugin"] = DEPARTURE_SECONDS
    waits = {request.operation for request in requests.REQUESTS if request.waits}
    limits.update(dict.fromkeys(waits - limits.keys(), max(WAIT_SECONDS)))
    limits["errand"] = max(WAIT_SECONDS)
    limits |= dict.fromkeys(["retire-workers", "replicate", "rebalance", "restart"], max(MOVE_SECONDS))
    for each in cluster.answers:
        assert each.seconds <= limits.get(each.operation, 0.0) + SLACK_SECONDS, each
    assert not cluster.state.waits
    assert len({each.operation for each in cluster.answers}) > 4, "it has asked too little"


@pytest.mark.parametrize("seed", range(3))
def test_the_same_seed_is_the_same_history(seed):
    assert History(seed).run() == History(seed).run()


@pytest.mark.parametrize("seed", range(10))
def test_with_everybody_gone_nothing_is_waited_for(seed):
    history = History(seed)
    history.run()
    cluster, state = history.cluster, history.cluster.state
    for name in NAMES:
        cluster.ask(requests.UNPUBLISH(name=name))
        for kind in ("worker", "nanny"):
            cluster.ask(requests.UNREGISTER_PLUGIN(kind=kind, name=name))
        for asked in (requests.UNPUBLISH, requests.CLOSE_QUEUE, requests.DELETE_VARIABLE):
            cluster.ask(asked(name=name))
    for client in CLIENTS:
        cluster.lose_client(client)
    for host in list(state.hosts):
        cluster.lose_host(host)
    cluster.work()
    assert not state.tasks
    assert not state.waits
    assert state.next_deadline is None
    assert len(state.deadlines) == 0


@pytest.mark.parametrize("seed", range(10))
def test_those_that_wait_for_the_same_are_answered_in_the_order_in_which_they_asked(seed):
    chance = random.Random(seed)
    cluster = SimulatedCluster(1, 0)
    for name in CLIENTS[1:]:
        cluster.add_client(name)
    asked = []
    for _ in range(40):
        cluster.work(cluster.now + chance.random() / 100)
        client, n = chance.choice(CLIENTS), chance.randrange(1, 4)
        asked.append((n, client, cluster.ask(requests.WAIT_FOR_WORKERS(n=n, timeout=20.0), client=client)))
    for _ in range(2):
        cluster.add_worker("tcp://host0:1")
    cluster.work()
    answered = [(each.client, each.number) for each in cluster.answers]
    for n in range(1, 4):
        those = [(client, number) for each, client, number in asked if each == n]
        assert [key for key in answered if key in those] == those
        assert all(cluster.answer_of(*key).ok == (n < 3) for key in those)
    cluster.state.handle(events.TimePassed(), cluster.now)
    assert not cluster.state.waits
