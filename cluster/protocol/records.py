"""Records: what users leave with the scheduler, as metadata and as events of a topic.

A record is a value as its *leaves*: what each place in it is, where a place is the path of keys to it in dictionaries
inside of dictionaries. A leaf is nothing, a number, a text, an empty array for an empty dictionary, or the pickle of
anything else. So a path into a dictionary means something in the scheduler, which unpickles nothing, and every value
comes back as what it was: a list as a list, a tuple as a tuple.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.protocol import payloads
from holdfast.cluster.protocol.kinds import KEY
from holdfast.cluster.protocol.limits import (
    MAX_INTEGER,
    MAX_NAME_LENGTH,
    MAX_PAYLOAD_NBYTES,
    MAX_RECORD_DEPTH,
    MAX_RECORD_LEAVES,
)
from holdfast.cluster.protocol.shapes import key_weight

#: Of a leaf beside its value, in the scheduler's memory.
LEAF_NBYTES = 100

Path: TypeAlias = tuple[Any, ...]
#: The leaves of a value, by their paths.
Record: TypeAlias = tuple[tuple[Path, Any], ...]

_EMPTY: tuple[()] = ()


def record_of(value: Any) -> Record:
    """A value as it is sent.

    Raises
    ------
    ValueError
        It is too large.
    Exception
        What its pickling raised.

    Examples
    --------
    >>> record_of({"step": 3, "loss": {"train": 0.5}})
    ((('step',), 3), (('loss', 'train'), 0.5))
    """
    record = tuple(_leaves(value, _EMPTY))
    if len(record) > MAX_RECORD_LEAVES:
        raise ValueError(
            f"the value has {len(record):,} items in its dictionaries, and the scheduler keeps {MAX_RECORD_LEAVES:,} "
            "of one value at most: scatter it, and keep the key of the future"
        )
    nbytes = nbytes_of(record) - LEAF_NBYTES * len(record)
    if nbytes > MAX_PAYLOAD_NBYTES:
        raise ValueError(
            f"the value takes {nbytes:,} bytes, and the scheduler keeps {MAX_PAYLOAD_NBYTES:,} of one value at most: "
            "scatter it, and keep the key of the future"
        )
    return record


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    kind = type(value)
    if kind is dict and len(path) < MAX_RECORD_DEPTH and all(map(is_key, value)):
        if not value:
            yield path, _EMPTY
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif _is_plain(value, kind):
        yield path, value
    else:
        yield path, payloads.dumps(value)


def is_key(key: Any) -> bool:
    """Whether something may be a key in a path."""
    try:
        KEY.check(key, "")
    except ProtocolError:
        return False
    return type(key) is not int or -MAX_INTEGER <= key <= MAX_INTEGER


def _is_plain(value: Any, kind: type) -> bool:
    if kind is int:
        return bool(abs(value) <= MAX_INTEGER)
    if kind is float:
        return not math.isnan(value)
    return value is None or kind is bool or (kind is str and len(value) <= MAX_PAYLOAD_NBYTES)


def value_of(record: Iterable[tuple[Path, Any]]) -> Any:
    """The value that was made a record. Raises what unpickling raises.

    Examples
    --------
    >>> value_of(record_of({"a": [1, (2, 3)], "b": {}}))
    {'a': [1, (2, 3)], 'b': {}}
    """
    whole: dict[Any, Any] = {}
    for path, leaf in record:
        value = _value(leaf)
        if not path:
            return value
        inner = whole
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = value
    return whole


def tree_of(record: Record) -> Any:
    """A record as dictionaries with its leaves in them, which stay as they are; a leaf, if it is all.

    Raises
    ------
    ProtocolError
        It is no record: it has nothing in it, or two things in one place.
    """
    whole: dict[Any, Any] = {}
    for path, leaf in record:
        inner = whole
        *through, last = (0, *path)
        for key in through:
            inner = inner.setdefault(key, {})
            if type(inner) is not dict:
                raise ProtocolError(f"record: something below what is no dictionary, at {len(path)} keys")
        if last in inner:
            raise ProtocolError(f"record: two things in one place, at {len(path)} keys")
        inner[last] = {} if type(leaf) is tuple else leaf
    if not whole:
        raise ProtocolError("record: nothing in it")
    return whole[0]


def leaves_of(tree: Any, path: Path = _EMPTY) -> Iterator[tuple[Path, Any]]:
    """The leaves of what `tree_of` has made, each with its path, which begins with ``path``."""
    stack = [(path, tree)]
    while stack:
        where, value = stack.pop()
        if type(value) is not dict:
            yield where, value
        elif not value:
            yield where, _EMPTY
        else:
            stack += [((*where, key), item) for key, item in reversed(value.items())]


def _value(leaf: Any) -> Any:
    kind = type(leaf)
    if kind is tuple or kind is list:
        return {}
    return payloads.loads(leaf) if kind is bytes or kind is memoryview else leaf


def nbytes_of(record: Record) -> int:
    """About how many bytes a record takes."""
    return sum(map(leaf_nbytes, record))


def leaf_nbytes(entry: tuple[Path, Any]) -> int:
    """About how many bytes a leaf takes, with its path."""
    path, leaf = entry
    kind = type(leaf)
    nbytes = len(leaf) if kind is bytes or kind is memoryview or kind is str else 8
    return LEAF_NBYTES + nbytes + sum(map(key_weight, path))


def topic_names(topics: Any) -> list[str]:
    """The names of topics, of which one may stand for itself; raises what `check_topic` does."""
    if not isinstance(topics, (str, Iterable)):
        raise TypeError(f"a topic is a string, or several are a list of these, not {topics!r:.100}")
    names = [topics] if isinstance(topics, str) else list(topics)
    if not names:
        raise ValueError("an event is logged to a topic at least")
    for name in names:
        check_topic(name)
    return names


def check_topic(name: Any) -> None:
    """Raise a `TypeError` or `ValueError` if it can't be the name of a topic."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a topic is a string, not {name!r:.100}")
    if not 1 <= len(name) <= MAX_NAME_LENGTH:
        raise ValueError(f"the name of a topic has 1 to {MAX_NAME_LENGTH:,} characters, not {len(name):,}")
