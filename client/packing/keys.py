"""Keys: the names of computations.

A pure call has a key made of what is sent for it anyway, so the same call made twice is one computation. Any other call
gets a random one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from hashlib import blake2b
from typing import Any

from holdfast.cluster.protocol.limits import MAX_ENTRY_NBYTES, MAX_KEY_DEPTH, MAX_KEY_NBYTES, MAX_NAME_LENGTH
from holdfast.cluster.protocol.shapes import key_nbytes
from holdfast.objectstore.shared.ids import IDMinter

TOKEN_NBYTES = 16
#: What an integer in a message can be.
MIN_INTEGER, MAX_INTEGER = -(1 << 63), (1 << 64) - 1
_MAX_DEPTH = MAX_KEY_DEPTH
#: What is taken for short without being counted: a key, a part of one, a list of keys.
_SHORT_KEY_LENGTH = 1 << 12
_SHORT_PART_LENGTH = 1 << 10
_FEW_PARTS = 16
_FEW_KEYS = MAX_ENTRY_NBYTES // MAX_KEY_NBYTES

_mint = IDMinter()
_TOKEN = re.compile(f"[0-9a-f]{{{2 * TOKEN_NBYTES}}}")


def content_token(*parts: bytes | bytearray | memoryview) -> str:
    """32 hexadecimal digits that stand for these bytes."""
    digest = blake2b(digest_size=TOKEN_NBYTES)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def random_token() -> str:
    """32 hexadecimal digits that were never used before: by chance in the first half, by count in the second."""
    return _mint().hex()


def is_made_of_content(key: Any) -> bool:
    """Whether a key looks like one that names what it is made of: there is a token in it, as dask makes them.

    Examples
    --------
    >>> is_made_of_content(f"add-{content_token(b'x')}"), is_made_of_content("total")
    (True, False)
    """
    while type(key) is tuple and key:
        key = key[0]
    return type(key) is str and _TOKEN.search(key) is not None


def check_text(what: str, text: str) -> None:
    """Raise a `ValueError` if a text can't be sent."""
    if len(text) > MAX_NAME_LENGTH and what != "a key with":
        raise ValueError(
            f"{what} {text!r:.40}… has a name of {len(text):,} characters, and one of {MAX_NAME_LENGTH:,} can be sent"
        )
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{what} {text!r} can't be sent: {error.reason}") from None


def wire_key(key: Any) -> Any:
    """The key as messages carry it: equal to the one given, made of builtin types only.

    Raises
    ------
    TypeError
        It can't be a key.
    ValueError
        A text, a number or the depth of it can't be sent, or it is too large; says how large it is and may be.

    Examples
    --------
    >>> import numpy as np
    >>> wire_key(("x", np.int64(3)))
    ('x', 3)
    """
    if type(key) is str and key.isascii() and len(key) <= _SHORT_KEY_LENGTH:
        return key
    if type(key) is tuple and len(key) <= _FEW_PARTS:
        for part in key:
            kind = type(part)
            if kind is str:
                if not part.isascii() or len(part) > _SHORT_PART_LENGTH:
                    break
            elif kind is not int or not MIN_INTEGER <= part <= MAX_INTEGER:
                break
        else:
            return key
    checked = _wire_key(key, key, 0)
    nbytes = key_nbytes(checked)
    if nbytes > MAX_KEY_NBYTES:
        raise ValueError(
            f"{key!r:.40}… can't be a key: it takes {nbytes:,} bytes, and a key may take {MAX_KEY_NBYTES:,}"
        )
    return checked


class TooLongKeysError(ValueError):
    """Keys that have to be sent together take too much."""


def check_together(what: str, keys: Collection[Any]) -> None:
    """Raise an error if keys take more than one message can hold: they are sent together, as those of a task."""
    if len(keys) > _FEW_KEYS:
        nbytes = sum(map(key_nbytes, keys))
        if nbytes > MAX_ENTRY_NBYTES:
            raise TooLongKeysError(
                f"{what} has {len(keys):,} keys of {nbytes:,} bytes together, and they may take {MAX_ENTRY_NBYTES:,}: "
                "use shorter keys, or fewer at a time"
            )


def _wire_key(part: Any, key: Any, depth: int) -> Any:
    """A part of a key as messages carry it."""
    if part is None or isinstance(part, bool):
        return part
    if isinstance(part, str):
        check_text("a key with", part)
        return str.__str__(part)
    if isinstance(part, bytes):
        return bytes(part)
    if isinstance(part, int):
        if not MIN_INTEGER <= part <= MAX_INTEGER:
            raise ValueError(f"{key!r:.200} can't be a key: there is an integer in it that takes more than 64 bits")
        return int(part)
    if isinstance(part, float):
        if math.isnan(part):
            raise ValueError(f"{key!r:.200} can't be a key: nan is not equal to itself")
        return float(part)
    if isinstance(part, tuple):
        if depth == _MAX_DEPTH:
            raise ValueError(f"{key!r:.200} can't be a key: its tuples are nested more than {_MAX_DEPTH} deep")
        return tuple([_wire_key(item, key, depth + 1) for item in part])
    item = getattr(part, "item", None)  # numpy's scalars
    if item is not None:
        value = item()
        if isinstance(value, (str, bytes, int, float)):
            return _wire_key(value, key, depth)
    kind = type(part).__name__
    raise TypeError(f"{key!r:.200} can't be a key: a key is a string, a number, or a tuple of these, not a {kind}")
