"""Calls of actors' methods, from the call to what it comes to.

A client has at most `MAX_CALLS` calls to one actor under way. Further ones wait here, in their order, and are sent as
others are answered: so neither the scheduler nor the worker keeps more for a client than that. A blocking client's
thread waits for room instead (`operations/actors.py`); a call of an asynchronous client can't.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any

from holdfast.client.core.key_state import KeyState
from holdfast.client.core.key_table import KeyTable
from holdfast.client.stores.location import Location
from holdfast.cluster import protocol
from holdfast.cluster.protocol.limits import MAX_CALLS

#: Calls to one actor that may wait to be sent. More is a loop that awaits nothing.
MAX_WAITING = 100_000

#: As it stands in a ``call`` message: number, actor, method, payload or None, dependencies.
_Message = tuple[int, int, str, Any, list[Any]]


class Call:
    """One call.

    Parameters
    ----------
    name
        What is called, for messages to people.
    keeps
        What is kept until it is answered: the actor, and what the arguments need.
    table
        Where the keys are held that the answer brings.

    Attributes
    ----------
    is_done : bool
        Whether it is answered, or will never be.
    wakes : list of callable
        Called when it is done, in any thread. What adds one looks afterwards whether it is done by then.
    ok : bool
        Whether it has a result; else it has raised.
    value : bytes or None
        That, where it rides along.
    location : Location or None
        Where the exception lies, if it is another task's.
    state : KeyState or None
        That of the key of a large value, which this holds.
    text : str
        The exception in words.
    reason : Exception or None
        Why there will be no answer.
    """

    __slots__ = (
        "_held",
        "_table",
        "is_done",
        "keeps",
        "location",
        "name",
        "ok",
        "reason",
        "state",
        "text",
        "value",
        "wakes",
    )

    def __init__(self, name: str, keeps: tuple[Any, ...], table: KeyTable) -> None:
        self.state: KeyState | None = None
        self._held: tuple[KeyState, ...] = ()
        self.name = name
        self.keeps = keeps
        self.wakes: list[Callable[[], object]] = []
        self.is_done = False
        self.ok = False
        self.value: Any = None
        self.location: Location | None = None
        self.text = ""
        self.reason: Exception | None = None
        self._table = table

    def answer(self, ok: bool, value: Any, stored: Any, text: str, keys: Sequence[Any]) -> None:
        """What it has come to."""
        self.ok = ok
        self.value = bytes(value) if type(value) is memoryview else value  # the view would keep the whole frame
        self.text = text
        if stored is not None:
            key, object_id, nbytes, nodes = stored
            location = Location(object_id, nbytes, None, nodes)
            if key is None:
                self.location = location
            elif self.state is None:  # as it is, unless an interrupt came right after this
                self.state = self._table.given(key, location)
        if keys and not self._held:
            self._held = tuple([self._table.wanted(key) for key in keys])
        self._end()

    def fail(self, reason: Exception) -> None:
        """There will be no answer."""
        self.reason = reason
        self._end()

    def _end(self) -> None:
        self.keeps = ()
        self.is_done = True
        while self.wakes:
            self.wakes.pop()()

    def __del__(self) -> None:
        # Any thread, any moment: `KeyTable.drop` is made for it. One whose constructor was interrupted holds nothing.
        for state in (*getattr(self, "_held", ()), getattr(self, "state", None)):
            if state is not None:
                self._table.drop(state)


class _Line:
    """The calls to one actor: those that were sent, and those that wait for room."""

    __slots__ = ("sent", "waiting")

    def __init__(self) -> None:
        self.sent: OrderedDict[int, tuple[_Message, Call]] = OrderedDict()
        self.waiting: deque[tuple[_Message, Call]] = deque()


class CallTable:
    """The calls of a client that have no answer yet. Any thread may use it.

    Parameters
    ----------
    outbox
        Takes messages for the scheduler at its end.
    table
        The keys that this client holds.
    """

    def __init__(self, outbox: list[tuple[Any, ...]], table: KeyTable) -> None:
        self._outbox = outbox
        self._table = table
        # Reentrant: the garbage collector may run a user's code inside.
        self.lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._lines: dict[int, _Line] = {}  # by actor
        self._actor_of: dict[int, int] = {}  # by the number of a call that was sent
        self._ended: Exception | None = None

    def are_under_way(self, actor: int) -> bool:
        """Whether calls to an actor have no answer yet."""
        return actor in self._lines

    def first_of_full(self, actor: int) -> Call | None:
        """The call whose answer brings room for another one to this actor; None if there is room."""
        line = self._lines.get(actor)
        if line is None or len(line.sent) < MAX_CALLS:
            return None
        with self.lock:
            _, call = next(iter(line.sent.values()), (None, None))
            return call

    def begin(self, actor: int, method: str, payload: Any, dependencies: list[Any], call: Call) -> bool:
        """Post a call, or have it wait for room. Whether it was posted: then the caller flushes.

        Raises
        ------
        RuntimeError
            Very many wait already.
        """
        with self.lock:
            if self._ended is not None:
                call.fail(self._ended)
                return False
            line = self._lines.get(actor)
            if line is None:
                line = self._lines[actor] = _Line()
            number = next(self._numbers)
            message = (number, actor, method, payload, dependencies)
            if len(line.sent) < MAX_CALLS:
                self._send(line, message, call)
                return True
            if len(line.waiting) >= MAX_WAITING:
                raise RuntimeError(
                    f"{len(line.sent) + len(line.waiting):,} calls of {call.name} and others to one actor have no "
                    "answer yet: await some of them before you make more"
                )
            line.waiting.append((message, call))
            return False

    def _send(self, line: _Line, message: _Message, call: Call) -> None:
        number, actor, _, _, _ = message
        posted = (protocol.client.CALL([message]),)
        sent = (message, call)
        # No call in here: an interrupt comes before it or after it.
        line.sent[number] = sent
        self._actor_of[number] = actor
        self._outbox += posted

    def called(self, results: Sequence[tuple[Any, ...]]) -> bool:
        """Calls are answered. Whether others were posted, for which there is room now. To be told twice is no harm."""
        posted = False
        for number, ok, value, stored, text, keys in results:
            with self.lock:
                actor = self._actor_of.get(number)
                if actor is None:
                    continue
                line = self._lines[actor]
                _, call = line.sent[number]
                call.answer(ok, value, stored, text, keys)
                del line.sent[number], self._actor_of[number]
                if line.waiting:
                    self._send(line, *line.waiting.popleft())
                    posted = True
                elif not line.sent:
                    del self._lines[actor]
        return posted

    def unanswered(self) -> list[_Message]:
        """The calls that were sent and have no answer, in their order. The caller has the lock."""
        sent = {number: message for line in self._lines.values() for number, (message, _) in line.sent.items()}
        return [sent[number] for number in sorted(sent)]

    def fail_all(self, reason: Exception) -> None:
        """No answer will come any more."""
        with self.lock:
            self._ended = reason
            lines = list(self._lines.values())
            self._lines.clear()
            self._actor_of.clear()
        for line in lines:
            for _, call in (*line.sent.values(), *line.waiting):
                call.fail(reason)

    def leave_to_parent(self, reason: Exception) -> None:
        """In a forked child: no call is answered here. Takes no lock."""
        self.lock = threading.RLock()
        self._ended = reason
