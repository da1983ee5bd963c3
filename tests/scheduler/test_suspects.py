"""Which runs are charged for the death of a worker, and what becomes of those that may have done it."""

from __future__ import annotations

import random

import pytest
from scheduler_harness import Cluster, pass_time

from holdfast.cluster.scheduler.placing.suspects import ISOLATED_SECONDS, PATIENCE_SECONDS
from holdfast.cluster.scheduler.tasks import events

HOST = "tcp://host0:1"


@pytest.fixture
def cluster():
    """One worker with two threads."""
    return started(1)


def started(workers, nthreads=2, hosts=1, **options):
    cluster = Cluster(hosts, workers, nthreads, **options)
    cluster.add_client()
    return cluster


def submit(cluster, *keys, **options):
    cluster.submit("client", dict.fromkeys(keys, ()), **options)


def failures(cluster, *keys):
    return [cluster.state.tasks[key].failures for key in keys]


def die(cluster, key, running=None, crashed=None, **options):
    """The worker that runs a key dies, and another one comes in its place."""
    worker = cluster.running[key]
    cluster.remove_worker(worker, running, crashed, **options)
    return cluster.add_worker(worker.rpartition("/")[0], 2)


# -- which runs are charged


def test_the_one_that_has_crashed_is_charged_alone(cluster):
    submit(cluster, "guilty", "innocent")
    for _ in range(3):
        die(cluster, "guilty", ["innocent", "guilty"], "guilty")
    assert cluster.clients["client"] == {"guilty": "erred", "innocent": "pending"}
    assert "3 workers that died" in cluster.reasons["guilty"]
    assert "the worker's log shows where ('holdfast logs'" in cluster.reasons["guilty"]
    assert failures(cluster, "innocent") == [0]
    assert cluster.state.tasks["innocent"].isolation == 0


def test_the_only_one_that_was_going_on_is_charged(cluster):
    submit(cluster, "ended", "guilty")
    die(cluster, "guilty", ["guilty"])  # the other's outcome was on its way
    assert failures(cluster, "ended", "guilty") == [0, 1]
    assert cluster.state.tasks["ended"].isolation == 0


def test_nobody_is_charged_for_what_an_ended_run_has_left_behind(cluster):
    submit(cluster, "one", "two")
    worker = cluster.running["one"]
    one = cluster.entry("one")[1][1]
    cluster.finish("one")
    cluster.handle(cluster.exited(worker, [one, cluster.entry("two")[1][1]], one))
    cluster.handle(events.WorkerParted(worker, ""))
    assert failures(cluster, "two") == [0]
    assert cluster.state.tasks["two"].isolation == 0


def test_nobody_is_charged_in_company_and_all_run_alone_then(cluster):
    submit(cluster, "guilty", "innocent")
    worker = die(cluster, "guilty", ["guilty", "innocent"])
    assert failures(cluster, "guilty", "innocent") == [0, 0]
    submit(cluster, "late")
    assert list(cluster.running) == ["guilty"]
    assert cluster.state.workers[worker].reserved_for is cluster.state.tasks["guilty"]
    for _ in range(3):
        worker = die(cluster, "guilty", ["guilty"]) if "guilty" in cluster.running else worker
        while "guilty" not in cluster.running and cluster.running:
            cluster.finish(next(iter(cluster.running)))
    assert cluster.clients["client"] == {"guilty": "erred", "innocent": "memory", "late": "memory"}


def test_if_nobody_could_look_those_that_were_sent_first_are_suspects(cluster):
    submit(cluster, "first", "second")
    worker = cluster.running["first"]
    cluster.remove_worker(worker)
    assert [cluster.state.tasks[key].isolation for key in ("first", "second")] == [1, 1]
    assert failures(cluster, "first", "second") == [0, 0]


def test_who_has_a_result_is_no_suspect_any_more(cluster):
    submit(cluster, "x", "y")
    die(cluster, "x", ["x", "y"])
    cluster.finish("x")
    cluster.finish("y")
    assert [cluster.state.tasks[key].isolation for key in "xy"] == [0, 0]
    assert not cluster.state.placement.reservations.workers


# -- private views


def shares(cluster, *keys, **options):
    """Tasks that read something from the store, which is scattered."""
    if "data" not in cluster.clients["client"]:
        cluster.scatter("client", "data", HOST)
    cluster.submit("client", {key: ["data"] for key in keys}, **options)


def test_a_fault_is_no_failure_until_it_happens_on_private_views(cluster):
    shares(cluster, "writes", "beside")
    die(cluster, "writes", ["writes", "beside"], "writes", fault=True)
    assert failures(cluster, "writes", "beside") == [0, 0]
    assert cluster.entry("writes")[1][5]
    cluster.finish("writes")
    cluster.finish("beside")
    shares(cluster, "later")
    assert cluster.entry("later")[1][5]  # it is the same function


def test_a_fault_on_private_views_counts(cluster):
    shares(cluster, "crashes")
    for expected in (0, 1, 2):
        die(cluster, "crashes", ["crashes"], "crashes", fault=True)
        assert failures(cluster, "crashes") == [expected]
    die(cluster, "crashes", ["crashes"], "crashes", fault=True)
    assert cluster.clients["client"]["crashes"] == "erred"


@pytest.mark.parametrize("what", ["no fault", "nothing shared", "said so"])
def test_what_can_be_no_refused_write_counts_at_once(cluster, what):
    if what == "nothing shared":
        cluster.scatter("client", "data", HOST, inline=b"small")
    shares(cluster, "crashes", writable=what == "said so")
    die(cluster, "crashes", ["crashes"], "crashes", fault=what != "no fault")
    assert failures(cluster, "crashes") == [1]


def test_runs_of_the_same_function_that_crash_at_the_same_time_are_not_charged_either():
    cluster = started(2, 1)
    shares(cluster, "one", "two")
    die(cluster, "one", ["one"], "one", fault=True)
    die(cluster, "two", ["two"], "two", fault=True)
    assert failures(cluster, "one", "two") == [0, 0]


def test_a_fault_in_company_leads_to_isolation_and_from_there_to_private_views(cluster):
    shares(cluster, "one", "two")
    die(cluster, "one", ["one", "two"], fault=True)
    assert list(cluster.running) == ["one"]
    die(cluster, "one", ["one"], fault=True)
    assert failures(cluster, "one", "two") == [0, 0]
    assert cluster.entry("one")[1][5]


# -- isolation


def test_a_suspect_waits_until_a_worker_is_empty_and_takes_no_room_from_others_elsewhere():
    cluster = started(3)
    submit(cluster, *range(6))
    one, two = (key for key in range(6) if cluster.running[key] == cluster.running[0])
    cluster.remove_worker(cluster.running[0], [one, two])
    assert len(cluster.running) == 4
    submit(cluster, *range(6, 9))
    assert len(cluster.running) == 4  # both of the others are reserved
    for key in list(cluster.running):
        cluster.finish(key)
    assert {one, two} <= cluster.running.keys()
    assert cluster.running[one] != cluster.running[two]
    assert len(cluster.running) == 2
    cluster.finish(one)
    assert {two, 6, 7} <= cluster.running.keys()
    cluster.run_all()
    assert set(cluster.clients["client"].values()) == {"memory"}


def test_a_suspect_moves_to_a_worker_that_is_empty_sooner():
    cluster = started(2)
    submit(cluster, "for ever", "a", "b", "c")
    busy = cluster.running["for ever"]
    (other,) = set(cluster.runs) - {busy}
    for key in [key for key, worker in cluster.running.items() if worker == busy and key != "for ever"]:
        cluster.finish(key)  # so that this one is chosen: it has least to do
    suspects = [key for key, worker in cluster.running.items() if worker == other]
    cluster.remove_worker(other, suspects)
    assert cluster.state.workers[busy].reserved_for
    other = cluster.add_worker(HOST, 2)
    assert cluster.running[suspects[0]] == other
    cluster.finish(suspects[0])
    assert cluster.running[suspects[1]] == other


def test_a_suspect_does_not_wait_for_ever():
    cluster = started(2)
    submit(cluster, "waits for x", "a", "b", "c")
    busy = cluster.running["waits for x"]
    (other,) = set(cluster.runs) - {busy}
    for key in [key for key, worker in cluster.running.items() if worker == busy and key != "waits for x"]:
        cluster.finish(key)
    suspects = [key for key, worker in cluster.running.items() if worker == other]
    cluster.remove_worker(other, suspects)
    assert list(cluster.running) == ["waits for x"]
    assert cluster.state.next_deadline == PATIENCE_SECONDS
    pass_time(cluster, PATIENCE_SECONDS)
    assert set(cluster.running) == {"waits for x", suspects[0]}  # the other one waits on
    assert cluster.state.next_deadline == 2 * PATIENCE_SECONDS
    # It is charged, whatever else ran there, and the others are suspects now.
    cluster.remove_worker(busy, ["waits for x", suspects[0]])
    assert failures(cluster, "waits for x", suspects[0]) == [0, 1]
    assert [cluster.state.tasks[key].isolation for key in ("waits for x", suspects[0])] == [1, 1]


def test_nothing_is_lined_up_behind_a_suspect(cluster):
    submit(cluster, ("f", 0))
    cluster.finish(("f", 0), seconds=1e-5)
    submit(cluster, ("f", 1), ("f", 2))
    die(cluster, ("f", 1), [("f", 1), ("f", 2)])
    cluster.submit("client", {("f", 3): [("f", 1)]})
    assert list(cluster.running) == [("f", 1)]


def test_a_suspect_that_nobody_wants_any_more_keeps_no_worker(cluster):
    submit(cluster, "for ever")
    worker = cluster.running["for ever"]
    cluster.add_worker(HOST, 2)
    submit(cluster, "one", "two", "three")
    other = next(w for w in cluster.runs if w != worker)
    suspects = [key for key, where in cluster.running.items() if where == other]
    cluster.remove_worker(other, suspects)
    assert cluster.state.workers[worker].reserved_for
    cluster.release("client", *suspects)
    assert not cluster.state.placement.reservations.workers
    cluster.finish(next(key for key in cluster.running if key != "for ever"))
    submit(cluster, "another")
    assert "another" in cluster.running


def test_a_suspect_runs_only_where_it_may():
    cluster = started(0, hosts=2)
    for host in cluster.state.hosts:
        cluster.add_worker(host, 2, {"GPU": 1.0})
    options = {"workers": ["host1"], "resources": {"GPU": 0.5}}
    submit(cluster, "one", "two", **options)
    worker = cluster.running["one"]
    assert cluster.running["two"] == worker
    cluster.remove_worker(worker, ["one", "two"])
    assert not cluster.running
    worker = cluster.add_worker("tcp://host1:1", 2, {"GPU": 1.0})
    assert cluster.running == {"one": worker}
    submit(cluster, "three", resources={"GPU": 1})
    assert cluster.running["three"] != worker


def test_a_suspect_that_no_worker_may_run_waits_with_those_that_nobody_may_run():
    cluster = started(1)
    submit(cluster, "one", "two", workers=["host0"])
    cluster.remove_worker(cluster.running["one"], ["one", "two"])
    assert {task.state for task in cluster.state.tasks.values()} == {"no-worker"}
    cluster.add_worker(HOST, 2)
    assert list(cluster.running) == ["one"]


def test_a_worker_that_stops_is_not_waited_for():
    cluster = started(3, 1)
    submit(cluster, "a", "b", "c")
    cluster.state.tasks["a"].isolation = 1  # as if it had been in company
    worker = cluster.running["a"]
    cluster.remove_worker(worker, [])
    reserved = next(w for w in cluster.runs if cluster.state.workers[w].reserved_for)
    cluster.see(reserved, "stopped")
    (other,) = set(cluster.runs) - {reserved}
    cluster.finish(next(key for key, where in cluster.running.items() if where == other))
    assert cluster.running["a"] == other


def test_a_suspect_that_goes_on_for_long_gets_company(cluster):
    submit(cluster, "long", "short")
    die(cluster, "long", ["long", "short"])
    assert list(cluster.running) == ["long"]
    assert cluster.state.next_deadline == ISOLATED_SECONDS
    submit(cluster, "another")
    pass_time(cluster, ISOLATED_SECONDS)
    assert set(cluster.running) == {"long", "another"}  # "short" waits for a worker of its own
    cluster.finish("another")
    cluster.finish("long")
    assert list(cluster.running) == ["short"]


def test_one_that_kills_late_is_found(cluster):
    submit(cluster, "late", "innocent")
    die(cluster, "late", ["late", "innocent"])
    alone = 0
    for number in range(20):
        if cluster.clients["client"]["late"] == "erred":
            break
        while "late" not in cluster.running:
            cluster.finish(next(iter(cluster.running)))
        for _ in range(5):  # it kills after five times as long as it has a worker to itself at first
            pass_time(cluster, ISOLATED_SECONDS)
        submit(cluster, f"new {number}")
        alone += len(cluster.running) == 1
        die(cluster, "late", list(cluster.running))
    assert alone == 3
    cluster.run_all()
    assert {key for key, state in cluster.clients["client"].items() if state == "erred"} == {"late"}


# -- hosts


def test_a_task_that_takes_its_host_down_is_found_among_others():
    cluster = started(2, 1)
    submit(cluster, "guilty", "innocent")
    deaths = 0
    while cluster.clients["client"]["guilty"] == "pending":
        assert deaths < 10
        if "guilty" in cluster.running:
            cluster.remove_host(cluster.running["guilty"].rpartition("/")[0])
            host = cluster.add_host()
            for _ in range(2):
                cluster.add_worker(host, 1)
            deaths += 1
        else:
            cluster.finish("innocent")
    assert deaths == 4
    assert cluster.clients["client"]["guilty"] == "erred"
    assert failures(cluster, "innocent") == [0]


@pytest.mark.parametrize("seed", range(20))
def test_no_innocent_ever_fails_and_every_guilty_one_does(seed):
    """Twelve that kill their worker, and a hundred that don't; nobody ever knows which it was."""
    chance = random.Random(seed)
    cluster = started(chance.randint(1, 3), chance.randint(1, 4), chance.randint(1, 2))
    nthreads = next(iter(cluster.state.workers.values())).nthreads
    keys = [("guilty", i) for i in range(12)] + [("innocent", i) for i in range(100)]
    chance.shuffle(keys)
    submit(cluster, *keys)
    for _ in range(10_000):
        if not cluster.running:
            break
        worker = chance.choice([worker for worker, runs in cluster.runs.items() if runs])
        begun = [entry[0] for entry in cluster.runs[worker].values()][:nthreads]
        key = chance.choice(begun)
        if key[0] == "innocent":
            cluster.finish(key, seconds=chance.choice([1e-4, 1.0]))
        else:
            cluster.remove_worker(worker, chance.choice([None, begun]))
            cluster.add_worker(worker.rpartition("/")[0], nthreads)
        cluster.drop_all()
        pass_time(cluster, 0.01)
    told = cluster.clients["client"]
    assert {key for key, state in told.items() if state == "erred"} == {key for key in keys if key[0] == "guilty"}
    assert {key for key, state in told.items() if state == "memory"} == {key for key in keys if key[0] == "innocent"}
