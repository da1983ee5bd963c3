"""What a task raised, as bytes: exceptions with all that they are linked to.

The exception, what it was raised from and in the handling of, and the members of groups are *links*: a list, in which
each says by number which others it refers to. So circles are no matter, nor is a chain of a thousand. Exceptions that
are met inside of a link's attributes, however deep, are links of the list too.

Of each link its state is sent (`objectstore/pickling/exceptions.py`), value by value: one that can't be pickled here,
or not be unpickled there, is replaced by an `Unsent` that says so, and the rest arrives. No method of an exception is
called for that, except the ``__reduce__`` of its class where there is more to it than can be seen or sent; and
``__str__``, for people to read. A class is sent by name or, where it can't be imported, by value. Where neither can be
used, a `substitute` takes its place.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from holdfast.cluster.failures.tracebacks import Frames

#: In the place of the number of a link: there is none.
NO_LINK = -1
#: Values of these types are sent as they are.
PLAIN = frozenset({str, int, float, complex, bool, bytes, type(None)})


class Unsent:
    """Stands for a value that belongs to an exception and could not be sent with it."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"<{self.text}>"

    def __reduce__(self) -> tuple[type[Unsent], tuple[str]]:
        return Unsent, (self.text,)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{self.text}; so there is no {name!r}")


class PickledValue(NamedTuple):
    """A value: the number of its pickle."""

    number: int


class LinkedValue(NamedTuple):
    """A value that is an exception: the number of its link."""

    number: int


class OmittedValue(NamedTuple):
    """A value that isn't sent, and why."""

    why: str


class ClassReference(NamedTuple):
    """A class: its name for people, its module and name or its pickle or None, and what it's one of, by name."""

    shown: str
    reference: tuple[str, str] | bytes | None
    ancestors: tuple[tuple[str, str], ...]


class Link(NamedTuple):
    cls: ClassReference
    words: str | None  # None: built-in classes speak for themselves
    args: tuple[Any, ...]
    attributes: dict[str, Any]
    fields: dict[str, Any]
    group: tuple[str, tuple[int, ...]] | None
    own: bytes | None  # what its own ``__reduce__`` gave
    cause: int
    context: int
    suppress_context: bool
    frames: Frames


def shortened(text: str, length: int) -> str:
    """A text, or its beginning and its end."""
    if len(text) <= length:
        return text
    half = max(0, length - 60) // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters are left out …\n{text[-half:]}"
