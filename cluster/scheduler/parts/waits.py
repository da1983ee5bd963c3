"""Requests that wait: the one table of what clients wait for, until when, and what each is told in the end.

A request that can't be answered at once becomes a `Wait` in the table `Waits`. A wait belongs to the identity of its
client, not to a connection, and it ends in exactly one of three ways:

====================================  ================================================================================
what it waits for is there            its part answers it (`Waits.answer`), or refuses it (`Waits.refuse`)
its deadline has come                 its part says what the client is told then (`WaitOwner.expired`), which ends it
its client has left                   no answer is sent
====================================  ================================================================================

Whichever it is, the part is told to forget the wait (`WaitOwner.forget`), so that no table of a part has a wait that
has ended. Waits are data: whose they are, what for, until when. What they bring about is in the methods of their parts.
So they can be listed. They are not written down: clients pose their requests to the next scheduler again.

A client may have `MAX_WAITING` waits at a time. Of several that one event ends, those that began first end first.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator
from typing import Any, ClassVar

from holdfast.cluster.scheduler.tasks.deadlines import Deadlines, Timed
from holdfast.cluster.scheduler.tasks.instructions import Instructions

#: Requests of one client that may wait for something at a time.
MAX_WAITING = 1_000
#: When a wait is due that ends only by what it waits for.
NO_END = math.inf
#: A request that may wait for longer says so in its definition (`Request.waits`): a task lends its slot meanwhile.
QUICK_SECONDS = 1.0


class Refusal(Exception):
    """A request is answered with an error.

    Parameters
    ----------
    error
        The name of the error that the client raises.
    text
        Its text.
    """

    def __init__(self, error: str, text: str) -> None:
        super().__init__(error, text)
        self.error = error
        self.text = text


class WaitOwner(abc.ABC):
    """Where requests wait: a part of the scheduler is one if requests of it may have to wait."""

    @abc.abstractmethod
    def expired(self, wait: Wait) -> None:
        """The deadline of a wait of this part has come: it must end by that."""

    @abc.abstractmethod
    def forget(self, wait: Wait) -> None:
        """A wait of this part has ended."""


class Wait(Timed):
    """A request that has no answer yet.

    Parameters
    ----------
    part
        Where it waits, and what ends it.
    client
        The id of the client.
    request
        The number that the client has given to it.
    due
        Until when it waits at most; `NO_END`: as long as it takes.
    """

    __slots__ = ("client", "due", "part", "request")

    #: Names what it waits for; one word for each class of waits.
    kind: ClassVar[str]
    due: float | None  # None: it has ended

    def __init__(self, part: WaitOwner, client: str, request: int, due: float) -> None:
        super().__init__()
        self.part = part
        self.client = client
        self.request = request
        self.due = due

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.client}, request {self.request}>"

    def expire(self, now: float) -> None:
        self.part.expired(self)

    def seconds_left(self, now: float) -> float:
        """How long it waits at most, from now on."""
        return 0.0 if self.due is None else max(0.0, self.due - now)

    def describe(self) -> str:
        """What the client waits for, for people."""
        return self.kind


class Waits:
    """The requests that wait.

    Parameters
    ----------
    deadlines
        Where their deadlines are entered.
    instructions
        Where the answers go.
    """

    def __init__(self, deadlines: Deadlines, instructions: Instructions) -> None:
        self._deadlines = deadlines
        self._instructions = instructions
        self._of: dict[str, dict[int, Wait]] = {}  # by client and request

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def __iter__(self) -> Iterator[Wait]:
        for waits in self._of.values():
            yield from waits.values()

    def of(self, client: str) -> list[Wait]:
        """The waits of a client, in the order in which they began."""
        return list(self._of.get(client, {}).values())

    def has(self, client: str, request: int) -> bool:
        """Whether a request waits."""
        return request in self._of.get(client, ())

    def demand_room(self, client: str) -> None:
        """To be called before anything is done about a request that may have to wait.

        Raises
        ------
        Refusal
            Too many requests of this client wait already.
        """
        if len(self._of.get(client, ())) >= MAX_WAITING:
            text = f"{MAX_WAITING:,} requests of this client wait already; ask again when they are answered"
            raise Refusal("RuntimeError", text)

    def begin(self, wait: Wait) -> None:
        """Have a request wait."""
        self._of.setdefault(wait.client, {})[wait.request] = wait
        if wait.due != NO_END:
            self._deadlines.watch(wait)

    def answer(self, wait: Wait, value: Any) -> None:
        """What a request waits for is there."""
        self.end(wait)
        self._instructions.reply(wait.client, wait.request, True, value)

    def refuse(self, wait: Wait, error: str, text: str) -> None:
        """What a request waits for isn't to come: the client gets an error, by its name and its text."""
        self.end(wait)
        self._instructions.reply(wait.client, wait.request, False, [error, text])

    def end(self, wait: Wait) -> None:
        """A request waits no longer; that its client is told is up to the caller."""
        waits = self._of[wait.client]
        del waits[wait.request]
        if not waits:
            del self._of[wait.client]
        wait.due = None
        self._deadlines.forget(wait)
        wait.part.forget(wait)

    def client_left(self, client: str) -> None:
        """The client is gone, and no answer would reach it."""
        for wait in self.of(client):
            self.end(wait)

    def check(self) -> None:
        """Check that no wait has ended, or would be forgotten: for validation."""
        for client, waits in self._of.items():
            assert 0 < len(waits) <= MAX_WAITING
            for request, wait in waits.items():
                assert (wait.client, wait.request) == (client, request)
                assert wait.due is not None, f"{wait!r} has ended"
                if wait.due == NO_END:
                    continue
                assert wait.entered is not None, f"{wait!r} would never expire"
                assert wait.entered <= wait.due, f"{wait!r} would expire too late"
