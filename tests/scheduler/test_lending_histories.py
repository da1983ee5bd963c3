"""Trees of tasks that wait for tasks, while all that can happen to a cluster happens: they end, and nothing is kept.

Tasks submit others, wait, fail and are cancelled; workers and hosts die, stand still, and have runs taken away. Every
event is validated. A history is made from its seed alone, so one that fails can be looked at again.
"""

from __future__ import annotations

import random

import pytest
from scheduler_harness import SMALL, Cluster

from holdfast.cluster.scheduler.tasks import events

CLIENT = "client"
OVER = ("memory", "erred", "cancelled")
STEPS = 400
DEPTH = 3
GPU = {"GPU": 1.0}


class History:
    """What happens in a cluster, by chance."""

    def __init__(self, seed):
        self.chance = chance = random.Random(seed)
        self.nthreads = chance.randint(1, 3)
        self.cluster = Cluster(
            chance.randint(1, 2),
            patience_seconds=chance.choice([0.0, 5.0]),
            no_worker_timeout=chance.choice([3.0, 300.0]),
        )
        for host in list(self.cluster.stores):
            for _ in range(chance.randint(1, 2)):
                self.add_worker(host)
        self.cluster.add_client(CLIENT)
        self.number = 0
        self.wanted = []  # what the client holds
        self.reclaiming = set()  # runs that have asked for their resources

    def add_worker(self, host):
        self.cluster.add_worker(host, self.nthreads, GPU)

    def run(self):
        rare = [self.submit, self.let_go, self.lose_worker, self.lose_host, self.stand_still, self.pass_time]
        often = [self.cluster.drop_all, self.answer_revocations, self.cluster.confirm_revocations]
        for _ in range(3):
            self.submit()
        for _ in range(STEPS):
            kind = self.chance.random()
            if kind < 0.7:
                self.work()
            else:
                self.chance.choice(rare if kind < 0.8 else often)()

    # -- what the client does

    def submit(self):
        chance, options = self.chance, {}
        self.number += 1
        if chance.random() < 0.2:
            options["resources"] = GPU
        if chance.random() < 0.2:
            options["priority"] = chance.randint(-2, 2)
        if chance.random() < 0.2:
            options["retries"] = 1
        below = chance.sample(self.wanted, min(len(self.wanted), chance.randint(0, 1)))
        key = ("root", self.number)
        self.cluster.submit(CLIENT, {key: below}, **options)
        self.wanted.append(key)

    def let_go(self):
        if self.wanted:
            key = self.chance.choice(self.wanted)
            self.wanted.remove(key)
            if self.chance.random() < 0.5:
                self.cluster.handle(events.KeysCancelled(CLIENT, [key], self.chance.random() < 0.5))
            self.cluster.release(CLIENT, key)

    # -- what happens to workers and hosts

    def lose_worker(self):
        cluster = self.cluster
        worker = self.chance.choice(list(cluster.runs))
        going_on = [entry[0] for entry in cluster.runs[worker].values() if entry[1] not in cluster.blocked]
        cluster.remove_worker(worker, going_on[: self.chance.randint(1, self.nthreads)])
        self.forget_what_is_gone()
        self.add_worker(worker.rpartition("/")[0])

    def lose_host(self):
        if len(self.cluster.stores) > 1:
            self.cluster.remove_host(self.chance.choice(list(self.cluster.stores)))
            self.forget_what_is_gone()
            self.add_worker(self.cluster.add_host())

    def stand_still(self):
        worker = self.chance.choice(list(self.cluster.runs))
        self.cluster.see(worker, self.chance.choice(["running", "stopped", "blocked"]), self.chance.choice([0.0, 30.0]))

    def answer_revocations(self):
        self.cluster.answer_revocations()
        self.forget_what_is_gone()

    def forget_what_is_gone(self):
        there = {run_id for runs in self.cluster.runs.values() for run_id in runs}
        for runs in (self.cluster.blocked, self.cluster.granted, self.reclaiming):
            runs &= there

    def pass_time(self):
        self.cluster.now += self.chance.choice([0.01, 1.0, 11.0])
        self.cluster.handle(events.TimePassed())

    # -- what tasks do

    def running(self):
        """The workers and entries of the runs that have a slot."""
        cluster = self.cluster
        untold = {told.peer for told in cluster.told}
        for worker, runs in cluster.runs.items():
            free = self.nthreads
            for entry in runs.values():
                may_begin = worker not in untold or entry[1] in cluster.begun
                if free and may_begin and entry[1] not in cluster.blocked and not any(d[1] in runs for d in entry[4]):
                    free -= 1
                    yield worker, entry

    def waiting(self):
        for worker, runs in self.cluster.runs.items():
            for entry in runs.values():
                if entry[1] in self.cluster.blocked:
                    yield worker, entry

    def work(self):
        running, waiting = list(self.running()), list(self.waiting())
        if not running and not waiting:
            self.pass_time()
            return
        worker, entry = self.chance.choice(running + waiting)
        if entry[1] in self.cluster.blocked:
            self.go_on(worker, entry)
            return
        self.cluster.begun.add(entry[1])
        (action,) = self.chance.choices([self.submit_below, self.block, self.finish, self.fail], [35, 30, 25, 10])
        action(worker, entry)

    def submit_below(self, worker, entry):
        (key, *_), chance, options = entry, self.chance, {}
        depth = key[2] if key[0] == "node" else 0
        if depth < DEPTH:
            self.number += 1
            if chance.random() < 0.3:
                options["resources"] = GPU
            if chance.random() < 0.2:
                options |= {"workers": [chance.choice(list(self.cluster.runs))], "allow_other_workers": True}
            keys = [("node", (self.number, n), depth + 1) for n in range(chance.randint(1, 2))]
            self.cluster.submit_in(key, {key: keys[:n] for n, key in enumerate(keys)}, **options)

    def block(self, worker, entry):
        self.cluster.blocked.add(entry[1])
        self.cluster.handle(events.RunsBlocked(worker, [entry[1]]))

    def go_on(self, worker, entry):
        """A wait is over, as far as the resources are there; whether anything has happened."""
        cluster, run_id = self.cluster, entry[1]
        if run_id not in cluster.holding or run_id in cluster.granted:
            self.reclaiming.discard(run_id)
            cluster.granted.discard(run_id)
            cluster.blocked.discard(run_id)
            cluster.handle(events.RunsReturned(worker, [run_id]))
        elif run_id not in self.reclaiming:
            self.reclaiming.add(run_id)
            cluster.handle(events.ResourcesReclaimed(worker, [run_id]))
        else:
            return False
        return True

    def finish(self, worker, entry):
        cluster, run_id = self.cluster, entry[1]
        del cluster.runs[worker][run_id]
        object_id = cluster.new_object()
        cluster.nbytes[object_id] = SMALL
        cluster.stores[worker.rpartition("/")[0]].add(object_id)
        inline, seconds = self.chance.choice([b"value", None]), self.chance.choice([1e-4, 0.5])
        cluster.handle(events.TasksFinished(worker, [(entry[6], run_id, object_id, SMALL, inline, "bytes", seconds)]))

    def fail(self, worker, entry):
        cluster, run_id = self.cluster, entry[1]
        del cluster.runs[worker][run_id]
        cluster.handle(events.TasksErred(worker, [(entry[6], run_id, b"exception", "it failed", 0.001)]))
        cluster._miss_those_behind(worker, run_id)

    # -- the end

    def come_to_rest(self):
        """Everybody answers, and whatever can go on does."""
        cluster = self.cluster
        for worker in list(cluster.runs):
            cluster.see(worker, "running")
        for _ in range(10_000):
            cluster.drop_all()
            self.answer_revocations()
            cluster.confirm_revocations()
            went_on = [self.go_on(worker, entry) for worker, entry in list(self.waiting())]
            running = list(self.running())
            for worker, entry in running:
                self.finish(worker, entry)
            if any(went_on) or running:
                continue
            if not any(cluster.runs.values()) and all(cluster.clients[CLIENT][key] in OVER for key in self.wanted):
                return
            deadline = cluster.state.next_deadline
            assert deadline is not None, "nothing goes on any more"
            cluster.now = max(cluster.now, deadline)
            cluster.handle(events.TimePassed())
        raise AssertionError("it does not end")


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_trees_end_and_nothing_is_kept(seed):
    history = History(seed)
    history.run()
    history.come_to_rest()
    cluster, state = history.cluster, history.cluster.state
    for worker in state.workers.values():
        assert not worker.runs
        assert not worker.nblocked
        assert worker.free_resources == GPU
    cluster.remove_client(CLIENT)
    for worker in list(cluster.runs):
        cluster.remove_worker(worker, [])
    for host in list(state.hosts):
        cluster.remove_host(host)
    cluster.handle(events.TimePassed())
    assert not state.tasks
    assert not state.life.parents
    assert not state.lending.reclaiming
    assert not state.placement.has_work
    assert not state.waits
    assert state.next_deadline is None
    assert len(state.deadlines) == 0
