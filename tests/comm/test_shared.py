"""A connection that threads share: they send at once, and read while they wait."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading

import pytest

from holdfast.cluster.comm import frames
from holdfast.cluster.comm.connecting import connect
from holdfast.cluster.comm.listening import Listener, bound_socket
from holdfast.cluster.comm.loops import LoopThread, run
from holdfast.cluster.errors import ConnectError
from tests.comm.server import TOKEN, Server
from tests.support.interrupts import Interrupt
from tests.support.waiting import until

DEADLINE_SECONDS = 30


def test_what_threads_send_at_once_arrives_whole_and_in_each_ones_order():
    async def main():
        async with Server() as server:
            conn = await server.connect(shared=True)
            payload = os.urandom(frames.RAW_THRESHOLD_NBYTES)

            def work(number):
                for i in range(300):
                    conn.send_now([("op", number, i, frames.raw(payload[: i * 200]))])

            for i in range(300):  # the loop's own thread has things to say too
                if i == 0:
                    threads = [asyncio.to_thread(work, number) for number in range(4)]
                    working = asyncio.gather(*threads)
                conn.send(("op", "loop", i, b""))
                await asyncio.sleep(0)
            await working
            messages = []
            await server.until(lambda: sum(map(len, server.batches)) == 1500)
            messages = [message for batch in server.batches for message in batch]
            for number in (*range(4), "loop"):
                mine = [message for message in messages if message[1] == number]
                assert [message[2] for message in mine] == list(range(300))
                if number != "loop":
                    assert all(bytes(message[3]) == payload[: message[2] * 200] for message in mine)
            conn.abort()

    run(main())


def test_what_the_socket_does_not_take_at_once_is_written_by_the_loop():
    async def main():
        async with Server() as server:
            conn = await server.connect(shared=True)
            small = bytes(1000)
            for i in range(20_000):  # nobody reads meanwhile: this is the loop that would
                conn.send_now([("op", i, small)])
            conn.send_now([("op", 20_000, frames.raw(bytes(2 * (4 << 20))))])
            conn.send(("op", 20_001, b""))
            await server.until(lambda: sum(map(len, server.batches)) == 20_002)
            assert [message[1] for batch in server.batches for message in batch] == list(range(20_002))
            conn.abort()

    run(main())


def test_what_cannot_be_packed_ends_the_connection_from_other_threads_too():
    async def main():
        async with Server() as server:
            conn = await server.connect(shared=True)
            ended = asyncio.get_running_loop().create_future()
            conn.start(lambda batch: None, ended.set_result)
            await asyncio.to_thread(conn.send_now, [("op", object())])
            assert isinstance(await asyncio.wait_for(ended, 10), ConnectError)
            conn.send_now([("op", 1)])  # dropped: it is closed
            await server.until(lambda: server.ends)
            assert server.batches == []

    run(main())


def test_a_closed_connection_leaves_no_descriptor():
    async def main():
        before = len(os.listdir("/proc/self/fd"))
        async with Server() as server:
            for _ in range(5):
                conn = await server.connect(shared=True)
                conn.send_now([("op", 1)])
                await server.until(lambda: server.batches)
                server.batches.clear()
                conn.close()
                await server.until(lambda: server.ends)
                server.ends.clear()
                assert conn.closed or await _closed(conn)
        return before

    async def _closed(conn):
        async with asyncio.timeout(10):
            while not conn.closed:
                await asyncio.sleep(0.001)
        return True

    run(main())  # imports, and what a first loop opens for good
    before = len(os.listdir("/proc/self/fd"))
    run(main())
    assert len(os.listdir("/proc/self/fd")) == before


# -- reading while waiting


class Peer:
    """A listener in a loop of its own, and the connecting end, with what each has heard."""

    def __init__(self):
        self.here = LoopThread("here")
        self.there = LoopThread("there")
        self.heard_there = []
        self.heard = []  # (message, whether in the loop's thread)
        self.end = queue.SimpleQueue()
        self.answers = lambda message: []
        self.for_the_loop = ()
        self.waits = threading.Lock()
        self.connection = self.here.run(self._open())

    async def _listen(self):
        self.listener = Listener(TOKEN, lambda role, info: {}, self._connected)
        await self.listener.listen(bound_socket("127.0.0.1", 0))

    def _connected(self, connection):
        self.other_end = connection
        connection.start(self._heard_there, lambda error: None)

    def _heard_there(self, batch):
        self.heard_there += batch
        for message in batch:
            for answer in self.answers(message):
                self.other_end.send(answer)

    async def _open(self):
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._listen(), self.there.loop))
        connection = await connect(self.listener.address, token=TOKEN, role="client", info={}, shared=True)
        connection.start(lambda batch: self._hear(batch), self.end.put, self._hear_elsewhere)
        return connection

    def _hear(self, batch):
        for message in batch:
            self.heard.append((message, self.here.is_current))
            if message[0] == "enough" and self.waits.locked():
                self.waits.release()
                self.connection.wake_reader()

    def _hear_elsewhere(self, batch):
        if any(message[0] in self.for_the_loop for message in batch):
            return False
        self._hear(batch)
        return True

    def say(self, *messages):
        """Have the other end send messages, as one frame."""

        async def send():
            for message in messages:
                self.other_end.send(message)

        self.there.run(send())

    def say_to_a_reader(self, *messages):
        """The same, as soon as a thread reads."""

        def say():
            until(lambda: self.connection._transport._reader, "a thread reads")
            self.say(*messages)

        saying = threading.Thread(target=say)
        saying.start()
        return saying

    def wait(self, timeout=DEADLINE_SECONDS):
        """Read until the other end says that it's enough. Whether this thread read until then."""
        return self.connection.read_while(self.waits.locked, timeout)

    def close(self):
        async def close():
            self.connection.abort()

        self.here.run(close())
        self.end.get(timeout=DEADLINE_SECONDS)
        self.there.run(self.listener.close())
        self.here.close()
        self.there.close()


@pytest.fixture
def peer():
    peer = Peer()
    peer.waits.acquire()
    yield peer
    peer.close()


def test_a_thread_that_waits_handles_what_comes_and_the_loop_goes_on_afterwards(peer):
    peer.say_to_a_reader(("more", 1), ("enough",))
    assert peer.wait()
    assert peer.heard == [(("more", 1), False), (("enough",), False)]
    peer.say(("more", 2), ("enough",))
    until(lambda: len(peer.heard) == 4, "the loop reads")
    assert peer.heard[2:] == [(("more", 2), True), (("enough",), True)]


def test_one_thread_reads_at_a_time(peer):
    reading = threading.Thread(target=peer.wait)
    reading.start()
    until(lambda: peer.connection._transport._reader, "a thread reads")
    assert not peer.wait()  # at once
    peer.say(("enough",))
    reading.join(DEADLINE_SECONDS)
    assert not reading.is_alive()
    assert peer.heard == [(("enough",), False)]


def test_what_is_for_the_loop_is_left_to_it_with_all_that_follows(peer):
    peer.for_the_loop = ("special",)
    peer.say(("first",))
    until(lambda: peer.heard, "the first one is there")
    gone = threading.Event()

    def wait():
        assert not peer.wait()
        gone.set()

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: peer.connection._transport._reader, "a thread reads")
    peer.say(("second",), ("special",))
    peer.say(("third",))
    assert gone.wait(DEADLINE_SECONDS)
    thread.join()
    until(lambda: len(peer.heard) == 4, "all is there")
    assert [message[0] for message, _ in peer.heard] == ["first", "second", "special", "third"]
    assert all(in_loop for _, in_loop in peer.heard)


def test_a_wait_that_another_thread_ends_is_over_at_once(peer):
    waited = []
    thread = threading.Thread(target=lambda: waited.append(peer.wait()))
    thread.start()
    until(lambda: peer.connection._transport._reader, "a thread reads")
    peer.waits.release()
    peer.connection.wake_reader()
    thread.join(DEADLINE_SECONDS)
    assert waited == [True]


def test_a_wait_has_an_end(peer):
    assert not peer.wait(timeout=0)
    assert not peer.wait(timeout=0.05)
    assert peer.connection._transport._reader is None


def test_when_the_connection_ends_so_does_the_wait(peer):
    waited = []
    thread = threading.Thread(target=lambda: waited.append(peer.wait()))
    thread.start()
    until(lambda: peer.connection._transport._reader, "a thread reads")

    async def end():
        peer.other_end.abort()

    peer.there.run(end())
    thread.join(DEADLINE_SECONDS)
    assert waited == [False]
    peer.end.put(peer.end.get(timeout=DEADLINE_SECONDS))
    assert not peer.wait()


def test_a_batch_that_cannot_be_handled_ends_the_connection_and_not_the_thread_alone(peer):
    def fail(batch):
        raise RuntimeError("this batch is bad")

    peer._hear_elsewhere = fail
    peer.connection._on_batch = peer.connection._on_batch_elsewhere = fail
    peer.say(("op",))
    with contextlib.suppress(RuntimeError):
        peer.wait()
    error = peer.end.get(timeout=DEADLINE_SECONDS)
    assert "this batch is bad" in str(error)
    peer.end.put(error)


def test_a_connection_that_ends_while_a_thread_reads_leaves_no_descriptor():
    def once():
        peer = Peer()
        peer.waits.acquire()
        thread = threading.Thread(target=peer.wait)
        thread.start()
        until(lambda: peer.connection._transport._reader, "a thread reads")
        peer.close()
        thread.join(DEADLINE_SECONDS)

    once()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        once()
    assert len(os.listdir("/proc/self/fd")) == before


# -- interrupts


def test_an_interrupt_loses_nothing_and_repeats_no_message(peer):
    """At every point of sending and of reading, one after the other."""
    peer.answers = lambda message: [("answer", message[1]), ("enough",)]
    outbox = []
    at = untouched = 0
    while untouched < 50:  # it isn't always the same number of points
        at += 1
        interrupt = Interrupt("holdfast.cluster.comm", at)
        outbox.append(("op", at))
        try:
            with interrupt.armed():
                peer.connection.send_now(outbox[:1], outbox, slice(1))
                peer.wait()
        except KeyboardInterrupt:
            pass
        if outbox:  # it came before the message was taken: the next thread that sends sends it
            peer.connection.send_now(outbox[:1], outbox, slice(1))
        answer = ("answer", at)
        until(lambda answer=answer: (answer, True) in peer.heard or (answer, False) in peer.heard, interrupt.where)
        until(lambda: not peer.waits.locked(), f"the end of the answer: {interrupt.where}")
        assert peer.waits.acquire(blocking=False)
        untouched += interrupt.where is None
    assert at - untouched > 20
    assert peer.heard_there == [("op", number) for number in range(1, at + 1)]


def test_what_an_interrupt_leaves_half_handled_is_handled_again(peer):
    calls = []

    def handle(batch):
        calls.append(batch)
        if len(calls) == 1:
            raise KeyboardInterrupt
        peer._hear(batch)
        return True

    peer.connection._on_batch_elsewhere = handle
    saying = peer.say_to_a_reader(("enough",))
    with pytest.raises(KeyboardInterrupt):
        peer.wait()
    saying.join()
    until(lambda: not peer.waits.locked(), "it is handled")
    assert peer.heard == [(("enough",), True)]
