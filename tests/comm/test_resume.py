"""Sessions that outlive their connections: what is sent arrives once and in order, however often these break."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import threading

import pytest

from holdfast.cluster.comm import connecting, frames, resume
from holdfast.cluster.comm.connecting import connect
from holdfast.cluster.comm.connection import Connection
from holdfast.cluster.comm.frame_reader import FrameReader
from holdfast.cluster.comm.listening import GraceOverError
from holdfast.cluster.comm.loops import run
from holdfast.cluster.comm.opening import ConnectorOpening, ResumeError
from holdfast.cluster.comm.resumable import ResumableConnection
from holdfast.cluster.comm.resume import Resumption, Terms
from holdfast.cluster.errors import ConnectError, ProtocolError
from tests.comm.served import Served
from tests.comm.server import TOKEN


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("fault", ["reset", "end", "swallow", "half"])
def test_what_is_said_before_during_and_after_a_break_arrives_once_and_in_order(fault, shared):
    async def main():
        async with Served() as served:
            heard, ends = [], []
            ours = await served.connect(heard, ends, shared)
            await served.until(lambda: served.connections)
            theirs = served.connections[0]
            said = 0
            for number_of_cut in range(3):
                for _ in range(100):
                    ours.send(("op", said))
                    theirs.send(("op", said))
                    said += 1
                await served.cut(fault)
                for number in range(100):
                    if shared and number % 2:
                        await asyncio.to_thread(ours.send_now, [("op", said)])
                    else:
                        ours.send(("op", said))
                        ours.flush()
                    theirs.send(("op", said))
                    theirs.flush()
                    said += 1
                await served.until(lambda n=said: len(heard) == len(served.heard) == n)
                await served.until(lambda n=number_of_cut: served.breaks.count(False) > n)
            assert heard == served.heard == [("op", number) for number in range(said)]
            assert not ends
            assert not served.ends
            assert True in served.breaks
            assert len(served.connections) == 1
            ours.close()
            await served.until(lambda: served.ends)
            assert served.ends == [None]

    run(main())


@pytest.mark.parametrize("shared", [False, True])
def test_a_stream_in_both_directions_survives_hundreds_of_cuts(shared):
    seed = int(os.environ.get("HOLDFAST_SEED", random.randrange(1 << 32)))
    print("seed", seed)

    async def main():
        async with Served() as served:
            served.proxy._chance = chance = random.Random(seed)
            heard, ends = [], []
            ours = await served.connect(heard, ends, shared)
            await served.until(lambda: served.connections)
            theirs = served.connections[0]
            served.proxy.nbytes = (200, 900_000)
            await served.cut()
            said = 0
            while sum(served.proxy.cuts.values()) < 100:
                for _ in range(chance.randrange(40)):
                    payload = frames.raw(bytes(chance.choice([10, 100, 1000, 9_000])))
                    ours.send(("op", said, payload))
                    theirs.send(("op", said, payload))
                    said += 1
                await asyncio.sleep(0)
                await served.until(lambda n=said: min(len(heard), len(served.heard)) > n - 500)
            await asyncio.to_thread(served.proxy.calm)
            await served.until(lambda: len(heard) == len(served.heard) == said)
            for came in (heard, served.heard):
                assert [message[1] for message in came] == list(range(said))
            assert not ends
            assert not served.ends
            # What was taken is let go of, also when nothing more is said.
            await served.until(lambda: not ours.session.kept and not theirs.session.kept)

    run(main())


def test_threads_that_wait_and_send_go_on_over_a_break():
    async def main():
        async with Served() as served:
            ours = await served.connect(shared=True)
            await served.until(lambda: served.connections)
            (theirs,) = served.connections
            over = threading.Event()
            sent = itertools.count()
            counts = []

            def work():
                while not over.is_set():
                    counts.append(next(sent))
                    ours.send_now([("op", counts[-1])])
                    waits = threading.Lock()
                    ours.read_while(lambda: False, 0.001)
                    del waits

            working = asyncio.ensure_future(asyncio.to_thread(work))
            try:
                for _ in range(20):
                    theirs.send(("op", 0))
                    before = len(served.heard)
                    await served.cut()
                    await served.until(lambda before=before: len(served.heard) > before + 5)
            finally:
                over.set()
                await working
            await served.until(lambda: len(served.heard) == len(counts))
            assert [message[1] for message in served.heard] == counts

    run(main())


def test_a_new_connection_supersedes_one_that_the_listener_believes_to_live():
    async def main():
        async with Served() as served:
            ours = await served.connect()
            await served.until(lambda: served.connections)
            ours.send(("op", 0))
            await served.until(lambda: served.heard)
            # Only this end knows that it's over.
            transport = ours._transport
            transport.set_protocol(asyncio.Protocol())
            transport.pause_reading()
            ours.connection_lost(ConnectionResetError())
            ours.send(("op", 1))
            await served.until(lambda: len(served.heard) == 2)
            assert served.breaks == [True, False]
            assert not served.ends
            transport.abort()
            ours.send(("op", 2))
            await served.until(lambda: len(served.heard) == 3)

    run(main())


@pytest.mark.parametrize("what", ["secret", "id", "epoch"])
def test_a_peer_that_does_not_prove_the_session_is_refused_and_the_session_goes_on(what):
    async def main():
        async with Served() as served:
            heard, ends = [], []
            thief = await served.connect(heard, ends)
            ours = await served.connect()
            await served.until(lambda: len(served.connections) == 2)
            ours.send(("op", 0))
            await served.until(lambda: served.heard)
            another = {"secret": bytes(32), "id": bytes(16), "epoch": "another"}[what]
            thief.session = Resumption(ours.session.terms._replace(**{what: another}))
            await served.cut()
            await served.until(lambda: ends)
            assert isinstance(ends[0], ResumeError)
            ours.send(("op", 1))
            await served.until(lambda: len(served.heard) == 2)

    run(main())


def test_a_session_that_nobody_comes_back_to_ends_and_is_not_taken_up_later(monkeypatch):
    async def main():
        async with Served(0.2) as served:
            heard, ends = [], []
            ours = await served.connect(heard, ends)
            await served.until(lambda: served.connections)
            served.proxy.refuse()
            await served.cut()
            ours.send(("op", 0))
            await served.until(lambda: served.ends and ends)
            assert isinstance(served.ends[0], GraceOverError)
            assert "could not be taken up again within 0.2 s" in str(ends[0])
            assert not served.listener._sessions
            assert served.heard == []

    run(main())


def test_what_comes_too_late_is_told_that_the_session_has_ended(monkeypatch):
    async def main():
        async with Served(60) as served:
            heard, ends = [], []
            await served.connect(heard, ends)
            await served.until(lambda: served.connections)
            served.proxy.refuse()
            await served.cut()
            served.connections[0].abort(ConnectError("enough"))
            await served.until(lambda: served.ends)
            served.proxy.refuse(False)
            await served.until(lambda: ends)
            assert isinstance(ends[0], ResumeError)
            assert "the session has ended" in str(ends[0])

    run(main())


@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize("side", ["connector", "listener"])
def test_an_end_on_purpose_is_no_break(end, side):
    async def main():
        async with Served(60) as served:
            heard, ends = [], []
            ours = await served.connect(heard, ends)
            await served.until(lambda: served.connections)
            one = ours if side == "connector" else served.connections[0]
            one.send(("op", 0))
            one.flush()
            getattr(one, end)()
            await served.until(lambda: served.ends and ends)
            assert not served.listener._sessions
            if end == "close":
                assert (served.heard or heard) == [("op", 0)]

    run(main())


def test_a_connection_may_be_closed_while_it_is_broken():
    async def main():
        async with Served(60) as served:
            heard, ends = [], []
            ours = await served.connect(heard, ends)
            await served.until(lambda: served.connections)
            served.proxy.refuse()
            await served.cut()
            await served.until(lambda: ours.is_broken and served.connections[0].is_broken)
            ours.close()
            served.connections[0].close()
            await served.until(lambda: served.ends and ends)
            assert ends == served.ends == [None]

    run(main())


def test_what_is_kept_has_a_limit_and_the_rest_waits_and_arrives(monkeypatch):
    monkeypatch.setattr(resume, "KEPT_NBYTES", 1 << 20)

    async def main():
        async with Served(60) as served:
            ours = await served.connect()
            await served.until(lambda: served.connections)
            rooms = []
            ours.on_room = lambda: rooms.append(1)
            served.proxy.refuse()
            await served.cut()
            await served.until(lambda: ours.is_broken)
            for number in range(500):
                ours.send(("op", number, bytes(20_000)))
                if number % 10 == 0:
                    ours.flush()
            ours.flush()
            assert ours.is_full
            assert ours.session.kept_nbytes < (1 << 20) + frames.HEADER_TARGET_NBYTES * 3
            served.proxy.refuse(False)
            await served.until(lambda: len(served.heard) == 500)
            assert [message[1] for message in served.heard] == list(range(500))
            await served.until(lambda: rooms and not ours.is_full)
            await served.until(lambda: not ours.session.kept)

    run(main())


def test_a_fork_neither_comes_back_nor_keeps_the_secret():
    async def main():
        async with Served(60) as served:
            heard, ends = [], []
            ours = await served.connect(heard, ends, shared=True)
            await served.until(lambda: served.connections)
            served.proxy.refuse()
            await served.cut()
            await served.until(lambda: ours.is_broken)
            pid = os.fork()
            if pid == 0:
                ours.leave_to_parent()
                ours.send_now([("op", "of the child")])
                os._exit(0 if ours.session.terms == Terms.none() and ours.closed else 1)
            assert os.waitpid(pid, 0)[1] == 0
            ours.send(("op", 1))
            served.proxy.refuse(False)
            await served.until(lambda: served.heard)
            assert served.heard == [("op", 1)]

    run(main())


def test_an_end_that_does_not_say_that_it_comes_back_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(connecting, "ConnectorOpening", lambda *options, comes_back: ConnectorOpening(*options))

    async def main():
        async with Served(60) as served:
            ours = await served.connect()
            ours.send(("op", 0))
            await served.until(lambda: served.heard)
            await served.cut()
            await served.until(lambda: served.ends)
            assert served.breaks == []

    run(main())


@pytest.mark.parametrize("part", range(4))
def test_a_cut_at_any_byte_of_the_opening_is_nothing_to_the_end_that_connects(part):
    """It joins anew if it knows no secret yet, and comes back if it knows one."""

    async def main():
        async with Served(60) as served:
            served.proxy.nbytes = (1 << 20, 1 << 20)
            ours = await served.connect()
            (link,) = served.proxy._links
            whole = (1 << 20) - link.left
            ours.abort()
            for nbytes in range(whole - part, whole // 2, -12):
                # The first connection lives for so many bytes, and those that follow for ever.
                served.proxy._chance = OneFate(nbytes)
                ours = await served.connect()
                heard = len(served.heard)
                ours.send(("op", nbytes))
                await served.until(lambda n=heard: len(served.heard) > n)
                assert served.heard[-1] == ("op", nbytes)
                ours.close()
            assert served.proxy.cuts.total() > whole // 30

    run(main())


class OneFate(random.Random):
    """The chance by which one connection is cut after so many bytes, and no other is."""

    def __init__(self, nbytes):
        super().__init__(nbytes)
        self._fates = iter([nbytes])

    def randint(self, low, high):
        return next(self._fates, 1 << 40)


def test_only_a_connection_over_the_network_is_one_that_can_be_taken_up_again():
    async def main():
        async with Served(60) as served:
            over_the_network = await served.connect()
            within_the_host = await connect(served.listener.address, token=TOKEN, role="client", info={}, timeout=5)
            await served.until(lambda: len(served.connections) == 2)
            assert type(over_the_network) is type(served.connections[0]) is ResumableConnection
            assert type(within_the_host) is type(served.connections[1]) is Connection
            within_the_host.abort()

    run(main())


# -- without a network


class End:
    """One end of a simulated session."""

    def __init__(self, terms):
        self.session = Resumption(terms)
        self.reader = FrameReader()
        self.heard = []
        self.said = 0

    def say(self):
        chunks = frames.pack([("op", self.said)])
        self.said += 1
        self.session.keep(chunks, resume.frame_nbytes(chunks))
        return b"".join(chunks)

    def hear(self, data):
        self.reader.received.append(data)
        self.reader.take()
        self.heard += [message[1] for batch in self.reader.batches for message in batch]
        self.reader.batches.clear()
        self.session.acknowledge(self.reader.acknowledged)


@pytest.mark.parametrize("block", range(10))
def test_any_history_of_breaks_delivers_each_frame_once_and_in_order(block, monkeypatch):
    monkeypatch.setattr(resume, "KEPT_FRAMES", 40)
    for seed in range(block * 100, block * 100 + 100):
        _history(random.Random(seed), seed)


def _history(chance, seed):
    terms = Terms.new("epoch", 1)
    ends = [End(terms), End(terms)]
    links = [bytearray(), bytearray()]  # what is under way from each end to the other one
    told = [0, 0]
    for _ in range(chance.randrange(50, 400)):
        what = chance.choice(["say", "say", "say", "carry", "carry", "tell", "break"])
        one = chance.randrange(2)
        end, link = ends[one], links[one]
        if what == "say" and not end.session.is_full:
            if chance.random() < 0.2:
                link += frames.acknowledgement(end.reader.taken)
            link += end.say()
        elif what == "carry":
            nbytes = chance.randrange(len(link) + 1)
            ends[1 - one].hear(bytes(link[:nbytes]))
            del link[:nbytes]
        elif what == "tell":
            link += frames.acknowledgement(end.reader.taken)
        elif what == "break":
            links[0].clear()
            links[1].clear()
            if chance.random() < 0.3:
                # The listener answers, and its answer is lost: the other end comes back once more.
                ends[1].session.resumed(ends[0].reader.taken, ends[1].reader.taken)
            for end, link, other in zip(ends, links, reversed(ends), strict=True):
                end.reader.go_on_with(FrameReader())
                for frame in end.session.resumed(other.reader.taken, end.reader.taken):
                    link += b"".join(frame)
        for end, other in zip(ends, reversed(ends), strict=True):
            assert end.heard == list(range(len(end.heard))), seed
            assert len(end.heard) == end.reader.taken, seed
            assert end.session.sent == end.said, seed
            assert end.session.acknowledged <= other.reader.taken <= end.session.sent, seed
            assert end.session.kept_nbytes == sum(end.session.kept_sizes), seed
            assert len(end.session.kept) <= 42, seed
    del told
    for end, link, other in zip(ends, links, reversed(ends), strict=True):
        other.hear(bytes(link))
        assert other.heard == list(range(end.said)), seed


def test_an_end_that_claims_more_than_was_sent_or_less_than_it_had_is_none_of_ours():
    end = End(Terms.new("epoch", 1))
    end.say()
    end.say()
    with pytest.raises(ProtocolError):
        end.session.acknowledge(3)
    end.session.acknowledge(1)
    with pytest.raises(ProtocolError):
        end.session.resumed(0, 0)
    with pytest.raises(ProtocolError):
        end.session.resumed(3, 0)
    assert len(end.session.resumed(1, 0)) == 1


# -- a listener that dies, and another one that has its journal


class Owner:
    """What handles the frames that a listener takes: message by message, and notes those with effects in a journal."""

    def __init__(self, journal, start):
        self.journal = journal
        self.frames = start  # that are handled
        self.messages = 0  # of the next frame
        self.inbox = []
        self.skipped = journal.messages if journal.frames == start else 0

    def handle_one(self):
        batch = self.inbox[0]
        number, has_effect = batch[self.messages]
        self.messages += 1
        is_last = self.messages == len(batch)
        if is_last:
            self.frames += 1
            del self.inbox[0]
        if self.skipped:
            self.skipped -= 1
        else:
            self.journal.handled.append(number)
            if has_effect:
                self.journal.effects.append(number)
                self.journal.frames = self.frames
                self.journal.messages = 0 if is_last else self.messages
        if is_last:
            self.messages = 0


class History:
    """A connecting end that lives, and listening ends that die."""

    def __init__(self, chance):
        self.chance = chance
        self.handled, self.effects = [], []
        self.frames = self.messages = 0  # that are recorded
        self.said, self.with_effects = 0, []
        terms = Terms.new("cluster/1", 1, 1)
        self.connector = Resumption(terms, is_safe_when_taken=False)
        self.connector_reader = FrameReader()
        self.replies = []
        self.begin(terms, 0)

    def begin(self, terms, start):
        self.listener = Resumption(terms)
        self.listener_reader = FrameReader()
        self.listener_reader.taken = start
        self.listener_said = 0
        self.replies = []
        self.up, self.down = bytearray(), bytearray()
        self.owner = Owner(self, start)

    def say(self):
        count = self.chance.randrange(1, 4)
        batch = []
        for _ in range(count):
            has_effect = self.chance.random() < 0.5
            batch.append(("op", self.said, has_effect))
            if has_effect:
                self.with_effects.append(self.said)
            self.said += 1
        chunks = frames.pack(batch)
        self.connector.keep(chunks, resume.frame_nbytes(chunks))
        self.up += b"".join(chunks)

    def reply(self):
        chunks = frames.pack([("reply", self.listener_said)])
        self.listener_said += 1
        self.listener.keep(chunks, resume.frame_nbytes(chunks))
        self.down += b"".join(chunks)

    def carry(self):
        nbytes = self.chance.randrange(len(self.up) + 1)
        self._hear(self.listener_reader, bytes(self.up[:nbytes]), self.listener)
        del self.up[:nbytes]
        self.owner.inbox += [[message[1:] for message in batch] for batch in self.listener_reader.batches]
        self.listener_reader.batches.clear()
        nbytes = self.chance.randrange(len(self.down) + 1)
        self._hear(self.connector_reader, bytes(self.down[:nbytes]), self.connector)
        del self.down[:nbytes]
        self.replies += [message[1] for batch in self.connector_reader.batches for message in batch]
        self.connector_reader.batches.clear()

    @staticmethod
    def _hear(reader, data, session):
        reader.received.append(data)
        reader.take()
        session.acknowledge(reader.acknowledged)

    def acknowledge(self):
        self.down += frames.acknowledgement(self.owner.frames)
        self.up += frames.acknowledgement(self.connector_reader.taken)

    def break_off(self):
        self.up.clear()
        self.down.clear()
        for reader in (self.connector_reader, self.listener_reader):
            reader.go_on_with(FrameReader())
        up = self.connector.resumed(self.listener_reader.taken, self.connector_reader.taken)
        down = self.listener.resumed(self.connector_reader.taken, 0)
        self.up += b"".join(chunk for frame in up for chunk in frame)
        self.down += b"".join(chunk for frame in down for chunk in frame)

    def restart(self):
        """The listener dies with all that it has not written down; maybe the next one dies before it is heard of."""
        was = self.connector.was
        for _ in range(self.chance.choice([1, 1, 2])):
            recorded = self.frames
            terms = Terms.new("cluster/2", 1, 1)
            self.begin(terms, max(recorded, was.acknowledged))
        self.connector_reader.go_on_with(FrameReader())
        self.connector_reader.count_anew()
        for frame in self.connector.rejoined(terms, recorded):
            self.up += b"".join(frame)

    def check(self, seed):
        assert self.effects == self.with_effects[: len(self.effects)], seed
        assert self.connector.acknowledged <= self.owner.frames <= self.listener_reader.taken, seed
        assert self.listener_reader.taken <= self.connector.sent, seed
        assert self.replies == list(range(len(self.replies))), seed
        seen = sorted(set(self.handled))
        assert seen == list(range(len(seen))), seed  # none is skipped


@pytest.mark.parametrize("block", range(10))
def test_any_history_of_breaks_and_restarts_has_each_effect_once_and_loses_no_frame(block):
    for seed in range(block * 100, block * 100 + 100):
        chance = random.Random(seed)
        history = History(chance)
        for _ in range(chance.randrange(50, 400)):
            what = chance.choice(["say", "say", "reply", "carry", "carry", "handle", "handle", "tell", "break", "die"])
            if what == "say":
                history.say()
            elif what == "reply":
                history.reply()
            elif what == "carry":
                history.carry()
            elif what == "handle" and history.owner.inbox:
                history.owner.handle_one()
            elif what == "tell":
                history.acknowledge()
            elif what == "break":
                history.break_off()
            elif what == "die" and chance.random() < 0.3:
                history.restart()
            history.check(seed)
        while history.up or history.owner.inbox:
            history.carry()
            while history.owner.inbox:
                history.owner.handle_one()
        history.check(seed)
        assert history.effects == history.with_effects, seed
        assert sorted(set(history.handled)) == list(range(history.said)), seed
        history.acknowledge()
        while history.down:
            history.carry()
        assert not history.connector.kept, seed


def test_an_end_of_which_more_is_recorded_than_it_has_sent_is_none_of_ours():
    session = Resumption(Terms.new("cluster/1", 1, 1), is_safe_when_taken=False)
    session.keep([b"1"], 1)
    session.keep([b"2"], 1)
    session.acknowledge(1)
    with pytest.raises(ProtocolError):
        session.rejoined(Terms.new("cluster/2", 1, 1), 3)
    assert session.rejoined(Terms.new("cluster/2", 1, 1), 0) == [[b"2"]]
    assert session.sent == 2
    with pytest.raises(ProtocolError):
        session.resumed(3, 0)
