"""Sessions whose ends, threads and proxies do the least likely thing at the worst moment."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
from collections import Counter

import pytest

from holdfast.cluster.comm import connecting, frames, resumable, resume
from holdfast.cluster.comm.addresses import parse_address
from holdfast.cluster.comm.connection import Connection
from holdfast.cluster.comm.frame_reader import FrameReader
from holdfast.cluster.comm.listening import _Known
from holdfast.cluster.comm.loops import run
from holdfast.cluster.comm.machine_watch import MachineWatch
from holdfast.cluster.comm.opening import ConnectorOpening, Refused, ResumeError, Return
from holdfast.cluster.comm.resume import Resumption
from holdfast.cluster.comm.shared import SharedTransport
from holdfast.cluster.comm.strangers import GREETING
from holdfast.cluster.errors import ProtocolError
from tests.comm.served import Served
from tests.comm.server import TOKEN


async def both_ends(served, **options):
    heard, ends = [], []
    ours = await served.connect(heard, ends, **options)
    await served.until(lambda: served.connections)
    return ours, served.connections[0], heard, ends


def say(connection, *numbers):
    """Each number in a frame of its own."""
    for number in numbers:
        connection.send(("op", number))
        connection.flush()


# -- an end that is full, and reads nothing


def test_an_end_that_is_full_and_paused_hears_that_it_has_room(monkeypatch):
    """It was cut off and had much to say; the other end says something before it acknowledges."""
    monkeypatch.setattr(resume, "KEPT_FRAMES", 4)

    async def main():
        async with Served(60) as served:
            ours, theirs, heard, ends = await both_ends(served)
            served.proxy.refuse()
            await served.cut()
            await served.until(lambda: ours.is_broken and theirs.is_broken)
            say(theirs, *range(10))
            say(ours, *range(3))
            theirs.pause()
            served.proxy.refuse(False)
            await served.until(lambda: len(heard) == 10 and not theirs.is_full)
            assert [message[1] for message in heard] == list(range(10))
            # There is room: from here on it is paused as it was told to be.
            say(ours, *range(3, 6))
            await served.until(lambda: ours.session.kept)
            assert len(served.heard) == 3
            theirs.resume()
            await served.until(lambda: len(served.heard) == 6 and not ours.session.kept)
            assert not ends
            assert not served.ends

    run(main())


def test_what_comes_to_an_end_that_is_full_and_paused_is_what_the_other_end_can_keep(monkeypatch):
    monkeypatch.setattr(resume, "KEPT_FRAMES", 4)
    monkeypatch.setattr(resumable, "RIDE_FRAMES", 1 << 30)
    acknowledge = resumable.ResumableConnection._tell
    silent = threading.Event()

    def tell(connection):
        if connection.role != "scheduler" or not silent.is_set():
            acknowledge(connection)

    monkeypatch.setattr(resumable.ResumableConnection, "_tell", tell)

    async def main():
        async with Served(60) as served:
            ours, theirs, heard, _ = await both_ends(served)
            silent.set()
            theirs.pause()
            say(theirs, *range(10))
            await served.until(lambda: len(heard) == 5)
            for number in range(100):
                say(ours, number)
                await asyncio.sleep(0)
            await served.until(lambda: len(served.heard) == 5)
            assert ours.is_full
            silent.clear()
            ours._tell()
            await served.until(lambda: len(heard) == 10)
            theirs.resume()
            await served.until(lambda: len(served.heard) == 100)
            assert [message[1] for message in served.heard] == list(range(100))

    run(main())


def test_an_end_that_sends_on_though_nothing_is_acknowledged_is_given_up(monkeypatch):
    monkeypatch.setattr(resume, "KEPT_FRAMES", 4)
    monkeypatch.setattr(resumable, "KEPT_FRAMES", 100)
    monkeypatch.setattr(resumable.ResumableConnection, "_tell", lambda connection: None)

    async def main():
        async with Served(60) as served:
            ours, theirs, _, _ = await both_ends(served)
            say(ours, 0)
            await served.until(lambda: served.heard)
            theirs.pause()
            say(theirs, *range(10))
            assert theirs.is_full
            for number in range(1000):
                ours._transport.write(b"".join(frames.pack([("op", number)])))
            await served.until(lambda: served.ends)
            assert isinstance(served.ends[0], ProtocolError)
            assert len(served.heard) <= 1000

    run(main())


def test_what_was_sent_before_the_close_arrives_also_of_an_end_that_is_full(monkeypatch):
    monkeypatch.setattr(resume, "KEPT_FRAMES", 4)

    async def main():
        async with Served(60) as served:
            _, theirs, heard, ends = await both_ends(served)
            say(theirs, *range(10))
            theirs.send(("op", 10))
            assert theirs.is_full
            theirs.close()
            await served.until(lambda: ends)
            assert [message[1] for message in heard] == list(range(11))

    run(main())


# -- threads


def test_a_thread_that_reads_while_the_connection_goes_on_finds_all_in_order(monkeypatch):
    """The thread reads at the very moment at which there is another socket."""
    go_on_with = FrameReader.go_on_with

    async def main():
        async with Served(60) as served:
            ours, theirs, heard, ends = await both_ends(served, shared=True)
            reads = []

            def read_first(reader, other):
                if reader is ours._reader:
                    thread = threading.Thread(target=lambda: reads.append(ours.read_while(lambda: True, 0.2)))
                    thread.start()
                    thread.join()
                go_on_with(reader, other)

            monkeypatch.setattr(FrameReader, "go_on_with", read_first)
            said = 0
            for _ in range(3):
                for payload in (b"", bytes(30_000)):  # some arrive with the welcome, and some in pieces
                    for _ in range(50):
                        theirs.send(("op", said, payload))
                        theirs.flush()
                        said += 1
                    await served.cut()
                await served.until(lambda n=said: len(heard) >= n or ends)
            assert reads
            assert not ends
            assert [message[1] for message in heard] == list(range(said))

    run(main())


# -- attempts that come late


async def attempt(served, session, number, taken):
    """An attempt to take a session up again, as far as to what its end says last."""
    host, port = parse_address(served.listener.address)
    connection = await connecting._connect(host, port, shared=False)
    opening = ConnectorOpening(TOKEN, "client", {}, "there", Return(session.terms, number, taken))
    connection._transport.writelines([GREETING])
    return connection, opening, opening.answer(await connection._next_message())


def test_an_attempt_that_was_given_up_and_arrives_after_a_later_one_disturbs_nothing():
    """A proxy may deliver what it held back, whatever became of the end that said it."""

    async def main():
        async with Served(60) as served:
            ours, theirs, heard, ends = await both_ends(served)
            session = ours.session
            session.attempt += 1
            stale, opening, last_word = await attempt(served, session, session.attempt, 0)
            await served.cut()
            say(theirs, *range(5))
            await served.until(lambda: len(heard) == 5 and not theirs.session.kept)
            breaks = list(served.breaks)
            stale.send(last_word)
            with pytest.raises(ResumeError, match="a later attempt"):
                opening.answer(await stale._next_message())
            say(ours, 0)
            say(theirs, 5)
            await served.until(lambda: served.heard and len(heard) == 6)
            assert served.breaks == breaks
            assert not ends
            assert not served.ends

    run(main())


@pytest.mark.parametrize("attempts", [2, 20])
def test_of_attempts_at_the_same_time_the_last_one_has_the_session(attempts):
    async def main():
        async with Served(60) as served:
            ours, theirs, _, _ = await both_ends(served)
            served.proxy.refuse()
            await served.cut()
            await served.until(lambda: ours.is_broken and theirs.is_broken)
            session = ours.session
            number = session.attempt + 1000
            begun = [await attempt(served, session, number + index, 0) for index in range(attempts)]
            for connection, _, last_word in begun:
                connection.send(last_word)
            outcomes = []
            for _, (connection, opening, _) in enumerate(begun):
                try:
                    assert opening.answer(await connection._next_message()) is None
                    outcomes.append("resumed")
                except (ResumeError, ConnectionError) as error:
                    outcomes.append(type(error).__name__)
            assert outcomes[-1] == "resumed"
            say(theirs, 1)
            connection, _, _ = begun[-1]
            assert (await connection._next_message())[1] == 1
            for connection, _, _ in begun:
                connection.abort()

    run(main())


@pytest.mark.parametrize("lie", [1, 10**15])
def test_an_end_that_claims_to_have_taken_more_than_was_sent_ends_its_own_session_only(lie):
    async def main():
        async with Served(60) as served:
            ours, _, _, ends = await both_ends(served)
            other = await served.connect()
            await served.until(lambda: len(served.connections) == 2)
            ours._transport.write(frames.acknowledgement(lie))
            await served.until(lambda: ends)
            assert isinstance(served.ends[0], ProtocolError)
            say(other, 1)
            await served.until(lambda: served.heard)
            assert len(served.listener._sessions) == 1

    run(main())


def test_acknowledgements_that_go_backward_change_nothing():
    async def main():
        async with Served(60) as served:
            ours, theirs, heard, _ = await both_ends(served)
            say(theirs, *range(10))
            await served.until(lambda: len(heard) == 10 and not theirs.session.kept)
            for taken in (3, 0, 9):
                ours._transport.write(frames.acknowledgement(taken))
            say(ours, 1)
            await served.until(lambda: served.heard)
            assert theirs.session.acknowledged == 10
            await served.cut()
            say(theirs, 10)
            await served.until(lambda: len(heard) == 11)

    run(main())


# -- what stays


@pytest.mark.parametrize("shared", [False, True])
def test_nothing_stays_of_connections_that_broke(shared):
    def there_is():
        gc.collect()
        kinds = (Connection, SharedTransport, MachineWatch, Resumption, asyncio.Task, asyncio.TimerHandle)
        counts = Counter(type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, kinds))
        return counts.total() + len(os.listdir("/proc/self/fd"))

    async def main():
        async with Served(60) as served:
            ours, theirs, heard, _ = await both_ends(served, shared=shared)

            async def cut_and_say(times):
                for number in range(times):
                    say(theirs, number)
                    say(ours, number)
                    await served.cut(("reset", "end", "half")[number % 3])
                    await served.until(lambda n=number: served.heard[-1:] == heard[-1:] == [("op", n)])
                await served.until(lambda: not ours.session.kept and not theirs.session.kept)

            await cut_and_say(10)
            before = there_is()
            await cut_and_say(100)
            # The proxy may be about to close some.
            await served.until(lambda: there_is() < before + 20)
            assert len(served.listener._sessions) == 1

    run(main())


# -- the end


@pytest.mark.parametrize("end", ["abort", "close"])
def test_a_session_that_is_about_to_end_is_not_taken_up_again(end):
    async def main():
        async with Served(60) as served:
            ours, theirs, _, _ = await both_ends(served)
            terms = theirs.session.terms
            getattr(theirs, end)()
            with pytest.raises(Refused, match="the session has ended"):
                _Known(served.listener, waits=True).find(terms.id, terms.epoch, "client")
            ours.abort()

    run(main())


def test_people_are_told_early_that_a_connection_is_broken_and_that_it_goes_on(monkeypatch, caplog):
    monkeypatch.setattr(connecting, "WARN_SECONDS", 0.05)

    async def main():
        async with Served(60) as served:
            ours, _, _, _ = await both_ends(served)
            say(ours, 0)
            await served.until(lambda: served.heard)
            served.proxy.refuse()
            await served.cut()
            await served.until(lambda: caplog.records)
            (record,) = caplog.records
            assert record.levelno == logging.WARNING
            assert f"no connection with {served.proxy.address}" in record.getMessage()
            assert "tries for 60 s more" in record.getMessage()
            served.proxy.refuse(False)
            await served.until(lambda: len(caplog.records) == 2)
            assert "goes on after" in caplog.records[1].getMessage()

    with caplog.at_level(logging.WARNING, "holdfast.cluster.comm.connecting"):
        run(main())


def test_a_failure_of_the_way_back_ends_the_connection_in_order(monkeypatch):
    async def main():
        async with Served(0.5) as served:
            _, _, _, ends = await both_ends(served)

            async def fail(host, port, shared):
                raise RuntimeError("no more threads")

            monkeypatch.setattr(connecting, "_connect", fail)
            await served.cut()
            await served.until(lambda: ends and served.ends)
            assert "no more threads" in str(ends[0])

    run(main())
