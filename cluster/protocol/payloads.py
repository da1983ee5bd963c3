"""What travels inside a task: functions and arguments, as bytes that the scheduler never looks into.

`KINDS` says what there is. A client writes payloads and a worker reads them, so what both must agree on stands here.
Futures among the arguments are written as `Reference`; reading a payload inside `resolving(values)` puts the values in
their place while it is unpickled, however deep they stand, without walking the arguments.
"""

from __future__ import annotations

import contextlib
import functools
import io
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping
from types import CellType
from typing import Any, NamedTuple

from holdfast.cluster.protocol.limits import ERROR_INLINE_NBYTES, INLINE_LIMIT_NBYTES, MAX_PAYLOAD_NBYTES
from holdfast.objectstore.pickling import importing
from holdfast.objectstore.pickling.by_value import ByValuePickler
from holdfast.objectstore.pickling.unpickling import REFUSALS, loads_again

__all__ = [
    "INLINE_LIMIT_NBYTES",
    "KINDS",
    "InterruptedDump",
    "Item",
    "Kind",
    "LargeBuffer",
    "Pickled",
    "Reference",
    "dumps",
    "loads",
    "make_cell",
    "nbytes_of",
    "none_larger_than",
    "resolving",
]


class Kind(NamedTuple):
    """What a payload is."""

    name: str
    meaning: str
    most_nbytes: int


KINDS = (
    Kind(
        "function",
        "The pickle of a callable: by name, or by value if a script or a notebook defines it. References in it stand "
        "for the futures in its closure.",
        MAX_PAYLOAD_NBYTES,
    ),
    Kind(
        "call",
        "The arguments of a task with a function: the pickle of `(args, kwargs)`. A `Reference` stands for the value "
        "of a key, an `Item` for one item of it.",
        MAX_PAYLOAD_NBYTES,
    ),
    Kind("node", "A task without a function: the pickle of a node of `dask._task_spec`.", MAX_PAYLOAD_NBYTES),
    Kind(
        "pickled",
        "The pickle of a `Pickled`: the value of its key is an object that is the pickle of any of the above, which "
        "was too large.",
        MAX_PAYLOAD_NBYTES,
    ),
    Kind(
        "recipe", "What a dataset is made of: the pickle of a collection or value, with references.", MAX_PAYLOAD_NBYTES
    ),
    Kind(
        "exception",
        "The state of an exception and of all that it is linked to, value by value: what can't be read at the other "
        "end is missing alone (`cluster/failures/links.py`).",
        ERROR_INLINE_NBYTES,
    ),
    Kind("inline object", "The flat encoding of a small value (`objectstore.encode`).", INLINE_LIMIT_NBYTES),
)

_context = threading.local()


class InterruptedDump(Exception):
    """Raised in the middle of `dumps` by what it calls; its cause, if it has one, is why."""


class LargeBuffer(InterruptedDump):
    """There is a buffer in the value that is larger than the limit."""


TakeBuffer = Callable[[pickle.PickleBuffer], bool]
#: Called with each object that isn't a plain builtin one: how it is reduced, or `NotImplemented` for "as ever".
TakeApart = Callable[[Any], Any]


def dumps(value: Any, *, take: TakeBuffer | None = None, apart: TakeApart | None = None) -> bytes:
    """Pickle ``value``, with cloudpickle where pickle can't or would refer to this process's ``__main__``.

    Parameters
    ----------
    take
        Called with each buffer of an array or the like before it is copied: `none_larger_than`.
    apart
        May reduce objects in its own way.

    Raises
    ------
    InterruptedDump
        ``take`` or ``apart`` raised it.
    Exception
        Whatever pickling raised: `pickle.PicklingError`, `TypeError`, an error of the object's own, …
    """
    try:
        data = pickle.dumps(value, protocol=5, buffer_callback=take) if apart is None else _dumps_apart(value, apart)
        if b"__main__" not in data:
            return data
    except InterruptedDump:
        raise
    except Exception:  # pickle raises any type; what really can't be pickled raises again below
        pass
    by_value = io.BytesIO()
    if apart is None:
        ByValuePickler(by_value, protocol=5, buffer_callback=take).dump(value)
    else:
        _ApartByValue(by_value, apart).dump(value)
    return by_value.getvalue()


def nbytes_of(value: Any) -> int:
    """How large the pickle of ``value`` is, without a copy of the arrays in it. Raises what `dumps` does."""
    sizes: list[int] = []

    def count(buffer: pickle.PickleBuffer) -> None:
        sizes.append(memoryview(buffer).nbytes)

    try:
        return len(pickle.dumps(value, protocol=5, buffer_callback=count)) + sum(sizes)
    except Exception:  # as above
        sizes.clear()
    by_value = io.BytesIO()
    ByValuePickler(by_value, protocol=5, buffer_callback=count).dump(value)
    return by_value.tell() + sum(sizes)


@functools.cache
def none_larger_than(limit_nbytes: int) -> TakeBuffer:
    """For `dumps`: gives up with a `LargeBuffer` at the first buffer that is larger."""

    def take(buffer: pickle.PickleBuffer) -> bool:
        if memoryview(buffer).nbytes > limit_nbytes:
            raise LargeBuffer(f"there is a buffer of more than {limit_nbytes:,} bytes")
        return True  # it stays in the pickle

    return take


class _Apart(pickle.Pickler):
    """pickle's pickler, which asks its owner first."""

    def __init__(self, file: io.BytesIO, apart: TakeApart) -> None:
        self._apart = apart
        super().__init__(file, protocol=5)

    def reducer_override(self, obj: Any) -> Any:
        return self._apart(obj)


def _dumps_apart(value: Any, apart: TakeApart) -> bytes:
    by_reference = io.BytesIO()
    _Apart(by_reference, apart).dump(value)
    return by_reference.getvalue()


class _ApartByValue(ByValuePickler):
    """The pickler of what can't be named, which asks its owner first."""

    def __init__(self, file: io.BytesIO, apart: TakeApart) -> None:
        self._apart = apart
        super().__init__(file, protocol=5)

    def reducer_override(self, obj: Any) -> Any:
        reduced = self._apart(obj)
        return super().reducer_override(obj) if reduced is NotImplemented else reduced


def make_cell(value: Any) -> CellType:
    """A cell of a closure with this value."""
    return CellType(value)


class Reference:
    """Stands in a payload for the value of ``key``."""

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key

    def __reduce__(self) -> tuple[Any, tuple[Any]]:
        return _resolve, (self.key,)

    def __repr__(self) -> str:
        return f"Reference({self.key!r})"


class Item:
    """Stands in a payload for one item of the value of ``key``: what it has at ``item``."""

    __slots__ = ("item", "key")

    def __init__(self, key: Any, item: Any) -> None:
        self.key = key
        self.item = item

    def __reduce__(self) -> tuple[Any, tuple[Any, Any]]:
        return _resolve_item, (self.key, self.item)

    def __repr__(self) -> str:
        return f"Item({self.key!r}, {self.item!r})"


class Pickled:
    """Stands in a payload for what the pickle that is the value of ``key`` makes: a payload too large to be sent."""

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key

    def __reduce__(self) -> tuple[Any, tuple[Any]]:
        return _resolve_pickled, (self.key,)

    def __repr__(self) -> str:
        return f"Pickled({self.key!r})"


#: ``item_of(key, item)``: one item of the value of ``key``.
ItemOf = Callable[[Any, Any], Any]
Load = Callable[[bytes | memoryview], Any]


def _resolve(key: Any) -> Any:
    values = getattr(_context, "values", None)
    return Reference(key) if values is None else values[key]


_LOOK_UP = pickle.STACK_GLOBAL
_pickled = pickle.dumps(Reference(0), protocol=5)
#: How the first reference in a payload names what resolves it.
_RESOLVE = _pickled[_pickled.index(pickle.SHORT_BINUNICODE) : _pickled.index(_LOOK_UP) + 1]


def _resolve_item(key: Any, item: Any) -> Any:
    values = getattr(_context, "values", None)
    if values is None:
        return Item(key, item)
    item_of: ItemOf | None = _context.item_of
    return values[key][item] if item_of is None else item_of(key, item)


def _resolve_pickled(key: Any) -> Any:
    values = getattr(_context, "values", None)
    return Pickled(key) if values is None else _context.load(values[key])


@contextlib.contextmanager
def resolving(values: Mapping[Any, Any], item_of: ItemOf | None = None, load: Load | None = None) -> Iterator[None]:
    """Within it, in this thread, references unpickle to ``values[key]``, and items to items of these.

    ``load`` is what unpickles a payload that is itself a value.
    """
    outer = getattr(_context, "values", None), getattr(_context, "item_of", None), getattr(_context, "load", None)
    _context.values, _context.item_of, _context.load = values, item_of, load or _loads
    try:
        yield
    finally:
        _context.values, _context.item_of, _context.load = outer


def loads(payload: bytes | memoryview, values: Mapping[Any, Any] | None = None, item_of: ItemOf | None = None) -> Any:
    """Unpickle a payload, with values in the place of its references.

    Parameters
    ----------
    payload
        What `dumps` made.
    values
        The values by key; without any, references stay what they are.
    item_of
        Gives an item without all of the value that it's an item of. By default that is taken from ``values``.
    """
    if not values:
        return _loads(payload)
    with resolving(values, item_of):
        return _loads(payload)


def _loads(payload: bytes | memoryview) -> Any:
    try:
        if type(payload) is bytes:
            names = payload.count(_LOOK_UP)
            if not names or (names == 1 and _RESOLVE in payload):
                return pickle.loads(payload)  # nothing in it is imported
        return importing.loads(payload)
    except REFUSALS:
        if (again := loads_again(payload)) is None:
            raise
        return again[0]
