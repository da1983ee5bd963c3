"""Peers of a scheduler that has died go on with the next one: what they have said has its effects once."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from scheduler_peers import NODE, TOKEN, WORKER, Peer

from holdfast.cluster import protocol
from holdfast.cluster.comm.addresses import parse_address
from holdfast.cluster.comm.listening import bound_socket
from holdfast.cluster.comm.loops import run
from holdfast.cluster.comm.opening import RestartedError, ResumeError
from holdfast.cluster.journal.tables import Tables
from holdfast.cluster.naming import id_of_tasks
from holdfast.cluster.protocol import requests
from holdfast.cluster.scheduler.io.journaling import Journal
from holdfast.cluster.scheduler.io.progress import Position, positions
from holdfast.cluster.scheduler.io.server import Scheduler
from holdfast.cluster.scheduler.tasks import events


class Schedulers:
    """One scheduler after the other, at one address and with one state directory."""

    def __init__(self, path, **options):
        self.path = path
        self.options = {"recovery_seconds": 0.2, **options}
        self.port = 0

    async def begin(self):
        self.scheduler = Scheduler(
            token=TOKEN,
            sock=bound_socket("127.0.0.1", self.port),
            journal=Journal.open(self.path),
            validate=True,
            **self.options,
        )
        await self.scheduler.start()
        _, self.port = parse_address(self.scheduler.address)

    async def die(self):
        """End as if killed: nothing more is said, heard or written."""
        scheduler = self.scheduler
        await scheduler.abandon()
        await scheduler._listener.close()
        for peer in scheduler._peers.values():
            connection = peer.connection
            if connection is not None and connection._transport is not None:
                connection._transport.set_protocol(asyncio.Protocol())
                connection._transport.abort()
                connection._transport = None
                connection.leave_to_parent()

    async def restart(self):
        await self.die()
        await self.begin()

    async def join(self, role="client", **info):
        peer = await Peer.join(self.scheduler, role, **({"id": "me", "name": "me"} if role == "client" else info))
        peer.rejoined = []
        peer.connection.on_rejoin = peer.rejoined.append
        return peer

    def tell_all_it_may(self):
        """The client is told which of its frames are safe, and after that it is warned of something."""
        peer = self.scheduler._peers["me"]
        peer.connection._tell_if_any()
        peer.send(("warning", "of nothing"))

    def recorded(self):
        """How far each peer was heard, as the journal says when the scheduler has died."""
        journal = Journal.open(self.path)
        try:
            return positions(journal._tables)
        finally:
            journal._close(False)


@contextlib.asynccontextmanager
async def schedulers(path, **options):
    those = Schedulers(path, **options)
    await those.begin()
    try:
        yield those
    finally:
        await those.scheduler.close()


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


def submit(peer, *keys):
    """In a frame of its own, a message for each key."""
    peer.connection.send(("functions", [(b"f" * 16, b"blob")]))
    for key in keys:
        peer.connection.send(("submit", [(key, b"f" * 16, b"args", ())], None, {}, ""))
    peer.connection.flush()


def test_a_client_is_told_that_a_frame_is_safe_when_it_is_written(state):
    async def main():
        async with schedulers(state) as those:
            client = await those.join()
            submit(client, "x")
            await until(lambda: not client.connection.session.kept)
            assert "x" in those.scheduler.state.tasks
            line = client.connection.session.was.session
            await those.die()
            assert those.recorded()["me"] == Position(line, 1, 0)
            await those.begin()
            assert "x" in those.scheduler.state.tasks
            await until(lambda: client.rejoined)

    run(main())


def test_what_was_not_written_is_said_again(state, monkeypatch):
    async def main():
        async with schedulers(state) as those:
            client = await those.join()
            submit(client, "x")
            await until(lambda: not client.connection.session.kept)
            # From here on nothing is heard.
            those.scheduler._members.stand_still(True)
            submit(client, "y")
            await until(lambda: those.scheduler._peers["me"].connection.taken == 2)
            those.tell_all_it_may()
            await client.next("warning")
            assert len(client.connection.session.kept) == 1
            await those.restart()
            await until(lambda: "y" in those.scheduler.state.tasks)
            await until(lambda: not client.connection.session.kept)
            assert not client.gone

    run(main())


@pytest.fixture
def handled(monkeypatch):
    """What schedulers handle, by the peer that has said it."""
    handled = []
    handle = Scheduler._handle_message

    def noting(scheduler, peer, message):
        handled.append((peer.name, message))
        if len(handled) == handled_limit[0]:
            peer.inbox.is_held = True  # from here on nothing more of it
        return handle(scheduler, peer, message)

    handled_limit = [0]
    monkeypatch.setattr(Scheduler, "_handle_message", noting)
    handled_by = lambda limit: handled_limit.__setitem__(0, limit)  # noqa: E731
    return handled, handled_by


@pytest.mark.parametrize("restarts", [1, 2])
def test_of_a_frame_that_was_handled_in_part_the_rest_is_handled(state, handled, restarts):
    seen, limit = handled

    async def main():
        async with schedulers(state) as those:
            client = await those.join()
            limit(3)
            submit(client, "x", "y", "z")  # a message with functions before them
            await until(lambda: len(seen) == 3)
            line = client.connection.session.was.session
            assert len(client.connection.session.kept) == 1
            limit(0)
            for number in range(restarts):
                await those.die()
                assert those.recorded()["me"] == Position(line, 0, 3)
                del seen[:]
                await those.begin()
                if number + 1 < restarts:
                    those.scheduler._members.stand_still(True)  # it dies before it has heard anything
                await until(lambda n=number: len(client.rejoined) == n + 1)
            await until(lambda: "z" in those.scheduler.state.tasks)
            assert [message[0] for name, message in seen if name == "me"] == ["submit"]
            await until(lambda: not client.connection.session.kept)
            assert set(those.scheduler.state.tasks) == {"x", "y", "z"}

    run(main())


def test_a_frame_is_not_safe_while_the_journal_can_not_be_written(state, monkeypatch):
    async def main():
        async with schedulers(state) as those:
            client = await those.join()
            journal = those.scheduler._journal
            write = journal._write
            monkeypatch.setattr(journal, "_write", lambda decided: False)
            submit(client, "x")
            await until(lambda: journal._held)
            those.tell_all_it_may()
            await client.next("warning")
            assert len(client.connection.session.kept) == 1
            monkeypatch.setattr(journal, "_write", write)
            journal._retry()
            await until(lambda: not client.connection.session.kept)

    run(main())


def test_another_process_under_the_same_name_begins_anew(state):
    """What is recorded of the worker before it is not about its frames."""

    async def main():
        async with schedulers(state) as those:
            node = await Peer.join_as_node(those.scheduler)
            await until(lambda: those.scheduler.state.hosts[NODE].is_ready)
            worker = await those.join("worker", address=WORKER, name="here-0", node=NODE, nthreads=1, pid=1)
            worker.connection.send(("tasks-opened",))
            await worker.next("tasks")
            await until(lambda: not worker.connection.session.kept)
            worker.connection.close()
            await until(lambda: not those.scheduler.state.workers)
            await those.die()
            assert WORKER not in those.recorded()
            await those.begin()
            await Peer.join_as_node(those.scheduler)
            another = await those.join("worker", address=WORKER, name="here-0", node=NODE, nthreads=1, pid=2)
            another.connection.send(("tasks-opened",))
            await another.next("tasks")
            assert node.gone

    run(main())


def test_a_worker_goes_on_where_it_was_heard(state):
    async def main():
        async with schedulers(state, recovery_seconds=30.0) as those:
            await Peer.join_as_node(those.scheduler, address="tcp://127.0.0.1:2")  # which does not come back
            await Peer.join_as_node(those.scheduler)
            await until(lambda: those.scheduler.state.hosts[NODE].is_ready)
            worker = await those.join("worker", address=WORKER, name="here-0", node=NODE, nthreads=1)
            worker.connection.send(("tasks-opened",))
            await worker.next("tasks")
            await until(lambda: not worker.connection.session.kept)
            await those.restart()
            await Peer.join_as_node(those.scheduler)
            await until(lambda: worker.rejoined and WORKER in those.scheduler.state.workers)
            assert worker.connection.session.acknowledged == 1
            assert id_of_tasks(WORKER) in those.scheduler._peers
            assert not worker.gone

    run(main())


def test_what_tasks_say_while_others_are_awaited_is_heard_later_and_once(state, handled):
    seen, _ = handled

    async def main():
        async with schedulers(state, recovery_seconds=30.0) as those:
            await Peer.join_as_node(those.scheduler, address="tcp://127.0.0.1:2")  # which does not come back
            await Peer.join_as_node(those.scheduler)
            await until(lambda: those.scheduler.state.hosts[NODE].is_ready)
            worker = await those.join("worker", address=WORKER, name="here-0", node=NODE, nthreads=1, incarnation=1)
            worker.connection.send(("tasks-opened",))
            await worker.next("tasks")
            await until(lambda: not worker.connection.session.kept)
            await those.die()
            await until(lambda: worker.connection.is_broken)
            worker.connection.send(("tasks", "functions", [(b"f" * 16, b"blob")]))
            worker.connection.send(("tasks", "submit", [("x", b"f" * 16, b"args", ())], None, {}, ""))
            worker.connection.flush()
            del seen[:]
            await those.begin()
            node = await Peer.join_as_node(those.scheduler, inventory=None)
            node.connection.send(("inventory", ()))
            node.connection.send(("ready",))
            await until(lambda: worker.rejoined)
            await until(lambda: len([name for name, _ in seen if name == WORKER]) == 2)
            assert those.scheduler._members.is_recovering
            assert len(worker.connection.session.kept) == 1
            assert "x" not in those.scheduler.state.tasks
            those.scheduler._handle(events.RunsKept(WORKER, (), ()))
            those.scheduler._members._coming_back._conclude()
            await until(lambda: "x" in those.scheduler.state.tasks)
            await until(lambda: not worker.connection.session.kept)

    run(main())


def test_a_client_that_the_journal_does_not_know_is_told_so(state):
    async def main():
        async with schedulers(state, client_resume_seconds=0.1) as those:
            client = await those.join()
            ends = []
            client.connection._on_close = ends.append
            submit(client, "x")
            await until(lambda: not client.connection.session.kept)
            await those.die()
            await until(lambda: client.connection.is_broken)
            way_back = client.connection._way_back
            way_back._task.cancel()
            await those.begin()
            await until(lambda: not those.scheduler.state.clients)
            way_back.broke(None)
            await until(lambda: ends)
            assert isinstance(ends[0], ResumeError)
            assert "does not know the client me any more" in str(ends[0])

    run(main())


def test_of_peers_that_have_left_no_position_is_kept(state):
    async def main():
        async with schedulers(state, client_resume_seconds=0.1) as those:
            client, other = await those.join(), await Peer.join(those.scheduler, "client", id="other")
            for peer in (client, other):
                submit(peer, peer.connection.info["scheduler"]["id"])
                await until(lambda peer=peer: not peer.connection.session.kept)
            other.connection.close()
            await until(lambda: "other" not in those.scheduler._peers)
            await those.die()
            assert set(those.recorded()) == {"me"}
            await until(lambda: client.connection.is_broken)
            client.connection._way_back._task.cancel()
            await those.begin()
            await until(lambda: not those.scheduler.state.clients)
            await those.die()
            assert those.recorded() == {}
            await those.begin()

    run(main())


def test_a_client_of_which_only_the_client_knows_goes_on(state, monkeypatch):
    """The scheduler has died when it had welcomed the client, and not written that down."""

    async def main():
        async with schedulers(state) as those:
            monkeypatch.setattr(those.scheduler, "_handle", lambda event: None)
            client = await those.join()
            submit(client, "x")
            await until(lambda: those.scheduler._peers["me"].connection.taken == 1)
            monkeypatch.undo()
            await those.restart()
            await until(lambda: "x" in those.scheduler.state.tasks)
            assert client.rejoined
            assert not client.gone

    run(main())


def test_a_client_that_joins_again_is_another_one(state):
    """It has not got the welcome of the scheduler that has died, and knows of no session."""

    async def main():
        async with schedulers(state) as those:
            client = await those.join()
            submit(client, "x")
            await until(lambda: not client.connection.session.kept)
            client.connection._way_back.leave_to_parent()
            await those.restart()
            again = await those.join()
            await until(lambda: "x" not in those.scheduler.state.tasks)
            assert "me" in those.scheduler.state.clients
            assert not again.gone

    run(main())


def test_a_rejoined_client_whose_welcome_was_lost_rejoins_in_its_own_place(state):
    async def main():
        async with schedulers(state) as those:
            client = await those.join()
            submit(client, "x")
            await until(lambda: not client.connection.session.kept)
            session = client.connection.session
            was = session.was
            await those.restart()
            await until(lambda: client.rejoined and "me" in those.scheduler._peers)
            recorded = those.scheduler._members.recorded
            info = {"id": "me", "name": "me"}
            with pytest.raises(Exception, match="connected already"):
                recorded("client", info, was._replace(attempt=1))  # an earlier attempt
            assert recorded("client", info, was._replace(attempt=99)) == 1
            assert "me" in those.scheduler.state.clients
            assert "x" in those.scheduler.state.tasks
            with pytest.raises(Exception, match="any more"):
                recorded("client", {"id": "stranger"}, was)
            assert recorded("client", {"id": "stranger"}, was._replace(acknowledged=0)) == 0

    run(main())


def test_a_node_is_told_that_the_scheduler_is_another_one(state):
    async def main():
        async with schedulers(state) as those:
            node = await Peer.join_as_node(those.scheduler)
            ends = []
            node.connection._on_close = ends.append
            await until(lambda: not node.connection.session.kept)
            await those.restart()
            await until(lambda: ends)
            assert isinstance(ends[0], RestartedError)

    run(main())


def test_positions_are_read_from_the_journal():
    tables = Tables()
    assert positions(tables) == {}


def test_what_was_asked_of_an_earlier_scheduler_is_answered_when_it_is_asked_again(state):
    """A client whose request was answered may have gone on with that: it does not ask again."""

    async def main():
        async with schedulers(state) as those:
            client = await those.join()
            for number, request in enumerate((requests.WHO_HAS(keys=["x"]), requests.QUEUE_SIZE(name="q")), 1):
                client.connection.send(protocol.client.REQUEST(number, *request))
                assert (await client.next("reply"))[1] == number
            client.connection.send(protocol.client.REQUEST(0, *requests.PUT_QUIETLY(name="q", data=b"1", keys=())))
            assert client.connection.session.kept
            await those.restart()
            await until(lambda: client.rejoined)
            epoch = those.scheduler._journal.epoch
            client.connection.send(protocol.client.REJOINED(epoch, [], True, ()))
            client.connection.send(protocol.client.REQUEST(2, *requests.QUEUE_SIZE(name="q")))
            assert await client.next("reply") == ("reply", 2, True, 1), "and what has no answer counts"

    run(main())


@pytest.mark.parametrize("is_open", [False, True], ids=["opened later", "open before"])
def test_tasks_of_a_worker_that_has_rejoined_are_heard(state, is_open):
    async def main():
        async with schedulers(state, recovery_seconds=30.0) as those:
            await Peer.join_as_node(those.scheduler, address="tcp://127.0.0.1:2")  # which does not come back
            await Peer.join_as_node(those.scheduler)
            await until(lambda: those.scheduler.state.hosts[NODE].is_ready)
            worker = await those.join("worker", address=WORKER, name="here-0", node=NODE, nthreads=1)
            if is_open:
                worker.connection.send(("tasks-opened",))
                await worker.next("tasks")
            await until(lambda: not worker.connection.session.kept)
            await those.restart()
            await Peer.join_as_node(those.scheduler)
            await until(lambda: worker.rejoined)
            epoch = those.scheduler._journal.epoch
            worker.connection.send(protocol.worker.RUNS_KEPT(epoch, []))
            await until(lambda: those.scheduler._peers[WORKER].is_back)
            those.scheduler._members._coming_back._conclude()
            if is_open:
                worker.connection.send(("tasks", *protocol.client.REJOINED(epoch, [], True, ())))
            else:
                worker.connection.send(("tasks-opened",))
            worker.connection.send(("tasks", *protocol.client.REQUEST(1, *requests.QUEUE_SIZE(name="q"))))
            while (said := await worker.next("tasks"))[1] != "reply":
                pass
            assert said[1:] == ("reply", 1, True, 0)
            assert those.scheduler._members.is_back(id_of_tasks(WORKER)), "so calls of actors are heard"

    run(main())


@pytest.mark.parametrize("when", ["before it says which runs it has", "after"])
@pytest.mark.parametrize("outcome", ["result", "error"])
def test_futures_inside_of_an_outcome_are_kept_though_they_were_submitted_to_nobody(state, when, outcome):
    """A task has submitted another one and returned its future, while there was no scheduler."""

    async def main():
        async with schedulers(state, recovery_seconds=30.0) as those:
            await Peer.join_as_node(those.scheduler, address="tcp://127.0.0.1:2")  # which does not come back
            await Peer.join_as_node(those.scheduler)
            await until(lambda: those.scheduler.state.hosts[NODE].is_ready)
            client = await those.join()
            submit(client, "outer")
            worker = await those.join("worker", address=WORKER, name="here-0", node=NODE, nthreads=1, incarnation=1)
            worker.connection.send(("tasks-opened",))
            await worker.next("tasks")
            ((_, run_id, *_, serial),) = (await worker.next("run"))[1]
            await until(lambda: not worker.connection.session.kept and not client.connection.session.kept)
            await those.die()
            await until(lambda: worker.connection.is_broken)

            def come_to_an_end():
                worker.connection.send(("tasks", "functions", [(b"f" * 16, b"blob")]))
                worker.connection.send(("tasks", "submit", [("inner", b"f" * 16, b"args", ())], None, {}, ""))
                worker.connection.send(protocol.worker.FUTURES_INSIDE([(run_id, ["inner"])]))
                if outcome == "result":
                    said = protocol.worker.FINISHED([(serial, run_id, b"o" * 16, 10, b"inline", "Future", 0.1)])
                else:
                    said = protocol.worker.ERRED([(serial, run_id, b"raised", "it failed", 0.1)])
                worker.connection.send(said)
                worker.connection.send(("tasks", "release", ["inner"]))
                worker.connection.flush()

            if when != "after":
                come_to_an_end()
            await those.begin()
            node = await Peer.join_as_node(those.scheduler, inventory=None)
            node.connection.send(("inventory", ()))
            node.connection.send(("ready",))
            await until(lambda: worker.rejoined and client.rejoined)
            epoch = those.scheduler._journal.epoch
            runs = [(run_id, serial, False)] if when == "after" else []
            worker.connection.send(("tasks", *protocol.client.REJOINED(epoch, [], True, ())))
            worker.connection.send(protocol.worker.RUNS_KEPT(epoch, runs))
            if when == "after":
                come_to_an_end()
            client.connection.send(protocol.client.REJOINED(epoch, ["outer"], True, ()))
            client.connection.send(protocol.client.WANT(["inner"]))  # as if it had read the outcome at once
            worker.connection.flush()
            client.connection.flush()
            peers = those.scheduler._peers
            await until(lambda: peers[WORKER].is_back and any(said[0][0] == "tasks" for said in peers[WORKER].put_off))
            those.scheduler._members._coming_back._conclude()
            await until(lambda: not worker.connection.session.kept and not client.connection.session.kept)
            tasks = those.scheduler.state.tasks
            assert tasks["outer"].state == ("memory" if outcome == "result" else "erred")
            kinds = {holder.kind for holder in tasks["inner"].holders}
            assert kinds == {"client", "object" if outcome == "result" else "exception"}

    run(main())
