"""Taking runs away from a worker that does not answer, and what becomes of those that it has begun."""

from __future__ import annotations

import pytest
from scheduler_harness import SMALL, Cluster, pass_time
from simulated_cluster import MB

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.protocol.limits import MAX_ITEMS
from holdfast.cluster.scheduler.placing.recall import HELD_UP_SECONDS
from holdfast.cluster.scheduler.placing.revocation import ANSWER_SECONDS, STOPPED_SECONDS
from holdfast.cluster.scheduler.tasks import events

INLINE = b"0123456789"
UNRESPONSIVE = ["stopped", "computing", "blocked"]


@pytest.fixture
def cluster():
    return Cluster(hosts=1, workers=1)


@pytest.fixture
def client(cluster):
    return cluster.add_client()


def held_up(cluster: Cluster, client: str, count: int = 3) -> tuple[str, str]:
    """``("f", 0)`` has begun on one worker, others are behind it, and another worker is idle; both workers."""
    cluster.submit(client, {("f", "known"): []})
    cluster.finish(("f", "known"), nbytes=SMALL, inline=INLINE)
    cluster.submit(client, {("f", n): [] for n in range(count)})
    cluster.begin(("f", 0))
    (worker,) = set(cluster.running.values())
    return worker, cluster.add_worker("tcp://host0:1")


def where(cluster: Cluster, *numbers: int) -> set[str]:
    return {cluster.running[("f", n)] for n in numbers}


@pytest.mark.parametrize("condition", UNRESPONSIVE)
def test_what_has_not_begun_on_a_worker_that_hears_nothing_goes_to_an_idle_one(cluster, client, condition):
    worker, idle = held_up(cluster, client)
    cluster.see(worker, condition, 1.0)
    assert [set(asked.run_ids) for asked in cluster.asked] == [set(cluster.runs[worker])]
    cluster.answer_revocations()
    assert where(cluster, 0) == {worker}
    assert where(cluster, 1, 2) == {idle}
    assert [told.peer for told in cluster.told] == [worker]
    cluster.confirm_revocations()
    cluster.run_all()
    assert set(cluster.clients[client].values()) == {"memory"}


def test_a_worker_that_leaves_an_instruction_to_drop_unanswered_is_not_waited_for(cluster, client):
    worker, idle = held_up(cluster, client)
    pass_time(cluster, HELD_UP_SECONDS)
    assert cluster.dropped[worker]
    assert cluster.state.next_deadline == pytest.approx(cluster.now + ANSWER_SECONDS)
    pass_time(cluster, ANSWER_SECONDS)
    cluster.answer_revocations()
    assert where(cluster, 1, 2) == {idle}
    assert cluster.state.next_deadline is None
    cluster.drop_all()  # a late answer changes nothing
    cluster.run_all()
    assert set(cluster.clients[client].values()) == {"memory"}


def test_one_that_answers_in_time_is_left_alone(cluster, client):
    held_up(cluster, client)
    pass_time(cluster, HELD_UP_SECONDS)
    cluster.drop_all()
    pass_time(cluster, 2 * ANSWER_SECONDS)
    assert not cluster.asked


@pytest.mark.parametrize("condition", UNRESPONSIVE)
def test_a_worker_that_hears_nothing_gets_nothing_until_it_does(cluster, client, condition):
    (worker,) = cluster.runs
    cluster.see(worker, condition, 1.0)
    cluster.submit(client, {"a": []})
    assert not cluster.running
    cluster.see(worker, "running")
    assert cluster.running == {"a": worker}


def test_a_worker_that_says_something_hears(cluster, client):
    (worker,) = cluster.runs
    cluster.submit(client, {"a": [], "b": []})
    cluster.see(worker, "computing", 1.0)
    cluster.finish("a")
    assert cluster.running == {"b": worker}


def test_nothing_is_sent_to_a_worker_between_a_revocation_and_its_word_that_it_knows(cluster, client):
    worker, idle = held_up(cluster, client)
    cluster.see(worker, "blocked", 1.0)
    cluster.see(worker, "running")
    cluster.submit(client, {("f", n): [] for n in range(3, 200)})
    cluster.answer_revocations()
    cluster.finish(("f", 0), nbytes=SMALL, inline=INLINE)
    assert set(cluster.running.values()) == {idle}
    cluster.confirm_revocations()
    assert set(cluster.running.values()) == {worker, idle}


def test_nothing_is_revoked_while_nobody_is_idle(cluster, client):
    worker, idle = held_up(cluster, client)
    cluster.submit(client, {("long", n): [] for n in range(5)})
    cluster.see(worker, "stopped", 1.0)
    assert not cluster.asked
    for n in range(5):
        cluster.finish(("long", n))
    cluster.see(worker, "stopped", 3.0)
    cluster.answer_revocations()
    assert where(cluster, 1, 2) == {idle}


def test_what_costs_more_to_bring_than_the_wait_has_lasted_stays(cluster, client):
    cluster.submit(client, {("f", "known"): [], "data": []})
    cluster.finish(("f", "known"), nbytes=SMALL, inline=INLINE)
    cluster.finish("data", nbytes=2000 * MB)  # two seconds from host to host
    cluster.submit(client, {("f", 0): ["data"], ("f", 1): ["data"]})
    (worker,) = set(cluster.running.values())
    cluster.begin(("f", 0))
    elsewhere = cluster.add_worker(cluster.add_host())
    cluster.see(worker, "computing", 1.0)
    assert not cluster.asked
    cluster.see(worker, "computing", 3.0)
    cluster.answer_revocations()
    assert where(cluster, 1) == {elsewhere}


def test_what_has_begun_is_asked_for_once(cluster, client):
    worker, _ = held_up(cluster, client, count=1)
    cluster.see(worker, "computing", 1.0)
    assert cluster.asked
    cluster.answer_revocations()
    assert not cluster.told
    cluster.see(worker, "computing", 3.0)
    assert not cluster.asked
    assert where(cluster, 0) == {worker}


def test_a_line_of_which_nothing_has_begun_moves_as_a_whole(cluster, client):
    for name in "fg":
        cluster.submit(client, {(name, "known"): []})
        cluster.finish((name, "known"), nbytes=SMALL, inline=INLINE)
    cluster.submit(client, {("f", 0): [], ("f", 1): [], ("g", 1): [("f", 1)]})
    cluster.begin(("f", 0))
    (worker,) = cluster.runs
    assert len(cluster.runs[worker]) == 3
    idle = cluster.add_worker("tcp://host0:1")
    cluster.see(worker, "stopped", 1.0)
    cluster.answer_revocations()
    assert cluster.running == {("f", 0): worker, ("f", 1): idle, ("g", 1): idle}
    cluster.confirm_revocations()
    cluster.run_all()
    assert set(cluster.clients[client].values()) == {"memory"}


@pytest.mark.long
def test_long_lists_are_asked_for_in_pieces():
    cluster = Cluster(hosts=1, workers=1, nthreads=4)
    client = cluster.add_client()
    cluster.submit(client, {("f", "known"): []})
    cluster.finish(("f", "known"), nbytes=SMALL, inline=INLINE, seconds=1e-6)
    cluster.submit(client, {("f", n): [] for n in range(1500)})
    cluster.catch_up()
    (worker,) = cluster.runs
    assert len(cluster.runs[worker]) > 2 * MAX_ITEMS
    cluster.add_worker("tcp://host0:1")
    cluster.see(worker, "stopped", 1.0)
    assert len(cluster.asked) > 2
    assert max(len(asked.run_ids) for asked in cluster.asked) <= MAX_ITEMS
    cluster.answer_revocations()
    assert not cluster.runs[worker]
    cluster.see(worker, "running")
    assert not cluster.runs[worker], "it has confirmed nothing"
    cluster.confirm_revocations()
    cluster.run_all()
    assert set(cluster.clients[client].values()) == {"memory"}


def test_an_answer_about_a_process_that_has_gone_changes_nothing(cluster, client):
    worker, _ = held_up(cluster, client)
    cluster.see(worker, "stopped", 1.0)
    ((_, _, incarnation, run_ids),) = cluster.asked
    cluster.handle(cluster.exited(worker))
    cluster.handle(events.WorkerParted(worker, "killed"))
    cluster.runs[worker].clear()
    cluster.handle(events.WorkerJoined(worker, "again", "tcp://host0:1", 1, {}, incarnation + 1000))
    before = cluster.running
    cluster.handle(events.RunsRevoked("tcp://host0:1", worker, incarnation, 1, run_ids, []))
    assert cluster.running == before
    assert not cluster.told
    cluster.run_all()
    assert set(cluster.clients[client].values()) == {"memory"}


def test_the_death_of_a_worker_in_the_middle_leaves_nothing_waiting(cluster, client):
    worker, _ = held_up(cluster, client)
    pass_time(cluster, HELD_UP_SECONDS)
    cluster.see(worker, "stopped", 1.0)
    cluster.remove_worker(worker)
    cluster.answer_revocations()
    pass_time(cluster, ANSWER_SECONDS)
    cluster.run_all()
    assert set(cluster.clients[client].values()) == {"memory"}


def test_a_worker_without_a_ledger_keeps_what_it_has(cluster, client):
    worker, _ = held_up(cluster, client)
    cluster.state.workers[worker].incarnation = None
    pass_time(cluster, HELD_UP_SECONDS)
    pass_time(cluster, ANSWER_SECONDS)
    cluster.see(worker, "stopped", STOPPED_SECONDS)
    assert not cluster.asked


def test_what_nobody_asked_for_is_refused(cluster, client):
    worker, _ = held_up(cluster, client)
    incarnation = cluster.state.workers[worker].incarnation
    with pytest.raises(ProtocolError, match="not told to revoke"):
        cluster.handle(events.RunsRevoked("tcp://host0:1", worker, incarnation, 1, [], []))
    with pytest.raises(ProtocolError, match="not told of"):
        cluster.handle(events.RevocationConfirmed(worker, 1))


def test_one_host_says_nothing_about_anothers_workers(cluster, client):
    (worker,) = cluster.runs
    other = cluster.add_host()
    stopped = {"condition": "stopped", "seconds": 1.0}
    cluster.handle(events.HostReported(other, {"workers": {worker: stopped, "nobody": stopped}}))
    assert not cluster.state.workers[worker].barred


# -- what a stopped worker has begun


def stopped_for_long(cluster: Cluster, client: str) -> tuple[str, str]:
    """``("f", 0)`` has begun on a worker that is stopped, and runs on another as well now; both workers."""
    worker, other = held_up(cluster, client)
    cluster.see(worker, "stopped", 1.0)
    cluster.answer_revocations()
    for n in (1, 2):
        cluster.finish(("f", n), nbytes=SMALL, inline=INLINE)
    cluster.see(worker, "stopped", STOPPED_SECONDS - 1)
    assert where(cluster, 0) == {worker}
    cluster.see(worker, "stopped", STOPPED_SECONDS)
    assert len(cluster.runs[worker]) == len(cluster.runs[other]) == 1
    return worker, other


def finish_on(cluster: Cluster, worker: str, object_id: bytes | None = None) -> bytes:
    """The worker's only run ends."""
    ((run_id, entry),) = cluster.runs[worker].items()
    object_id = cluster.new_object()
    del cluster.runs[worker][run_id]
    cluster.stores["tcp://host0:1"].add(object_id)
    cluster.handle(events.TasksFinished(worker, [(entry[6], run_id, object_id, SMALL, None, "bytes", 0.001)]))
    return object_id


@pytest.mark.parametrize("late_first", [False, True])
def test_the_first_result_is_used_and_the_other_deleted(cluster, client, late_first):
    worker, other = stopped_for_long(cluster, client)
    first, second = (worker, other) if late_first else (other, worker)
    used = finish_on(cluster, first)
    task = cluster.state.tasks[("f", 0)]
    assert (task.state, task.object_id) == ("memory", used)
    if late_first:
        assert cluster.dropped[other]
    unused = finish_on(cluster, second)
    assert (task.state, task.object_id) == ("memory", used)
    assert used in cluster.stores["tcp://host0:1"]
    assert unused not in cluster.stores["tcp://host0:1"]
    assert task.failures == 0
    assert not any(cluster.runs.values())


def test_a_late_failure_changes_nothing(cluster, client):
    worker, other = stopped_for_long(cluster, client)
    ((run_id, entry),) = cluster.runs[worker].items()
    cluster.handle(events.TasksErred(worker, [(entry[6], run_id, b"exception", "late", 0.001)]))
    del cluster.runs[worker][run_id]
    assert cluster.clients[client][("f", 0)] == "pending"
    finish_on(cluster, other)
    assert cluster.clients[client][("f", 0)] == "memory"


def test_a_late_result_of_a_task_that_nobody_wants_is_deleted(cluster, client):
    worker, _ = stopped_for_long(cluster, client)
    cluster.release(client, ("f", 0))
    unused = finish_on(cluster, worker)
    assert unused not in cluster.stores["tcp://host0:1"]


def test_the_death_of_a_stopped_worker_is_no_failure_of_what_runs_elsewhere(cluster, client):
    worker, other = stopped_for_long(cluster, client)
    cluster.remove_worker(worker)
    assert cluster.state.tasks[("f", 0)].failures == 0
    finish_on(cluster, other)
    assert cluster.clients[client][("f", 0)] == "memory"


@pytest.mark.parametrize("condition", ["computing", "blocked"])
def test_from_a_worker_that_is_not_stopped_nothing_is_taken_that_has_begun(cluster, client, condition):
    worker, _ = held_up(cluster, client)
    cluster.see(worker, condition, 1.0)
    cluster.answer_revocations()
    cluster.see(worker, condition, 100 * STOPPED_SECONDS)
    assert where(cluster, 0) == {worker}


def test_what_nobody_else_may_run_is_waited_for(cluster, client):
    (worker,) = cluster.runs
    cluster.submit(client, {"a": []}, workers=[worker])
    cluster.begin("a")
    cluster.add_worker("tcp://host0:1")
    for seconds in (1.0, STOPPED_SECONDS, 2 * STOPPED_SECONDS):
        cluster.see(worker, "stopped", seconds)
        cluster.answer_revocations()
    assert cluster.running == {"a": worker}


def test_what_has_not_begun_is_taken_from_a_long_stopped_worker_even_if_nobody_is_idle(cluster, client):
    worker, other = held_up(cluster, client)
    cluster.submit(client, {("long", n): [] for n in range(3)})
    cluster.see(worker, "stopped", STOPPED_SECONDS)
    cluster.answer_revocations()
    cluster.see(worker, "stopped", STOPPED_SECONDS + 2)
    assert cluster.state.placement.queued >= 3
    for n in range(3):
        cluster.finish(("long", n))
    assert where(cluster, 1, 2) == {other}


def test_a_task_that_prefers_the_host_of_stopped_workers_runs_elsewhere(cluster, client):
    cluster.submit(client, {"data": []})
    cluster.finish("data", nbytes=100 * MB)
    (worker,) = cluster.runs
    elsewhere = cluster.add_worker(cluster.add_host())
    cluster.see(worker, "stopped", 1.0)
    cluster.submit(client, {"a": ["data"]})
    assert cluster.running == {"a": elsewhere}
