"""Ends that rejoin: their listener has died, and another one listens there that has its journal."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from contextlib import asynccontextmanager

import pytest

from holdfast.cluster.comm import shortcut
from holdfast.cluster.comm.addresses import parse_address
from holdfast.cluster.comm.connecting import connect
from holdfast.cluster.comm.listening import Journal, Listener, bound_socket
from holdfast.cluster.comm.loops import run
from holdfast.cluster.comm.opening import Refused, RestartedError, ResumeError
from holdfast.cluster.errors import ConnectError
from tests.comm.server import TOKEN

DEADLINE_SECONDS = 30


class Dynasty:
    """Listeners that follow each other at one address. What they handle is written down, frame by frame."""

    def __init__(self, seconds=30.0):
        self.seconds = seconds
        self.port = 0
        self.number = 0
        self.recorded = {}  # how many frames are handled, by their first session
        self.handled = []
        self.connections = []
        self.ends = []
        self.handles = True
        self.refusal = None

    async def begin(self, epoch=None):
        self.number += 1
        self.connections = []
        self.listener = Listener(
            TOKEN,
            lambda role, info: {"number": self.number},
            self._connected,
            grace=lambda role: 20.0,
            epoch=epoch or f"dynasty/{self.number}",
            journal=None if epoch else Journal(self.seconds, self._find),
        )
        await self.listener.listen(bound_socket("127.0.0.1", self.port))
        _, self.port = parse_address(self.listener.address)

    async def die(self):
        await self.listener.close()
        for connection in self.connections:
            if connection._transport is not None:
                connection._transport.set_protocol(asyncio.Protocol())
                connection._transport.abort()
                connection._transport = None
            connection.leave_to_parent()

    def _find(self, role, info, was):
        if self.refusal is not None:
            raise self.refusal
        return self.recorded.get(was.session, 0)

    def _connected(self, connection):
        self.connections.append(connection)

        def on_batch(batch):
            if self.handles and connection in self.connections:
                self.handled += batch
                self.recorded[connection.numbered_since] = connection.handed_over
                connection.handled(connection.handed_over)

        connection.start(on_batch, self.ends.append)

    async def connect(self, heard, ends, **options):
        address = f"tcp://127.0.0.1:{self.port}"
        connection = await connect(address, token=TOKEN, role="client", info={"id": "me"}, timeout=5, **options)

        def on_batch(batch):
            heard.extend(batch)

        connection.start(on_batch, ends.append, lambda batch: on_batch(batch) or True)
        return connection


@asynccontextmanager
async def dynasty(**options):
    listeners = Dynasty(**options)
    await listeners.begin()
    try:
        yield listeners
    finally:
        await listeners.listener.close()
        for connection in listeners.connections:
            connection.abort()


async def until(condition):
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture(params=["shortcut", "network"], autouse=True)
def way(request, monkeypatch):
    if request.param == "network":
        monkeypatch.setattr(shortcut, "listening", lambda host, port: None)
    return request.param


def family_of(connection):
    return connection._transport.get_extra_info("socket").family


@pytest.mark.parametrize("shared", [False, True])
def test_each_frame_is_handled_once_whichever_listeners_die(shared, way):
    async def main():
        async with dynasty() as listeners:
            heard, ends, rejoined = [], [], []
            ours = await listeners.connect(heard, ends, shared=shared)
            assert (family_of(ours) == socket.AF_UNIX) == (way == "shortcut")
            ours.on_rejoin = rejoined.append
            said = 0
            for generation in range(1, 5):
                for _ in range(100):
                    ours.send(("op", said))
                    ours.flush()
                    said += 1
                await until(lambda n=said: len(listeners.handled) == n)
                # What is taken and not handled dies with the listener.
                listeners.handles = False
                for _ in range(100):
                    ours.send(("op", said))
                    ours.flush()
                    said += 1
                taken = listeners.connections[0]
                if generation % 2:
                    await until(lambda n=said, taken=taken: taken.taken == n)
                taken.send(("from", generation))
                taken.flush()
                await until(lambda n=generation: len(heard) == n)
                await listeners.die()
                await until(lambda: ours.is_broken)
                ours.send(("op", said))
                ours.flush()
                said += 1
                listeners.handles = True
                await listeners.begin()
                await until(lambda n=generation: len(rejoined) == n)
                await until(lambda n=said: len(listeners.handled) == n)
                assert rejoined[-1] == ours.info == {"number": generation + 1}
            assert listeners.handled == [("op", number) for number in range(said)]
            assert heard == [("from", generation) for generation in range(1, 5)]
            # What is handled is let go of, also when nothing more is said.
            await until(lambda: not ours.session.kept)
            assert not ends
            ours.close()
            await until(lambda: listeners.ends)

    run(main())


def test_what_is_taken_and_not_handled_is_kept_also_over_a_break():
    async def main():
        async with dynasty() as listeners:
            ours = await listeners.connect([], [])
            ours.on_rejoin = lambda info: None
            listeners.handles = False
            for number in range(5):
                ours.send(("op", number))
                ours.flush()
            await until(lambda: listeners.connections and listeners.connections[0].taken == 5)
            theirs = listeners.connections[0]
            if family_of(ours) == socket.AF_UNIX:
                return  # which can't be cut
            theirs._transport.abort()
            await until(lambda: not ours.is_broken and not theirs.is_broken and len(ours.session.kept) == 5)
            assert theirs.taken == 5
            theirs.handled(5)
            await until(lambda: not ours.session.kept)

    run(main())


def test_what_threads_say_and_wait_for_goes_on_with_another_listener():
    async def main():
        async with dynasty() as listeners:
            ours = await listeners.connect([], [], shared=True)
            ours.on_rejoin = lambda info: None
            over = threading.Event()
            sent = itertools.count()
            counts = []

            def work():
                while not over.is_set():
                    counts.append(next(sent))
                    ours.send_now([("op", counts[-1])])
                    ours.read_while(lambda: False, 0.001)

            working = asyncio.ensure_future(asyncio.to_thread(work))
            try:
                for _ in range(5):
                    before = len(listeners.handled)
                    await until(lambda before=before: len(listeners.handled) > before + 5)
                    await listeners.die()
                    await until(lambda: ours.is_broken)
                    await listeners.begin()
            finally:
                over.set()
                await working
            await until(lambda: len(listeners.handled) == len(counts))
            assert [message[1] for message in listeners.handled] == counts

    run(main())


def test_one_that_can_not_rejoin_is_told_that_the_listener_is_another_one():
    async def main():
        async with dynasty() as listeners:
            ends = []
            await listeners.connect([], ends)
            await listeners.die()
            await listeners.begin()
            await until(lambda: ends)
            assert isinstance(ends[0], RestartedError)

    run(main())


def test_one_that_is_not_known_any_more_ends():
    async def main():
        async with dynasty() as listeners:
            ends = []
            ours = await listeners.connect([], ends)
            ours.on_rejoin = lambda info: None
            await listeners.die()
            listeners.refusal = Refused("resume", "it has left")
            await listeners.begin()
            await until(lambda: ends)
            assert isinstance(ends[0], ResumeError)
            assert "it has left" in str(ends[0])

    run(main())


def test_one_that_can_not_be_welcomed_yet_tries_again():
    async def main():
        async with dynasty() as listeners:
            ends = []
            ours = await listeners.connect([], ends)
            rejoined = []
            ours.on_rejoin = rejoined.append
            ours.send(("op", 0))
            await listeners.die()
            listeners.refusal = Refused("later", "not yet")
            await listeners.begin()
            await until(lambda: ours.session.attempt > 3)
            listeners.refusal = None
            await until(lambda: rejoined)
            await until(lambda: listeners.handled)
            assert not ends

    run(main())


@pytest.mark.parametrize("epoch", ["another/2", "dynasty", "none"])
def test_a_listener_of_another_cluster_or_without_a_journal_is_not_rejoined(epoch):
    async def main():
        async with dynasty() as listeners:
            ends = []
            ours = await listeners.connect([], ends)
            ours.on_rejoin = lambda info: None
            await listeners.die()
            await listeners.begin(epoch)
            await until(lambda: ends)
            assert isinstance(ends[0], ResumeError)

    run(main())


def test_after_the_time_to_look_for_another_listener_the_connection_ends():
    async def main():
        async with dynasty(seconds=0.3) as listeners:
            ends = []
            ours = await listeners.connect([], ends)
            ours.session.terms = ours.session.terms._replace(seconds=0.1)
            ours.on_rejoin = lambda info: None
            await listeners.die()
            await until(lambda: ends)
            assert isinstance(ends[0], ConnectError)
            assert "it has not come back within 0.3 s: connection refused" in str(ends[0])

    run(main())


@pytest.mark.parametrize("end", ["close", "abort"])
def test_it_may_be_closed_while_no_listener_is_there(end):
    async def main():
        async with dynasty() as listeners:
            ends = []
            ours = await listeners.connect([], ends)
            ours.on_rejoin = lambda info: None
            await listeners.die()
            await until(lambda: ours.is_broken)
            getattr(ours, end)()
            await until(lambda: ends)
            assert ends == [None]

    run(main())


def test_over_a_shortcut_an_end_whose_process_has_died_is_not_waited_for(way):
    async def main():
        async with dynasty() as listeners:
            ours = await listeners.connect([], [])
            await until(lambda: listeners.connections)
            (theirs,) = listeners.connections
            ours._transport.set_protocol(asyncio.Protocol())
            ours._transport.abort()
            await until(lambda: listeners.ends or theirs.is_broken)
            assert theirs.is_broken == (way == "network")

    run(main())


def test_a_listener_learns_what_an_end_was_to_the_one_before():
    async def main():
        async with dynasty() as listeners:
            ours = await listeners.connect([], [])
            rejoined = []
            ours.on_rejoin = rejoined.append
            ours.send(("op", 0))
            await until(lambda: listeners.handled)
            await listeners.die()
            await until(lambda: ours.is_broken)
            ours.send(("op", 1))
            was = ours.session.was
            await listeners.begin()
            await until(lambda: len(listeners.handled) == 2)
            assert listeners.connections[0].was._replace(attempt=0) == was._replace(attempt=0)
            assert listeners.connections[0].was.attempt >= was.attempt
            assert listeners.connections[0].numbered_since == was.session
            assert len(rejoined) == 1

    run(main())
