"""Each part of the scheduler goes on where that of an earlier scheduler has ended, and nothing is done twice."""

from __future__ import annotations

import random
from typing import Any

import pytest

from holdfast.cluster.protocol import errands, requests
from holdfast.cluster.protocol.records import record_of
from holdfast.cluster.scheduler.parts import pickled
from holdfast.cluster.scheduler.tasks import events
from tests.support.journalled import Journalled


@pytest.fixture
def cluster() -> Journalled:
    cluster = Journalled(hosts=2, workers=1)
    for client in ("a", "b"):
        cluster.add_client(client)
    return cluster


def part(cluster: Journalled, name: str) -> Any:
    return next(part for part in cluster.state.parts if part.name == name)


def answer(cluster: Journalled, client: str, number: int) -> Any:
    """What a request was answered last."""
    return next((r.value for r in reversed(cluster.replies) if r[:2] == (client, number)), None)


def asked(client: str, number: int, request: Any) -> events.Requested:
    return events.Requested(client, number, *request)


def states(cluster: Journalled) -> dict[Any, str]:
    return {key: task.state for key, task in cluster.state.tasks.items()}


class TestReplies:
    """A request that has changed something is done once, whenever the scheduler dies."""

    def put(self, cluster: Journalled, number: int) -> events.Requested:
        request = requests.PUT(name="q", data=b"x", keys=(), lease=number)
        cluster.asked_for["a", number] = cluster.now, request
        cluster.open["a", number] = None
        return asked("a", number, request)

    def size(self, cluster: Journalled) -> int:
        number = cluster.new_number() + 1000
        cluster.request("b", number, requests.QUEUE_SIZE(name="q"))
        return int(answer(cluster, "b", number))

    def test_one_of_which_the_reply_did_not_leave_gets_that(self, cluster: Journalled) -> None:
        cluster.die_at(self.put(cluster, 1))
        assert answer(cluster, "a", 1) == 0
        assert self.size(cluster) == 1

    def test_one_that_is_not_in_the_journal_is_done_by_the_next_scheduler(self, cluster: Journalled) -> None:
        cluster.die_before(self.put(cluster, 1))
        assert answer(cluster, "a", 1) == 0
        assert self.size(cluster) == 1

    def test_a_reply_that_was_lost_is_given_once_more_by_each_scheduler(self, cluster: Journalled) -> None:
        cluster.handle(self.put(cluster, 1))
        for _ in range(3):
            cluster.restart(unheard=[("a", 1)])
        assert [reply.value for reply in cluster.replies] == [0, 0, 0, 0]
        assert self.size(cluster) == 1

    def test_a_reply_that_was_heard_is_forgotten(self, cluster: Journalled) -> None:
        cluster.handle(self.put(cluster, 1))
        cluster.handle(events.RepliesHeard("a", [1]))
        assert cluster.tables().clients["a"].entries["replies"] == {}

    def test_a_client_has_so_many_at_most(self, cluster: Journalled, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("holdfast.cluster.scheduler.parts.replies.KEPT", 3)
        for number in range(1, 6):
            cluster.handle(self.put(cluster, number))
        assert list(cluster.tables().clients["a"].entries["replies"]) == [3, 4, 5]

    def test_with_its_client_a_reply_goes(self, cluster: Journalled) -> None:
        cluster.handle(self.put(cluster, 1))
        cluster.remove_client("a")
        assert "a" not in cluster.tables().clients
        assert len(cluster.state.waits) == 0

    def test_a_request_that_comes_twice_waits_once(self, cluster: Journalled) -> None:
        get = requests.GET(name="q", lease=1)
        cluster.request("a", 1, get)
        cluster.restart()
        cluster.handle(asked("a", 1, get))
        assert len(cluster.state.waits) == 1

    def test_what_only_reads_is_noted_nowhere(self, cluster: Journalled) -> None:
        self.size(cluster)
        assert "replies" not in cluster.tables().clients["b"].entries


def test_metadata(cluster: Journalled) -> None:
    for number, (path, value) in enumerate(
        [(("a", "b"), {"c": 1, "d": {}}), (("a", "b", "c"), {"e": "x"}), (("z",), 2)]
    ):
        cluster.request("a", number, requests.SET_METADATA(path=path, record=record_of(value)))
    before = dict(cluster.state.metadata.below(()))
    assert len(before) == 3
    cluster.restart()
    assert dict(cluster.state.metadata.below(())) == before
    cluster.request("a", 9, requests.SET_METADATA(path=("a",), record=record_of(3)))
    cluster.restart()
    assert dict(cluster.state.metadata.below(())) == {("a",): 3, ("z",): 2}


def test_events(cluster: Journalled) -> None:
    cluster.request("a", 1, requests.SET_EVENT(name="x"))
    cluster.request("a", 2, requests.SET_EVENT(name=("y", 1)))
    cluster.request("a", 3, requests.CLEAR_EVENT(name="x"))
    cluster.request("b", 4, requests.WAIT_FOR_EVENT(name="x", wait=4))
    cluster.restart()
    assert list(part(cluster, "events").are_set) == [("y", 1)]
    cluster.request("a", 5, requests.SET_EVENT(name="x"))
    assert answer(cluster, "b", 4) is True


class TestVariables:
    def set(self, cluster: Journalled, number: int, data: bytes, *keys: str) -> None:
        cluster.request("a", number, requests.SET_VARIABLE(name="v", data=data, keys=keys))

    def get(self, cluster: Journalled, number: int) -> Any:
        cluster.request("b", number, requests.GET_VARIABLE(name="v", lease=number))
        return answer(cluster, "b", number)

    def test_a_value_holds_its_tasks(self, cluster: Journalled) -> None:
        cluster.submit("a", {"x": []})
        cluster.finish("x")
        self.set(cluster, 1, b"1", "x")
        cluster.release("a", "x")
        cluster.restart()
        assert self.get(cluster, 2) == {"data": b"1", "keys": ("x",)}
        assert states(cluster) == {"x": "memory"}

    def test_what_is_read_stays_though_it_was_replaced(self, cluster: Journalled) -> None:
        cluster.submit("a", {"x": []})
        cluster.finish("x")
        self.set(cluster, 1, b"1", "x")
        cluster.release("a", "x")
        assert self.get(cluster, 2)["data"] == b"1"
        self.set(cluster, 3, b"2")
        cluster.restart(unheard=[("b", 2)])
        assert answer(cluster, "b", 2) == {"data": b"1", "keys": ("x",)}
        assert self.get(cluster, 4)["data"] == b"2"
        cluster.tell("b", requests.END_READING(lease=2))
        cluster.catch_up()
        assert not states(cluster)
        cluster.restart()
        assert not cluster.tables().tasks

    def test_one_who_waits_gets_the_next_value(self, cluster: Journalled) -> None:
        assert self.get(cluster, 1) is None
        cluster.restart()
        self.set(cluster, 2, b"1")
        assert answer(cluster, "b", 1)["data"] == b"1"


class TestQueues:
    """Items in hand are in one hand; the rest is in `test_queues`."""

    def test_what_is_in_hand_is_given_to_nobody_else(self, cluster: Journalled) -> None:
        cluster.submit("a", {"x": []})
        cluster.finish("x")
        cluster.request("a", 1, requests.PUT(name="q", data=b"1", keys=("x",), lease=1))
        cluster.release("a", "x")
        cluster.request("b", 2, requests.GET(name="q", lease=2))
        cluster.restart(unheard=[("b", 2)])
        assert answer(cluster, "b", 2) == {"items": [(b"1", ("x",))], "left": 0}
        cluster.request("a", 3, requests.GET(name="q", lease=3, timeout=0.0))
        assert answer(cluster, "a", 3)[0] == "TimeoutError"
        assert states(cluster) == {"x": "memory"}
        cluster.tell("b", requests.CONFIRM_ITEMS(lease=2))
        cluster.catch_up()
        cluster.restart()
        assert not states(cluster)

    def test_what_was_in_the_hand_of_one_who_does_not_come_back_is_the_first_again(self, cluster: Journalled) -> None:
        for number in (1, 2):
            cluster.request("a", number, requests.PUT(name="q", data=b"%d" % number, keys=(), lease=number))
        cluster.request("b", 3, requests.GET(name="q", lease=3))
        cluster.restart()
        cluster.remove_client("b")
        cluster.request("a", 4, requests.GET(name="q", lease=4, count=2))
        assert [data for data, _ in answer(cluster, "a", 4)["items"]] == [b"1", b"2"]

    def test_a_limit_stays(self, cluster: Journalled) -> None:
        cluster.request("a", 1, requests.OPEN_QUEUE(name="q", maxsize=1))
        cluster.request("a", 2, requests.PUT(name="q", data=b"1", keys=(), lease=2))
        cluster.restart()
        cluster.request("a", 3, requests.PUT(name="q", data=b"2", keys=(), lease=3, timeout=0.0))
        assert answer(cluster, "a", 3)[0] == "TimeoutError"
        cluster.request("a", 4, requests.CLOSE_QUEUE(name="q"))
        cluster.restart()
        assert not part(cluster, "queues").queues
        assert "queues" not in cluster.tables().entries


class TestLeases:
    def test_a_lock_whose_grant_was_not_heard_is_granted_to_the_same(self, cluster: Journalled) -> None:
        cluster.request("a", 1, requests.ACQUIRE_LOCKS(names=("x", "y"), lease=1, count=1))
        cluster.request("b", 2, requests.ACQUIRE_LOCKS(names=("x",), lease=2))
        cluster.restart(unheard=[("a", 1)])
        assert answer(cluster, "a", 1) is True
        assert answer(cluster, "b", 2) is None
        cluster.tell("a", requests.RELEASE_LOCKS(lease=1))
        assert answer(cluster, "b", 2) is True
        assert list(cluster.tables().entries["locks"]) == [("lease", "b", 2)]

    def test_a_lock_of_one_who_does_not_come_back_is_free(self, cluster: Journalled) -> None:
        cluster.request("a", 1, requests.ACQUIRE_LOCKS(names=("x",), lease=1))
        cluster.request("b", 2, requests.ACQUIRE_LOCKS(names=("x",), lease=2))
        cluster.restart()
        cluster.remove_client("a")
        assert answer(cluster, "b", 2) is True

    def test_a_semaphore_is_open_until_it_is_closed(self, cluster: Journalled) -> None:
        cluster.request("a", 1, requests.OPEN_SEMAPHORE(name="s", max_leases=2))
        cluster.request("a", 2, requests.ACQUIRE_SEMAPHORE(name="s", lease=2))
        cluster.restart()
        line = part(cluster, "semaphores").lines["s"]
        assert (line.size, len(line.taken), line.is_open) == (2, 1, True)
        cluster.request("a", 3, requests.CLOSE_SEMAPHORE(name="s"))
        cluster.restart()
        assert "semaphores" not in cluster.tables().entries


class TestPlugins:
    def register(self, cluster: Journalled, number: int, *keys: str) -> None:
        request = requests.REGISTER_PLUGIN(kind="worker", name="p", call=b"plugin", keys=keys)
        cluster.request("a", number, request)

    def set_up(self, cluster: Journalled) -> list[str]:
        """Workers set up what they were told to; which they are."""
        told, cluster.errands = cluster.errands, []
        for errand in told:
            cluster.handle(events.ErrandDone(errand.peer, errand.number, True, {"failed": ()}))
        return [errand.peer for errand in told if errand.operation == errands.SET_UP_PLUGINS.operation]

    def test_one_holds_its_data_and_goes_to_those_that_come(self, cluster: Journalled) -> None:
        cluster.scatter("a", "x", next(iter(cluster.state.hosts)), b"small")
        self.register(cluster, 1, "x")
        self.set_up(cluster)
        cluster.release("a", "x")
        cluster.restart()
        assert states(cluster) == {"x": "memory"}
        assert not self.set_up(cluster), "those that have it set it up once more"
        later = cluster.add_worker(next(iter(cluster.state.hosts)))
        assert self.set_up(cluster) == [later]
        cluster.restart()
        assert not self.set_up(cluster)
        assert not any(worker.preparing for worker in cluster.state.workers.values())

    def test_a_process_that_was_not_prepared_yet_is_prepared(self, cluster: Journalled) -> None:
        self.register(cluster, 1)
        self.set_up(cluster)
        later = cluster.add_worker(next(iter(cluster.state.hosts)))
        cluster.restart()
        assert self.set_up(cluster) == [later]

    def test_one_is_unregistered_once(self, cluster: Journalled) -> None:
        self.register(cluster, 1)
        self.set_up(cluster)
        cluster.request("a", 2, requests.UNREGISTER_PLUGIN(kind="worker", name="p"))
        cluster.restart()
        told, cluster.errands = cluster.errands, []
        for errand in told:
            cluster.handle(events.ErrandDone(errand.peer, errand.number, True, {"failed": ()}))
        assert answer(cluster, "a", 2) == {}
        assert {kind for kind, _ in cluster.tables().entries["plugins"]} == {"prepared"}


class TestErrands:
    def test_a_function_of_which_nobody_knows_whether_it_was_called_is_not_called_again(
        self, cluster: Journalled
    ) -> None:
        run = requests.ERRAND(operation=errands.RUN.operation, arguments={"call": b"f", "dependencies": ()})
        cluster.request("a", 1, run)
        assert len(cluster.errands) == 2
        where = [errand.peer for errand in cluster.errands]
        for _ in range(2):
            cluster.outcomes.clear()
            cluster.restart(unheard=[("a", 1)])
            assert answer(cluster, "a", 1) == {}
            outcomes = cluster.outcomes["a", 1]
            assert list(outcomes) == where
            assert {outcome["error"][0] for outcome in outcomes.values()} == {"ConnectError"}
            assert all(address in outcome["error"][1] for address, outcome in outcomes.items())
            assert not cluster.errands

    def test_what_only_looks_is_asked_again(self, cluster: Journalled) -> None:
        cluster.request("a", 1, requests.ERRAND(operation=errands.VERSIONS.operation, arguments={}))
        cluster.restart()
        assert len(cluster.errands) == len(cluster.state.workers)

    def test_an_answer_to_the_earlier_scheduler_is_dropped(self, cluster: Journalled) -> None:
        cluster.request("a", 1, requests.ERRAND(operation=errands.VERSIONS.operation, arguments={}))
        (old, *_) = cluster.errands
        cluster.restart()
        cluster.handle(events.ErrandDone(old.peer, old.number, True, {}))
        assert len(cluster.state.waits) == 1


def test_standing_errands(cluster: Journalled) -> None:
    operation = errands.FORWARD_LOGS.operation
    logs = {"topic": "t", "logger": None, "level": 10}
    stand = requests.STAND(name="logs", operation=operation, arguments={**logs, "on": True}, undo={**logs, "on": False})
    cluster.request("a", 1, stand)
    assert cluster.replies[-1].ok
    cluster.restart()
    cluster.errands.clear()
    cluster.add_worker(next(iter(cluster.state.hosts)))
    assert [errand.operation for errand in cluster.errands] == [operation]
    cluster.request("a", 2, requests.WITHDRAW(name="logs"))
    assert "standing" not in cluster.tables().entries


class TestUnattendedTasks:
    def test_they_run_though_nobody_holds_them(self, cluster: Journalled) -> None:
        cluster.submit("a", {"x": [], "y": ["x"]})
        cluster.handle(events.KeysUnattended("a", ["y"]))
        cluster.remove_client("a")
        cluster.restart()
        assert states(cluster).keys() == {"x", "y"}
        cluster.run_all()
        cluster.catch_up()
        assert not states(cluster)
        assert not cluster.tables().tasks

    def test_one_that_is_cancelled_is_not_kept(self, cluster: Journalled) -> None:
        cluster.submit("a", {"x": []})
        cluster.handle(events.KeysUnattended("a", ["x"]))
        cluster.handle(events.KeysCancelled("b", ["x"], force=True))
        cluster.clients["a"].clear()
        cluster.restart()
        assert not cluster.tables().tasks


def test_a_key_that_a_client_expects(cluster: Journalled) -> None:
    cluster.clients["a"]["x"] = "pending"
    cluster.handle(events.KeysExpected("a", ["x"]))
    cluster.restart()
    assert cluster.clients["a"]["x"] == "pending"
    cluster.submit("b", {"x": []})
    cluster.release("b", "x")
    cluster.restart()
    cluster.finish("x")
    assert cluster.clients["a"]["x"] == "memory"
    assert "expectations" not in cluster.tables().entries


class TestDatasets:
    def test_one_holds_its_tasks_and_has_its_name(self, cluster: Journalled) -> None:
        cluster.submit("a", {"x": [], "y": ["x"]}, ["y"])
        cluster.publish("a", 1, "d", ["y"])
        cluster.run_all()
        cluster.remove_client("a")
        cluster.restart()
        assert states(cluster)["y"] == "memory"
        cluster.get_dataset("b", 2, "d")
        assert answer(cluster, "b", 2)["keys"] == ["y"]
        cluster.unpublish("b", 3, "d")
        cluster.release("b", "y")
        cluster.catch_up()
        cluster.restart()
        assert not states(cluster)

    def test_a_publisher_that_did_not_hear_it_is_answered(self, cluster: Journalled) -> None:
        cluster.submit("a", {"x": []})
        cluster.finish("x")
        cluster.publish("a", 1, "d", ["x"])
        cluster.restart(unheard=[("a", 1)])
        assert cluster.replies[-1][:4] == ("a", 1, True, None)

    def test_a_publication_goes_on(self, cluster: Journalled) -> None:
        hosts = list(cluster.state.hosts)
        cluster.scatter("a", "x", hosts[0])
        cluster.publish("a", 1, "d", ["x"])
        assert answer(cluster, "a", 1) is None
        assert cluster.copying
        cluster.restart()
        assert ("a", 1) in cluster.open
        cluster.bring_copies()
        assert ("a", 1) not in cluster.open
        assert list(cluster.state.datasets.published) == ["d"]

    def test_a_publication_goes_on_without_its_publisher(self, cluster: Journalled) -> None:
        hosts = list(cluster.state.hosts)
        cluster.scatter("a", "x", hosts[0])
        cluster.publish("a", 1, "d", ["x"])
        cluster.remove_client("a")
        cluster.restart()
        assert not cluster.state.datasets.published
        cluster.bring_copies()
        assert list(cluster.state.datasets.published) == ["d"]
        assert [key for key, _ in cluster.tables().entries["datasets"]] == ["dataset"]


class TestActors:
    def made(self, cluster: Journalled) -> int:
        cluster.submit("a", {"actor": []})
        number = cluster.make_actor("actor")
        cluster.finish("actor", inline=b"handle")
        return number

    def results(self, cluster: Journalled, client: str = "a") -> list[tuple[int, bool]]:
        return [entry[:2] for peer, entry in cluster.called if peer == client]

    def test_one_lives_on_and_each_call_is_done_once(self, cluster: Journalled) -> None:
        number = self.made(cluster)
        for request in (1, 2):
            cluster.call("a", request, number)
        cluster.answer_calls()
        cluster.call("a", 3, number)
        cluster.restart(unheard_calls=[("a", 2)])
        assert self.results(cluster) == [(1, True), (2, True), (2, True)]
        assert cluster.answer_calls() == 1
        assert self.results(cluster)[3:] == [(3, True)]
        cluster.call("a", 4, number)
        assert cluster.answer_calls() == 1

    def test_a_call_that_did_not_reach_the_worker_reaches_it(self, cluster: Journalled) -> None:
        number = self.made(cluster)
        cluster.die_at(cluster.said_call("a", 1, number))
        assert cluster.answer_calls() == 1
        assert self.results(cluster) == [(1, True)]

    def test_a_call_waits_for_what_it_depends_on(self, cluster: Journalled) -> None:
        number = self.made(cluster)
        cluster.submit("a", {"x": []})
        cluster.call("a", 1, number, ["x"])
        cluster.release("a", "x")
        cluster.restart()
        assert not cluster.answer_calls()
        cluster.finish("x")
        assert cluster.answer_calls() == 1
        cluster.catch_up()
        assert list(cluster.state.tasks) == ["actor"]

    def test_calls_come_to_their_end_though_no_handle_is_left(self, cluster: Journalled) -> None:
        number = self.made(cluster)
        cluster.call("a", 1, number)
        cluster.release("a", "actor")
        cluster.catch_up()
        cluster.restart()
        assert cluster.answer_calls() == 1
        assert self.results(cluster) == [(1, True)]
        assert not cluster.actors[next(iter(cluster.actors))]
        assert not cluster.tables().entries.get("actors")

    def test_one_whose_worker_is_gone_is_lost_and_not_made_again(self, cluster: Journalled) -> None:
        number = self.made(cluster)
        cluster.call("a", 1, number)
        (worker,) = cluster.actors
        cluster.restart(lost_workers=[worker])
        assert states(cluster) == {"actor": "erred"}
        assert "is lost with its worker" in cluster.reasons["actor"]
        assert self.results(cluster) == [(1, False)]
        cluster.restart()
        assert states(cluster) == {"actor": "erred"}

    def test_one_that_was_being_made_is_there_when_its_run_goes_on(self, cluster: Journalled) -> None:
        cluster.submit("a", {"actor": []})
        number = cluster.make_actor("actor")
        cluster.restart()
        cluster.finish("actor", inline=b"handle")
        cluster.call("a", 1, number)
        assert cluster.answer_calls() == 1


class TestClients:
    def test_what_a_client_does_not_hold_any_more_is_let_go_of(self, cluster: Journalled) -> None:
        cluster.submit("a", {"x": [], "y": []})
        del cluster.clients["a"]["x"]  # the word that it has released it was lost
        cluster.restart()
        assert list(cluster.state.tasks) == ["y"]

    def test_what_it_holds_that_is_not_known_is_cancelled(self, cluster: Journalled) -> None:
        cluster.clients["a"]["x"] = "memory"
        cluster.restart()
        assert cluster.clients["a"]["x"] == "cancelled"

    def test_it_hears_how_all_it_holds_is(self, cluster: Journalled) -> None:
        cluster.submit("a", {"x": [], "y": [], "z": []})
        cluster.finish("x")
        cluster.err("y")
        cluster.clients["a"].update(dict.fromkeys("xyz", "unknown"))
        cluster.restart()
        assert cluster.clients["a"] == {"x": "memory", "y": "erred", "z": "pending"}

    def test_that_of_tasks_is_there_if_its_worker_is(self, cluster: Journalled) -> None:
        cluster.submit("a", {"x": [], "y": []})
        tasks = [cluster.submit_in(key, {f"in-{key}": []}) for key in "xy"]
        lost, kept = (cluster.entry(key)[0] for key in "xy")
        cluster.restart(lost_workers=[lost])
        assert tasks[0] not in cluster.state.clients
        assert cluster.state.clients[tasks[1]].worker is cluster.state.workers[kept]


def test_a_host_that_is_emptied_is_emptied_still(cluster: Journalled) -> None:
    host, other = cluster.state.hosts
    cluster.scatter("a", "x", host)
    workers = [worker.address for worker in cluster.state.hosts[host].workers]
    cluster.request("a", 1, requests.RETIRE_WORKERS(workers=workers, awaits_end=False))
    cluster.bring_copies()
    assert cluster.ending == [(workers[0], False)]
    cluster.submit("a", {"y": []})
    cluster.restart()
    assert not cluster.closing
    cluster.remove_worker(workers[0])
    cluster.catch_up()
    del other


class TestKills:
    def test_a_run_that_is_to_be_ended_is_ended_by_the_next_scheduler(self, cluster: Journalled) -> None:
        cluster.submit("a", {"x": []})
        worker, entry = cluster.entry("x")
        cluster.begun.add(entry[1])
        cluster.clients["a"].pop("x")
        cluster.die_at(events.KeysCancelled("a", ["x"], force=False, kill=1))
        assert [(kill.worker, list(kill.run_ids)) for kill in cluster.killing] == [(worker, [entry[1]])]
        cluster.request("a", 2, requests.AWAIT_KILLS(kill=1))
        assert ("a", 2) in cluster.open
        assert cluster.answer_kills() == [worker]
        assert ("a", 2) not in cluster.open
        assert "kills" not in cluster.tables().entries


def test_outcomes_of_runs_that_nobody_has_heard_are_used(cluster: Journalled) -> None:
    """Workers say them before they say which runs they have, with the serial in the place of the key."""
    cluster.submit("a", {"x": [], "y": [], "z": []}, retries=0)
    before = cluster.state
    said = []
    for key in "xy":
        worker, entry = cluster.entry(key)
        serial = before.tasks[key].serial
        del cluster.runs[worker][entry[1]]
        if key == "x":
            object_id = cluster.new_object()
            cluster.stores[worker.rpartition("/")[0]].add(object_id)
            cluster.values[object_id] = b""
            said.append(events.TasksFinished(worker, [(serial, entry[1], object_id, 10, b"inline", "bytes", 0.1)]))
        else:
            said.append(events.TasksErred(worker, [(serial, entry[1], b"exception", "it failed", 0.1)]))
    cluster.said_before = said
    cluster.restart()
    assert states(cluster) == {"x": "memory", "y": "erred", "z": "processing"}


@pytest.mark.parametrize("seed", range(40))
def test_random_histories_of_all_parts(seed: int) -> None:
    """Whatever is asked, and whenever the scheduler dies: the next one has what the one before it had."""
    chance = random.Random(seed)
    cluster = Journalled(hosts=2, workers=2)
    for client in ("a", "b"):
        cluster.add_client(client)
    for number in range(1, 120):
        client = chance.choice("ab")
        name = chance.choice("uvw")
        keys = [key for key, state in cluster.clients[client].items() if key in cluster.state.tasks]
        some = tuple(chance.sample(keys, min(len(keys), chance.randrange(2))))
        asked_for: list[Any] = [
            requests.SET_VARIABLE(name=name, data=b"%d" % number, keys=some),
            requests.GET_VARIABLE(name=name, lease=number, timeout=chance.choice([0.0, None])),
            requests.DELETE_VARIABLE(name=name),
            requests.SET_EVENT(name=name),
            requests.CLEAR_EVENT(name=name),
            requests.SET_METADATA(path=(name, chance.choice("xyz")), record=record_of({"n": number})),
            requests.PUT(name=name, data=b"%d" % number, keys=some, lease=number),
            requests.GET(name=name, lease=number, timeout=chance.choice([0.0, None])),
            requests.ACQUIRE_LOCKS(names=(name,), lease=number, timeout=chance.choice([0.0, None])),
            requests.ACQUIRE_SEMAPHORE(name=name, lease=number, max_leases=2),
            requests.PUBLISH(datasets=[(name, b"data", list(some), {})], override=True),
            requests.UNPUBLISH(name=name),
            requests.GET_DATASET(name=name),
        ]
        what = chance.random()
        if what < 0.15:
            cluster.submit(client, {f"k{number}": some}, retries=chance.randrange(2))
        elif what < 0.3 and cluster.startable:
            cluster.finish(chance.choice(cluster.startable), inline=chance.choice([None, b"small"]), nbytes=10)
        elif what < 0.35 and keys:
            cluster.release(client, chance.choice(keys))
        elif what < 0.4:
            released = chance.randrange(1, number + 1)
            cluster.tell(client, chance.choice([requests.RELEASE_LOCKS, requests.CONFIRM_ITEMS])(lease=released))
        elif what < 0.85:
            cluster.request(client, number, chance.choice(asked_for))
        else:
            request = chance.choice(asked_for)
            cluster.asked_for[client, number] = cluster.now, request
            cluster.open[client, number] = None
            before = _said(cluster)
            chance.choice([cluster.die_at, cluster.die_before])(asked(client, number, request))
            if what > 0.97:
                before = _said(cluster)
                cluster.restart()
                assert _said(cluster) == before
        cluster.catch_up()
        cluster.bring_copies()
    before = _said(cluster)
    cluster.restart()
    assert _said(cluster) == before


def _said(cluster: Journalled) -> dict[str, Any]:
    """What parts would tell their clients."""
    queues, variables = part(cluster, "queues"), part(cluster, "variables")
    return {
        "queues": {name: sorted(item.data for item in queue.items) for name, queue in queues.queues.items()},
        "handed": {
            (client, lease): [item.data for item in handed.items]
            for client, of_client in queues.handed.items()
            for lease, handed in of_client.items()
        },
        "variables": {name: (value.data, value.keys, value.readings) for name, value in variables.current.items()},
        "events": set(part(cluster, "events").are_set),
        "metadata": dict(cluster.state.metadata.below(())),
        "datasets": {name: list(dataset.keys) for name, dataset in cluster.state.datasets.published.items()},
        "leases": {
            (lease.client, lease.number)
            for name in ("locks", "semaphores")
            for of_client in part(cluster, name).leases.values()
            for lease in of_client.values()
            if lease.is_granted
        },
    }


class TestPickledFutures:
    SECONDS = 600.0

    def pickled(self) -> tuple[Journalled, list[float]]:
        """A cluster in which a client that has left has pickled a future, and the clock of its machine."""
        clock = [1_800_000_000.0]
        cluster = Journalled(hosts=1, workers=1, wall_time=lambda: clock[0])
        cluster.add_client("a")
        cluster.submit("a", {"x": []})
        cluster.finish("x")
        cluster.handle(events.FuturesPickled("a", [("x", "lease", self.SECONDS)], clock[0] + self.SECONDS, "app.py:1"))
        cluster.remove_client("a")
        return cluster, clock

    def pass_time(self, cluster: Journalled, clock: list[float], seconds: float) -> None:
        cluster.now += seconds
        clock[0] += seconds
        cluster.handle(events.TimePassed())
        cluster.catch_up()

    @pytest.mark.parametrize("now", [0.0, 5_000.0], ids=["another clock", "a later clock"])
    def test_a_lease_ends_when_it_was_to_end(self, now: float) -> None:
        cluster, clock = self.pickled()
        for _ in range(3):
            self.pass_time(cluster, clock, 150.0)
            cluster.restart(now=now)
        self.pass_time(cluster, clock, 149.0)
        assert states(cluster) == {"x": "memory"}
        self.pass_time(cluster, clock, 2.0)
        assert not states(cluster)

    def test_one_whose_time_was_over_meanwhile_may_be_unpickled_still(self) -> None:
        cluster, clock = self.pickled()
        clock[0] += 2 * self.SECONDS
        cluster.restart()
        self.pass_time(cluster, clock, pickled.EARLY_SECONDS - 1)
        assert states(cluster) == {"x": "memory"}
        self.pass_time(cluster, clock, 2.0)
        assert not states(cluster)

    def test_one_lasts_no_longer_where_the_clock_of_the_machine_is_set_back(self) -> None:
        cluster, clock = self.pickled()
        clock[0] -= 1e6
        cluster.restart()
        self.pass_time(cluster, clock, self.SECONDS + 1)
        assert not states(cluster)
