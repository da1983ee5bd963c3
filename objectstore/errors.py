"""The errors of the object store, and the base of every error that Holdfast raises itself."""

from __future__ import annotations

#: So much of what another error says is part of the text of one of these.
MAX_WORDS_LENGTH = 1000


class HoldfastError(Exception):
    """Base of all errors that Holdfast raises about itself (a task's own errors are raised as they are)."""


class StoreError(HoldfastError):
    """Something is wrong with the object store or with the connection to it."""


class StoreClosedError(StoreError):
    """The store, or this connection to it, is closed."""


class ObjectNotFoundError(StoreError, KeyError):
    """The store holds no object with this id."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class StoreFullError(StoreError, MemoryError):
    """There is no room for an object, and nothing that could be given up for it."""


class SpillError(StoreError):
    """An object that was moved to disk can't be had back, or none can be moved there; the text says why."""


class DurableError(HoldfastError):
    """Durable datasets can't be written to a place, or read from it; the text names the place and what to do."""


class DecodeError(StoreError):
    """The bytes are not an encoded object, or they are damaged."""


class UnreadableError(DecodeError):
    """The bytes of an object are there, but nothing can be made of them in this process; `__cause__` says why.

    Its class can't be imported here, for instance, or refuses to be unpickled.

    Parameters
    ----------
    what : str
        Names the object.
    type_name : str
        The class of its value; may be empty.
    error : Exception
        What unpickling it has raised.
    where : str
        Says where.
    """

    def __init__(self, what: str, type_name: str, error: BaseException, where: str = "in this process") -> None:
        of = f", of the class {type_name}," if type_name else ""
        super().__init__(
            f"{what}{of} can't be unpickled {where}: {in_words(error):.{MAX_WORDS_LENGTH}}. {way_to_unpickle(error)}"
        )
        self.type_name = type_name


def way_to_unpickle(error: BaseException) -> str:
    """What to do about an error of unpickling."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        module = error.name.partition(".")[0]
        return (
            f"The module {module!r} is where it was made: install it where it is to be read, too, or have it on "
            "PYTHONPATH there"
        )
    if isinstance(error, (ImportError, AttributeError)):
        return "The module that has its class may be another version here than where it was made"
    return "It can be read where its class can be unpickled; or return arrays, tables or built-in types instead"


class StoreProtocolError(StoreError):
    """The other end of a connection said something that the protocol doesn't allow; the connection is closed."""


def in_words(error: BaseException) -> str:
    """Its type and what it says about itself, as far as it can say that; valid UTF-8."""
    name = sendable(type(error).__qualname__)
    try:
        words = sendable(str(error))
        return f"{name}: {words}" if words else name
    except BaseException:  # a method of the user's
        pass
    try:
        return sendable(repr(error))
    except BaseException:
        return name


def sendable(text: str) -> str:
    """``text`` without what UTF-8 can't say: halves of surrogate pairs, as they come from the names of files."""
    return text.encode(errors="backslashreplace").decode()
