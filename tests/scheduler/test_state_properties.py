"""The state machine under random histories: every event is validated, nothing gets lost, nothing is left behind.

Keys are used again and again, by other specifications. So what every key means is reckoned here beside the state
machine, by the rule that is in `holdfast.cluster.scheduler.tasks.generations`, and each result is held against that by
value.
"""

from __future__ import annotations

import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from replay import Replay, peers_of, states_of
from scheduler_harness import Cluster, value_of

from holdfast.cluster.protocol import requests
from holdfast.cluster.scheduler.tasks import events

CLIENTS = ("one", "two", "three")
KEYS = [f"k{i}" for i in range(12)]
NAMES = ("a", "b")
#: How often what a task waits for may end only by its time, one after the other: data that is lost, then workers.
ROUNDS = 10
INLINE = st.sampled_from([None, b"value"])


class History(RuleBasedStateMachine):
    """Clients come and go, submit, release, cancel and publish; workers and hosts come, work, fail and die."""

    @initialize(
        hosts=st.integers(1, 3),
        workers=st.integers(0, 2),
        nthreads=st.integers(1, 2),
        follow_up_limit=st.sampled_from([1, 2, 1000]),
        patience_seconds=st.sampled_from([0.0, 5.0]),
    )
    def begin(self, hosts, workers, nthreads, follow_up_limit, patience_seconds):
        self.cluster = Cluster(
            hosts,
            workers,
            nthreads,
            no_worker_timeout=10.0,
            follow_up_limit=follow_up_limit,
            patience_seconds=patience_seconds,
        )
        self.replay = Replay(self.cluster.state)
        for name in CLIENTS:
            self.cluster.add_client(name)
        self.joining = {}  # the host that says what it has, and its next steps
        self.expected = {}  # the value of each task
        self.inside = {}  # the tasks whose futures the result of each task contains, or its error
        self.leases = {}  # names of leases: the client, the key, and when it is over
        self.retold = set()  # tasks whose lost data was replaced by other data, or by a way to compute it

    # -- clients

    @rule(
        client=st.sampled_from(CLIENTS),
        graph=st.dictionaries(st.sampled_from(KEYS), st.lists(st.sampled_from(KEYS), max_size=3), min_size=1),
        want_all=st.booleans(),
        retries=st.integers(0, 1),
        worker=st.sampled_from([None, "host0", "nobody"]),
        loose=st.booleans(),
        payload=st.sampled_from([b"one", b"two", b"three"]),
    )
    def submit(self, client, graph, want_all, retries, worker, loose, payload):
        # Keys depend only on keys before them, so that there are no cycles; some of those may be unknown.
        ordered = {key: [d for d in graph[key] if d < key] for key in sorted(graph)}
        wants = None if want_all else list(ordered)[-1:]
        options = {"workers": [worker], "allow_other_workers": loose} if worker else {}
        before = {key: task for key in ordered if (task := self.cluster.state.tasks.get(key)) is not None}
        keeps = {key for key, task in before.items() if self.is_held(task) and has_meaning(task)}
        retells = {task for key, task in before.items() if self.is_held(task) and key not in keeps}
        meaning = {key: self.expected[task] for key, task in self.cluster.state.tasks.items()}
        for key, dependencies in ordered.items():
            if key not in keeps:
                known = [meaning[d] for d in dict.fromkeys(dependencies) if d in meaning]
                meaning[key] = value_of(payload, known)
        self.cluster.submit(client, ordered, wants, payload, retries=retries, **options)
        for key in ordered:
            task = self.cluster.state.tasks.get(key)
            if task in retells:
                self.retold.add(task)
            elif task is not None:
                assert self.expected.setdefault(task, meaning[key]) == meaning[key]

    @rule(client=st.sampled_from(CLIENTS), keys=st.lists(st.sampled_from(KEYS), max_size=4))
    def release(self, client, keys):
        self.cluster.release(client, *keys)

    @rule(client=st.sampled_from(CLIENTS), keys=st.lists(st.sampled_from(KEYS), max_size=2), force=st.booleans())
    def cancel(self, client, keys, force):
        self.cluster.handle(events.KeysCancelled(client, keys, force))
        if keys:  # and what depends on them
            self.leases = {name: lease for name, lease in self.leases.items() if not (force or lease[0] == client)}

    @rule(client=st.sampled_from(CLIENTS), keys=st.lists(st.sampled_from(KEYS), max_size=3))
    def expect(self, client, keys):
        self.cluster.clients[client].update(dict.fromkeys(keys, "pending"))
        self.cluster.handle(events.KeysExpected(client, keys))

    @rule(client=st.sampled_from(CLIENTS), keys=st.lists(st.sampled_from(KEYS), max_size=3))
    def retry(self, client, keys):
        """A client takes those for pending that it wants to be retried, and is told of each what it is."""
        told = self.cluster.clients[client]
        failed = [key for key in keys if told.get(key) == "erred"]
        told.update(dict.fromkeys(failed, "pending"))
        self.cluster.handle(events.KeysRetried(client, failed))
        self.cluster.catch_up()

    @rule(client=st.sampled_from(CLIENTS), keys=st.lists(st.sampled_from(KEYS), max_size=3))
    def leave_unattended(self, client, keys):
        self.cluster.handle(events.KeysUnattended(client, keys))

    @rule(client=st.sampled_from(CLIENTS), keys=st.lists(st.sampled_from(KEYS), max_size=3))
    def want(self, client, keys):
        self.cluster.clients[client].update(dict.fromkeys(keys, "pending"))
        self.cluster.handle(events.KeysWanted(client, keys))

    @rule(
        client=st.sampled_from(CLIENTS),
        key=st.sampled_from(KEYS),
        inline=INLINE,
        chosen=st.booleans(),
        data=st.data(),
    )
    def scatter(self, client, key, inline, chosen, data):
        if self.cluster.state.hosts:
            self.scatter_to(client, key, data.draw(st.sampled_from(list(self.cluster.state.hosts))), inline, chosen)

    def scatter_to(self, client, key, host, inline, chosen):
        before = self.cluster.state.tasks.get(key)
        is_held = before is not None and self.is_held(before)
        keeps = before is not None and has_meaning(before)
        object_id = self.cluster.scatter(client, key, host, inline, chosen=chosen)
        task = self.cluster.state.tasks[key]
        assert (task is before) == (before is not None and (is_held or not chosen))
        if task is not before:
            self.expected[task] = object_id
        elif not keeps:
            self.retold.add(task)

    @rule(client=st.sampled_from(CLIENTS), key=st.sampled_from(KEYS), inner=st.lists(st.sampled_from(KEYS), max_size=3))
    def contain(self, client, key, inner):
        # Only what comes after it, so that nothing holds itself, by way of others.
        self.cluster.handle(events.ReferencesFound(client, [(key, [other for other in inner if other > key])]))

    @rule(
        client=st.sampled_from(CLIENTS),
        name=st.sampled_from(NAMES),
        keys=st.lists(st.sampled_from(KEYS), max_size=3),
        override=st.booleans(),
    )
    def publish(self, client, name, keys, override):
        self.cluster.publish(client, self.cluster.new_number(), name, keys, override=override)

    @precondition(lambda self: self.cluster.copying)
    @rule(reason=st.sampled_from([None, None, "there is no room"]))
    def bring_copies(self, reason):
        self.cluster.bring_copies(reason=reason)

    @rule(client=st.sampled_from(CLIENTS), name=st.sampled_from(NAMES), get=st.booleans())
    def get_or_unpublish(self, client, name, get):
        (self.cluster.get_dataset if get else self.cluster.unpublish)(client, self.cluster.new_number(), name)

    @rule(client=st.sampled_from(CLIENTS), n=st.integers(0, 8), timeout=st.sampled_from([None, 0.0, 5.0]))
    def wait_for_workers(self, client, n, timeout):
        self.cluster.request(client, self.cluster.new_number(), requests.WAIT_FOR_WORKERS(n=n, timeout=timeout))

    @rule(client=st.sampled_from(CLIENTS), question=st.sampled_from([requests.STATUS, requests.MEMORY]))
    def inquire(self, client, question):
        self.cluster.request(client, self.cluster.new_number(), question())

    @precondition(lambda self: self.cluster.reports)
    @rule(data=st.data())
    def host_says_how_it_is(self, data):
        self.cluster.report(data.draw(st.sampled_from(sorted(set(self.cluster.reports)))), store={"used": 1})

    @rule(name=st.sampled_from(CLIENTS))
    def client_leaves_and_comes_back(self, name):
        self.cluster.remove_client(name)
        self.cluster.add_client(name)

    # -- workers and hosts

    @precondition(lambda self: self.cluster.startable)
    @rule(
        data=st.data(),
        inline=INLINE,
        seconds=st.sampled_from([1e-6, 0.003, 1.0]),
        inside=st.lists(st.sampled_from(KEYS), max_size=2),
    )
    def finish(self, data, inline, seconds, inside):
        key = data.draw(st.sampled_from(self.cluster.startable))
        task, inside = self.task_of_run(key), self.futures_for(key, inside)
        object_id = self.cluster.finish(key, inline=inline, seconds=seconds, inside=inside)
        if task is not None and task.object_id == object_id:
            self.contains(task, inside)

    @precondition(lambda self: self.cluster.startable)
    @rule(data=st.data(), inside=st.lists(st.sampled_from(KEYS), max_size=2))
    def err(self, data, inside):
        key = data.draw(st.sampled_from(self.cluster.startable))
        task, inside = self.task_of_run(key), self.futures_for(key, inside)
        self.cluster.err(key, inside=inside)
        if task is not None and task.state == "erred":
            self.contains(task, inside)

    def task_of_run(self, key):
        """The task that waits for the run of a key which would end next."""
        worker, entry = self.cluster.startable_entry(key)
        run = self.cluster.state.workers[worker].runs.get(entry[1]) if worker in self.cluster.state.workers else None
        return None if run is None else run.task or run.late

    def futures_for(self, key, inside):
        """Of which keys there may be futures in the result of another one: nothing is to hold itself, by way of others.

        A task has a future of what something keeps meanwhile, and be it its worker's client: here, of what is held."""
        tasks = self.cluster.state.tasks
        return [other for other in inside if other > key and other in tasks and self.is_held(tasks[other])]

    def contains(self, task, inside):
        self.inside[task] = [self.cluster.state.tasks[key] for key in inside if key in self.cluster.state.tasks]

    @rule(client=st.sampled_from(CLIENTS), key=st.sampled_from(KEYS), seconds=st.sampled_from([0.5, 10.0]))
    def pickle_by_hand(self, client, key, seconds):
        state = self.cluster.state
        task = state.tasks.get(key)
        if task is not None and state.clients[client] in task.holders:
            name = f"{client} {key} {task.serial}"
            self.leases[name] = (client, task, self.cluster.now + seconds, seconds)
            self.cluster.handle(events.FuturesPickled(client, [(key, name, seconds)], 0.0))

    @precondition(lambda self: self.leases)
    @rule(client=st.sampled_from(CLIENTS), data=st.data())
    def unpickle(self, client, data):
        name = data.draw(st.sampled_from(sorted(self.leases)))
        pickler, task, until, seconds = self.leases[name]
        told = self.cluster.clients[client]
        if self.cluster.state.tasks.get(task.key) is not task and task.key in told:
            return  # this client holds another one by this key: it says nothing more
        told[task.key] = "pending"
        left = max(0.0, until - self.cluster.now)
        self.cluster.handle(events.FuturesUnpickled(client, [(task.key, name, pickler, seconds, left)]))
        if left and name in self.leases:
            assert self.cluster.state.clients[client] in task.holders or told[task.key] == "cancelled"

    @precondition(lambda self: self.cluster.startable)
    @rule(data=st.data())
    def reschedule(self, data):
        self.cluster.reschedule(data.draw(st.sampled_from(self.cluster.startable)))

    @precondition(lambda self: self.cluster.startable)
    @rule(data=st.data())
    def miss(self, data):
        key = data.draw(st.sampled_from(self.cluster.startable))
        if self.cluster.startable_entry(key)[1][4]:
            self.cluster.miss(key)

    @rule()
    def drop(self):
        self.cluster.drop_all()

    @precondition(lambda self: self.cluster.startable)
    @rule(data=st.data())
    def begin_run(self, data):
        self.cluster.begin(data.draw(st.sampled_from(self.cluster.startable)))

    @precondition(lambda self: self.cluster.runs)
    @rule(data=st.data(), condition=st.sampled_from(["running", "stopped", "computing"]), seconds=st.floats(0, 60))
    def see(self, data, condition, seconds):
        self.cluster.see(data.draw(st.sampled_from(list(self.cluster.runs))), condition, seconds)

    @rule()
    def answer_revocations(self):
        self.cluster.answer_revocations()

    @rule()
    def confirm_revocations(self):
        self.cluster.confirm_revocations()

    @rule(key=st.sampled_from(KEYS), data=st.data())
    def copy(self, key, data):
        task = self.cluster.state.tasks.get(key)
        if task is not None and task.object_id is not None and self.cluster.state.hosts:
            self.cluster.copy(key, data.draw(st.sampled_from(list(self.cluster.state.hosts))))

    @rule(data=st.data())
    def worker_joins(self, data):
        if self.cluster.state.hosts and len(self.cluster.runs) < 6:
            self.cluster.add_worker(data.draw(st.sampled_from(list(self.cluster.state.hosts))))

    @precondition(lambda self: self.cluster.runs)
    @rule(data=st.data(), explained=st.booleans(), fault=st.booleans(), parted_first=st.booleans())
    def worker_dies(self, data, explained, fault, parted_first):
        worker = data.draw(st.sampled_from(list(self.cluster.runs)))
        running = crashed = None
        if explained:
            keys = [entry[0] for entry in self.cluster.runs[worker].values() if entry[0] in self.cluster.startable]
            running = data.draw(st.lists(st.sampled_from(keys), unique=True, max_size=2)) if keys else []
            crashed = data.draw(st.sampled_from([None, *running]))
        self.cluster.remove_worker(worker, running, crashed, fault=fault, parted_first=parted_first)

    @precondition(lambda self: self.cluster.runs)
    @rule(data=st.data(), is_explained=st.booleans())
    def worker_dies_with_one_sign(self, data, is_explained):
        self.cluster.lose_worker(data.draw(st.sampled_from(list(self.cluster.runs))), is_explained=is_explained)

    @precondition(lambda self: self.cluster.departing)
    @rule()
    def second_signs_come(self):
        for worker in list(self.cluster.departing):
            self.cluster.give_second_sign(worker)

    @rule(places=st.integers(0, 2))
    def host_joins(self, places):
        if len(self.cluster.state.hosts) < 4:
            self.cluster.add_host(places=places)

    @precondition(lambda self: self.cluster.state.hosts)
    @rule(data=st.data())
    def host_dies(self, data):
        self.cluster.remove_host(data.draw(st.sampled_from(list(self.cluster.state.hosts))))

    @precondition(lambda self: self.cluster.state.hosts)
    @rule(data=st.data())
    def host_is_cut_off(self, data):
        self.cluster.cut_off_host(data.draw(st.sampled_from(list(self.cluster.state.hosts))))

    @precondition(lambda self: self.cluster.away)
    @rule(data=st.data())
    def worker_goes_on_where_nobody_hears_it(self, data):
        host = data.draw(st.sampled_from(sorted(self.cluster.away)))
        self.cluster.away[host].add(self.cluster.new_object())

    @precondition(lambda self: self.cluster.away)
    @rule(
        data=st.data(),
        client=st.sampled_from(CLIENTS),
        key=st.sampled_from(KEYS),
        chosen=st.booleans(),
    )
    def scatter_to_a_host_that_is_cut_off(self, data, client, key, chosen):
        self.scatter_to(client, key, data.draw(st.sampled_from(sorted(self.cluster.away))), None, chosen)

    @precondition(lambda self: self.cluster.away and not self.joining)
    @rule(data=st.data(), piece=st.integers(1, 3))
    def host_begins_to_join_again(self, data, piece):
        host = data.draw(st.sampled_from(sorted(self.cluster.away)))
        self.joining = {host: self.cluster.begin_to_join_again(host, piece)}
        next(self.joining[host])

    @precondition(lambda self: self.joining)
    @rule()
    def host_joins_again(self):
        ((host, steps),) = self.joining.items()
        if host not in self.cluster.state.hosts or next(steps, self) is self:
            self.joining = {}

    @rule(seconds=st.sampled_from([1.0, 20.0]))
    def time_passes(self, seconds):
        self.cluster.now += seconds
        self.cluster.handle(events.TimePassed())

    # -- what always holds

    @invariant()
    def every_object_in_a_store_is_known(self):
        state = self.cluster.state
        for address, store in self.cluster.stores.items():
            host = state.hosts.get(address)
            known = {task.object_id for task in host.objects} if host else set()
            assert known <= store if address in self.joining else store == known

    @invariant()
    def clients_know_what_became_of_the_keys_they_hold(self):
        state = self.cluster.state
        for name, told in self.cluster.clients.items():
            for task in state.clients[name].holds:
                if task.state in ("memory", "erred"):
                    assert told.get(task.key) == task.state
                if task.state == "memory":
                    assert self.cluster.read[name][task.key] == task.object_id

    @invariant()
    def what_is_inside_of_something_stays_as_long_as_that(self):
        for task, inside in self.inside.items():
            if task.is_needed and task.state in ("memory", "erred"):
                assert all(other.state != "forgotten" for other in inside), f"{task!r} contains {inside!r}"

    @invariant()
    def what_was_pickled_stays_for_its_time(self):
        for _, task, until, _ in self.leases.values():
            assert self.cluster.now >= until or task.holders, f"{task!r} was pickled by hand"

    @invariant()
    def results_are_those_of_what_was_specified(self):
        for task in self.cluster.state.life.results.table.values():
            if not self.is_retold(task):
                assert self.cluster.values[task.object_id] == self.expected[task]

    @invariant()
    def a_listener_knows_what_tasks_do_and_which_peers_are_there(self):
        self.replay.catch_up()
        assert +self.replay.tasks == states_of(self.cluster.state)
        assert self.replay.peers == peers_of(self.cluster.state)
        assert not self.replay.missed

    def is_held(self, task):
        state = self.cluster.state
        holders = {*state.clients.values(), *state.life.holding.contents.values()}
        holders.update(*(part.holders() for part in state.parts))
        return not holders.isdisjoint(task.holders)

    def is_retold(self, task):
        return task in self.retold or any(map(self.is_retold, task.dependencies))

    def teardown(self):
        if not hasattr(self, "cluster"):
            return
        cluster = self.cluster
        while self.joining:
            self.host_joins_again()
        for address in list(cluster.away):
            cluster.join_again(address)
            self.every_object_in_a_store_is_known()
        self.second_signs_come()
        # With workers there, everything comes to an end.
        if not cluster.state.hosts:
            cluster.add_host()
        for worker in cluster.runs:
            cluster.see(worker, "running")
        for host in cluster.state.hosts:
            cluster.add_worker(host)
        cluster.run_all()
        # What was awaited for long enough may have to wait for a worker then, and so may what depends on it.
        for _ in range(ROUNDS):
            cluster.now += 100.0
            cluster.handle(events.TimePassed())
            cluster.catch_up()
            cluster.run_all()
            held = [task for name in CLIENTS for task in cluster.state.clients[name].holds]
            if all(task.state in ("memory", "erred") for task in held):
                break
        else:
            pytest.fail(f"some never end: {held}")
        # And with everybody gone, nothing is left.
        for name in NAMES:
            cluster.unpublish(CLIENTS[0], cluster.new_number(), name)
        for name in CLIENTS:
            cluster.remove_client(name)
        cluster.now += 100.0  # no lease is left
        cluster.handle(events.TimePassed())
        cluster.catch_up()
        cluster.run_all()
        self.a_listener_knows_what_tasks_do_and_which_peers_are_there()
        for before, after in self.replay.moves:
            event(f"{before} → {after}")  # so that 'pytest --hypothesis-show-statistics' says which were taken
        self.cut_circles()
        assert not cluster.state.tasks
        assert not cluster.state.life.generations.earlier
        assert not cluster.state.life.results.table
        assert not cluster.state.life.functions.table
        assert not any(cluster.stores.values())

    def cut_circles(self):
        """Tasks that are left keep each other, by exceptions: a client can free them."""
        cluster = self.cluster
        if not (left := dict(cluster.state.tasks.items())):
            return
        for task in left.values():
            assert {holder.kind for holder in task.holders} <= {"exception", "object"}
        assert any(task.error is not None and task.error.contents is not None for task in left.values())
        client = cluster.add_client("cutter")
        cluster.clients[client].update(dict.fromkeys(left, "pending"))
        cluster.handle(events.KeysExpected(client, list(left)))
        cluster.handle(events.KeysCancelled(client, list(left), True))
        cluster.catch_up()
        cluster.remove_client(client)
        cluster.catch_up()


def has_meaning(task):
    """Whether it has a result or can be computed: it isn't data that is lost."""
    return task.state == "memory" or task.can_be_computed


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=300, stateful_step_count=50)
