"""What travels inside a task: functions, arguments, exceptions, as bytes that the scheduler never looks into.

A client writes payloads and a worker reads them, so what both must agree on stands here. Futures among the
arguments are written as `Reference`; reading a payload inside `resolving(values)` puts the values in their place
while it is unpickled, however deep they stand, without walking the arguments.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, TracebackType
from typing import Any

import cloudpickle
import tblib

from holdfast.cluster.errors import RemoteError
from holdfast.cluster.protocol.limits import ERROR_TEXT_LENGTH, INLINE_LIMIT_NBYTES

__all__ = [
    "INLINE_LIMIT_NBYTES",
    "Item",
    "Reference",
    "dump_exception",
    "dump_text",
    "dumps",
    "load_exception",
    "loads",
    "resolving",
    "shortened",
]

_MAX_FRAMES = 100
#: What newer versions of cloudpickle write for the name of a file.
_NO_FILE = "<dynamic-code>"
_context = threading.local()


def dumps(value: Any) -> bytes:
    """Pickle ``value``, with cloudpickle where pickle can't or would refer to this process's ``__main__``.

    Raises
    ------
    Exception
        Whatever pickling raised: `pickle.PicklingError`, `TypeError`, an error of the object's own, …
    """
    try:
        data = pickle.dumps(value, protocol=5)
        if b"__main__" not in data:
            return data
    except Exception:  # pickle raises any type; what really can't be pickled raises again below
        pass
    by_value = io.BytesIO()
    _ByValue(by_value, protocol=5).dump(value)
    return by_value.getvalue()


def _reduce_code(code: CodeType) -> tuple[Any, ...]:
    """What cloudpickle makes of code, with the name of its file: a traceback finds the source by that."""
    make, arguments, *rest = cloudpickle.Pickler.dispatch_table[CodeType](code)
    return (make, tuple(code.co_filename if a == _NO_FILE else a for a in arguments), *rest)


class _ByValue(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's pickler, which keeps the names of files."""

    dispatch_table = cloudpickle.Pickler.dispatch_table.new_child({CodeType: _reduce_code})


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


#: ``item_of(key, item)``: one item of the value of ``key``.
ItemOf = Callable[[Any, Any], Any]


def _resolve(key: Any) -> Any:
    values = getattr(_context, "values", None)
    return Reference(key) if values is None else values[key]


def _resolve_item(key: Any, item: Any) -> Any:
    values = getattr(_context, "values", None)
    if values is None:
        return Item(key, item)
    item_of: ItemOf | None = _context.item_of
    return values[key][item] if item_of is None else item_of(key, item)


@contextlib.contextmanager
def resolving(values: Mapping[Any, Any], item_of: ItemOf | None = None) -> Iterator[None]:
    """Within it, in this thread, references unpickle to ``values[key]``, and items to items of these."""
    outer = getattr(_context, "values", None), getattr(_context, "item_of", None)
    _context.values, _context.item_of = values, item_of
    try:
        yield
    finally:
        _context.values, _context.item_of = outer


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
        return pickle.loads(payload)
    with resolving(values, item_of):
        return pickle.loads(payload)


class _Plain:
    """Pickles as the exception itself, the way its class says.

    Importing `dask.multiprocessing` makes tblib's reducer that of every exception: it fails for some classes, and
    takes along the traceback and all that the exception was raised from.
    """

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> Any:
        return self._error.__reduce_ex__(5)


def dump_exception(error: BaseException) -> tuple[bytes, str]:
    """Pack an exception with its traceback.

    Returns
    -------
    (bytes, str)
        A blob for `load_exception`, and the formatted traceback, valid UTF-8, and cut if it is very long. An exception
        that can't be pickled, or not be unpickled again, is replaced by a `RemoteError` that says what it was; one that
        can't even say that is told by its type.
    """
    text = shortened(_format(error), ERROR_TEXT_LENGTH)
    if not isinstance(error, Exception):
        # Raised again where a result is asked for, SystemExit and its like would end that program.
        error = RemoteError(f"the task raised {_in_words(error)}").with_traceback(error.__traceback__)
    trace = None
    try:
        trace = tblib.Traceback(_shortened(error.__traceback__)).to_dict() if error.__traceback__ else None
        blob = dumps((_Plain(error), trace))
        pickle.loads(blob)
    except BaseException:  # an exception class of a user can fail in any way here
        words = shortened(_in_words(error), ERROR_TEXT_LENGTH)
        substitute = RemoteError(f"{type(error).__module__}.{words}\n\n{text}")
        blob = dumps((_Plain(substitute), trace))
    return blob, text


def dump_text(text: str, why: str) -> bytes:
    """A blob in the place of an exception's own, of which only the text is left."""
    return dumps((_Plain(RemoteError(f"{why}; it was\n\n{text}")), None))


def shortened(text: str, length: int) -> str:
    """A text, or its beginning and its end."""
    if len(text) <= length:
        return text
    half = (length - 60) // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters are left out …\n{text[-half:]}"


def _shortened(trace: TracebackType) -> TracebackType:
    """The first and last frames of a traceback: one of a thousand, of a recursion without end, can't be pickled."""
    frames: list[TracebackType] = []
    at: TracebackType | None = trace
    while at is not None:
        frames.append(at)
        at = at.tb_next
    if len(frames) <= _MAX_FRAMES:
        return trace
    shortened = None
    for frame in reversed(frames[: _MAX_FRAMES // 2] + frames[-_MAX_FRAMES // 2 :]):
        shortened = TracebackType(shortened, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    assert shortened is not None
    return shortened


def _format(error: BaseException) -> str:
    try:
        return _sendable("".join(traceback.format_exception(error)))
    except BaseException:  # it looks into the user's objects, to find what a misspelt name may have meant
        return _in_words(error)


def _in_words(error: BaseException) -> str:
    """Its type and what it says about itself, as far as it can say that."""
    name = type(error).__qualname__
    for say in (str, repr):
        try:
            return _sendable(f"{name}: {say(error)}")
        except BaseException:  # a method of the user's
            continue
    return _sendable(name)


def _sendable(text: str) -> str:
    """``text`` without what UTF-8 can't say: halves of surrogate pairs, as they come from the names of files."""
    return text.encode(errors="backslashreplace").decode()


def load_exception(blob: bytes | memoryview, text: str) -> tuple[BaseException, TracebackType | None]:
    """The exception and the traceback in a blob of `dump_exception`; a `RemoteError` if it can't be read here."""
    try:
        error, trace = pickle.loads(blob)
    except Exception as failure:  # its class may not be importable here, or raise anything
        return RemoteError(
            f"the task's exception can't be unpickled here ({_in_words(failure)}); it was\n\n{text}"
        ), None
    try:
        return error, tblib.Traceback.from_dict(trace).as_traceback() if trace else None
    finally:
        # The traceback's frames were called by this one, and the error will have the traceback.
        del error
