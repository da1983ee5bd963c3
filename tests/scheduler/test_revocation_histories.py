"""Random histories of workers that stop, hear nothing and die while short tasks are sent ahead: nothing runs twice
that did not have to, nothing is lost, and each task has one result."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from scheduler_harness import LARGE, SMALL, Cluster

from holdfast.cluster.scheduler.placing.recall import HELD_UP_SECONDS
from holdfast.cluster.scheduler.placing.revocation import ANSWER_SECONDS, STOPPED_SECONDS
from holdfast.cluster.scheduler.tasks import events

CLIENT = "client"
STEPS = 300
HISTORIES = 20


class History:
    """Steps by chance; what has begun is counted by task."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.cluster = Cluster(hosts=2, workers=2, nthreads=1 + seed % 2)
        self.cluster.add_client(CLIENT)
        self.begun: Counter[object] = Counter()
        self.excused: Counter[object] = Counter()  # begun runs that may have to be made again
        self.counts: Counter[str] = Counter()
        self.submitted = 0
        for name in "fg":
            self.cluster.submit(CLIENT, {(name, "known"): []})
            self.cluster.finish((name, "known"), nbytes=SMALL, inline=b"value")

    # -- what a worker may do

    def startable(self) -> list[tuple[str, int]]:
        cluster = self.cluster
        waiting = {told.peer for told in cluster.told}
        return [
            (worker, run_id)
            for worker, runs in cluster.runs.items()
            for run_id, entry in runs.items()
            if not any(d[1] in runs for d in entry[4]) and (worker not in waiting or run_id in cluster.begun)
        ]

    def _begin(self, worker: str, run_id: int) -> None:
        if run_id not in self.cluster.begun:
            self.cluster.begun.add(run_id)
            self.begun[self.cluster.runs[worker][run_id][0]] += 1

    # -- steps

    def submit(self) -> None:
        n = self.submitted
        self.submitted += (count := self.rng.randrange(1, 12))
        graph: dict[object, list[object]] = {("f", k): [] for k in range(n, n + count)}
        if self.rng.random() < 0.5:
            graph[("g", n)] = [("f", n)]
        self.cluster.submit(CLIENT, graph)

    def begin(self) -> None:
        if startable := self.startable():
            self._begin(*self.rng.choice(startable[:3]))

    def finish(self) -> None:
        if not (startable := self.startable()):
            return
        worker, run_id = self.rng.choice(startable[:3])
        self._begin(worker, run_id)
        cluster = self.cluster
        entry = cluster.runs[worker].pop(run_id)
        object_id, inline = cluster.new_object(), self.rng.choice([None, b"value"])
        cluster.stores[worker.rpartition("/")[0]].add(object_id)
        result = (entry[6], run_id, object_id, SMALL if inline else LARGE, inline, "bytes", 0.001)
        cluster.handle(events.TasksFinished(worker, [result]))

    def see(self) -> None:
        worker = self.rng.choice(list(self.cluster.runs))
        condition = self.rng.choice(["running", "stopped", "stopped", "computing"])
        seconds = self.rng.choice([1.0, STOPPED_SECONDS + 1])
        had = {run.run_id: run.task for run in self.cluster.state.workers[worker].runs.values()}
        self.cluster.see(worker, condition, seconds)
        for run in self.cluster.state.workers[worker].runs.values():
            if run.late is not None and had[run.run_id] is not None:
                assert (condition, seconds) == ("stopped", STOPPED_SECONDS + 1)
                self.excused[run.late.key] += 1
                self.counts["run elsewhere"] += 1

    def answer(self) -> None:
        before = sum(map(len, self.cluster.runs.values()))
        self.cluster.answer_revocations()
        self.counts["revoked"] += max(0, before - sum(map(len, self.cluster.runs.values())))

    def die(self) -> None:
        if self.rng.random() < 0.1:
            worker = self.rng.choice(list(self.cluster.runs))
            for run_id, entry in self.cluster.runs[worker].items():
                self.excused[entry[0]] += run_id in self.cluster.begun
            self.cluster.remove_worker(worker)
            self.cluster.add_worker(self.rng.choice(list(self.cluster.state.hosts)))

    def pass_time(self) -> None:
        self.cluster.now += self.rng.choice([HELD_UP_SECONDS, ANSWER_SECONDS])
        self.cluster.handle(events.TimePassed())

    def run(self) -> None:
        cluster = self.cluster
        steps = [self.submit, self.begin, self.finish, self.see, self.answer, self.die, self.pass_time]
        steps += [cluster.confirm_revocations, cluster.drop_all]
        weights = [2, 3, 4, 4, 3, 1, 2, 2, 1]
        for _ in range(STEPS):
            self.rng.choices(steps, weights)[0]()
        for _ in range(10_000):
            for worker in cluster.runs:
                if cluster.state.workers[worker].condition != "running":
                    cluster.see(worker, "running")
            cluster.answer_revocations()
            cluster.confirm_revocations()
            cluster.drop_all()
            if not self.startable():
                break
            self.finish()


@pytest.mark.long
@pytest.mark.parametrize("first", range(0, HISTORIES, 10))
def test_each_task_has_one_result_and_none_runs_twice_without_need(first):
    counts: Counter[str] = Counter()
    for seed in range(first, first + 10):
        history = History(seed)
        history.run()
        cluster = history.cluster
        told = cluster.clients[CLIENT]
        for key, times in history.begun.items():
            assert times <= 1 + history.excused[key], f"{key} has begun {times} times, in history {seed}"
        failed = {key for key, state in told.items() if state == "erred"}
        assert all("workers that died" in cluster.reasons[key] for key in failed)
        assert {state for key, state in told.items() if key not in failed} == {"memory"}, f"history {seed}"
        for address, store in cluster.stores.items():
            assert store == {task.object_id for task in cluster.state.hosts[address].objects}
        counts += history.counts
    assert counts["revoked"] > 20
    assert counts["run elsewhere"] > 0
