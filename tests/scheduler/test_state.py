"""What the scheduler's state machine does, event by event. Every event is validated (see `scheduler_harness`)."""

from __future__ import annotations

import pytest
from scheduler_harness import FUNCTION, LARGE, SMALL, Cluster

from holdfast.cluster.errors import KilledWorker, NoWorkerError, ObjectLostError, ProtocolError
from holdfast.cluster.failures.loading import load_exception
from holdfast.cluster.scheduler.placing.unrunnable import WARNING_SECONDS
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks import instructions as to_do
from holdfast.cluster.scheduler.tasks.states import FIRST, STATES, TRANSITIONS
from holdfast.cluster.scheduler.tasks.stored_errors import pickled


def error_of(cluster, key):
    return load_exception(pickled(cluster.state.tasks[key].error), "")[0]


def test_a_task_runs_is_reported_and_is_freed_with_its_last_hold():
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    cluster.submit(client, {"x": ()})
    assert list(cluster.running) == ["x"]
    object_id = cluster.finish("x")
    assert cluster.clients[client] == {"x": "memory"}
    assert cluster.stores["tcp://host0:1"] == {object_id}
    cluster.release(client, "x")
    assert cluster.stores["tcp://host0:1"] == set()
    assert not cluster.state.tasks


@pytest.mark.parametrize("inline", [b"small", None])
@pytest.mark.parametrize("maker_is_there", [True, False])
def test_a_holder_of_a_small_result_is_told_that_nobody_wants_it(inline, maker_is_there):
    cluster = Cluster(hosts=1, workers=2)
    client = cluster.add_client()
    cluster.submit(client, {"x": ()})
    maker, _ = cluster.entry("x")
    object_id = cluster.finish("x", inline=inline)
    if not maker_is_there:
        cluster.remove_worker(maker)
    done = cluster.handle(events.KeysReleased(client, ["x"]))
    if inline is not None and maker_is_there:
        assert done == [to_do.DiscardResults(maker, [object_id])]
    else:
        assert done == [to_do.DeleteObjects("tcp://host0:1", [object_id])]


def test_functions_are_sent_once_to_each_worker():
    cluster = Cluster(hosts=1, workers=2)
    client = cluster.add_client()
    sent = []
    for i in range(6):
        tasks = [(i, FUNCTION, b"args", ())]
        done = cluster.handle(events.TasksSubmitted(client, tasks, None, {}))
        sent += [instruction.peer for instruction in done if isinstance(instruction, to_do.SendFunctions)]
        cluster.finish(i)
    assert sorted(sent) == sorted(cluster.runs)


def test_a_function_goes_when_its_client_and_its_tasks_are_gone():
    cluster = Cluster(hosts=1, workers=1)
    client, other = cluster.add_client(), cluster.add_client("other")
    cluster.submit(client, {"x": ()})
    cluster.handle(events.KeysWanted(other, ["x"]))
    cluster.remove_client(client)
    cluster.remove_client(other)
    cluster.drop_all()
    assert not cluster.state.life.functions.table


def test_workers_forget_a_function_when_no_task_and_no_client_may_name_it():
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    (worker,) = cluster.runs
    cluster.submit(client, {"x": ()})
    cluster.finish("x")
    cluster.handle(events.FunctionsForgotten(client, [FUNCTION, b"never sent"]))
    assert not cluster.forgotten  # `x` may have to be computed again
    cluster.release(client, "x")
    assert cluster.forgotten == {worker: [FUNCTION]}
    assert not cluster.state.life.functions.table
    cluster.handle(events.FunctionsSent(client, [(FUNCTION, b"pickle")]))
    done = cluster.handle(events.TasksSubmitted(client, [("y", FUNCTION, b"args", ())], None, {}))
    assert any(isinstance(instruction, to_do.SendFunctions) for instruction in done)


def test_a_task_with_an_unknown_function_is_refused_and_leaves_nothing():
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    with pytest.raises(ProtocolError, match="function"):
        cluster.handle(events.TasksSubmitted(client, [("x", b"g" * 16, b"", ())], None, {}))
    assert not cluster.state.tasks


def test_dependencies_are_released_when_they_are_no_longer_needed_but_stay_as_lineage():
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    cluster.submit(client, {"a": (), "b": ["a"]}, wants=["b"])
    cluster.finish("a")
    _, entry = cluster.entry("b")
    assert entry[4][0][0] == "a"
    cluster.finish("b")
    assert cluster.state.tasks["a"].state == "released"
    assert len(cluster.stores["tcp://host0:1"]) == 1
    cluster.release(client, "b")
    assert not cluster.state.tasks


def test_small_results_ride_along():
    cluster = Cluster(hosts=2, workers=1)
    client = cluster.add_client()
    cluster.submit(client, {"a": (), "b": ["a"]}, wants=["b"])
    cluster.finish("a", inline=b"value")
    assert cluster.entry("b")[1][4] == [("a", cluster.state.tasks["a"].object_id, b"value", ())]


def test_a_failure_takes_along_all_that_wait_for_it():
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    cluster.submit(client, {"a": (), "b": ["a"], "c": ["b"], "d": ()}, wants=["c", "d"])
    cluster.err("a", "boom")
    assert cluster.clients[client]["c"] == "erred"
    assert cluster.reasons["c"] == "boom"
    cluster.finish("d")
    assert cluster.clients[client]["d"] == "memory"


def test_a_submit_on_a_failed_dependency_fails_at_once():
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    cluster.submit(client, {"a": ()})
    cluster.err("a", "boom")
    cluster.submit(client, {"b": ["a"]})
    assert cluster.clients[client]["b"] == "erred"


def test_retries_run_a_task_again():
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    cluster.submit(client, {"x": ()}, retries=1)
    cluster.err("x")
    assert cluster.clients[client]["x"] == "pending"
    cluster.err("x")
    assert cluster.clients[client]["x"] == "erred"


def test_options_can_differ_by_key():
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    cluster.submit(client, {"x": (), "y": (), "z": ()}, priority=1, per_key={"y": {"priority": 5}})
    assert list(cluster.running) == ["y"]
    cluster.finish("y", seconds=1.0)
    assert list(cluster.running) == ["x"]


def test_a_dependency_that_nobody_knows_is_an_error_of_the_task():
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    cluster.submit(client, {"b": ["gone"]})
    assert "'gone'" in cluster.reasons["b"]


def test_the_same_key_twice_is_one_computation_with_two_holders():
    cluster = Cluster(hosts=1, workers=1)
    one, two = cluster.add_client("one"), cluster.add_client("two")
    cluster.submit(one, {"x": ()})
    cluster.submit(two, {"x": ()})
    cluster.finish("x")
    assert cluster.clients == {"one": {"x": "memory"}, "two": {"x": "memory"}}
    cluster.remove_client(one)
    assert "x" in cluster.state.tasks
    cluster.remove_client(two)
    assert not cluster.state.tasks


def test_a_released_run_keeps_its_worker_busy_until_the_worker_says_so_and_its_result_is_deleted():
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    cluster.submit(client, {"x": ()})
    cluster.release(client, "x")
    cluster.submit(client, {"y": ()})
    assert list(cluster.running) == ["x"]  # the one thread is still busy with it
    cluster.finish("x")
    assert cluster.stores["tcp://host0:1"] == set()
    assert list(cluster.running) == ["y"]


def test_a_dropped_run_makes_room():
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    cluster.submit(client, {"x": ()})
    cluster.release(client, "x")
    cluster.submit(client, {"y": ()})
    cluster.drop_all()
    assert list(cluster.running) == ["y"]


class TestPlacement:
    def test_tasks_of_unknown_length_are_not_sent_ahead(self):
        cluster = Cluster(hosts=1, workers=2, nthreads=2)
        client = cluster.add_client()
        cluster.submit(client, dict.fromkeys(range(10), ()))
        assert [len(runs) for runs in cluster.runs.values()] == [2, 2]

    def test_short_tasks_are_sent_ahead_and_long_ones_are_not(self):
        cluster = Cluster(hosts=1, workers=1)
        client = cluster.add_client()
        cluster.submit(client, {("short", i): () for i in range(50)})
        cluster.finish(("short", 0), seconds=0.001)
        (runs,) = cluster.runs.values()
        assert len(runs) == 10  # 10 ms of work
        cluster.run_all()
        cluster.submit(client, {("long", i): () for i in range(50)})
        cluster.finish(("long", 0), seconds=1.0)
        assert len(runs) == 1

    def test_tasks_go_where_their_data_is(self):
        cluster = Cluster(hosts=3, workers=1)
        client = cluster.add_client()
        for h in range(3):
            cluster.scatter(client, f"data{h}", f"tcp://host{h}:1")
        cluster.submit(client, {f"use{h}": [f"data{h}"] for h in range(3)})
        assert {key: worker.rpartition("/")[0] for key, worker in cluster.running.items()} == {
            f"use{h}": f"tcp://host{h}:1" for h in range(3)
        }

    def test_an_idle_host_takes_over_when_waiting_costs_more_than_the_transfer(self):
        cluster = Cluster(hosts=2, workers=1)
        client = cluster.add_client()
        cluster.scatter(client, "data", "tcp://host0:1")
        cluster.submit(client, {("use", i): ["data"] for i in range(4)})
        assert len(set(cluster.running.values())) == 2
        _, entry = next(cluster.entry(key) for key, worker in cluster.running.items() if "host1" in worker)
        assert entry[4][0][3] == ("tcp://host0:1",)  # where to fetch it from

    def test_a_fetched_object_has_two_copies_and_both_are_deleted(self):
        cluster = Cluster(hosts=2, workers=1)
        client = cluster.add_client()
        cluster.scatter(client, "data", "tcp://host0:1")
        cluster.copy("data", "tcp://host1:1")
        assert all(cluster.stores.values())
        cluster.release(client, "data")
        assert not any(cluster.stores.values())

    def test_a_copy_of_a_forgotten_object_is_deleted(self):
        cluster = Cluster(hosts=2, workers=1)
        object_id = cluster.new_object()
        cluster.stores["tcp://host1:1"].add(object_id)
        cluster.handle(events.ObjectsFound("tcp://host1:1", [object_id]))
        assert not cluster.stores["tcp://host1:1"]

    @pytest.mark.parametrize("name", ["address", "name", "node", "hostname"])
    def test_a_task_can_name_its_worker(self, name):
        cluster = Cluster(hosts=2, workers=1)
        client = cluster.add_client()
        worker = list(cluster.state.workers.values())[1]
        names = {
            "address": worker.address,
            "name": worker.name,
            "node": worker.host.address,
            "hostname": "host1",
        }
        cluster.submit(client, dict.fromkeys(range(3), ()), workers=[names[name]])
        assert set(cluster.running.values()) == {worker.address}

    def test_resources_are_not_given_twice(self):
        cluster = Cluster(hosts=1)
        worker = cluster.add_worker("tcp://host0:1", nthreads=4, resources={"GPU": 2})
        client = cluster.add_client()
        cluster.submit(client, dict.fromkeys(range(4), ()), resources={"GPU": 1})
        assert len(cluster.runs[worker]) == 2
        cluster.finish(0)
        assert len(cluster.runs[worker]) == 2

    def test_short_tasks_are_not_sent_ahead_of_a_more_urgent_one_that_takes_resources(self):
        cluster = Cluster(hosts=1)
        worker = cluster.add_worker("tcp://host0:1", resources={"GPU": 1})
        client = cluster.add_client()
        cluster.submit(client, {("short", i): () for i in range(1000)})
        cluster.finish(("short", 0), seconds=0.001)
        cluster.submit(client, {"urgent": ()}, resources={"GPU": 1}, priority=10)
        before = len(cluster.runs[worker])
        for i in range(1, before + 1):
            assert "urgent" not in cluster.running
            cluster.finish(("short", i), seconds=0.001)
        assert "urgent" in cluster.running

    def test_a_nearly_full_store_is_not_filled_further_while_there_is_something_that_empties_it(self):
        cluster = Cluster()
        cluster.add_worker(cluster.add_host(capacity=10 * LARGE))
        client = cluster.add_client()
        cluster.submit(client, {("make", i): () for i in range(20)})
        cluster.submit(client, {("use", i): [("make", i)] for i in range(20)})
        cluster.release(client, *[("make", i) for i in range(20)])
        most = 0
        while cluster.running:
            key = next(iter(cluster.running))
            cluster.finish(key, nbytes=LARGE if key[0] == "make" else SMALL, seconds=1.0)
            most = max(most, len(cluster.stores["tcp://host0:1"]))
            made = sum(task.state == "memory" and key[0] == "make" for key, task in cluster.state.tasks.items())
            assert made <= 8
        assert most > 8  # results of both kinds: it went on where there was room
        assert set(cluster.clients[client].values()) == {"memory"}

    def test_a_store_that_nothing_empties_is_filled_to_the_end(self):
        cluster = Cluster()
        cluster.add_worker(cluster.add_host(capacity=10 * LARGE))
        client = cluster.add_client()
        cluster.submit(client, dict.fromkeys(range(12), ()))
        cluster.run_all()
        assert set(cluster.clients[client].values()) == {"memory"}

    def test_a_wish_for_a_worker_that_is_not_there_is_only_a_wish(self):
        cluster = Cluster(hosts=1, workers=1)
        client = cluster.add_client()
        cluster.submit(client, {"x": ()}, workers=["nobody"], allow_other_workers=True)
        assert list(cluster.running) == ["x"]

    def test_a_task_of_which_a_dependency_was_unknown_never_runs_without_it(self):
        cluster = Cluster(hosts=1, workers=1)
        client, other = cluster.add_client("one"), cluster.add_client("other")
        cluster.submit(client, {"known": (), "x": ["known", "gone"], "y": ["x"]})
        assert "x" not in cluster.running
        cluster.release(client, "x")
        cluster.submit(other, {"z": ["x"]})
        cluster.catch_up()
        assert list(cluster.running) == ["known"]
        assert cluster.clients[other]["z"] == "erred"
        assert "'x' depends on 'gone'" in cluster.reasons["z"]

    def test_so_is_one_for_a_worker_that_lacks_what_the_task_needs(self):
        cluster = Cluster(hosts=1, workers=1)
        client = cluster.add_client()
        (named,) = cluster.state.workers
        able = cluster.add_worker(cluster.add_host(), resources={"GPU": 1})
        cluster.submit(client, {"x": ()}, workers=[named], resources={"GPU": 1}, allow_other_workers=True)
        assert cluster.running == {"x": able}


class TestNoWorker:
    def test_tasks_wait_for_workers_to_come(self):
        cluster = Cluster()
        client = cluster.add_client()
        cluster.submit(client, {"x": ()})
        assert cluster.state.tasks["x"].state == "no-worker"
        cluster.add_worker(cluster.add_host())
        assert list(cluster.running) == ["x"]

    def test_and_fail_when_none_comes(self):
        cluster = Cluster(no_worker_timeout=5.0)
        client = cluster.add_client()
        cluster.submit(client, {"x": (), "y": ["x"]})
        assert cluster.state.next_deadline == WARNING_SECONDS
        cluster.now = WARNING_SECONDS
        cluster.handle(events.TimePassed())
        assert cluster.state.next_deadline == 5.0
        cluster.now = 5.0
        cluster.handle(events.TimePassed())
        assert isinstance(error_of(cluster, "y"), NoWorkerError)
        assert "holdfast start" in cluster.reasons["x"]
        assert cluster.state.next_deadline is None

    def test_a_name_that_no_worker_has(self):
        cluster = Cluster(hosts=1, workers=1, no_worker_timeout=5.0)
        client = cluster.add_client()
        cluster.submit(client, {"x": ()}, workers=["alice"])
        cluster.now = 6.0
        cluster.handle(events.TimePassed())
        assert "for a worker called alice, and there is none; there are 1/1: name one" in cluster.reasons["x"]

    def test_more_than_any_worker_has(self):
        cluster = Cluster(hosts=1, no_worker_timeout=5.0)
        cluster.add_worker("tcp://host0:1", resources={"memory": 8e9})
        client = cluster.add_client()
        cluster.submit(client, {"x": ()}, resources={"memory": 64e9})
        cluster.now = 6.0
        cluster.handle(events.TimePassed())
        assert "6.4e+10 memory" in cluster.reasons["x"]
        assert "8e+09 memory" in cluster.reasons["x"]

    def test_a_place_for_a_worker_is_waited_for_however_long_it_takes(self):
        cluster = Cluster(no_worker_timeout=5.0)
        client = cluster.add_client()
        cluster.submit(client, {"early": ()})
        host = cluster.add_host(places=1)
        cluster.submit(client, {"x": ()})
        cluster.submit(client, {"named": ()}, workers=["host0-place0"])
        assert {task.state for task in cluster.state.tasks.values()} == {"ready"}
        cluster.now = 100.0
        cluster.handle(events.TimePassed())
        worker = cluster.add_worker(host)
        assert list(cluster.running) == ["early"]
        cluster.remove_worker(worker)
        assert {task.state for task in cluster.state.tasks.values()} == {"ready"}
        assert cluster.state.next_deadline is None

    def test_but_not_one_that_no_task_could_run_in(self):
        cluster = Cluster(no_worker_timeout=5.0)
        client = cluster.add_client()
        cluster.add_host(places=1, resources={"GPU": 1})
        cluster.submit(client, {"fits": ()}, resources={"GPU": 1})
        cluster.submit(client, {"much": ()}, resources={"GPU": 2})
        cluster.submit(client, {"elsewhere": ()}, workers=["alice"])
        cluster.submit(client, {"anywhere": ()}, workers=["alice"], allow_other_workers=True)
        cluster.now = 5.0
        cluster.handle(events.TimePassed())
        states = {key: task.state for key, task in cluster.state.tasks.items()}
        assert states == {"fits": "ready", "much": "erred", "elsewhere": "erred", "anywhere": "ready"}
        assert "the most that one has: 1 GPU" in cluster.reasons["much"]
        assert "there are host0-place0" in cluster.reasons["elsewhere"]

    def test_nor_one_whose_host_has_gone(self):
        cluster = Cluster(no_worker_timeout=5.0)
        client = cluster.add_client()
        host = cluster.add_host(places=1)
        cluster.submit(client, {"x": ()})
        cluster.now = 100.0
        cluster.remove_host(host)
        assert cluster.state.next_deadline == 100.0 + WARNING_SECONDS
        cluster.now = 105.0
        cluster.handle(events.TimePassed())
        assert isinstance(error_of(cluster, "x"), NoWorkerError)

    def test_clients_are_told_once_for_each_thing_that_is_lacking(self):
        cluster = Cluster(hosts=1, workers=1)
        one, other, stranger = map(cluster.add_client, ("one", "other", "stranger"))
        cluster.submit(one, {("x", i): () for i in range(3)}, workers=["alice"])
        cluster.submit(one, {"wide": ()}, resources={"GPU": 1})
        cluster.submit(other, {"deep": (), "top": ["deep"]}, wants=["top"], workers=["alice"])
        cluster.submit(other, {"wish": ()}, workers=["alice"], allow_other_workers=True)
        cluster.submit(stranger, {"fine": ()})
        assert cluster.warnings == {}
        cluster.now = cluster.state.next_deadline
        cluster.handle(events.TimePassed())
        named, wide = cluster.warnings.pop(one)
        assert named.startswith(
            "('x', 0) and 3 more tasks wait for a worker called alice, and there is none; there are"
        )
        assert wide.startswith("'wide' waits for a worker with 1 GPU, and there is none; the most that one has: 0 GPU")
        (deep,) = cluster.warnings.pop(other)
        assert deep.startswith("'deep' and 3 more tasks wait for a worker called alice")
        assert cluster.warnings == {}
        cluster.now += 1.0
        cluster.submit(one, {"more": ()}, workers=["alice"])
        cluster.submit(other, {"another": ()}, workers=["bob"])
        due = cluster.state.next_deadline
        assert due == cluster.now - 1.0 + WARNING_SECONDS
        cluster.now = due
        cluster.handle(events.TimePassed())
        assert cluster.warnings == {}, "it is too early, and looked for again later"
        cluster.now = cluster.state.next_deadline
        cluster.handle(events.TimePassed())
        assert list(cluster.warnings) == [other]
        assert "called bob" in cluster.warnings[other][0]

    def test_the_last_worker_leaves(self):
        cluster = Cluster(hosts=1, workers=1)
        client = cluster.add_client()
        cluster.submit(client, dict.fromkeys(range(3), ()))
        cluster.remove_worker(next(iter(cluster.runs)))
        assert {task.state for task in cluster.state.tasks.values()} == {"no-worker"}
        cluster.add_worker("tcp://host0:1")
        cluster.run_all()
        assert set(cluster.clients[client].values()) == {"memory"}


class TestFailures:
    def test_runs_of_a_dead_worker_run_elsewhere_and_its_results_stay(self):
        cluster = Cluster(hosts=1, workers=2)
        client = cluster.add_client()
        cluster.submit(client, {"a": (), "b": ()})
        worker, _ = cluster.entry("b")
        cluster.finish("a")
        cluster.remove_worker(cluster.entry("b")[0])
        assert cluster.running["b"] != worker
        assert cluster.clients[client]["a"] == "memory"

    def test_a_task_that_kills_workers_is_given_up_but_not_those_that_waited_behind_it(self):
        cluster = Cluster(hosts=1)
        client = cluster.add_client()
        cluster.submit(client, {("t", 0): ()})
        cluster.add_worker("tcp://host0:1")
        cluster.finish(("t", 0), seconds=0.0001)  # so that the next ones are sent ahead
        cluster.submit(client, {("t", i): () for i in range(1, 20)})
        for _ in range(3):
            cluster.remove_worker(next(iter(cluster.runs)))
            cluster.add_worker("tcp://host0:1")
        erred = [key for key, state in cluster.clients[client].items() if state == "erred"]
        assert erred == [("t", 1)]
        assert isinstance(error_of(cluster, ("t", 1)), KilledWorker)
        cluster.run_all()
        assert set(cluster.clients[client].values()) == {"memory", "erred"}

    def test_a_task_that_has_had_a_result_has_killed_nobody(self):
        cluster = Cluster(hosts=1)
        client = cluster.add_client()
        cluster.submit(client, {"x": ()})
        for _ in range(4):  # it is made again whenever its host dies
            for _ in range(2):  # and of each of these workers it may be thought that it has killed it
                worker = cluster.add_worker(next(iter(cluster.state.hosts)))
                assert list(cluster.running) == ["x"]
                cluster.remove_worker(worker)
            cluster.add_worker(next(iter(cluster.state.hosts)))
            cluster.finish("x")
            cluster.remove_host(next(iter(cluster.state.hosts)))
            cluster.add_host()
        assert cluster.clients[client] == {"x": "pending"}

    def test_what_a_dead_host_held_is_computed_again(self):
        cluster = Cluster(hosts=2, workers=1)
        client = cluster.add_client()
        cluster.submit(client, {"a": (), "b": ["a"], "c": ["b"]}, wants=["b", "c"])
        cluster.finish("a")
        cluster.finish("b")
        host = cluster.entry("c")[0].rpartition("/")[0]
        cluster.remove_host(host)
        assert cluster.clients[client]["b"] == "pending"
        cluster.run_all()
        assert cluster.clients[client] == {"b": "memory", "c": "memory"}

    def test_copies_and_small_results_outlive_a_host(self):
        cluster = Cluster(hosts=2, workers=1)
        client = cluster.add_client()
        cluster.scatter(client, "large", "tcp://host0:1")
        cluster.scatter(client, "small", "tcp://host0:1", inline=b"value")
        cluster.copy("large", "tcp://host1:1")
        cluster.remove_host("tcp://host0:1")
        assert cluster.clients[client] == {"large": "memory", "small": "memory"}

    def test_scattered_data_that_is_lost_is_an_error_that_names_it(self):
        cluster = Cluster(hosts=2, workers=1)
        client = cluster.add_client()
        cluster.scatter(client, "data", "tcp://host0:1")
        cluster.submit(client, {"use": ["data"]})
        cluster.remove_host("tcp://host0:1")
        assert cluster.clients[client] == {"data": "erred", "use": "erred"}
        assert isinstance(error_of(cluster, "data"), ObjectLostError)
        assert "'data'" in cluster.reasons["use"]

    def test_a_missing_dependency_is_tried_again_and_then_computed_again(self):
        cluster = Cluster(hosts=2, workers=1)
        client = cluster.add_client()
        cluster.submit(client, {"a": (), "b": ["a"]}, wants=["b"])
        cluster.finish("a")
        for _ in range(3):
            assert "a" not in cluster.running
            cluster.miss("b")
        assert "a" in cluster.running
        cluster.run_all()
        assert cluster.clients[client] == {"b": "memory"}
        assert sum(map(len, cluster.stores.values())) == 1

    def test_missing_data_that_cannot_be_made_again_fails_its_reader_and_stays(self):
        cluster = Cluster(hosts=1, workers=1)
        client = cluster.add_client()
        cluster.scatter(client, "data", "tcp://host0:1")
        cluster.submit(client, {"use": ["data"]})
        for _ in range(3):
            cluster.miss("use")
        assert cluster.clients[client] == {"data": "memory", "use": "erred"}

    def test_a_client_that_misses_a_result_is_told_again_and_then_it_is_computed_again(self):
        cluster = Cluster(hosts=1, workers=1)
        client = cluster.add_client()
        cluster.submit(client, {"x": ()})
        object_id = cluster.finish("x")
        for expected in ("memory", "memory", "pending"):
            cluster.clients[client]["x"] = "?"
            cluster.handle(events.ResultsMissing(client, [("x", object_id, "tcp://host0:1")]))
            assert cluster.clients[client]["x"] == expected


class TestCancel:
    def test_dependents_go_too(self):
        cluster = Cluster(hosts=1, workers=1)
        client = cluster.add_client()
        cluster.submit(client, {"a": (), "b": ["a"], "c": ["b"], "d": ()})
        cluster.handle(events.KeysCancelled(client, ["a"], False))
        assert cluster.clients[client] == {"a": "cancelled", "b": "cancelled", "c": "cancelled", "d": "pending"}
        assert list(cluster.state.tasks) == ["d"]

    def test_what_others_hold_stays_unless_forced(self):
        cluster = Cluster(hosts=1, workers=1)
        one, two = cluster.add_client("one"), cluster.add_client("two")
        cluster.submit(one, {"x": ()})
        cluster.submit(two, {"x": ()})
        cluster.handle(events.KeysCancelled(one, ["x"], False))
        assert cluster.clients == {"one": {"x": "cancelled"}, "two": {"x": "pending"}}
        cluster.handle(events.KeysCancelled(one, ["x"], True))
        assert cluster.clients["two"] == {"x": "cancelled"}
        assert not cluster.state.tasks

    def test_what_is_published_stays_even_then(self):
        cluster = Cluster(hosts=1, workers=1)
        client = cluster.add_client()
        cluster.submit(client, {"x": ()})
        cluster.publish(client, 1, "flights", ["x"])
        cluster.handle(events.KeysCancelled(client, ["x"], True))
        assert cluster.clients[client] == {"x": "cancelled"}
        cluster.finish("x")
        cluster.get_dataset(client, 2, "flights")
        assert cluster.clients[client] == {"x": "memory"}


class TestDatasets:
    def publish(self, cluster, client, name="flights", keys=("x",), override=False):
        cluster.publish(client, 1, name, keys, override=override)
        return cluster.replies[-1]

    def test_a_dataset_outlives_its_client_and_feeds_others(self):
        cluster = Cluster(hosts=1, workers=1)
        one, two = cluster.add_client("one"), cluster.add_client("two")
        cluster.submit(one, {"x": ()})
        assert self.publish(cluster, one).ok
        cluster.remove_client(one)
        cluster.finish("x")
        cluster.get_dataset(two, 7, "flights")
        assert cluster.replies[-1] == to_do.Reply("two", 7, True, {"data": b"data", "keys": ["x"], "about": {}})
        assert cluster.clients[two] == {"x": "memory"}
        cluster.unpublish(two, 8, "flights")
        assert "x" in cluster.state.tasks  # `two` holds it since it got the dataset
        cluster.release(two, "x")
        assert not cluster.state.tasks

    def test_a_taken_name(self):
        cluster = Cluster(hosts=1, workers=1)
        client = cluster.add_client()
        cluster.submit(client, {"x": (), "y": ()})
        self.publish(cluster, client)
        reply = self.publish(cluster, client, keys=("y",))
        assert not reply.ok
        assert reply.value[0] == "DatasetExistsError"
        assert self.publish(cluster, client, keys=("y",), override=True).ok
        cluster.release(client, "x", "y")
        assert list(cluster.state.tasks) == ["y"]

    def test_an_unknown_name_lists_those_there_are(self):
        cluster = Cluster()
        client = cluster.add_client()
        self.publish(cluster, client, keys=())
        cluster.get_dataset(client, 2, "fligths")
        assert cluster.replies[-1].value == [
            "DatasetNotFoundError",
            "no dataset 'fligths' is published; there are 'flights'",
        ]

    def test_keys_that_are_gone(self):
        cluster = Cluster()
        client = cluster.add_client()
        assert self.publish(cluster, client).value[0] == "CancelledError"


def test_every_state_can_be_left_and_reached():
    for state in STATES:
        assert state == "forgotten" or any(before == state for before, _ in TRANSITIONS)
        assert state == FIRST or any(after == state for _, after in TRANSITIONS)


def test_a_hundred_thousand_tasks_deep_chain_is_submitted_failed_and_forgotten_without_recursion():
    from holdfast.cluster.scheduler.machine.machine import SchedulerState

    state = SchedulerState()
    state.handle(events.ClientJoined("c", "c"), 0.0)
    tasks = [(i, None, b"", (i - 1,) if i else ()) for i in range(100_000)]
    state.handle(events.TasksSubmitted("c", tasks, [99_999], {}), 0.0)
    while state.life.follow_up.has_more:
        state.handle(events.TimePassed(), 0.0)
    state.handle(events.TimePassed(), 1e9)
    while state.life.follow_up.has_more:
        state.handle(events.TimePassed(), 1e9)
    assert state.tasks[99_999].state == "erred"
    state.handle(events.KeysReleased("c", [99_999]), 1e9)
    while state.life.follow_up.has_more:
        state.handle(events.TimePassed(), 1e9)
    assert not state.tasks


# -- lines


def known_short(cluster, client):
    """The length of the tasks that are submitted later is known, and short."""
    cluster.submit(client, {"short": ()})
    cluster.finish("short", seconds=0.001)


def test_a_short_task_is_lined_up_behind_the_run_that_it_waits_for():
    cluster = Cluster(hosts=1, workers=2)
    client = cluster.add_client()
    known_short(cluster, client)
    cluster.submit(client, {"a": (), "b": ["a"], "c": ["b"], "d": ["c"]}, ["d"])
    worker, entry = cluster.entry("a")
    assert cluster.running == dict.fromkeys("abcd", worker)
    assert list(cluster.entry("b")[1][4]) == [("a", entry[1], None, ())]
    for key in "abcd":
        assert cluster.startable == [key]
        cluster.finish(key, seconds=0.001)
    assert cluster.clients[client]["d"] == "memory"
    assert cluster.stores["tcp://host0:1"] == {cluster.state.tasks[key].object_id for key in ("short", "d")}


def test_what_comes_while_it_runs_is_lined_up_too():
    cluster = Cluster(hosts=1, workers=2)
    client = cluster.add_client()
    known_short(cluster, client)
    cluster.submit(client, {"a": ()})
    for key, before in ("ba", "cb"):
        cluster.submit(client, {key: [before]})
    assert set(cluster.running) == {"a", "b", "c"}


def test_no_more_are_lined_up_than_run_in_a_moment_and_the_line_goes_on():
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    known_short(cluster, client)
    cluster.submit(client, {i: [i - 1] if i else () for i in range(100)}, [99])
    sent_ahead = len(cluster.running)
    assert 8 <= sent_ahead <= 10, "of a millisecond each"
    for i in range(50):
        cluster.finish(i, seconds=0.001)
        assert len(cluster.running) == sent_ahead
    cluster.run_all()
    assert cluster.clients[client][99] == "memory"


def test_nothing_is_lined_up_behind_long_or_unknown_tasks_or_where_others_could_run_it_sooner():
    cluster = Cluster(hosts=1, workers=2)
    client = cluster.add_client()
    cluster.submit(client, {"a": (), "b": ["a"]})
    assert set(cluster.running) == {"a"}, "nobody knows how long it takes"
    cluster.finish("a", seconds=1.0)
    cluster.finish("b", seconds=1.0)
    cluster.submit(client, {"c": (), "d": ["c"]})
    assert set(cluster.running) == {"c"}, "it takes long"
    cluster.finish("c", seconds=1.0)
    cluster.finish("d", seconds=1.0)
    for _ in range(40):
        known_short(cluster, client)
        cluster.release(client, "short")
    cluster.submit(client, {"e": (), "f": ["e"], "g": ["e"]})
    assert set(cluster.running) == {"e"}, "two can run side by side"
    cluster.finish("e", seconds=0.001)
    assert len(set(cluster.running.values())) == 2


def test_a_line_ends_where_one_may_not_run():
    cluster = Cluster(hosts=2, workers=1)
    client = cluster.add_client()
    known_short(cluster, client)
    cluster.submit(client, {"a": ()})
    host = cluster.entry("a")[0].rpartition("/")[0]
    (other,) = {"tcp://host0:1", "tcp://host1:1"} - {host}
    cluster.submit(client, {"b": ["a"]}, workers=[other])
    assert set(cluster.running) == {"a"}
    cluster.scatter(client, "far", other)
    cluster.submit(client, {"x": ()}, workers=[host])
    cluster.submit(client, {"y": ["x", "far"]})
    assert "y" not in cluster.running, "what it reads besides lies elsewhere"


@pytest.mark.parametrize("retries", [0, 1])
def test_a_line_whose_first_fails_fails_or_is_made_again(retries):
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    known_short(cluster, client)
    cluster.submit(client, {"a": (), "b": ["a"], "c": ["b"]}, retries=retries)
    assert len(cluster.running) == 3
    cluster.err("a")
    if retries:
        cluster.run_all()
        assert [cluster.clients[client][key] for key in "abc"] == ["memory"] * 3
    else:
        assert [cluster.clients[client][key] for key in "abc"] == ["erred"] * 3
        cluster.drop_all()
        assert not cluster.running


def test_a_line_whose_worker_dies_is_made_again():
    cluster = Cluster(hosts=1, workers=2)
    client = cluster.add_client()
    known_short(cluster, client)
    cluster.submit(client, {"a": (), "b": ["a"], "c": ["b"]})
    cluster.remove_worker(cluster.entry("a")[0])
    assert set(cluster.running) == {"a", "b", "c"}
    cluster.run_all()
    assert [cluster.clients[client][key] for key in "abc"] == ["memory"] * 3


def test_a_line_fails_with_the_task_that_kills_its_workers():
    cluster = Cluster(hosts=1, workers=4)
    client = cluster.add_client()
    known_short(cluster, client)
    cluster.submit(client, {"a": (), "b": ["a"], "c": ["b"]})
    for _ in range(3):
        cluster.remove_worker(cluster.entry("a")[0])
    assert [type(error_of(cluster, key)) for key in "abc"] == [KilledWorker] * 3


def test_a_result_of_the_first_one_that_comes_back_with_its_host_sets_the_others_free():
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    known_short(cluster, client)
    cluster.submit(client, {"a": ()})
    cluster.finish("a")
    cluster.cut_off_host("tcp://host0:1")
    cluster.add_worker(cluster.add_host())
    cluster.submit(client, {"b": ["a"]})
    assert "b" in cluster.running
    cluster.join_again("tcp://host0:1")
    cluster.drop_all()
    ((key, object_id, *_),) = cluster.entry("b")[1][4]
    assert (key, object_id) == ("a", cluster.state.tasks["a"].object_id)
    cluster.run_all()
    assert cluster.clients[client]["b"] == "memory"


def test_a_line_that_nobody_wants_is_dropped():
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    known_short(cluster, client)
    cluster.submit(client, {"a": (), "b": ["a"], "c": ["b"]}, ["c"])
    cluster.release(client, "c")
    cluster.drop_all()
    assert not cluster.running
    assert set(cluster.state.tasks) == {"short"}
