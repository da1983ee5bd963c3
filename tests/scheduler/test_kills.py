"""Runs that are ended with the processes of their workers, since they are cancelled or take too long."""

from __future__ import annotations

import random

import pytest
from scheduler_harness import Cluster, pass_time

from holdfast.cluster.protocol import requests
from holdfast.cluster.scheduler.machine.machine import MAX_FAILURES
from holdfast.cluster.scheduler.parts.kills import END_SECONDS, KILL_SECONDS, Kills
from holdfast.cluster.scheduler.tasks import events

CLIENT = "client"
HOST = "tcp://host0:1"
LIMIT = 10.0


@pytest.fixture
def cluster():
    cluster = Cluster(1, 2)
    cluster.add_client(CLIENT)
    return cluster


def part_of(cluster):
    return next(part for part in cluster.state.parts if isinstance(part, Kills))


def cancel(cluster, *keys, client=CLIENT, force=False, kill=1, reason=""):
    """Cancel, and ask for the end of it; the number of the request."""
    cluster.handle(events.KeysCancelled(client, keys, force, kill, reason))
    number = cluster.new_number()
    cluster.request(client, number, requests.AWAIT_KILLS(kill=kill))
    return number


def is_answered(cluster, number, client=CLIENT):
    reply = cluster.answer_of(client, number)
    return reply is not None and reply.ok


def begin(cluster, *keys):
    for key in keys:
        cluster.begin(key)


def kills(cluster):
    return [(kill.worker, kill.run_ids) for kill in cluster.killing]


def test_a_run_that_is_cancelled_is_ended_by_its_node_and_the_client_waits_for_that(cluster):
    cluster.submit(CLIENT, {"x": []})
    begin(cluster, "x")
    worker, entry = cluster.entry("x")
    number = cancel(cluster, "x")
    assert kills(cluster) == [(worker, [entry[1]])]
    assert cluster.clients[CLIENT]["x"] == "cancelled"
    assert not is_answered(cluster, number)
    assert cluster.answer_kills() == [worker]
    assert is_answered(cluster, number)
    assert not cluster.state.tasks


def test_the_worker_gets_nothing_new_until_it_is_gone(cluster):
    cluster.submit(CLIENT, {"x": []})
    begin(cluster, "x")
    worker = cluster.running["x"]
    cancel(cluster, "x")
    cluster.submit(CLIENT, {f"y{n}": [] for n in range(5)})
    assert [key for key, where in cluster.running.items() if where == worker] == ["x"]


def test_what_the_process_ran_besides_runs_again_and_no_task_is_to_blame():
    cluster = Cluster(1, 1, nthreads=2)
    cluster.add_client(CLIENT)
    cluster.submit(CLIENT, {"innocent": []})
    for number in range(MAX_FAILURES + 2):
        cluster.submit(CLIENT, {f"x{number}": []})
        begin(cluster, "innocent", f"x{number}")
        cancel(cluster, f"x{number}", kill=number)
        (worker,) = cluster.answer_kills()
        task = cluster.state.tasks["innocent"]
        assert (task.worker, task.failures, task.isolation, task.suspected) == (None, 0, 0, 0)
        cluster.add_worker(worker.rpartition("/")[0], 2)
    cluster.run_all()
    assert cluster.clients[CLIENT]["innocent"] == "memory"


@pytest.mark.parametrize("first", ["parted", "exited", "successor"])
def test_no_task_is_to_blame_whichever_sign_of_the_end_comes_first(cluster, first):
    cluster.submit(CLIENT, {"x": [], "innocent": []})
    begin(cluster, "x", "innocent")
    worker = cluster.running["x"]
    begun = [task for task in cluster.state.tasks.values() if task.worker and task.worker.address == worker]
    cancel(cluster, "x")
    if first == "successor":  # its node has said nothing yet
        del cluster.runs[worker], cluster.dropped[worker]
        cluster.departing[worker] = False
        cluster.handle(events.WorkerParted(worker, "its connection closed"))
        pass_time(cluster, 2.0)
    else:
        cluster.remove_worker(worker, [], asked=True, parted_first=first == "parted")
    assert all(task.failures == task.suspected == 0 for task in begun)
    assert worker not in cluster.state.workers
    assert not part_of(cluster)._kills


def test_a_run_that_has_not_begun_is_revoked_and_its_worker_lives():
    cluster = Cluster(1, 1)
    cluster.add_client(CLIENT)
    cluster.submit(CLIENT, {"x": []})
    begin(cluster, "x")
    cluster.finish("x")
    cluster.submit(CLIENT, {"a": [], "b": []})  # a short task lies ahead of each other one
    begin(cluster, "a")
    assert set(cluster.running) == {"a", "b"}
    number = cancel(cluster, "b")
    assert cluster.answer_kills() == []
    assert is_answered(cluster, number)
    cluster.confirm_revocations()
    cluster.run_all()
    assert cluster.clients[CLIENT]["a"] == "memory"
    assert cluster.state.workers


def test_a_task_that_waits_for_a_worker_is_only_forgotten(cluster):
    cluster.submit(CLIENT, {f"x{n}": [] for n in range(2)})
    cluster.submit(CLIENT, {"waits": []}, resources={"GPU": 1})
    number = cancel(cluster, "waits")
    assert not cluster.killing
    assert is_answered(cluster, number)


def test_what_only_the_cancelled_needs_is_ended_and_what_others_need_is_not(cluster):
    cluster.submit(CLIENT, {"mine": [], "ours": [], "total": ["mine", "ours"], "other": ["ours"]}, ["total", "other"])
    begin(cluster, "mine", "ours")
    number = cancel(cluster, "total")
    assert kills(cluster) == [(cluster.running["mine"], [cluster.entry("mine")[1][1]])]
    cluster.answer_kills()
    assert is_answered(cluster, number)
    cluster.run_all()
    assert cluster.clients[CLIENT]["other"] == "memory"


def test_a_dependent_that_is_held_by_another_client_keeps_what_it_reads(cluster):
    other = cluster.add_client("other")
    cluster.submit(CLIENT, {"x": []})
    cluster.submit(other, {"y": ["x"]})
    begin(cluster, "x")
    number = cancel(cluster, "x")
    assert not cluster.killing
    assert is_answered(cluster, number)
    number = cancel(cluster, "x", force=True, kill=2)
    assert cluster.state.tasks == {}, "it is not known to this client any more, but to the other"


def test_what_another_client_holds_is_ended_only_with_force(cluster):
    other = cluster.add_client("other")
    for client in (CLIENT, other):
        cluster.submit(client, {"x": []})
    begin(cluster, "x")
    cancel(cluster, "x", kill=1)
    assert not cluster.killing
    assert cluster.clients[other]["x"] == "pending"
    cancel(cluster, "x", kill=2, force=True, reason="too slow")
    assert cluster.clients[other]["x"] == "cancelled"
    assert cluster.reasons["x"] == "cancelled by client: too slow"
    assert len(cluster.answer_kills()) == 1


def test_a_run_that_is_blocked_is_ended_and_what_it_has_submitted_is_forgotten(cluster):
    cluster.submit(CLIENT, {"parent": []})
    begin(cluster, "parent")
    cluster.submit_in("parent", {"child": []})
    cluster.block("parent")
    worker = cluster.running["parent"]
    number = cancel(cluster, "parent")
    assert cluster.answer_kills() == [worker]
    assert is_answered(cluster, number)
    cluster.catch_up()
    cluster.drop_all()
    assert not cluster.state.tasks


def test_a_worker_without_a_process_of_its_own_goes_on_and_the_client_is_told(cluster):
    for worker in cluster.state.workers.values():
        worker.incarnation = None
    cluster.submit(CLIENT, {"x": []})
    begin(cluster, "x")
    name = cluster.state.workers[cluster.running["x"]].name
    number = cancel(cluster, "x")
    assert not cluster.killing
    reply = cluster.answer_of(CLIENT, number)
    assert not reply.ok
    error, text = reply.value
    assert error == "RuntimeError"
    assert text.startswith(f"cancelled, but not killed: 'x' on {name}. ")
    again = cancel(cluster, "x")
    assert is_answered(cluster, again), "it is told once"


def test_a_task_does_not_end_the_process_that_it_runs_in():
    cluster = Cluster(1, 1, nthreads=2)
    cluster.add_client(CLIENT)
    cluster.submit(CLIENT, {"parent": []})
    begin(cluster, "parent")
    tasks = cluster.submit_in("parent", {"child": []})
    begin(cluster, "child")
    assert cluster.running["child"] == cluster.running["parent"]
    number = cancel(cluster, "child", client=tasks)
    assert not cluster.killing
    assert "with the very task that cancels" in cluster.answer_of(tasks, number).value[1]


def test_an_agent_that_does_not_answer_is_waited_for_only_so_long(cluster):
    cluster.submit(CLIENT, {"x": []})
    begin(cluster, "x")
    number = cancel(cluster, "x")
    pass_time(cluster, KILL_SECONDS - 1)
    assert cluster.answer_of(CLIENT, number) is None
    pass_time(cluster, 2)
    error, text = cluster.answer_of(CLIENT, number).value
    assert error == "TimeoutError"
    assert "has not said for 30 s that its process has ended" in text
    cluster.answer_kills()  # later than that is no harm
    assert not part_of(cluster)._kills


def test_a_client_that_leaves_is_not_told_and_leaves_nothing(cluster):
    for worker in cluster.state.workers.values():
        worker.incarnation = None
    cluster.submit(CLIENT, {"x": []})
    begin(cluster, "x")
    cluster.handle(events.KeysCancelled(CLIENT, ["x"], False, 7))
    assert part_of(cluster)._out_of_reach
    cluster.remove_client(CLIENT)
    assert not part_of(cluster)._out_of_reach


# -- the time of runs


def submit_limited(cluster, graph, **options):
    cluster.submit(CLIENT, graph, run_timeout=LIMIT, **options)


def test_a_run_that_takes_too_long_fails_its_task_and_ends_its_process(cluster):
    submit_limited(cluster, {"x": [], "y": ["x"]})
    begin(cluster, "x")
    worker, entry = cluster.entry("x")
    pass_time(cluster, LIMIT - 0.001)
    assert cluster.clients[CLIENT]["x"] == "pending"
    assert cluster.state.next_deadline == LIMIT
    pass_time(cluster, 0.001)
    name = cluster.state.workers[worker].name
    assert kills(cluster) == [(worker, [entry[1]])]
    assert cluster.clients[CLIENT] == {"x": "pending", "y": "pending"}, "its process is there still"
    assert cluster.answer_kills() == [worker]
    assert cluster.clients[CLIENT] == {"x": "erred", "y": "erred"}
    expected = f"'x' ran longer than its run_timeout of 10 s, on worker {name!r} at {worker}, whose process was ended"
    assert cluster.reasons["x"] == expected
    assert cluster.state.tasks["x"].failures == 0


def test_a_process_that_does_not_end_is_not_waited_for_for_ever(cluster):
    submit_limited(cluster, {"x": []})
    begin(cluster, "x")
    pass_time(cluster, LIMIT)
    pass_time(cluster, END_SECONDS - 0.5)
    assert cluster.clients[CLIENT]["x"] == "pending"
    pass_time(cluster, 0.5)
    assert cluster.reasons["x"].endswith("whose process has not ended for 5 s since then")
    assert len(kills(cluster)) == 1
    cluster.answer_kills()
    assert cluster.clients[CLIENT]["x"] == "erred"


def test_time_counts_from_when_a_run_begins(cluster):
    submit_limited(cluster, {f"x{n}": [] for n in range(3)})
    pass_time(cluster, 100 * LIMIT)
    assert set(cluster.clients[CLIENT].values()) == {"pending"}
    cluster.run_all()
    assert set(cluster.clients[CLIENT].values()) == {"memory"}
    assert cluster.state.next_deadline is None


def test_tasks_without_a_limit_are_not_watched(cluster):
    cluster.submit(CLIENT, {"x": []})
    begin(cluster, "x")
    assert not cluster.timed
    assert not part_of(cluster)._clocks
    pass_time(cluster, 1e6)
    assert cluster.clients[CLIENT]["x"] == "pending"


def test_retries_apply_and_each_run_has_the_whole_time(cluster):
    submit_limited(cluster, {"x": []}, retries=1)
    begin(cluster, "x")
    pass_time(cluster, LIMIT)
    assert cluster.clients[CLIENT]["x"] == "pending"
    assert len(cluster.running) == 1, "two runs of it are under way"
    (gone,) = cluster.answer_kills()
    begin(cluster, "x")
    assert cluster.running["x"] != gone
    pass_time(cluster, LIMIT - 1)
    assert cluster.clients[CLIENT]["x"] == "pending"
    pass_time(cluster, 1)
    cluster.answer_kills()
    assert cluster.clients[CLIENT]["x"] == "erred"


def test_the_time_in_which_a_run_waits_for_others_does_not_count(cluster):
    submit_limited(cluster, {"x": []})
    begin(cluster, "x")
    pass_time(cluster, LIMIT - 2)
    cluster.block("x")
    pass_time(cluster, 10 * LIMIT)
    cluster.unblock("x")
    pass_time(cluster, 1)
    assert cluster.clients[CLIENT]["x"] == "pending"
    cluster.block("x")
    pass_time(cluster, 10 * LIMIT)
    cluster.unblock("x")
    pass_time(cluster, 1)
    assert len(cluster.answer_kills()) == 1
    assert cluster.clients[CLIENT]["x"] == "erred"


def test_a_run_that_nobody_needs_any_more_is_ended_all_the_same(cluster):
    submit_limited(cluster, {"x": []})
    begin(cluster, "x")
    cluster.release(CLIENT, "x")
    assert not cluster.state.tasks
    pass_time(cluster, LIMIT)
    assert len(cluster.answer_kills()) == 1


def test_a_result_that_comes_before_its_process_ends_is_used(cluster):
    submit_limited(cluster, {"x": []})
    begin(cluster, "x")
    pass_time(cluster, LIMIT)
    cluster.finish("x")
    assert cluster.clients[CLIENT]["x"] == "memory"
    assert cluster.answer_kills() == []  # its node finds it at nothing
    pass_time(cluster, END_SECONDS)
    assert cluster.clients[CLIENT]["x"] == "memory"
    cluster.confirm_revocations()
    cluster.submit(CLIENT, {f"y{n}": [] for n in range(2)})
    cluster.run_all()
    assert len(set(cluster.runs)) == 2


def test_in_a_worker_without_a_process_of_its_own_the_run_goes_on_and_the_error_says_so(cluster):
    for worker in cluster.state.workers.values():
        worker.incarnation = None
    submit_limited(cluster, {"x": []})
    begin(cluster, "x")
    pass_time(cluster, LIMIT)
    assert cluster.reasons["x"].endswith("which can't be ended alone: the run goes on there")
    assert not cluster.killing
    cluster.finish("x")
    assert cluster.clients[CLIENT]["x"] == "erred"


def test_ended_runs_leave_no_deadline(cluster):
    for number in range(500):
        submit_limited(cluster, {f"x{number}": []})
        begin(cluster, f"x{number}")
        cluster.finish(f"x{number}")
    assert len(cluster.state.deadlines) <= 2
    assert all(len(clocks.of_runs) == 1 for clocks in part_of(cluster)._clocks.values())
    assert len(cluster.state.life.run_timeouts) == 500
    cluster.release(CLIENT, *[f"x{number}" for number in range(500)])
    assert not cluster.state.life.run_timeouts


# -- by chance


class History:
    """Tasks of all kinds begin, block, end, are cancelled, take too long; workers are ended and come again."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.nthreads = self.chance.randint(1, 3)
        self.cluster = Cluster(1, 2, nthreads=self.nthreads)
        self.cluster.add_client(CLIENT)
        self.held = []
        self.asked = []

    def run(self):
        for number in range(150):
            self.number = number
            self.chance.choice(
                [self.submit, self.begin, self.end, self.end, self.cancel, self.pass_time, self.answer]
            )()
        self.answer()
        pass_time(self.cluster, KILL_SECONDS)

    def submit(self):
        options = {"run_timeout": self.chance.choice([1.0, 5.0])} if self.chance.random() < 0.5 else {}
        below = self.chance.sample(self.held, min(len(self.held), self.chance.randint(0, 1)))
        key = ("x", self.number)
        self.cluster.submit(CLIENT, {key: below}, retries=self.chance.randint(0, 1), **options)
        self.held.append(key)

    def begin(self):
        for key in self.cluster.startable[: self.nthreads]:
            entry = self.cluster.startable_entry(key)[1]
            if entry[1] not in self.cluster.begun:
                self.cluster.begin(key)

    def end(self):
        begun = [key for key in self.cluster.startable if self.cluster.startable_entry(key)[1][1] in self.cluster.begun]
        if begun:
            self.chance.choice([self.cluster.finish, self.cluster.err])(self.chance.choice(begun))

    def cancel(self):
        if self.held:
            key = self.held.pop(self.chance.randrange(len(self.held)))
            self.asked.append(cancel(self.cluster, key, kill=self.number))

    def pass_time(self):
        pass_time(self.cluster, self.chance.choice([0.01, 1.0, 6.0]))

    def answer(self):
        for worker in self.cluster.answer_kills():
            self.cluster.add_worker(worker.rpartition("/")[0], self.nthreads)
        self.cluster.drop_all()
        self.cluster.confirm_revocations()


@pytest.mark.parametrize("seed", range(40))
def test_every_cancelling_is_answered_and_all_that_is_left_runs_to_its_end(seed):
    history = History(seed)
    history.run()
    cluster = history.cluster
    for number in history.asked:
        assert cluster.answer_of(CLIENT, number) is not None
    for _ in range(100):
        history.begin()
        history.answer()
        if not cluster.startable:
            break
        cluster.finish(cluster.startable[0])
    over = {cluster.state.tasks[key].state for key in history.held if key in cluster.state.tasks}
    assert over <= {"memory", "erred"}
    assert all(task.failures == 0 for task in cluster.state.tasks.values())
