"""One peer's mistake costs that peer only: what is malformed changes nothing, and a fault inside is nobody's."""

from __future__ import annotations

import asyncio
import random

import pytest
from messages import Maker, as_received, wrong_messages
from scheduler_peers import NODE, WORKER, Peer, Setup

from holdfast.cluster.comm.loops import run
from holdfast.cluster.errors import ConnectError, InternalError, ProtocolError
from holdfast.cluster.protocol.client import FROM_CLIENT
from holdfast.cluster.protocol.node import FROM_NODE
from holdfast.cluster.protocol.requests import REQUESTS
from holdfast.cluster.protocol.worker import FROM_WORKER
from holdfast.cluster.scheduler.machine import machine as machine_module
from holdfast.cluster.scheduler.machine import workers as workers_module
from holdfast.cluster.scheduler.tasks.instructions import Instructions, RunTasks
from holdfast.cluster.scheduler.tasks.lifecycle import Lifecycle

OTHER_NODE = "tcp://127.0.0.1:2"
#: Whom a message is from, and what such a peer says about itself.
SPEAKERS = {
    "client": (FROM_CLIENT, {"id": "other"}),
    "worker": (FROM_WORKER, {"address": f"{OTHER_NODE}/0", "name": "there-0", "node": OTHER_NODE, "nthreads": 1}),
    "node": (FROM_NODE, {"address": OTHER_NODE, "hostname": "there", "capacity": 1, "incarnation": "first"}),
}
MESSAGES = [(role, message) for role, (vocabulary, _) in SPEAKERS.items() for message in vocabulary]
IDS = [f"{role}-{message.operation}" for role, message in MESSAGES]


def digest(scheduler):
    """All that a scheduler knows about what its innocent peers have, as text."""
    state = scheduler.state
    tasks = [
        (
            task.key,
            task.state,
            task.object_id,
            task.nbytes,
            [dependency.key for dependency in task.dependencies],
            [getattr(holder, "id", holder.name) for holder in task.holders],
            [host.address for host in task.where],
            task.worker and task.worker.address,
            task.run_id,
        )
        for task in state.tasks.values()
    ]
    hosts = [(h.address, h.nbytes, h.expected_nbytes) for h in state.hosts.values() if h.address == NODE]
    workers = [(w.address, list(w.runs), w.expected_seconds) for w in state.workers.values() if w.address == WORKER]
    functions = [(function, f.tasks, f.clients) for function, f in state.life.functions.table.items()]
    return repr(
        (
            sorted(tasks, key=repr),
            hosts,
            workers,
            functions,
            list(state.datasets.published),
            len(state.life.results.table),
        )
    )


def is_right(role, message):
    try:
        SPEAKERS[role][0].check(message)
    except ProtocolError:
        return False
    return True


@pytest.mark.parametrize(("role", "message"), MESSAGES, ids=IDS)
def test_a_message_with_a_field_that_is_wrong_ends_that_peer_and_changes_nothing(role, message, caplog, monkeypatch):
    """One mistake of each field; all of them are in ``tests/protocol``."""
    monkeypatch.setattr(workers_module, "EXIT_REASON_SECONDS", 0.0)
    chance = random.Random(message.operation)
    right = Maker(chance, lambda path: {"request.operation": "publish", "exited.worker": f"{OTHER_NODE}/0"}.get(path))
    mistakes = {}
    for _ in range(5):
        for name, wrong in wrong_messages(message, right.message(message)):
            received = as_received(wrong)
            if received is None or is_right(role, received):
                continue  # it can't be sent, or arrives as something else
            mistakes.setdefault((name, type(wrong[1]) if len(wrong) > 1 else None), (name, wrong))

    async def main():
        async with Setup() as setup:
            node = await setup.add_node(OTHER_NODE) if role == "worker" else None
            setup.submit("held")
            setup.client.connection.send(("scattered", [("data", b"o" * 16, 10, "bytes", NODE, None)], False, ""))
            await setup.client.next("memory")
            await setup.worker.next("run")
            before = digest(setup.scheduler)
            for name, wrong in mistakes.values():
                caplog.clear()
                peer = await Peer.join(setup.scheduler, role, **SPEAKERS[role][1])
                try:
                    peer.connection.send(wrong)
                    await peer.until(lambda peer=peer: peer.gone)
                finally:
                    peer.connection.abort()
                assert message.operation in caplog.text
                assert name in caplog.text
                await setup.settled(role)
                assert digest(setup.scheduler) == before
            assert not setup.gone
            assert node is None or not node.gone
            assert not setup.scheduler.failures
            if node:
                node.connection.close()

    run(main())


@pytest.mark.parametrize("operation", [request.operation for request in REQUESTS])
def test_a_request_whose_arguments_are_wrong_is_answered_so(operation):
    async def main():
        async with Setup() as setup:
            before = digest(setup.scheduler)
            setup.client.connection.send(("request", 1, operation, {"no such": 1}))
            (_, _, ok, (error, text)) = await setup.client.next("reply")
            assert (ok, error) == (False, "ProtocolError")
            assert operation in text
            assert "no such" in text or "is missing" in text
            assert digest(setup.scheduler) == before

    run(main())


def test_an_object_of_another_key_is_no_result_and_no_data():
    async def main():
        async with Setup() as setup:
            setup.client.connection.send(("scattered", [("data", b"o" * 16, 10, "bytes", NODE, None)], False, ""))
            await setup.client.next("memory")
            other = await Peer.join(setup.scheduler, "client", id="other")
            other.connection.send(("scattered", [("mine", b"o" * 16, 10, "bytes", NODE, None)], False, ""))
            await other.until(lambda: other.gone)
            setup.submit("x")
            ((_, run_id, *_, serial),) = (await setup.worker.next("run"))[1]
            setup.worker.connection.send(("finished", [(serial, run_id, b"o" * 16, 10, None, "bytes", 0.1)]))
            await setup.worker.until(lambda: setup.worker.gone)
            setup.node.connection.send(("exited", WORKER, "for a change", [], None, False, False, None, ""))
            worker = await setup.add_worker()
            assert (await worker.next("run"))[1][0][0] == "x"
            assert setup.scheduler.state.tasks["data"].state == "memory"

    run(main())


@pytest.mark.parametrize(
    "tasks", [[("a", None, b"", ("a",))], [("b", None, b"", ("data",)), ("data", None, b"", ("b",))]]
)
def test_a_task_that_depends_on_itself_is_refused(tasks):
    async def main():
        async with Setup() as setup:
            other = await Peer.join(setup.scheduler, "client", id="other")
            # Data that was lost has no recipe yet, and may be given one.
            other.connection.send(("scattered", [("data", b"o" * 16, 10, "bytes", "tcp://gone:1", None)], False, ""))
            await other.next("erred")
            other.connection.send(("submit", tasks, None, {}, ""))
            await other.until(lambda: other.gone)
            while setup.scheduler.state.tasks:
                await asyncio.sleep(0)

    run(main())


def test_a_task_that_needs_nothing_of_a_resource_runs_on_a_worker_without_it():
    async def main():
        async with Setup() as setup:
            setup.client.connection.send(
                ("submit", [("x", None, b"", ())], None, {"resources": {"GPU": 0, "": 0.0}}, "")
            )
            ((key, *_),) = (await setup.worker.next("run"))[1]
            assert key == "x"

    run(main())


def test_a_node_speaks_for_its_own_workers_only():
    async def main():
        async with Setup() as setup:
            other = await setup.add_node(OTHER_NODE)
            other.connection.send(("exited", WORKER, "of envy", [], None, False, False, None, ""))
            await other.until(lambda: other.gone)
            setup.submit("x")
            await setup.worker.next("run")

    run(main())


def test_a_client_can_not_take_a_name_that_a_worker_will_have():
    async def main():
        async with Setup() as setup:
            with pytest.raises(ConnectError, match=r"client.id"):
                await Peer.join(setup.scheduler, "client", id=f"{NODE}/1")

    run(main())


# -- faults of the scheduler's own


def fail(*args):
    raise KeyError("a fault of our own")


def test_a_fault_in_what_follows_from_earlier_events_is_charged_to_nobody(monkeypatch, caplog):
    monkeypatch.setattr(machine_module, "FAILURE_PAUSE_SECONDS", 0.01)

    async def main():
        async with Setup(validate=False) as setup:
            setup.submit("x")
            ((_, run_id, *_, serial),) = (await setup.worker.next("run"))[1]
            setup.worker.connection.send(("finished", [(serial, run_id, b"o" * 16, 10, None, "bytes", 0.1)]))
            await setup.client.next("memory")
            with monkeypatch.context() as patch:
                patch.setattr(setup.scheduler.state.life.follow_up, "_settle", fail)
                setup.client.connection.send(("release", ["x"]))
                setup.client.connection.send(("request", 1, "list-datasets", {}))
                assert (await setup.client.next("reply"))[2]
                assert setup.scheduler.failures
            setup.submit("y")
            assert (await setup.worker.next("run"))[1][0][0] == "y"
            assert not setup.gone

    run(main())
    assert "the scheduler failed, and goes on: what follows from earlier events" in caplog.text


def test_a_fault_in_handling_a_message_is_told_to_the_client_that_waits_and_logged_with_the_event(monkeypatch, caplog):
    async def main():
        async with Setup(validate=False) as setup:
            with monkeypatch.context() as patch:
                patch.setattr(Lifecycle, "create", fail)
                setup.submit("x")
                cancelled = await setup.client.next("cancelled")
                assert cancelled[1] == ("x",)
                assert "its log says how" in cancelled[2]
            with monkeypatch.context() as patch:
                patch.setattr(setup.scheduler.state, "_handlers", {})
                setup.client.connection.send(("request", 1, "get-dataset", {"name": "d"}))
                (_, _, ok, (error, _)) = await setup.client.next("reply")
                assert (ok, error) == (False, InternalError.__name__)
            setup.submit("y")
            assert (await setup.worker.next("run"))[1][0][0] == "y"
            assert not setup.gone

    run(main())
    assert "a fault of our own" in caplog.text
    assert "the event was TasksSubmitted" in caplog.text


def test_a_task_that_can_not_be_sent_for_a_fault_of_our_own_is_the_only_one_that_is_not(monkeypatch):
    monkeypatch.setattr(machine_module, "FAILURE_PAUSE_SECONDS", 0.01)

    async def main():
        async with Setup(validate=False) as setup:
            add = Instructions.add

            def fail_for_one(self, kind, peer, item):
                if kind is RunTasks and item[0] == "bad":
                    raise KeyError("a fault of our own")
                add(self, kind, peer, item)

            monkeypatch.setattr(Instructions, "add", fail_for_one)
            setup.submit("bad")
            ((key, raised, _),) = (await setup.client.next("erred"))[1]
            assert key == "bad"
            assert raised == InternalError.__name__
            setup.submit("good")
            assert (await setup.worker.next("run"))[1][0][0] == "good"
            assert setup.scheduler.failures == 1
            assert not setup.gone

    run(main())


def test_a_state_on_its_own_raises_what_fails_in_it(monkeypatch):
    from scheduler_harness import Cluster

    cluster = Cluster()
    client = cluster.add_client()
    monkeypatch.setattr(cluster.state.life.follow_up, "_settle", fail)
    with pytest.raises(KeyError, match="a fault of our own"):
        cluster.submit(client, {"x": []}, wants=[])
    assert issubclass(InternalError, Exception)
    assert not issubclass(InternalError, ProtocolError)
