"""The scheduler's server, spoken to by peers that do what the test says."""

from __future__ import annotations

import asyncio
import time

import pytest
from scheduler_peers import NODE, WORKER, Peer, Setup

from holdfast.cluster.comm.loops import run
from holdfast.cluster.errors import ConnectError
from holdfast.cluster.protocol.limits import MAX_ITEMS
from holdfast.cluster.scheduler.io import inbox as inbox_module
from holdfast.cluster.scheduler.io.server import Scheduler
from holdfast.cluster.scheduler.machine import validation
from holdfast.cluster.scheduler.machine import workers as workers_module
from holdfast.cluster.scheduler.parts import inquiries as inquiries_module


def test_work_that_waits_goes_to_a_worker_in_the_moment_it_joins():
    async def main():
        async with Setup() as setup:
            setup.worker.connection.close()
            setup.node.connection.send(("exited", WORKER, "for a change", [], None, False, False, None, ""))
            setup.submit("x")
            worker = await setup.add_worker()
            ((key, *_),) = (await worker.next("run"))[1]
            assert key == "x"

    run(main())


@pytest.mark.parametrize("leaves", [False, True])
def test_what_a_client_says_after_it_has_cancelled_much_comes_after_that(leaves):
    """Nobody else waits for that."""

    async def main():
        async with Setup() as setup:
            state = setup.scheduler.state
            state.life.follow_up.limit = 1
            other = await Peer.join(setup.scheduler, "client", id="other", name="other")
            keys = [f"k{n}" for n in range(100)]
            say = setup.client.connection.send
            say(("functions", [(b"f" * 16, b"blob")]))
            say(
                (
                    "submit",
                    [("root", b"f" * 16, b"", ()), *[(k, b"f" * 16, b"", ("root",)) for k in keys]],
                    None,
                    {},
                    "",
                )
            )
            say(("cancel", ["root"], False, None, ""))
            say(("submit", [("k0", b"f" * 16, b"", ())], None, {}, ""))
            say(("run-unattended", ["k0"]))
            await setup.worker.next("run")
            other.connection.send(("request", 1, "list-datasets", {}))
            if leaves:
                setup.client.connection.close()
            await other.next("reply")
            assert state.life.follow_up.chores, "the other one has waited for it"
            async with asyncio.timeout(20):
                while state.life.follow_up.has_more or set(state.tasks) != {"k0"}:
                    await asyncio.sleep(0)
            assert state.tasks["k0"].holders

    run(main())


def test_the_node_of_a_worker_that_has_lost_the_scheduler_is_told(monkeypatch):
    async def main():
        async with Setup() as setup:
            worker = await Peer.join(
                setup.scheduler, "worker", address=f"{NODE}/7", name="seven", node=NODE, nthreads=1, pid=1234
            )
            worker.connection.abort()
            assert await setup.node.next("parted") == ("parted", f"{NODE}/7", 1234)

    run(main())


def test_a_worker_whose_process_ended_is_gone_even_if_its_connection_stays_open(monkeypatch):
    monkeypatch.setattr(workers_module, "EXIT_REASON_SECONDS", 0.05)

    async def main():
        async with Setup() as setup:
            setup.submit("x")
            await setup.worker.next("run")
            setup.node.connection.send(("exited", WORKER, "was killed by SIGKILL", [], None, False, False, None, ""))
            await setup.worker.until(lambda: setup.worker.gone)
            worker = await setup.add_worker()
            assert (await worker.next("run"))[1][0][0] == "x"

    run(main())


TASKS = [(("x", i), None, b"args", ()) for i in range(20 * MAX_ITEMS)]


def test_a_second_client_is_answered_in_the_middle_of_a_large_graph(monkeypatch):
    monkeypatch.setattr(inbox_module, "TURN_SECONDS", 0.0)

    async def main():
        async with Setup(validate=False) as setup:
            other = await Peer.join(setup.scheduler, "client", id="other")
            setup.client.connection.send(("submit", TASKS, None, {}, ""))
            while not (known := len(setup.scheduler.state.tasks)):
                await asyncio.sleep(0)
            assert known < len(TASKS) / 2
            other.connection.send(("request", 1, "list-datasets", {}))
            await other.next("reply")
            assert len(setup.scheduler.state.tasks) < len(TASKS)
            setup.client.connection.send(("request", 1, "list-datasets", {}))
            await setup.client.next("reply")
            assert len(setup.scheduler.state.tasks) == len(TASKS)

    run(main())


def test_a_client_that_leaves_in_the_middle_of_its_graph_leaves_nothing_behind():
    async def main():
        async with Setup(validate=False) as setup:
            setup.client.connection.send(("submit", TASKS, None, {}, ""))
            while not setup.scheduler.state.tasks:
                await asyncio.sleep(0)
            setup.client.connection.close()
            while setup.scheduler.state.clients or setup.scheduler.state.tasks:
                await asyncio.sleep(0)
            assert not setup.scheduler.state.life.groups.table["x"].tasks

    run(main())


@pytest.mark.parametrize("operation", ["release", "cancel"])
def test_a_graph_that_is_given_up_behind_its_submission_leaves_nothing_behind(operation):
    async def main():
        async with Setup(validate=False) as setup:
            keys = [task[0] for task in TASKS]
            setup.client.connection.send(("submit", TASKS, None, {}, ""))
            setup.client.connection.send(
                (operation, keys) if operation == "release" else (operation, keys, False, None, "")
            )
            setup.client.connection.send(("request", 1, "list-datasets", {}))
            await setup.client.next("reply")
            while setup.scheduler.state.tasks:
                await asyncio.sleep(0)

    run(main())


def test_more_tasks_in_a_message_than_are_handled_at_once_are_refused(caplog):
    async def main():
        async with Setup() as setup:
            setup.client.connection.send(("submit", TASKS, [TASKS[-1][0]], {}, ""))
            await setup.client.until(lambda: setup.client.gone)

    run(main())
    assert f"{len(TASKS):,} tasks in one message are more than {MAX_ITEMS:,}" in caplog.text


def test_a_node_that_falls_silent_is_given_up_with_its_workers():
    async def main():
        async with Setup(silence_timeout=0.2) as setup:
            await setup.worker.until(lambda: setup.worker.gone)
            await setup.node.until(lambda: setup.node.gone)
            assert (await setup.client.next("nodes"))[1:] == ((), (NODE,))
            assert not setup.scheduler.state.workers

    run(main())


def test_status_says_which_hosts_were_given_up_until_they_are_back():
    async def main():
        async with Setup(silence_timeout=0.2) as setup:
            await setup.node.until(lambda: setup.node.gone)
            setup.client.connection.send(("request", 1, "status", {}))
            (host,) = (await setup.client.next("reply"))[3]["absent"]
            assert (host["address"], host["reason"]) == (NODE, "it has said nothing for 0 s")
            setup.node = await Peer.join_as_node(setup.scheduler, [])
            assert setup.scheduler._members.absent.describe() == []

    run(main())


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def test_after_a_stop_nobody_is_given_up_who_has_spoken():
    async def main():
        async with Setup(silence_timeout=0.5) as setup:
            for _ in range(3):
                setup.node.connection.send(("heartbeat", {}))
                await asyncio.sleep(0.01)
                time.sleep(1.0)  # the scheduler, which lives in this loop, does not listen
            setup.client.connection.send(("request", 1, "nthreads", {}))
            assert (await setup.client.next("reply"))[3] == {WORKER: 1}

    run(main())


def test_what_has_come_is_read_before_anybody_is_judged():
    async def main():
        async with Setup() as setup:
            setup.node.connection.send(("heartbeat", {}))
            setup.node.connection.flush()
            setup.scheduler._peers[NODE].heard -= 1000
            setup.scheduler._members._watch_silence()
            await asyncio.sleep(0.05)
            assert not setup.node.gone

    run(main())


def test_a_node_whose_messages_wait_here_is_not_silent(monkeypatch):
    monkeypatch.setattr(inbox_module, "TURN_SECONDS", 0.0)

    async def main():
        handled = []
        monkeypatch.setattr(Scheduler, "_worker_exited", lambda *_: time.sleep(0.02) or handled.append(1))
        async with Setup(silence_timeout=0.2, validate=False) as setup:
            for _ in range(100):  # they take two seconds, and all of them have come before the first is handled
                setup.node.connection.send(("exited", WORKER, "for a change", [], None, False, False, None, ""))
            await until(lambda: len(handled) == 100)
            assert not setup.node.gone
            assert NODE in setup.scheduler.state.hosts

    run(main())


SCATTERED = ("x", b"x" * 16, 5, "bytes", NODE, None)
REPORTED = {"id": b"x" * 16, "key": "x", "nbytes": 5, "type": "bytes", "owner": "me"}


def test_a_node_that_was_given_up_comes_back_with_what_it_has():
    async def main():
        async with Setup(silence_timeout=0.2) as setup:
            setup.client.connection.send(("scattered", [SCATTERED], False, ""))
            await setup.client.next("memory")
            await setup.client.next("pending")
            unknown = {"id": b"y" * 16, "nbytes": 5, "owner": "here-0", "of a later version": [1, 2]}
            setup.node = await Peer.join_as_node(setup.scheduler, [REPORTED, unknown])
            assert (await setup.client.next("memory"))[1] == (("x", b"x" * 16, 5, None, (NODE,)),)
            assert await setup.node.next("delete") == ("delete", (b"y" * 16,))
            setup.worker = await setup.add_worker()
            setup.submit("z")
            await setup.worker.next("run")

    run(main())


def test_an_agent_that_connects_anew_supersedes_itself_and_its_workers():
    async def main():
        async with Setup() as setup:
            setup.client.connection.send(("scattered", [SCATTERED], False, ""))
            await setup.client.next("memory")
            again = await Peer.join_as_node(setup.scheduler, [REPORTED])
            assert setup.node.gone
            setup.node = again
            await setup.worker.until(lambda: setup.worker.gone)
            await setup.client.next("pending")
            await setup.client.next("memory")
            setup.worker = await setup.add_worker()

    run(main())


def test_another_agent_at_the_same_address_does_not_supersede_it():
    async def main():
        async with Setup() as setup:
            with pytest.raises(ConnectError, match="connected already"):
                await Peer.join_as_node(setup.scheduler, incarnation="second", timeout=0.2)
            assert not setup.node.gone

    run(main())


def test_workers_wait_until_their_node_has_said_what_it_has():
    async def main():
        async with Setup() as setup:
            node = "tcp://127.0.0.1:2"
            new = await Peer.join_as_node(setup.scheduler, None, address=node)
            joining = asyncio.ensure_future(
                Peer.join(setup.scheduler, "worker", address=f"{node}/0", name="there-0", node=node, nthreads=1)
            )
            await asyncio.sleep(0.1)
            assert not joining.done()
            new.connection.send(("ready",))
            worker = await joining
            worker.connection.close()
            new.connection.close()

    run(main())


def test_what_a_client_put_and_may_be_about_to_tell_of_is_not_deleted_before_it_leaves():
    async def main():
        async with Setup() as setup:
            other = await Peer.join(setup.scheduler, "client", id="other")
            told, untold = ({"id": object_id * 16, "nbytes": 5, "owner": "other"} for object_id in (b"o", b"u"))
            setup.node = await Peer.join_as_node(setup.scheduler, [told, untold])
            await until(lambda: setup.scheduler.state.hosts[NODE].is_ready)
            other.connection.send(("scattered", [("o", b"o" * 16, 5, "bytes", NODE, None)], False, ""))
            setup.client.connection.send(("want", ["o"]))
            await other.next("memory")
            setup.client.connection.send(("want", ["o"]))
            await setup.client.next("memory")
            other.connection.close()
            assert await setup.node.next("delete") == ("delete", (b"u" * 16,))

    run(main())


def test_what_a_worker_had_put_and_nobody_heard_of_is_deleted_when_all_it_sent_has_been_read():
    async def main():
        async with Setup() as setup:
            setup.submit("x")
            ((_, run_id, *_, serial),) = (await setup.worker.next("run"))[1]
            told, untold = b"told" * 4, b"lost" * 4
            # Its node notices first; what the worker had sent before it died is read later.
            setup.node.connection.send(("left", [{"id": told}, {"id": untold, "generation": 2}], "here-0", None))
            setup.node.connection.send(("exited", WORKER, "was killed by SIGKILL", [], None, False, False, None, ""))
            setup.worker.connection.send(("finished", [(serial, run_id, told, 10, None, "bytes", 0.1)]))
            await setup.client.next("memory")
            setup.worker.connection.close()
            assert await setup.node.next("delete") == ("delete", (untold,))

    run(main())


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"address": WORKER + "1", "name": "x", "node": NODE, "nthreads": "many"},
        {"address": WORKER + "1", "name": "x", "node": NODE, "nthreads": 1, "resources": ["GPU"]},
    ],
)
def test_a_worker_that_says_odd_things_about_itself_is_refused_and_can_come_again(info):
    async def main():
        async with Setup() as setup:
            try:
                peer = await Peer.join(setup.scheduler, "worker", **info)
            except ConnectError:
                pass
            else:
                await peer.until(lambda: peer.gone)
            again = await Peer.join(
                setup.scheduler, "worker", address=WORKER + "1", name="x", node=NODE, nthreads=1, resources={"GPU": 1}
            )
            setup.client.connection.send(("request", 1, "nthreads", {}))
            assert (await setup.client.next("reply"))[3] == {WORKER: 1, WORKER + "1": 1}
            again.connection.close()

    run(main())


@pytest.mark.parametrize(
    "message", [("submit", 1, 2, 3), ("request",), ("nonsense",), ("release", 5), ("turn",), ("scattered", [("x",)])]
)
def test_a_malformed_message_ends_that_client_and_nobody_else(message, caplog):
    async def main():
        async with Setup() as setup:
            other = await Peer.join(setup.scheduler, "client", id="other")
            other.connection.send(message)
            await other.until(lambda: other.gone)
            setup.submit("x")
            await setup.worker.next("run")

    run(main())
    assert "closing the connection" in caplog.text


def test_a_request_that_nobody_knows():
    async def main():
        async with Setup() as setup:
            setup.client.connection.send(("request", 7, "sing", {}))
            reply = await setup.client.next("reply")
            assert reply[1:3] == (7, False)
            assert "sing" in reply[3][1]

    run(main())


def test_status_asks_the_nodes_how_they_are_now_and_does_not_wait_for_ever(monkeypatch):
    async def main():
        async with Setup() as setup:
            setup.client.connection.send(("request", 1, "status", {}))
            await setup.node.next("report")
            setup.node.connection.send(("heartbeat", {"store": {"used": 5}, "workers": {WORKER: {"memory": 7}}}))
            (_, _, ok, status) = await setup.client.next("reply")
            assert ok
            assert status["nodes"][NODE]["store"] == {"capacity": 1, "used": 5}
            assert status["nodes"][NODE]["workers"][WORKER]["memory"] == 7
            monkeypatch.setattr(inquiries_module, "REPORT_SECONDS", 0.05)
            setup.client.connection.send(("request", 2, "memory", {}))
            assert (await setup.client.next("reply"))[1:3] == (2, True)
            monkeypatch.setattr(inquiries_module, "REPORT_SECONDS", 1000.0)
            monkeypatch.setattr(validation, "QUICK_SECONDS", 1000.0)
            setup.client.connection.send(("request", 3, "status", {}))
            setup.node.connection.close()
            assert (await setup.client.next("reply"))[3]["nodes"] == {}

    run(main())


def test_waiting_for_workers_ends_when_they_are_there_or_time_is_up():
    async def main():
        async with Setup() as setup:
            setup.client.connection.send(("request", 1, "wait-for-workers", {"n": 2, "timeout": 20}))
            another = await Peer.join(
                setup.scheduler, "worker", address=NODE + "/1", name="here-1", node=NODE, nthreads=1
            )
            assert (await setup.client.next("reply"))[1:] == (1, True, 2)
            setup.client.connection.send(("request", 2, "wait-for-workers", {"n": 3, "timeout": 0.01}))
            (_, _, ok, (error, text)) = await setup.client.next("reply")
            assert (ok, error) == (False, "TimeoutError")
            assert "for 3 workers, 2 are there" in text
            another.connection.close()

    run(main())
