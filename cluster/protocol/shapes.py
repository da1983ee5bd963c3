"""What a value in a message may be, as data: a checker that names what is wrong, and where.

A shape is asked to `check` a value that has come in a message, so plain MessagePack whose arrays are tuples. It
returns, or raises a `ProtocolError` such as ``scattered[3].object_id: 16 bytes expected, 3 bytes found``. Nothing has
been done about the message then, and nothing of it needs to be looked at again.

Types are compared exactly: a ``bool`` is no number here, and there are no subclasses of anything in a message.

Long lists of what every task needs (`Listed`) have a second checker, ``quick``, written out by hand without a call in
it. It says of most lists that they are right; of all others the slow one says what is wrong. A test sees to it that the
quick one never says yes where the slow one says no.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.protocol.limits import (
    MAX_DATASET_NAME_NBYTES,
    MAX_INTEGER,
    MAX_KEY_DEPTH,
    MAX_KEY_NBYTES,
    MAX_PLAIN_DEPTH,
    MAX_PLAIN_ITEMS,
    MAX_PLAIN_TEXT_LENGTH,
)


class Shape(abc.ABC):
    """What a value may be."""

    __slots__ = ()

    @abc.abstractmethod
    def check(self, value: Any, where: str) -> None:
        """Raise a `ProtocolError` that begins with ``where`` if ``value`` can't be right."""


def wrong(where: str, expected: str, value: Any) -> ProtocolError:
    """The error for a value that is none of what is expected."""
    return ProtocolError(f"{where}: {expected} expected, {found(value)} found")


def found(value: Any) -> str:
    """A value in few words: nothing of what a peer has sent goes into a text at full length."""
    kind = type(value)
    if kind is bytes or kind is memoryview:
        return f"{len(value):,} bytes"
    if value is None or kind in (bool, int, float):
        return repr(value)
    if kind is str:
        return f"{value!r:.80}" if len(value) <= 80 else f"a text of {len(value):,} characters"
    if kind in (tuple, list, dict):
        return f"a {kind.__name__} of {len(value):,}"
    return f"a {kind.__name__}"


@dataclass(frozen=True, slots=True)
class Integer(Shape):
    """A whole number within limits."""

    low: int = 0
    high: int = MAX_INTEGER

    def check(self, value: Any, where: str) -> None:
        if type(value) is not int or not self.low <= value <= self.high:
            raise wrong(where, f"a whole number from {self.low} to {self.high}", value)


@dataclass(frozen=True, slots=True)
class Number(Shape):
    """An integer or a float within limits, and never nan."""

    low: float = 0.0
    high: float = 1e18

    def check(self, value: Any, where: str) -> None:
        if type(value) not in (float, int) or not self.low <= value <= self.high:
            raise wrong(where, f"a number from {self.low:g} to {self.high:g}", value)


@dataclass(frozen=True, slots=True)
class Boolean(Shape):
    """True or false."""

    def check(self, value: Any, where: str) -> None:
        if type(value) is not bool:
            raise wrong(where, "true or false", value)


@dataclass(frozen=True, slots=True)
class Text(Shape):
    """A text up to a length in characters; ``shortest`` is 1 where an empty one names nothing."""

    longest: int = 1 << 10
    shortest: int = 0

    def check(self, value: Any, where: str) -> None:
        if type(value) is not str or not self.shortest <= len(value) <= self.longest:
            raise wrong(where, f"a text of {self.shortest} to {self.longest:,} characters", value)


@dataclass(frozen=True, slots=True)
class Identity(Shape):
    """So many bytes, neither more nor fewer; none at all where ``or_empty``."""

    nbytes: int = 16
    or_empty: bool = False

    def check(self, value: Any, where: str) -> None:
        if type(value) is not bytes or (len(value) != self.nbytes and not (self.or_empty and not value)):
            raise wrong(where, f"{self.nbytes} bytes{' or none' if self.or_empty else ''}", value)


@dataclass(frozen=True, slots=True)
class Blob(Shape):
    """Bytes that are not looked into here, in the header or behind it."""

    most_nbytes: int = 8 << 30

    def check(self, value: Any, where: str) -> None:
        if type(value) not in (bytes, memoryview) or len(value) > self.most_nbytes:
            raise wrong(where, f"up to {self.most_nbytes:,} bytes", value)


@dataclass(frozen=True, slots=True)
class KeyShape(Shape):
    """The name of a computation: a text, a number, bytes, nothing, or a tuple of these."""

    limit: int = MAX_KEY_NBYTES

    def check(self, value: Any, where: str) -> None:
        if type(value) is str and len(value) <= _SHORT:
            return
        nbytes = _key_nbytes(value, where, 0)
        if nbytes > self.limit:
            raise ProtocolError(f"{where}: a key of up to {self.limit:,} bytes expected, one of {nbytes:,} found")


#: What so short a text takes is within all limits, whatever its characters are.
_SHORT = MAX_DATASET_NAME_NBYTES // 4


def _key_nbytes(part: Any, where: str, depth: int) -> int:
    kind = type(part)
    if kind is str:
        return len(part) if part.isascii() else len(part.encode(errors="surrogatepass"))
    if kind is bytes:
        return len(part)
    if kind is tuple and depth < MAX_KEY_DEPTH:
        return 5 + sum([_key_nbytes(item, where, depth + 1) for item in part])
    if (kind is int or kind is float or kind is bool or part is None) and part == part:
        return 9
    raise wrong(where, f"a key (a text, a number, bytes, or a tuple of these up to {MAX_KEY_DEPTH} deep)", part)


def key_nbytes(key: Any) -> int:
    """About how many bytes a key takes in a message. Raises a `ProtocolError` if it is none."""
    return _key_nbytes(key, "a key", 0)


def key_weight(key: Any) -> int:
    """About how many bytes a key takes, quickly."""
    if type(key) is str:
        return len(key)
    if type(key) is not tuple:
        return 16
    nbytes = 0
    for part in key:
        kind = type(part)
        if kind is str or kind is bytes:
            nbytes += len(part)
        elif kind is tuple:
            return key_nbytes(key)
    return nbytes


def in_slices(keys: Sequence[Any], count: int, nbytes: int = 1 << 20) -> Iterator[Sequence[Any]]:
    """Keys, so many at a time, or fewer if they take more than ``nbytes`` together."""
    start = weight = 0
    for index, key in enumerate(keys):
        weight += key_weight(key)
        if index - start == count or (weight > nbytes and index > start):
            yield keys[start:index]
            start, weight = index, key_weight(key)
    if start < len(keys):
        yield keys[start:]


@dataclass(frozen=True, slots=True)
class Anything(Shape):
    """What is not looked into here; ``words`` say what it is."""

    words: str

    def check(self, value: Any, where: str) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Nothing(Shape):
    """Nothing at all."""

    def check(self, value: Any, where: str) -> None:
        if value is not None:
            raise wrong(where, "nothing", value)


@dataclass(frozen=True, slots=True)
class Maybe(Shape):
    """Something, or nothing."""

    shape: Shape

    def check(self, value: Any, where: str) -> None:
        if value is not None:
            self.shape.check(value, where)


@dataclass(frozen=True, slots=True)
class Either(Shape):
    """An array with such fields, or else what another shape says."""

    array: Shape
    other: Shape

    def check(self, value: Any, where: str) -> None:
        (self.array if type(value) is tuple else self.other).check(value, where)


class OneOf(Shape):
    """What one of several shapes says.

    Parameters
    ----------
    expected
        All of them in words.
    *shapes
    """

    __slots__ = ("expected", "shapes")

    def __init__(self, expected: str, *shapes: Shape) -> None:
        self.expected = expected
        self.shapes = shapes

    def check(self, value: Any, where: str) -> None:
        for shape in self.shapes:
            try:
                return shape.check(value, where)
            except ProtocolError:
                continue
        raise wrong(where, self.expected, value)


class Entry(Shape):
    """An array with a field in each place."""

    __slots__ = ("fields",)

    def __init__(self, **fields: Shape) -> None:
        self.fields = fields

    def check(self, value: Any, where: str) -> None:
        if type(value) is not tuple or len(value) != len(self.fields):
            raise wrong(where, f"an array of {len(self.fields)} ({', '.join(self.fields)})", value)
        for (name, shape), part in zip(self.fields.items(), value, strict=True):
            shape.check(part, f"{where}.{name}")


class Listed(Shape):
    """An array of any number of one kind, up to ``most``."""

    __slots__ = ("item", "most", "quick")

    def __init__(self, item: Shape, most: int = 1 << 26, quick: Callable[[Any], bool] | None = None) -> None:
        self.item = item
        self.most = most
        self.quick = quick

    def check(self, value: Any, where: str) -> None:
        if type(value) is not tuple or len(value) > self.most:
            raise wrong(where, f"an array of up to {self.most:,}", value)
        if self.quick is None or not self.quick(value):
            check = self.item.check
            try:
                for item in value:
                    check(item, where)
            except ProtocolError:  # where it stands is said only of what is wrong
                for index, item in enumerate(value):
                    check(item, f"{where}[{index}]")
                raise


class Mapped(Shape):
    """A dictionary of any number of one kind, up to ``most``."""

    __slots__ = ("key", "most", "value")

    def __init__(self, key: Shape, value: Shape, most: int) -> None:
        self.key = key
        self.value = value
        self.most = most

    def check(self, value: Any, where: str) -> None:
        if type(value) is not dict or len(value) > self.most:
            raise wrong(where, f"a dictionary of up to {self.most:,}", value)
        check_key, its_key = self.key.check, f"a key of {where}"
        for key in value:
            check_key(key, its_key)
        if type(self.value) is not Anything:  # where each entry is found takes longer to say than to look at it
            for key, item in value.items():
                self.value.check(item, f"{where}[{found(key)}]")


class _Checks(dict[str, Callable[[Any, str], None]]):
    """What checks the field of each name. ``others`` is the shape of those of other names, if there may be some."""

    others: Shape | None = None

    def __missing__(self, name: Any) -> Callable[[Any, str], None]:
        if self.others is None or type(name) is not str:
            raise KeyError(name)
        return self.others.check


class Fields(Shape):
    """A dictionary with names for its fields: those that have to be there, and those that may.

    Parameters
    ----------
    needed, known
        The fields by name.
    others
        What fields of other names may be, as a later version may add some; None: there may be none.
    """

    __slots__ = ("_checks", "_names", "known", "needed", "others")

    def __init__(
        self,
        needed: Mapping[str, Shape],
        known: Mapping[str, Shape] = MappingProxyType({}),
        others: Shape | None = None,
    ) -> None:
        self.needed = dict(needed)
        self.known = {**needed, **known}
        self.others = others
        self._names = frozenset(needed)
        self._checks = _Checks({name: shape.check for name, shape in self.known.items()})
        self._checks.others = others

    def check(self, value: Any, where: str) -> None:
        checks = self._checks
        try:
            if type(value) is dict and value.keys() >= self._names:
                for name, item in value.items():
                    checks[name](item, where)
                return
        except (KeyError, ProtocolError):
            pass
        self._check_each(value, where)  # what is wrong, and where, is said only if something is

    def _check_each(self, value: Any, where: str) -> None:
        if type(value) is not dict:
            raise wrong(where, "a dictionary", value)
        for name in self.needed:
            if name not in value:
                raise ProtocolError(f"{where}.{name} is missing")
        for name, item in value.items():
            shape = self.known.get(name, self.others) if type(name) is str else None
            if shape is None:
                raise ProtocolError(f"{where} has an unknown field, {found(name)}")
            shape.check(item, f"{where}.{name:.80}")


class Plain(Shape):
    """Data for people: numbers, texts, arrays and dictionaries with texts for keys, of limited size."""

    __slots__ = ()

    def check(self, value: Any, where: str) -> None:
        self._check(value, where, [MAX_PLAIN_ITEMS], 0)

    def _check(self, value: Any, where: str, left: list[int], depth: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise ProtocolError(f"{where}: more than {MAX_PLAIN_ITEMS:,} things")
        kind = type(value)
        if value is None or kind is bool or kind is int or (kind is float and math.isfinite(value)):
            return
        if kind is str and len(value) <= MAX_PLAIN_TEXT_LENGTH:
            return
        if kind is tuple and depth < MAX_PLAIN_DEPTH:
            for item in value:
                self._check(item, where, left, depth + 1)
        elif kind is dict and depth < MAX_PLAIN_DEPTH:
            for name, item in value.items():
                if type(name) is not str or len(name) > MAX_PLAIN_TEXT_LENGTH:
                    raise wrong(where, "a text for a key", name)
                self._check(item, where, left, depth + 1)
        else:
            raise wrong(where, "a number, a text, an array or a dictionary of limited size", value)
