"""Messages made from the tables that describe them: right ones, and ones in which one field is wrong."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

from holdfast.cluster.comm import frames
from holdfast.cluster.comm.frame_reader import FrameReader
from holdfast.cluster.protocol import shapes
from holdfast.cluster.protocol.limits import MAX_KEY_NBYTES
from holdfast.cluster.protocol.message import Carrier, Message
from holdfast.cluster.protocol.shapes import Shape

#: ``choose(path)``: a value for the field at a path, instead of one by chance; None for none.
Choose = Callable[[str], Any]


def _nothing(path: str) -> Any:
    return None


class Maker:
    """Makes values by chance.

    Parameters
    ----------
    chance
        Where all of it comes from.
    choose
        Gives values for some fields, by path, such as ``submit.tasks.key``.
    """

    def __init__(self, chance: random.Random, choose: Choose = _nothing) -> None:
        self.chance = chance
        self.choose = choose

    def message(self, message: Message) -> tuple[Any, ...]:
        """A message that is right."""
        if isinstance(message, Carrier):
            return (message.operation, *self.message(self.chance.choice(list(message.carried))))
        fields = [self.value(shape, f"{message.operation}.{name}") for name, shape in message.fields.items()]
        return (message.operation, *fields)

    def value(self, shape: Shape, path: str = "") -> Any:
        """A value that is right."""
        chosen = self.choose(path)
        if chosen is not None:
            return chosen
        chance = self.chance
        match shape:
            case shapes.Integer(low, high):
                return chance.choice((low, high, chance.randint(max(low, -1000), min(high, 1000))))
            case shapes.Number(low, high):
                return chance.choice((max(low, -1e300), min(high, 1e300), chance.uniform(max(low, 0), min(high, 1e6))))
            case shapes.Boolean():
                return chance.random() < 0.5
            case shapes.Text(longest, shortest):
                return "x" * chance.choice((shortest, min(longest, shortest + 5)))
            case shapes.Identity(nbytes, or_empty):
                return b"" if or_empty and chance.random() < 0.5 else chance.randbytes(nbytes)
            case shapes.Blob(most):
                return chance.randbytes(min(most, chance.choice((0, 1, 100))))
            case shapes.KeyShape():
                return self.key()
            case shapes.Nothing():
                return None
            case shapes.Maybe(inner):
                return None if chance.random() < 0.3 else self.value(inner, path)
            case shapes.Either(array, other):
                return self.value(chance.choice((array, other)), path)
            case shapes.OneOf():
                return self.value(chance.choice(shape.shapes), path)
            case shapes.Entry():
                return tuple([self.value(field, f"{path}.{name}") for name, field in shape.fields.items()])
            case shapes.Listed():
                return tuple([self.value(shape.item, path) for _ in range(min(shape.most, chance.randint(0, 3)))])
            case shapes.Mapped():
                return {self.value(shape.key): self.value(shape.value, path) for _ in range(chance.randint(1, 2))}
            case shapes.Fields():
                names = [name for name in shape.known if name in shape.needed or chance.random() < 0.8]
                return {name: self.value(shape.known[name], f"{path}.{name}") for name in names}
            case shapes.Plain():
                return {"a": (1, 2.5, "text", None, True), "b": {"c": ()}}
        return chance.choice((None, 1, "text", (), {}))

    def key(self, depth: int = 0) -> Any:
        chance = self.chance
        kinds: list[Any] = [f"key-{chance.randrange(50)}", chance.randrange(50), b"bytes", 1.5, None, True]
        if depth < 2:
            kinds.append(tuple([self.key(depth + 1) for _ in range(chance.randrange(4))]))
        return kinds[0] if chance.random() < 0.5 else chance.choice(kinds)


def _nested(depth: int) -> Any:
    key: Any = ()
    for _ in range(depth):
        key = (key,)
    return key


_NO_KEYS = [_nested(200), ("a", {}), ("a", math.nan), "k" * (MAX_KEY_NBYTES + 1), "\u20ac" * (MAX_KEY_NBYTES // 3 + 1)]
_ALL = (None, True, -1, 1 << 63, 1.5, math.nan, math.inf, "", "text", "x" * 20_000, b"", b"abc", b"x" * 17, (), {}, [])


def _passes(shape: Shape, value: Any) -> bool:
    try:
        shape.check(value, "")
    except shapes.ProtocolError:
        return False
    return True


def wrong_values(shape: Shape) -> list[Any]:
    """Values of every kind that this shape isn't, and of its own beyond its limits."""
    special: list[Any] = []
    match shape:
        case shapes.Integer(low, high):
            special = [low - 1, high + 1, float(low), str(low)]
        case shapes.Number(low, high):
            special = [low - 1e-9 if math.isfinite(low) else math.nan, high * 2, str(low)]
        case shapes.Text(longest):
            special = ["x" * (longest + 1), b"bytes"]
        case shapes.Identity(nbytes):
            special = [bytes(3), bytes(nbytes - 1), bytes(nbytes + 1), "x" * nbytes]
        case shapes.KeyShape():
            special = _NO_KEYS
    return [value for value in (*special, *_ALL) if not _passes(shape, value) and _can_be_sent(value)]


def _can_be_sent(value: Any) -> bool:
    return type(value) is not int or -(1 << 63) <= value < 1 << 64


def mistakes(shape: Shape, value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The value with one thing in it wrong, for each thing and each way to be wrong, and the name of that thing."""
    for wrong in wrong_values(shape):
        yield name, wrong
    match shape:
        case shapes.Maybe(inner):
            if value is not None:
                yield from ((n, wrong) for n, wrong in mistakes(inner, value, name) if not _passes(shape, wrong))
        case shapes.Either(array, other):
            inside = mistakes(array if type(value) is tuple else other, value, name)
            yield from ((n, wrong) for n, wrong in inside if not _passes(shape, wrong))
        case shapes.Entry():
            yield name, value[:-1]
            yield name, (*value, None)
            for index, (field, inner) in enumerate(shape.fields.items()):
                for inside, wrong in mistakes(inner, value[index], field):
                    yield inside, (*value[:index], wrong, *value[index + 1 :])
        case shapes.Listed():
            for index, item in enumerate(value):
                for inside, wrong in mistakes(shape.item, item, f"[{index}]"):
                    yield inside, (*value[:index], wrong, *value[index + 1 :])
        case shapes.Mapped():
            for key, item in value.items():
                yield name, {3.5j: item}
                for inside, wrong in mistakes(shape.value, item, name):
                    yield inside, {**value, key: wrong}
        case shapes.Fields():
            for field in shape.needed:
                yield field, {key: item for key, item in value.items() if key != field}
            if shape.others is None:
                yield "unknown", {**value, "no such field": 1}
            for field, item in value.items():
                for inside, wrong in mistakes(shape.known[field], item, field):
                    yield inside, {**value, field: wrong}


def as_received(message: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """A message as it comes out at the other end; None if it can't be sent."""
    try:
        (batch,) = FrameReader().feed(b"".join(map(bytes, frames.pack([message]))))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None
    received: tuple[Any, ...] = batch[0]
    return received


def wrong_messages(message: Message, right: tuple[Any, ...]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """A right message with one thing in it wrong, for each thing; and what the error has to name beside the message."""
    if isinstance(message, Carrier):
        carried = next(other for other in message.carried if other.operation == right[1])
        yield from ((name, (right[0], *wrong)) for name, wrong in wrong_messages(carried, right[1:]))
        yield "expected", right[:1]
        return
    for index, (name, shape) in enumerate(message.fields.items(), 1):
        first = index == 1 and isinstance(shape, shapes.Listed)
        for inside, wrong in mistakes(shape, right[index], "" if first else name):
            yield inside, (*right[:index], wrong, *right[index + 1 :])
    yield "expected", right[:-1] if len(right) > 1 else (*right, 1)
    yield "expected", (*right, None)
