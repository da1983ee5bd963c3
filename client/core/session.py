"""The client's end of the protocol: what it says to the scheduler, and what it hears.

A `Transport` carries the messages; it has a thread with an event loop. Everything here runs in that thread and never
blocks, except what is said to be for any thread. What user threads post waits in a queue, for one of two to send it:

* The loop, which is woken only if no wake-up is on its way, and sends all of it in one frame; then it looks again in
  half a millisecond. So a loop over `Client.submit` costs a wake-up and a frame now and then, not one for each call.
* The thread that posts a single call, when the scheduler has answered all that was submitted (`flush`): there's nothing
  that this call could be sent together with, and to wake the loop takes longer than to send it. So does a thread that
  begins to wait. A coroutine that begins to wait has the loop send at the end of its turn (`flush_to_wait`), and not
  after the half of a millisecond, of which some event loops make more than a whole one.

A thread that waits for results takes what the scheduler says of them from the transport itself
(`Transport.read_while`). On an event loop, what `waits.py` defines is waited for without a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from holdfast.client.core.answers import Answer
from holdfast.client.core.calls import Call, CallTable
from holdfast.client.core.key_state import CANCELLED, LOST
from holdfast.client.core.key_table import KeyTable
from holdfast.client.core.subscriptions import Subscriptions
from holdfast.client.core.transport import Transport
from holdfast.client.drivers.effects import Signal
from holdfast.cluster import protocol
from holdfast.cluster.errors import CancelledError, ConnectError, error_named
from holdfast.cluster.protocol.cutting import in_pieces
from holdfast.cluster.protocol.limits import MAX_ITEMS
from holdfast.cluster.protocol.message import Dispatch, Request

logger = logging.getLogger(__name__)

_SUBMIT = protocol.client.SUBMIT.operation
_MEMORY = protocol.client.MEMORY.operation
_REQUEST = protocol.client.REQUEST.operation
#: How long the release of a small result may wait for others, after results have come: none is worth a wake-up.
RELEASE_PAUSE_SECONDS = 0.01
#: How long what is posted may wait after a frame has been sent: then all of it needs one wake-up, and one frame.
FLUSH_PAUSE_SECONDS = 0.0005
#: What is of use to nobody else may wait this long for others.
LATER_SECONDS = 0.002
#: An answer that says that the time of a request is over may come so much later, if the scheduler is there.
ANSWER_SECONDS = 1.0
#: A task that asks keeps its slot for so long: what is answered at once is not worth that others take it.
MOMENT_SECONDS = 0.002
#: Messages that are sent at once: what has come is looked at in between.
MAX_SENT_TOGETHER = 32


class Session:
    """What a client says to the scheduler, and what it hears.

    Parameters
    ----------
    transport
        Carries the messages.
    address
        The scheduler's, for messages to people.
    welcome
        What the scheduler said when the client joined.

    Attributes
    ----------
    table : KeyTable
        The keys that this client holds.
    calls : CallTable
        Its calls of actors that have no answer yet.
    nodes : dict
        The description of every node by its address. Replaced, never changed: any thread may read it.
    scheduler : dict
        What the scheduler said about itself.
    versions : dict
        Which versions the scheduler and workers had when the client joined.
    subscriptions : Subscriptions
        The topics of which this client is told.
    ended : exception or None
        Why nothing can be said any more.
    """

    def __init__(self, transport: Transport, address: str, welcome: Mapping[str, Any]) -> None:
        #: What was posted and is not sent yet. Who may not be interrupted after that adds to it without a call.
        self.outbox = self._outbox = list[tuple[Any, ...]]()
        self.table = KeyTable(self._outbox, self.flush_soon, self._read_while, transport.wake_reader)
        self.calls = CallTable(self._outbox, self.table)
        self._outbox.append(self.table.first_turn())
        self.nodes: dict[str, dict[str, Any]] = {node["address"]: node for node in welcome.get("nodes", ())}
        self.subscriptions = Subscriptions()
        self.scheduler: dict[str, Any] = dict(welcome.get("scheduler") or {})
        self.versions: dict[str, Any] = dict(welcome.get("versions") or {})
        self.ended: Exception | None = None
        #: Called in the transport's thread when the connection is lost.
        self.on_end: Callable[[], None] = _nothing
        self.transport = transport
        self._call_soon = transport.call_soon
        self._wake_reader = transport.wake_reader
        self._address = address
        # Reentrant, so that a call by a signal handler or a finalizer, inside of what sends, finds that something does.
        self._sending = threading.RLock()
        self._is_sending = False
        self._flush_pending = False
        #: Of the flush that is pending, while it waits for more to send. In the transport's thread.
        self._flush_pause: asyncio.TimerHandle | None = None
        self._submitted = 0  # the last turn in which something was
        self._request_ids = itertools.count(1)
        self._answers: dict[int, Answer] = {}
        #: While a request is posed, while it is given up, and while all are posed again. So none gets lost, and none is
        #: posed again behind what gives it up. Reentrant: the garbage collector may run a user's code inside.
        self._posing = threading.RLock()
        self._refusals: dict[int, Callable[[Exception], object]] = {}  # by the numbers of quiet requests
        self._sent_alone = 0.0  # when `flush_promptly` has sent something itself
        self._flushes_later = False
        self._closed: asyncio.Future[None] | None = None  # for `close`, which waits for it
        self._dispatch: Dispatch[None] = Dispatch(
            protocol.client.TO_CLIENT,
            {
                protocol.client.MEMORY: self._on_memory,
                protocol.client.ERRED: self.table.erred,
                protocol.client.PENDING: self.table.pending,
                protocol.client.CANCELLED: self._on_cancelled,
                protocol.client.KEPT: self.table.kept,
                protocol.client.CALLED: self._on_called,
                protocol.client.NODES_CHANGED: self._on_nodes,
                protocol.client.WARNING: self._on_warning,
                protocol.client.EVENTS: self.subscriptions.tell,
                protocol.client.PART: self._on_part,
                protocol.client.REPLY: self._on_reply,
                protocol.client.CLOSING: self._on_closing,
            },
        )
        #: What a thread that waits handles by itself: results, and the answers to what threads have asked.
        self._handlers_anywhere: dict[str, Callable[..., None]] = {
            _MEMORY: self._on_memory_anywhere,
            protocol.client.REPLY.operation: self._on_reply,
            protocol.client.CALLED.operation: self._on_called,
        }

    # -- any thread

    def post(self, message: tuple[Any, ...]) -> None:
        """Have a message sent soon. Also inside the garbage collector."""
        self.enqueue(message)
        self.flush_soon()

    def enqueue(self, message: tuple[Any, ...]) -> None:
        """Put a message into the outbox; `flush` or `flush_soon` sends it. Also inside the garbage collector."""
        # No call in here: an interrupt comes before it or after it.
        self._outbox += (message,)

    def enqueue_all(self, messages: list[tuple[Any, ...]]) -> None:
        """Put messages into the outbox, all or, when an interrupt comes, none of them; otherwise like `enqueue`."""
        # No call in here, as there.
        self._outbox += messages

    def flush(self) -> None:
        """Send what was posted: at once if the scheduler has nothing to do for this client, else soon."""
        if self.table.heard >= self._submitted and not self._flush_pending:
            self.send_posted()
        else:
            self.flush_soon()

    def on_room(self) -> None:
        """There is room in the transport again."""
        self.flush_soon()

    def flush_soon(self) -> None:
        """Have the loop send what was posted, soon. Also inside the garbage collector."""
        if not self._flush_pending:
            try:
                # No interrupt in between: a wake-up that is only believed to be on its way is never made up for.
                self._flush_pending = True
                self._call_soon(self._flush_in_loop)
            except RuntimeError:
                pass  # the loop is closed, and can't be told any more

    def flush_to_wait(self) -> None:
        """Send what was posted, since something is waited for on the running loop: with all else of this turn of it."""
        if not self._has_posted:
            return
        pause = self._flush_pause
        if not self.transport.is_current:
            self.send_posted()
        elif pause is None:
            self.flush_soon()
        else:
            # In this order: an interrupt in between has it flushed twice, and not never.
            self.transport.call_later(0, self._flush_in_loop)
            self._flush_pause = None
            pause.cancel()

    def flush_promptly(self) -> None:
        """Send what was posted: at once, or with all else of the moment in which much is said without an answer."""
        if self._flush_pending:
            return
        now = time.monotonic()
        if now - self._sent_alone > FLUSH_PAUSE_SECONDS and not self.transport.is_current:
            self._sent_alone = now
            self.send_posted()
        else:
            self.flush_soon()

    def flush_later(self) -> None:
        """Have the loop send what is posted within some milliseconds, if nothing else is sent until then."""
        if not self._flushes_later:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._flushes_later = True
                self._call_soon(self._begin_to_flush_later)

    def _begin_to_flush_later(self) -> None:
        self.transport.call_later(LATER_SECONDS, self._flush_later)

    def _flush_later(self) -> None:
        self._flushes_later = False
        self.flush_soon()

    def number_for(self, refused: Callable[[Exception], object]) -> int:
        """A number for quiet requests. ``refused(error)`` is called, in any thread, for each that is refused."""
        number = next(self._request_ids)
        self._refusals[number] = refused
        return number

    def forget_number(self, number: int) -> None:
        """Nothing more is to be heard of such a number."""
        self._refusals.pop(number, None)

    def tell(self, request: Request, number: int = 0, /, **arguments: Any) -> None:
        """Say something that has no answer (`Request.quiet`), soon. Also inside the garbage collector."""
        self.post(protocol.client.REQUEST(number, *request(**arguments)))

    def tell_now(self, request: Request, number: int = 0, /, **arguments: Any) -> None:
        """`tell`, and send it at once; in the transport's thread, with all else of this turn of its loop."""
        self.check_open()
        try:
            self.enqueue(protocol.client.REQUEST(number, *request(**arguments)))
            if self.transport.is_current:
                self.flush_soon()
            else:
                self.send_posted()
        except BaseException:  # an interrupt: others may wait for what was said
            self.flush_soon()
            raise

    def ask(
        self,
        request: Request,
        timeout: float | None,
        lend: Callable[[], AbstractContextManager[None]] | None = None,
        /,
        **arguments: Any,
    ) -> Any:
        """Ask the scheduler; block until it answers, and return the answer or raise its error.

        With ``lend``, the thread waits within ``lend()`` if there is no answer after a moment.

        Raises
        ------
        TimeoutError
            It hasn't answered after ``timeout`` seconds; or it is not there when the time is over that it was given.
        """
        self.check_open()
        self.check_may_block()
        number, answer = next(self._request_ids), Answer()
        try:
            self._pose(number, answer, request, arguments)
            limit = timeout if timeout is not None else _limit(arguments)
            if lend is None:
                over = self._await(answer, limit)
            elif not (over := self._await(answer, MOMENT_SECONDS)):
                with lend():
                    over = self._await(answer, limit)
            while not over and timeout is None and not self.transport.is_broken:
                over = self._await(answer, ANSWER_SECONDS)
        finally:
            with self._posing:  # no call in here: a signal handler that comes in between may wait
                if number in self._answers:
                    del self._answers[number]
        if not over:
            raise self._not_answered(limit)
        return answer.value()

    def _await(self, answer: Answer, timeout: float | None) -> bool:
        """Block until there is an answer. Whether there is one after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        return self._read_while(answer.gate.locked, timeout) or answer.gate.acquire(
            timeout=-1 if deadline is None else max(0.0, min(deadline - time.monotonic(), threading.TIMEOUT_MAX))
        )

    async def ask_on_loop(self, request: Request, timeout: float | None, /, **arguments: Any) -> Any:
        """`ask`, on the running loop, which may be any."""
        self.check_open()
        number = next(self._request_ids)
        signal = Signal()
        answer = Answer(signal.give)
        try:
            self._pose(number, answer, request, arguments)
            self.flush_to_wait()
            limit = timeout if timeout is not None else _limit(arguments)
            over = await signal.wait(limit)
            while not over and timeout is None and not self.transport.is_broken:
                signal = Signal()
                over = answer.wake_by(signal.give) or await signal.wait(ANSWER_SECONDS)
        finally:
            with self._posing:  # no call in here: a signal handler that comes in between may wait
                if number in self._answers:
                    del self._answers[number]
        if not over:
            raise self._not_answered(limit)
        return answer.value()

    def _not_answered(self, seconds: float | None) -> TimeoutError:
        away = f": there is no connection with it at {self._address}" if self.transport.is_broken else ""
        return TimeoutError(f"the scheduler has not answered after {seconds:g} s{away}")

    def wait_for_call(self, call: Call, timeout: float | None) -> bool:
        """Block until a call is answered; False if ``timeout`` seconds passed before."""
        deadline = None if timeout is None else time.monotonic() + timeout
        gate = threading.Lock()
        gate.acquire()
        call.wakes.append(gate.release)
        if call.is_done:
            return True
        return self._read_while(gate.locked, timeout) or gate.acquire(
            timeout=-1 if deadline is None else max(0.0, min(deadline - time.monotonic(), threading.TIMEOUT_MAX))
        )

    def _pose(self, number: int, answer: Answer, request: Request, arguments: dict[str, Any]) -> None:
        # What was let go of before the question is no more when it is answered.
        self.table.settle_all()
        posted = (answer.asked(number, *request(**arguments)),)
        with self._posing:
            self._answers[number] = answer
            self._outbox += posted
        if self.ended is not None:  # since it was looked at: then this one was not seen
            answer.fail(self.ended)

    def check_may_block(self) -> None:
        """Raise if this is the transport's thread, which everything would wait for."""
        if self.transport.is_current:
            raise RuntimeError("a call that waits was made in the thread of the event loop that it would wait for")

    def check_open(self) -> None:
        """Raise the reason if nothing can be said any more."""
        if self.ended is not None:
            raise type(self.ended)(*self.ended.args)

    def leave_to_parent(self) -> None:
        """In a forked child: from here on everything that is asked of this session raises. Takes no lock.

        The scheduler must notice when the parent ends, so the child lets go of the socket.
        """
        self.ended = ConnectError(
            "this client belongs to the parent process, from which this one was forked: open one of its own here, "
            "with holdfast.Client(address)"
        )
        self._flush_pending = True  # there is no loop to wake: it is the parent's
        self._sending = threading.RLock()
        self._posing = threading.RLock()
        self.transport.leave_to_parent()
        self.table.leave_to_parent(self.ended)
        self.calls.leave_to_parent(self.ended)

    def _read_while(self, waits: Callable[[], bool], timeout: float | None) -> bool:
        self.send_posted()
        return self.transport.read_while(waits, timeout)

    @property
    def _has_posted(self) -> bool:
        return len(self._outbox) > 1  # there's always the number of the next turn

    def send_all_posted(self) -> None:
        """Send all that was posted, also where there is no room: what is said next by another way stands on it."""
        self.send_posted(len(self._outbox), even_if_full=True)

    def send_posted(self, limit: int = MAX_SENT_TOGETHER, even_if_full: bool = False) -> bool:
        """Send what was posted; of very much, so many messages, and have the loop go on with the rest.

        May be cut short by an interrupt: what has not been sent is still in the outbox. Returns whether anything was.
        """
        outbox = self._outbox
        if len(outbox) < 2:  # as `_has_posted`
            return False
        transport = self.transport
        with self._sending:
            if self._is_sending:
                self.flush_soon()
                return False
            try:
                self._is_sending = True
                if transport.closed:
                    outbox.clear()
                    return False
                if len(outbox) < 2 or (transport.is_full and not even_if_full):
                    return False
                # Requests are not about keys that this client holds, so the turn that is to come may come after them.
                if outbox[1][0] == _REQUEST and _are_requests(posted := outbox[1 : limit + 1]):
                    transport.send(posted, outbox, slice(1, len(posted) + 1))
                else:
                    turn = self.table.begin_turn(outbox)
                    posted = outbox[: min(limit, len(outbox) - 1)]
                    count = len(posted)
                    submits = [message[0] for message in posted].count(_SUBMIT)
                    if submits:
                        self._submitted = turn
                        if submits > 1:
                            posted = _merged(posted)
                    transport.send(in_pieces(posted), outbox, slice(count))
            finally:
                self._is_sending = False
        if len(outbox) > 1:
            self.flush_soon()
        return True

    # -- the transport's thread

    def start(self) -> None:
        """From here on it hears what comes."""
        self.transport.start(self)

    def on_rejoin(self, welcome: Mapping[str, Any]) -> None:
        """Another scheduler goes on where the one before has ended: tell it what only this client knows."""
        self.scheduler = scheduler = dict(welcome.get("scheduler") or {})
        nodes = {node["address"]: node for node in welcome.get("nodes", ())}
        # While it waits for nodes, those count that are known from before.
        self.nodes = {**self.nodes, **nodes} if scheduler.get("recovering") else nodes
        with self.calls.lock, self.table.lock, self._posing:
            calls = self.calls.unanswered()
            keys = list(self.table.held())
            keys += [key for answer in self._answers.values() for key in answer.keys_given()]
            last = len(keys) // MAX_ITEMS * MAX_ITEMS
            epoch = scheduler.get("epoch") or ""
            again = [
                protocol.client.REJOINED(epoch, keys[start : start + MAX_ITEMS], False, ())
                for start in range(0, last, MAX_ITEMS)
            ]
            again.append(protocol.client.REJOINED(epoch, keys[last:], True, [number for number, *_ in calls]))
            again += [
                protocol.client.REQUEST(next(self._request_ids), *protocol.requests.SUBSCRIBE(topic=topic))
                for topic in self.subscriptions.topics
            ]
            for _, answer in sorted(self._answers.items()):
                if (asked := answer.asked_again()) is not None:
                    again.append(asked)
            again += [protocol.client.CALL([call]) for call in calls]
            self.enqueue_all(again)
        self.flush_soon()

    async def close(self, reason: str) -> None:
        """`end`, and wait until the connection is closed."""
        self._closed = asyncio.get_running_loop().create_future()
        self.end(reason)
        if not self.transport.closed:
            await self._closed

    def end(self, reason: str) -> None:
        """Say what is left to say and close. Every future that is pending is cancelled, every request fails."""
        if self.ended is None:
            self.ended = ConnectError(reason)
        self.table.end_all(CANCELLED, CancelledError(reason))
        self._fail_requests(self.ended)
        if not self.transport.closed:
            self.send_posted(len(self._outbox))
            self.transport.close()

    def _flush_in_loop(self) -> None:
        """Send what was posted; and look again in a moment, so that what is posted until then needs no wake-up."""
        self._flush_pause = None
        more = self.table.settle()
        sent = self.send_posted()
        if more or (sent and self._has_posted):
            self.transport.call_later(0, self._flush_in_loop)
        elif sent:
            self._flush_pause = self.transport.call_later(FLUSH_PAUSE_SECONDS, self._flush_in_loop)
        else:
            self._flush_pending = False
            # What came just before that took this for the wake-up that it needs.
            if self.table.has_dropped or (self._has_posted and not self.transport.is_full):
                self.flush_soon()

    def on_batch(self, messages: tuple[Any, ...]) -> None:
        for message in messages:
            self._dispatch(message)

    def on_batch_elsewhere(self, messages: tuple[Any, ...]) -> bool:
        """Handle a batch in a thread that waits, if it's about results and what threads ask. It can be cut short."""
        handlers = self._handlers_anywhere
        for message in messages:
            operation = message[0]
            if operation not in handlers:
                return False
            protocol.client.TO_CLIENT.check(message)
            if operation == _MEMORY and self.table.calls_back(message[1]):
                return False
        for message in messages:
            handlers[message[0]](*message[1:])
        return True

    def _on_memory_anywhere(self, entries: tuple[Any, ...], turn: int) -> None:
        table = self.table
        table.memory(entries, turn)
        if not table.lingers:
            # In this order: the loop may have lingered enough before this thread goes on.
            table.lingers = True
            self._call_soon(self._linger)

    def _on_memory(self, entries: tuple[Any, ...], turn: int) -> None:
        self.table.memory(entries, turn)
        if not self.table.lingers:
            self.table.lingers = True
            self._linger()

    def _linger(self) -> None:
        self.transport.call_later(RELEASE_PAUSE_SECONDS, self._stop_lingering)

    def _stop_lingering(self) -> None:
        self.table.lingers = False  # first: what is dropped from here on wakes the loop
        self.flush_soon()

    def _on_cancelled(self, keys: tuple[Any, ...], reason: str, turn: int) -> None:
        self.table.cancelled(keys, CancelledError(reason), turn)

    def _on_nodes(self, added: tuple[dict[str, Any], ...], removed: tuple[str, ...]) -> None:
        nodes = dict(self.nodes)
        for address in removed:
            nodes.pop(address, None)
        for node in added:
            nodes[node["address"]] = node
        self.nodes = nodes

    def _on_warning(self, text: str) -> None:
        # No line of the user's code gave rise to it, and the one here is nothing to show.
        where = f"<the cluster at {self._address}>"
        try:
            warnings.warn_explicit(text, UserWarning, where, 0, module="holdfast.client")
        except Warning:  # as an error it would not be heard: this is the loop's thread
            logger.warning("%s", text)

    def _on_part(self, number: int, fragment: Any) -> None:
        answer = self._answers.get(number)
        if answer is not None:
            answer.begin(fragment)

    def _on_reply(self, number: int, ok: bool, value: Any) -> None:
        answer = self._answers.get(number)
        if answer is not None:
            answer.give(ok, value)
            self._wake_reader()
        elif not ok and number in self._refusals:
            self._refusals[number](error_named(*value))

    def _on_called(self, results: tuple[tuple[Any, ...], ...]) -> None:
        if self.calls.called(results):
            self.flush_soon()
        self._wake_reader()

    def _on_closing(self, reason: str) -> None:
        self._end(ConnectError(f"the cluster at {self._address} shut down: {reason}"))

    def on_close(self, error: Exception | None) -> None:
        because = f": {error}" if error is not None else ""
        self._end(ConnectError(f"the connection with the scheduler at {self._address} was lost{because}"))
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    def _end(self, reason: ConnectError) -> None:
        if self.ended is None:
            self.ended = reason
            self.table.end_all(LOST, reason)
            self._fail_requests(reason)
            self.on_end()

    def _fail_requests(self, reason: Exception) -> None:
        self.calls.fail_all(reason)
        for answer in list(self._answers.values()):
            answer.fail(reason)
            self._wake_reader()


def _limit(arguments: Mapping[str, Any]) -> float | None:
    """After how many seconds a request has an answer, if the scheduler is there."""
    seconds: float | None = arguments.get("timeout")
    return None if seconds is None else seconds + ANSWER_SECONDS


def _nothing() -> None:
    pass


def _are_requests(messages: list[tuple[Any, ...]]) -> bool:
    for message in messages:  # noqa: SIM110 (a generator would cost as much as all the rest)
        if message[0] != _REQUEST:
            return False
    return True


def _merged(messages: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The messages, with neighbouring submits of one line and of equal options made one. None given is changed."""
    merged: list[tuple[Any, ...]] = []
    tasks: Sequence[Any] = ()  # of the last message, if others may be added to them
    together: list[Any] | None = None  # the same, if the last message was made here
    options: dict[str, Any] | None = None  # its
    call_site = ""  # and its
    for message in messages:
        submitted = protocol.client.SUBMIT.fields_of(message)
        if submitted is None or submitted[1] is not None:  # some of its tasks only are wanted
            merged.append(message)
            options = None
            continue
        more, _, its_options, its_call_site = submitted
        if options is None or its_call_site != call_site or its_options != options or len(tasks) >= MAX_ITEMS:
            merged.append(message)
            tasks, together, options, call_site = more, None, its_options, its_call_site
            continue
        if together is None:
            tasks = together = [*tasks]
            merged[-1] = protocol.client.SUBMIT(together, None, options, call_site)
        together += more
    return merged
