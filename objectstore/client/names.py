"""What users name objects by, checked before it is sent: ids, keys, owners."""

from __future__ import annotations

from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.protocol import TEXT_MAX

Names = tuple[str | None, str | None, str | None, int, bytes]  # key, owner, type, label, references


def checked_id(value: object) -> ObjectID:
    """An object's id.

    Raises
    ------
    TypeError, ValueError
        If it isn't one.
    """
    if type(value) is ObjectID:
        return value
    if not isinstance(value, bytes):
        raise TypeError(f"an object id, as put gives it, is not of type {type(value).__name__}")
    return ObjectID(value)


def clean(text: str) -> str:
    """A text as it can be sent: what UTF-8 has no bytes for is escaped."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def checked_name(text: str | None) -> str | None:
    """A name as it can be sent.

    Raises
    ------
    TypeError, ValueError
        If it isn't a text, or too long.
    """
    if text is None:
        return None
    if not isinstance(text, str):
        raise TypeError(f"a name is a str, not {type(text).__name__}")
    text = clean(text)
    if len(text) > TEXT_MAX:
        raise ValueError(f"a name of {len(text)} characters; {TEXT_MAX} are allowed")
    return text
