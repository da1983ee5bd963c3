"""The two signs that a worker is gone, in either order, and what it has left in the store of its host."""

from __future__ import annotations

import pytest
from scheduler_harness import Cluster, pass_time

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.scheduler.machine.workers import EXIT_REASON_SECONDS
from holdfast.cluster.scheduler.tasks import events

HOST = "tcp://host0:1"


@pytest.fixture
def cluster():
    cluster = Cluster(hosts=1)
    cluster.add_client()
    return cluster


@pytest.fixture
def worker(cluster):
    address = cluster.add_worker(HOST)
    cluster.submit("client", {"x": []})
    return address


def failures(cluster):
    return cluster.state.tasks["x"].failures


@pytest.mark.parametrize("parted_first", [False, True])
def test_a_worker_is_gone_with_its_second_sign_and_it_is_known_how(cluster, worker, parted_first):
    cluster.begin("x")
    cluster.remove_worker(worker, ["x"], "x", parted_first=parted_first)
    assert worker not in cluster.state.workers
    assert failures(cluster) == 1
    assert cluster.exits == ([(HOST, worker)] if parted_first else [])
    pass_time(cluster, EXIT_REASON_SECONDS)
    assert cluster.disconnected == []


@pytest.mark.parametrize("running", [[], None])
def test_what_its_node_says_decides_what_is_charged(cluster, worker, running):
    cluster.remove_worker(worker, running)
    assert failures(cluster) == (0 if running == [] else 1)


def test_a_worker_that_has_parted_is_not_waited_for_when_its_node_says_nothing(cluster, worker):
    cluster.lose_worker(worker, is_explained=False)
    assert worker in cluster.state.workers
    assert cluster.exits == [(HOST, worker)]
    assert cluster.state.next_deadline == EXIT_REASON_SECONDS
    pass_time(cluster, EXIT_REASON_SECONDS)
    assert worker not in cluster.state.workers
    cluster.give_second_sign(worker)  # too late, and nothing comes of it


def test_a_worker_whose_process_has_ended_is_disconnected_if_its_connection_stays_open(cluster, worker):
    cluster.lose_worker(worker, is_explained=True)
    pass_time(cluster, EXIT_REASON_SECONDS / 2)
    assert cluster.disconnected == []
    pass_time(cluster, EXIT_REASON_SECONDS)
    assert cluster.disconnected == [worker]
    assert worker in cluster.state.workers
    cluster.give_second_sign(worker)
    assert worker not in cluster.state.workers


def test_a_successor_ends_the_departure(cluster, worker):
    cluster.lose_worker(worker, is_explained=False)
    before = cluster.state.workers[worker]
    cluster.runs[worker], cluster.dropped[worker] = {}, []
    del cluster.departing[worker]
    cluster.handle(events.WorkerJoined(worker, "w", HOST, 1, {}))
    assert cluster.state.workers[worker] is not before
    assert cluster.running == {"x": worker}
    pass_time(cluster, EXIT_REASON_SECONDS)
    assert worker in cluster.state.workers


def test_another_worker_at_the_address_of_one_that_is_connected_is_refused(cluster, worker):
    with pytest.raises(ProtocolError, match="already"):
        cluster.handle(events.WorkerJoined(worker, "w", HOST, 1, {}))
    cluster.lose_worker(worker, is_explained=True)
    with pytest.raises(ProtocolError, match="already"):
        cluster.handle(events.WorkerJoined(worker, "w", HOST, 1, {}))


@pytest.mark.parametrize("is_explained", [False, True])
def test_with_its_host_a_worker_is_gone_for_good(cluster, worker, is_explained):
    cluster.lose_worker(worker, is_explained=is_explained)
    cluster.remove_host(HOST)
    assert not cluster.state.workers
    pass_time(cluster, EXIT_REASON_SECONDS)
    assert cluster.disconnected == []


def test_signs_of_workers_that_are_not_there_change_nothing(cluster, worker):
    cluster.handle(events.WorkerParted(f"{HOST}/nobody", ""))
    cluster.handle(events.WorkerExited(HOST, f"{HOST}/nobody", ""))
    assert cluster.exits == []
    assert list(cluster.state.workers) == [worker]


def test_a_second_word_of_its_node_changes_nothing(cluster, worker):
    cluster.lose_worker(worker, is_explained=True)
    cluster.handle(cluster.exited(worker))
    assert worker in cluster.state.workers


@pytest.mark.parametrize("is_explained", [True, False])
def test_one_of_which_there_is_a_sign_that_it_is_gone_gets_nothing_to_run(cluster, worker, is_explained):
    cluster.lose_worker(worker, is_explained=is_explained)
    cluster.submit("client", {"y": []})
    assert cluster.state.tasks["y"].state == "ready"
    other = cluster.add_worker(HOST)
    assert cluster.running["y"] == other
    pass_time(cluster, EXIT_REASON_SECONDS)
    assert cluster.state.tasks["y"].failures == 0


def test_what_a_node_says_late_of_the_process_before_does_not_concern_its_successor(cluster, worker):
    exited = cluster.exited(worker)
    cluster.lose_worker(worker, is_explained=False)
    cluster.add_worker(HOST, address=worker)
    cluster.handle(exited)
    assert cluster.running == {"x": worker}
    pass_time(cluster, EXIT_REASON_SECONDS)
    assert cluster.disconnected == []
    assert cluster.running == {"x": worker}
    assert failures(cluster) == 1  # the run of the process that has died


class TestUnclaimed:
    def put(self, cluster):
        object_id = cluster.new_object()
        cluster.stores[HOST].add(object_id)
        cluster.nbytes[object_id] = 5
        return object_id

    def left(self, cluster, owner, *object_ids):
        worker = next((worker for worker in cluster.state.workers.values() if worker.name == owner), None)
        incarnation = None if worker is None else worker.incarnation
        cluster.handle(events.OwnerLeft(HOST, [{"id": object_id} for object_id in object_ids], owner, incarnation))

    def test_what_a_worker_has_not_told_of_goes_when_all_is_read_that_it_had_sent(self, cluster, worker):
        untold = self.put(cluster)
        name = cluster.state.workers[worker].name
        self.left(cluster, name, untold)
        assert untold in cluster.stores[HOST]
        cluster.lose_worker(worker, is_explained=True)
        assert untold in cluster.stores[HOST]
        cluster.give_second_sign(worker)
        assert untold not in cluster.stores[HOST]

    def test_what_is_told_in_between_stays(self, cluster, worker):
        object_id = cluster.new_object()
        name = cluster.state.workers[worker].name
        self.left(cluster, name, object_id)
        cluster._ids = iter([int.from_bytes(object_id, "big"), *range(1000, 2000)])
        assert cluster.finish("x") == object_id
        cluster.remove_worker(worker)
        assert object_id in cluster.stores[HOST]
        assert cluster.state.tasks["x"].object_id == object_id

    def test_what_the_process_before_has_left_does_not_wait_for_its_successor(self, cluster, worker):
        untold = self.put(cluster)
        before = cluster.state.workers[worker]
        cluster.lose_worker(worker, is_explained=False)
        cluster.add_worker(HOST, address=worker)
        cluster.handle(events.OwnerLeft(HOST, [{"id": untold}], before.name, before.incarnation))
        assert untold not in cluster.stores[HOST]

    def test_a_copy_that_was_to_be_deleted_does_not_count_since_its_maker_has_left(self, cluster, worker):
        """The word that it is to be deleted was on its way when the node has said what the worker had put there."""
        other = cluster.add_host()
        object_id = cluster.finish("x")
        cluster.copy("x", other)
        task = cluster.state.tasks["x"]
        cluster.state.life.results.forget_copy(task, cluster.state.hosts[HOST])
        self.left(cluster, cluster.state.workers[worker].name, object_id)
        cluster.remove_worker(worker)
        assert task.where == (cluster.state.hosts[other],)

    @pytest.mark.parametrize("sign", ["its node says so", "its connection has ended", "it has left the store"])
    def test_a_small_result_of_a_worker_that_is_about_to_be_gone_is_deleted_by_its_host(self, cluster, worker, sign):
        object_id = cluster.finish("x", inline=b"small")
        if sign == "it has left the store":
            self.left(cluster, cluster.state.workers[worker].name, object_id)
        else:
            cluster.lose_worker(worker, is_explained=sign == "its node says so")
        cluster.release("client", "x")
        assert object_id not in cluster.stores[HOST]

    def test_of_an_owner_that_is_not_there_nothing_is_kept(self, cluster):
        untold = self.put(cluster)
        self.left(cluster, "somebody", untold)
        assert untold not in cluster.stores[HOST]

    def test_a_clients_objects_go_with_it(self, cluster):
        untold = self.put(cluster)
        self.left(cluster, "client", untold)
        cluster.remove_client("client")
        assert untold not in cluster.stores[HOST]

    def test_with_its_host_what_is_unclaimed_is_forgotten(self, cluster):
        untold = self.put(cluster)
        self.left(cluster, "client", untold)
        cluster.cut_off_host(HOST)
        assert not cluster.state.objects._unclaimed
        cluster.remove_client("client")
        assert untold in cluster.away[HOST], "nobody can delete it there"
        cluster.join_again(HOST)
        assert untold not in cluster.stores[HOST]
