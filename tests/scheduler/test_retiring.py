"""Workers that are to go get nothing new, and what only their hosts have is elsewhere before these go."""

from __future__ import annotations

import pytest
from scheduler_harness import LARGE, Cluster, pass_time_in_steps

from holdfast.cluster.protocol import requests
from holdfast.cluster.scheduler.parts import carrying, evacuating
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.instructions import Answer

ONE, TWO, THREE = "tcp://host0:1", "tcp://host1:1", "tcp://host2:1"


@pytest.fixture
def cluster():
    cluster = Cluster(hosts=2, workers=2)
    cluster.add_client("client")
    return cluster


def workers_of(cluster, host):
    return [worker.address for worker in cluster.state.hosts[host].workers]


def retire(cluster, *names, request=7, **options):
    cluster.request("client", request, requests.RETIRE_WORKERS(workers=list(names), **options))


def answer(cluster, request=7):
    reply = cluster.answer_of("client", request)
    return None if reply is None else (reply.ok, reply.value)


def end_workers(cluster):
    """Nodes end the workers that they were told to end."""
    ending, cluster.ending = cluster.ending, []
    for worker, _ in ending:
        if worker in cluster.runs:
            cluster.remove_worker(worker, parted_first=True)


def close_hosts(cluster):
    closing, cluster.closing = cluster.closing, []
    for host in closing:
        cluster.remove_host(host)


def where(cluster, key):
    return {host.address for host in cluster.state.tasks[key].where}


class TestWorkers:
    def test_an_idle_one_ends_at_once_and_its_host_stays(self, cluster):
        worker, other = workers_of(cluster, ONE)
        retire(cluster, worker)
        assert cluster.ending == [(worker, False)]
        assert answer(cluster) is None
        end_workers(cluster)
        ok, value = answer(cluster)
        assert ok
        assert list(value) == [worker]
        assert value[worker]["node"] == ONE
        assert workers_of(cluster, ONE) == [other]
        assert not cluster.closing

    def test_it_gets_nothing_to_run_and_what_it_runs_ends(self, cluster):
        worker, _ = workers_of(cluster, ONE)
        cluster.submit("client", {"x": []}, workers=[worker])
        retire(cluster, worker)
        cluster.submit("client", {f"y{n}": [] for n in range(20)})
        assert {key: w for key, w in cluster.running.items() if w == worker} == {"x": worker}
        pass_time_in_steps(cluster, 5.0)
        assert not cluster.ending, "it still runs something"
        cluster.finish("x")
        pass_time_in_steps(cluster, 1.0)
        assert cluster.ending == [(worker, False)]

    def test_what_it_was_sent_and_has_not_begun_runs_elsewhere(self, cluster):
        for host in (ONE, TWO):
            for worker in workers_of(cluster, host)[1:]:
                cluster.remove_worker(worker)
        (worker,) = workers_of(cluster, ONE)
        cluster.submit("client", {"first": []})
        cluster.finish("first", seconds=0.0001)
        cluster.submit("client", {f"x{n}": [] for n in range(8)})
        mine = [key for key, w in cluster.running.items() if w == worker]
        assert len(mine) > 1
        cluster.begin(mine[0])
        retire(cluster, worker)
        cluster.drop_all()
        assert [key for key, w in cluster.running.items() if w == worker] == [mine[0]]

    def test_what_still_runs_when_its_time_is_over_runs_elsewhere_and_is_charged_for_nothing(self, cluster):
        worker, _ = workers_of(cluster, ONE)
        cluster.submit("client", {"x": []}, workers=[worker], allow_other_workers=True)
        cluster.begin("x")
        retire(cluster, worker, grace=3.0)
        pass_time_in_steps(cluster, 2.9)
        assert not cluster.ending
        pass_time_in_steps(cluster, 0.2)
        end_workers(cluster)
        task = cluster.state.tasks["x"]
        assert (task.failures, task.suspected, task.isolation) == (0, 0, 0)
        assert task.worker is not None
        assert task.worker.address != worker
        assert answer(cluster)[0]

    def test_one_that_crashes_while_it_drains_is_charged_for_and_its_successor_is_barred(self, cluster):
        worker, _ = workers_of(cluster, ONE)
        cluster.submit("client", {"x": []}, workers=[worker])
        cluster.begin("x")
        retire(cluster, worker)
        cluster.remove_worker(worker, running=["x"], crashed="x", parted_first=True)
        assert cluster.state.tasks["x"].failures == 1
        pass_time_in_steps(cluster, 1.0)
        assert answer(cluster)[0], "none of them is there any more"
        assert cluster.ending == [(worker, False)], "its node starts no other one"

    def test_those_that_are_named_by_their_host(self, cluster):
        retire(cluster, "host0")
        assert sorted(cluster.ending) == sorted((worker, False) for worker in workers_of(cluster, ONE))

    def test_an_unknown_name_is_refused_and_nothing_is_closed(self, cluster):
        retire(cluster, "nobody", *workers_of(cluster, ONE))
        ok, (error, text) = answer(cluster)
        assert (ok, error) == (False, "NoWorkerError")
        assert "'nobody'" in text
        assert not cluster.ending

    def test_none_is_answered_at_once(self, cluster):
        retire(cluster)
        assert answer(cluster) == (True, {})

    def test_one_that_is_being_retired_is_not_retired_twice(self, cluster):
        worker, _ = workers_of(cluster, ONE)
        cluster.submit("client", {"x": []}, workers=[worker])
        retire(cluster, worker)
        retire(cluster, worker, request=8)
        assert answer(cluster, 8)[1][0] == "ValueError"

    def test_they_stay_and_take_no_tasks_if_they_are_not_to_be_closed(self, cluster):
        cluster.scatter("client", "x", ONE)
        retire(cluster, "host0", close_workers=False)
        assert answer(cluster) is None
        cluster.bring_copies()
        assert answer(cluster)[0]
        assert where(cluster, "x") == {ONE, TWO}
        assert not cluster.ending
        cluster.submit("client", {f"y{n}": [] for n in range(20)})
        assert all(worker.startswith(TWO) for worker in cluster.running.values())
        retire(cluster, "host0", request=8)
        end_workers(cluster)
        close_hosts(cluster)
        assert answer(cluster, 8)[0]

    def test_the_answer_need_not_wait_for_their_end(self, cluster):
        retire(cluster, "host0", awaits_end=False)
        assert answer(cluster)[0]
        end_workers(cluster)
        assert cluster.closing == [ONE]

    def test_a_task_that_names_it_waits_while_it_may_stay_and_is_told_when_it_may_not(self, cluster):
        worker, _ = workers_of(cluster, ONE)
        cluster.submit("client", {"runs": []}, workers=[worker])
        cluster.begin("runs")
        retire(cluster, worker)
        cluster.submit("client", {"x": []}, workers=[worker])
        assert cluster.state.tasks["x"].state == "ready"
        cluster.finish("runs")
        pass_time_in_steps(cluster, 1.0)
        assert cluster.ending == [(worker, False)]
        assert cluster.state.tasks["x"].state == "no-worker"

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_task_that_names_one_that_stays_fails_and_the_error_says_so(self, cluster, when):
        worker, _ = workers_of(cluster, ONE)
        name = cluster.state.workers[worker].name
        if when == "after":
            retire(cluster, worker, close_workers=False)
        cluster.submit("client", {"x": [], "y": []}, workers=[worker])
        if when == "before":
            cluster.begin("x")
            retire(cluster, worker, close_workers=False)
            cluster.drop_all()
            cluster.finish("x")
            pass_time_in_steps(cluster, 1.0)
        assert answer(cluster)[0]
        assert cluster.state.tasks["y"].state == "no-worker"
        pass_time_in_steps(cluster, 5.0)
        (warning,) = cluster.warnings["client"]
        assert f"for the worker {name}, which was retired and takes no tasks any more" in warning
        assert "Client.restart_workers()" in warning
        pass_time_in_steps(cluster, 30.0)
        assert cluster.clients["client"]["y"] == "erred"
        assert "which was retired" in cluster.reasons["y"]

    def test_one_that_is_restarted_takes_tasks_again(self, cluster):
        worker, _ = workers_of(cluster, ONE)
        cluster.handle(events.PlacesChanged(ONE, [(worker, worker, 1, {})]))
        retire(cluster, worker, close_workers=False)
        cluster.submit("client", {"x": []}, workers=[worker])
        assert cluster.state.tasks["x"].state == "no-worker", "its place counts no more than it does itself"
        cluster.request("client", 8, requests.RESTART_WORKERS(workers=[worker]))
        cluster.remove_worker(worker, parted_first=True)
        cluster.add_worker(ONE, address=worker)
        assert cluster.running == {"x": worker}

    def test_the_others_of_a_host_that_was_named_do(self, cluster):
        worker, other = workers_of(cluster, ONE)
        retire(cluster, worker, close_workers=False)
        cluster.submit("client", {"x": []}, workers=["host0"])
        assert cluster.running == {"x": other}

    def test_a_task_that_prefers_it_goes_to_others(self, cluster):
        worker, _ = workers_of(cluster, ONE)
        retire(cluster, worker, close_workers=False)
        cluster.submit("client", {"x": []}, workers=[worker], allow_other_workers=True)
        assert cluster.running["x"] != worker


class TestHosts:
    def test_what_only_it_has_moves_before_it_goes(self, cluster):
        for n in range(5):
            cluster.scatter("client", f"x{n}", ONE)
        cluster.submit("client", {"y": ["x0"]})
        cluster.finish("y")
        retire(cluster, "host0")
        assert {host for host, _ in cluster.copying} == {TWO}
        assert cluster.nodes["client"] == {TWO}, "clients don't write there any more"
        assert not cluster.ending
        while cluster.bring_copies():
            pass
        end_workers(cluster)
        assert cluster.closing == [ONE]
        assert answer(cluster) is None
        close_hosts(cluster)
        assert answer(cluster)[0]
        assert all(where(cluster, f"x{n}") == {TWO} for n in range(5))
        assert all(task.state == "memory" for task in cluster.state.tasks.values())

    def test_small_results_need_not(self, cluster):
        cluster.scatter("client", "x", ONE, inline=b"small")
        retire(cluster, "host0")
        assert not cluster.copying
        end_workers(cluster)
        close_hosts(cluster)
        assert cluster.state.tasks["x"].state == "memory"
        assert answer(cluster)[0]

    def test_large_exceptions_do(self, cluster):
        worker = workers_of(cluster, ONE)[0]
        cluster.submit("client", {"x": []}, workers=[worker])
        _, entry = cluster.startable_entry("x")
        del cluster.runs[worker][entry[1]]
        object_id = cluster.new_object()
        cluster.stores[ONE].add(object_id)
        cluster.handle(events.TasksErred(worker, [(entry[6], entry[1], (object_id, 100_000), "it failed", 0.1)]))
        retire(cluster, "host0")
        assert cluster.copying == [(TWO, object_id)]
        cluster.bring_copies()
        end_workers(cluster)
        close_hosts(cluster)
        assert [host.address for host in cluster.state.tasks["x"].error.where] == [TWO]

    def test_what_a_run_has_stored_until_its_worker_ended_moves_too(self, cluster):
        worker, _ = workers_of(cluster, ONE)
        cluster.submit("client", {"x": []}, workers=[worker])
        cluster.begin("x")
        retire(cluster, "host0", grace=1.0)
        pass_time_in_steps(cluster, 1.1)
        assert len(cluster.ending) == 2
        cluster.finish("x")
        end_workers(cluster)
        assert not cluster.closing
        cluster.bring_copies()
        assert cluster.closing == [ONE]
        close_hosts(cluster)
        assert where(cluster, "x") == {TWO}
        assert answer(cluster)[0]

    def test_what_is_published_keeps_its_two_copies(self, cluster):
        third = cluster.add_host()
        cluster.scatter("client", "x", ONE)
        cluster.copy("x", TWO)
        cluster.publish("client", 6, "data", ["x"])
        retire(cluster, "host0")
        cluster.bring_copies()
        assert where(cluster, "x") == {ONE, TWO, third}
        end_workers(cluster)
        close_hosts(cluster)
        assert where(cluster, "x") == {TWO, third}

    def test_one_with_a_place_for_another_worker_stays(self):
        cluster = Cluster()
        cluster.add_client()
        host = cluster.add_host(places=1)
        cluster.add_host()
        worker = cluster.add_worker(host)
        cluster.scatter("client", "x", host)
        retire(cluster, worker)
        assert not cluster.copying
        end_workers(cluster)
        assert answer(cluster)[0]
        assert not cluster.closing

    def test_it_stays_if_it_is_to(self, cluster):
        cluster.scatter("client", "x", ONE)
        retire(cluster, "host0", close_hosts=False)
        end_workers(cluster)
        assert answer(cluster)[0]
        assert not cluster.closing
        assert where(cluster, "x") == {ONE}

    def test_it_stays_when_a_worker_has_come_to_it(self, cluster):
        cluster.scatter("client", "x", ONE)
        retire(cluster, "host0")
        new = cluster.add_worker(ONE)
        cluster.bring_copies()
        end_workers(cluster)
        assert answer(cluster)[0]
        assert workers_of(cluster, ONE) == [new]
        assert not cluster.closing
        assert cluster.nodes["client"] == {ONE, TWO}

    def test_its_data_goes_to_the_hosts_with_most_room(self):
        cluster = Cluster(hosts=1, workers=1)
        cluster.add_client()
        small, large = cluster.add_host(capacity=3 * LARGE), cluster.add_host(capacity=50 * LARGE)
        for n in range(10):
            cluster.scatter("client", f"x{n}", ONE)
        retire(cluster, "host0")
        while cluster.bring_copies():
            pass
        assert all(where(cluster, f"x{n}") - {ONE} == {large} for n in range(10))
        assert small

    def test_hosts_that_go_together_take_nothing_of_each_other(self):
        cluster = Cluster(hosts=3, workers=1)
        cluster.add_client()
        for n, host in enumerate((ONE, TWO)):
            cluster.scatter("client", f"x{n}", host)
        retire(cluster, "host0", "host1")
        assert {host for host, _ in cluster.copying} == {THREE}
        cluster.bring_copies()
        end_workers(cluster)
        close_hosts(cluster)
        assert answer(cluster)[0]
        assert where(cluster, "x0") == where(cluster, "x1") == {THREE}


class TestWhatCanNotBeMoved:
    def refused(self, cluster):
        ok, (error, text) = answer(cluster)
        assert not ok
        assert not cluster.ending
        assert not any(worker.retiring for worker in cluster.state.workers.values())
        assert not any(host.leaving for host in cluster.state.hosts.values())
        cluster.submit("client", {f"after{n}": [] for n in range(8)})
        assert len(set(cluster.running.values())) == len(cluster.state.workers), "they take tasks again"
        return error, text

    def test_without_another_host(self):
        cluster = Cluster(hosts=1, workers=1)
        cluster.add_client()
        cluster.scatter("client", "x", ONE)
        retire(cluster, "host0")
        error, text = self.refused(cluster)
        assert error == "NotCopiedError"
        assert "'x'" in text
        assert evacuating.NO_OTHER_HOST in text

    def test_when_all_others_are_too_small(self):
        cluster = Cluster(hosts=1, workers=1)
        cluster.add_client()
        cluster.add_host(capacity=LARGE // 2)
        cluster.scatter("client", "x", ONE)
        retire(cluster, "host0")
        error, text = self.refused(cluster)
        assert error == "NotCopiedError"
        assert "no other host's store has more than 5,000,000 bytes" in text

    def test_when_all_others_say_that_they_can_not(self, cluster):
        cluster.add_host()
        cluster.scatter("client", "x", ONE)
        retire(cluster, "host0")
        assert cluster.bring_copies(reason="there is no room") == 1
        assert cluster.bring_copies(reason="there is no room") == 1
        error, text = self.refused(cluster)
        assert error == "NotCopiedError"
        assert "there is no room" in text
        assert cluster.nodes["client"] == {ONE, TWO, THREE}

    def test_when_the_last_other_host_dies(self, cluster):
        cluster.scatter("client", "x", ONE)
        retire(cluster, "host0")
        cluster.remove_host(TWO)
        assert self.refused(cluster)[0] == "NotCopiedError"
        assert where(cluster, "x") == {ONE}

    def test_when_the_time_is_over(self, cluster):
        cluster.scatter("client", "x", ONE)
        retire(cluster, "host0", timeout=5.0)
        pass_time_in_steps(cluster, 5.1)
        error, text = self.refused(cluster)
        assert error == "TimeoutError"
        assert "1 objects were to be moved" in text

    def test_when_the_client_leaves(self, cluster):
        cluster.scatter("client", "x", ONE)
        cluster.add_client("other")
        cluster.publish("other", 1, "data", ["x"])
        cluster.bring_copies()
        cluster.submit("client", {"y": []}, workers=["host0"])
        retire(cluster, "host0")
        cluster.remove_client("client")
        assert not any(worker.retiring for worker in cluster.state.workers.values())

    def test_what_comes_when_its_workers_have_ended_keeps_the_host(self):
        cluster = Cluster(hosts=1, workers=1)
        cluster.add_client()
        retire(cluster, "host0")
        cluster.scatter("client", "x", ONE)
        end_workers(cluster)
        ok, (error, text) = answer(cluster)
        assert (ok, error) == (False, "NotCopiedError")
        assert f"{ONE} stays" in text
        assert not cluster.closing
        assert where(cluster, "x") == {ONE}


class TestAHostThatDies:
    def test_and_was_to_go(self, cluster):
        cluster.scatter("client", "x", ONE)
        retire(cluster, "host0")
        cluster.remove_host(ONE)
        assert answer(cluster)[0], "it is gone"

    def test_that_was_to_take_its_data(self, cluster):
        third = cluster.add_host()
        for n in range(20):
            cluster.scatter("client", f"x{n}", ONE)
        retire(cluster, "host0")
        cluster.remove_host(TWO)
        while cluster.bring_copies():
            pass
        assert all(where(cluster, f"x{n}") == {ONE, third} for n in range(20))
        end_workers(cluster)
        close_hosts(cluster)
        assert answer(cluster)[0]

    def test_that_has_taken_some_of_it_already(self, cluster):
        third = cluster.add_host()
        for n in range(20):
            cluster.scatter("client", f"x{n}", ONE)
        retire(cluster, "host0")
        cluster.bring_copies()
        cluster.remove_host(TWO)
        while cluster.bring_copies():
            pass
        assert all(where(cluster, f"x{n}") == {ONE, third} for n in range(20)), "what it had was taken once more"


def test_few_are_brought_at_a_time(cluster):
    for n in range(100):
        cluster.scatter("client", f"x{n}", ONE)
    retire(cluster, "host0")
    most = 0
    while cluster.copying:
        most = max(most, len(cluster.copying))
        cluster.bring_copies()
    assert most == carrying.DELIVERIES_PER_HOST
    assert all(where(cluster, f"x{n}") == {ONE, TWO} for n in range(100))


def test_what_is_released_meanwhile_is_not_waited_for(cluster):
    for n in range(20):
        cluster.scatter("client", f"x{n}", ONE)
    retire(cluster, "host0")
    cluster.release("client", *(f"x{n}" for n in range(20)))
    cluster.catch_up()
    cluster.bring_copies()
    end_workers(cluster)
    close_hosts(cluster)
    assert answer(cluster)[0]
    assert not any(cluster.stores.values())


class TestWorkersToClose:
    def chosen(self, cluster, **options):
        number = cluster.new_number()
        cluster.open["client", number] = None
        cluster._apply(Answer("client", number, "workers-to-close", options))
        return cluster.answer_of("client", number).value

    def test_idle_ones_of_the_host_with_least_first(self, cluster):
        cluster.scatter("client", "x", ONE)
        assert self.chosen(cluster, n=2) == workers_of(cluster, TWO)
        assert self.chosen(cluster, target=1)[:2] == workers_of(cluster, TWO)

    def test_busy_ones_stay_unless_so_many_are_asked_for(self, cluster):
        cluster.submit("client", {f"x{n}": [] for n in range(4)})
        assert self.chosen(cluster) == []
        assert len(self.chosen(cluster, n=3)) == 3

    def test_there_is_to_be_room_for_the_data(self):
        cluster = Cluster()
        cluster.add_client()
        for _ in range(2):
            cluster.add_worker(cluster.add_host(capacity=10 * LARGE))
        assert len(self.chosen(cluster, minimum=1)) == 1
        for n in range(6):
            cluster.scatter("client", f"x{n}", ONE)
        assert self.chosen(cluster) == [], "there would not be room for twice as much"
        assert len(self.chosen(cluster, memory_ratio=1.0)) == 1

    def test_so_many_stay(self, cluster):
        assert len(self.chosen(cluster, minimum=3)) == 1

    def test_a_group_goes_together(self, cluster):
        groups = dict.fromkeys(cluster.state.workers, "all")
        assert self.chosen(cluster, n=3, groups=groups) == []
        assert len(self.chosen(cluster, n=4, groups=groups)) == 4
