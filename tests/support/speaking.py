"""A speaker that knows a vocabulary, and mostly uses it well: what fuzzers send."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any, Generic, TypeVar

from messages import Choose, Maker, as_received, wrong_messages

from holdfast.cluster.comm import frames
from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.protocol.client import REQUEST
from holdfast.cluster.protocol.message import Message, Request, Vocabulary
from holdfast.cluster.protocol.requests import REQUESTS

T = TypeVar("T")


class Deck(Generic[T]):
    """Gives one of several by chance; but each of them comes up before any comes up again."""

    def __init__(self, choices: Iterable[T], chance: random.Random) -> None:
        self._choices = list(choices)
        self._chance = chance
        self._left: list[T] = []

    def draw(self) -> T:
        if not self._left:
            self._left = self._chance.sample(self._choices, len(self._choices))
        return self._left.pop()


class Speaker:
    """Makes messages of a vocabulary.

    Parameters
    ----------
    vocabulary
        All of it is said, but for what is avoided.
    chance
        Where all of it comes from.
    choose
        Gives values for some fields, by path (`messages.Maker`).
    avoids
        Messages and requests that are never said as they should be.

    Attributes
    ----------
    words : set of str
        The operations of all messages and requests that are to be said.
    drawn : Counter of str
        How often each was said as it should be.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        chance: random.Random,
        choose: Choose,
        *,
        avoids: Collection[Message | Request] = (),
    ) -> None:
        self._vocabulary = vocabulary
        self._chance = chance
        self.maker = Maker(chance, choose)
        said = [message for message in vocabulary if message not in avoids]
        asked = [request for request in REQUESTS if request not in avoids] if REQUEST in said else []
        self._asks = REQUEST in said
        self._messages = Deck(said, chance)
        self._requests = Deck(asked, chance)
        self.words = {each.operation for each in (*said, *asked)}
        self.drawn: Counter[str] = Counter()
        self._mistakes = [
            packed
            for message in vocabulary
            for _ in range(2)
            for _, wrong in wrong_messages(message, self.maker.message(message))
            if (received := as_received(wrong)) is not None and not self._passes(received)
            for packed in [_packed(wrong)]
            if len(packed) < 100_000 or chance.random() < 0.02
        ]

    def _passes(self, message: tuple[Any, ...]) -> bool:
        try:
            self._vocabulary.check(message)
        except ProtocolError:
            return False
        return True

    def right(self) -> bytes:
        """A frame with a message as it should be."""
        message = self.maker.message(self._messages.draw())
        self.drawn[message[0]] += 1
        if self._asks and (fields := REQUEST.fields_of(message)) is not None:
            request = self._requests.draw()
            message = REQUEST(fields[0], request.operation, self.maker.value(request.arguments, request.operation))
            self.drawn[request.operation] += 1
        return _packed(message)

    def wrong(self) -> bytes:
        """A frame that nobody should send."""
        choice = self._chance.randrange(10)
        if choice == 0:
            return _packed(("nonsense", 1))
        if choice == 1:
            return b"\xff" * 8 + self._chance.randbytes(100)
        if choice == 2:
            header = self._chance.choice((b"\xc1", b"\x91\x90", b"\x91\x91\x01", b"\xa1x", b"\x91\x91\xd4\x01\x00"))
            return len(header).to_bytes(4, "little") + bytes(4) + header
        return self._chance.choice(self._mistakes)


def _packed(message: tuple[Any, ...]) -> bytes:
    return b"".join(map(bytes, frames.pack([message])))
