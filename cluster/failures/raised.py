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

import functools
import io
import pickle
import reprlib
import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

from holdfast.cluster.errors import RemoteError
from holdfast.cluster.failures.substitutes import Substitute, substitute
from holdfast.cluster.failures.tracebacks import Frames, frames_of, traceback_of
from holdfast.cluster.protocol import payloads
from holdfast.cluster.protocol.limits import ERROR_TEXT_LENGTH
from holdfast.objectstore.errors import in_words, sendable
from holdfast.objectstore.pickling import exceptions as state
from holdfast.objectstore.pickling import importing
from holdfast.objectstore.pickling.by_value import ByValuePickler

__all__ = ["Unsent", "dump_exception", "dump_text", "load_copy", "load_exception", "shortened"]

#: Of an exception with more links than this the nearest are sent.
MAX_LINKS = 1000
#: What a link says about itself, and what is said of a value that isn't sent.
MAX_WORDS_LENGTH = 1 << 12
MAX_UNSENT_LENGTH = 200

#: So many classes that came by value are kept, if their pickles aren't larger.
MAX_KEPT = 64
MAX_KEPT_NBYTES = 64 << 10

#: ``persistent_id(value)`` of a pickler: what is written in the place of a value, None for the value itself.
PersistentId = Callable[[Any], int | None]

_PLAIN = frozenset({str, int, float, complex, bool, bytes, type(None)})
_NO_LINK = -1

_repr = reprlib.Repr()
_repr.maxother = _repr.maxstring = MAX_UNSENT_LENGTH


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


class _Pickled(NamedTuple):
    """A value: the number of its pickle."""

    number: int


class _Linked(NamedTuple):
    """A value that is an exception: the number of its link."""

    number: int


class _Left(NamedTuple):
    """A value that isn't sent, and why."""

    why: str


class _Class(NamedTuple):
    """A class: its name for people, its module and name or its pickle or None, and what it's one of, by name."""

    shown: str
    reference: tuple[str, str] | bytes | None
    ancestors: tuple[tuple[str, str], ...]


class _Link(NamedTuple):
    cls: _Class
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


# -- from exceptions to bytes


def dump_exception(error: BaseException, note: str = "") -> tuple[bytes, str]:
    """Pack an exception with its traceback and all that it's linked to.

    Parameters
    ----------
    note
        Added to its notes where it's read.

    Returns
    -------
    (bytes, str)
        A blob for `load_exception`, and the formatted traceback, valid UTF-8, and cut if it is very long. An exception
        that would end the program in which a result is asked for, such as `SystemExit`, is the cause of a `RemoteError`
        there.
    """
    text = shortened(_format(error), ERROR_TEXT_LENGTH)
    exits = None
    if not isinstance(error, Exception):
        exits = error
        error = RemoteError(
            f"the task raised {in_words(exits)} (here it isn't raised as itself, which could end this program)"
        )
        error.__cause__ = exits
        error.__traceback__ = state.trace_of(exits)
    try:
        blob = _Packer().pack(error, note, bare=exits)
    except BaseException as failure:  # nothing is known to come to this, but a task has to end
        shown = RemoteError(f"{in_words(error)}\n\n{text}\n\n(it can't be sent as it is: {in_words(failure)})")
        blob = _Packer().pack(shown, note)
    return blob, text


def dump_text(text: str, why: str) -> bytes:
    """A blob in the place of an exception's own, of which only the text is left."""
    return _Packer().pack(RemoteError(f"{why}; it was\n\n{text}"), "")


class _Packer:
    """Packs one exception."""

    def __init__(self) -> None:
        self._links: list[BaseException] = []
        self._numbers: dict[int, int] = {}  # of the links, by id
        self._pickles: list[bytes] = []
        self._values: dict[int, tuple[Any, Any]] = {}  # by id: a value, which keeps its id, and what is sent of it

    def pack(self, error: BaseException, note: str, bare: BaseException | None = None) -> bytes:
        """The blob. The traceback of ``bare`` is left out."""
        self._number(error)
        packed = []
        for link in self._links:  # it grows
            packed.append(self._link(link, link is bare))
        return pickle.dumps((packed, self._pickles, note), 5)

    def _number(self, error: BaseException | None) -> int:
        if error is None:
            return _NO_LINK
        number = self._numbers.get(id(error), _NO_LINK)
        if number == _NO_LINK and len(self._links) < MAX_LINKS:
            number = self._numbers[id(error)] = len(self._links)
            self._links.append(error)
        return number

    def _link(self, error: BaseException, is_bare: bool) -> _Link:
        cause, context = self._number(state.cause_of(error)), self._number(state.context_of(error))
        group = state.group_of(error)
        members = None
        if group is not None:
            numbers = [self._number(member) for member in group[1]]
            if _NO_LINK in numbers:
                left = len(numbers) - len(numbers := [number for number in numbers if number != _NO_LINK])
                self._links.append(RemoteError(f"{left:,} further exceptions of this group are left out"))
                numbers.append(len(self._links) - 1)
            members = (group[0], tuple(numbers))
        args = tuple([self._value(value) for value in state.args_of(error)])
        attributes = {
            name: self._value(value) for name, value in state.attributes_of(error).items() if type(name) is str
        }
        fields = {name: self._value(value) for name, value in state.fields_of(error).items()}
        own = words = None
        if issubclass(type(error), Substitute):  # `isinstance` asks the exception too, unless it's true
            assert isinstance(error, Substitute)
            cls, words = error._original, error._words
        else:
            kind = type(error)
            cls = _class_of(kind)
            if not state.is_builtin(kind):
                words = shortened(in_words(error), MAX_WORDS_LENGTH)
            if state.has_own_reduce(kind):
                sent = (*args, *attributes.values(), *fields.values())
                if any(type(value) is _Left for value in sent) or not _can_be_made(kind, group):
                    own = self._own(error)
        return _Link(
            cls,
            words,
            args,
            attributes,
            fields,
            members,
            own,
            cause,
            context,
            state.suppresses_context(error),
            () if is_bare else frames_of(state.trace_of(error)),
        )

    def _value(self, value: Any) -> Any:
        """What is sent of a value."""
        if type(value) in _PLAIN:
            return value
        if issubclass(type(value), BaseException):
            number = self._number(value)
            return _Left("an exception that is one too many") if number == _NO_LINK else _Linked(number)
        known = self._values.get(id(value))
        if known is None:
            known = self._values[id(value)] = value, self._pickled(value)
        return known[1]

    def _pickled(self, value: Any) -> _Pickled | _Left:
        try:
            data = _dumps(value, self._persistent_id)
        except BaseException as failure:  # pickling runs code of the user's
            return _Left(f"not sent: {_words_for(value)}, which can't be pickled ({shortened(in_words(failure), 200)})")
        self._pickles.append(data)
        return _Pickled(len(self._pickles) - 1)

    def _persistent_id(self, value: Any) -> int | None:
        if not issubclass(type(value), BaseException):
            return None
        number = self._number(value)
        return None if number == _NO_LINK else number

    def _own(self, error: BaseException) -> bytes | None:
        itself = id(error)

        def persistent_id(value: Any) -> int | None:
            return None if id(value) == itself else self._persistent_id(value)

        try:
            return _dumps(_Reduced(error.__reduce_ex__(5)), persistent_id)
        except BaseException:  # a method of the user's
            return None


def _dumps(value: Any, persistent_id: PersistentId) -> bytes:
    """As `payload.dumps`, with a persistent id in the place of each value that is given one."""
    try:
        if b"__main__" not in (data := _dumps_by(_ByName, value, persistent_id)):
            return data
    except Exception:  # what really can't be pickled raises again
        pass
    return _dumps_by(_ByValue, value, persistent_id)


def _dumps_by(pickler: type[_ByName | _ByValue], value: Any, persistent_id: PersistentId) -> bytes:
    file = io.BytesIO()
    pickler(file, persistent_id).dump(value)
    return file.getvalue()


class _ByName(pickle.Pickler):
    def __init__(self, file: io.BytesIO, persistent_id: PersistentId) -> None:
        super().__init__(file, protocol=5)
        self._id_of = persistent_id

    def persistent_id(self, value: Any) -> int | None:
        return self._id_of(value)


class _ByValue(ByValuePickler):
    def __init__(self, file: io.BytesIO, persistent_id: PersistentId) -> None:
        super().__init__(file, protocol=5)
        self._id_of = persistent_id

    def persistent_id(self, value: Any) -> int | None:
        return self._id_of(value)


class _Reduced:
    """Pickles as what a ``__reduce__`` has returned says."""

    def __init__(self, reduced: Any) -> None:
        self._reduced = reduced

    def __reduce__(self) -> Any:
        return self._reduced


def _can_be_made(cls: type[BaseException], group: tuple[str, tuple[BaseException, ...]] | None) -> bool:
    try:
        state.make(cls, *(group or ()))
    except TypeError:
        return False
    return True


def _class_of(cls: type[BaseException]) -> _Class:
    if state.is_builtin(cls):
        return _Class(cls.__qualname__, ("builtins", cls.__qualname__), ())
    reference: tuple[str, str] | bytes | None = _name_of(cls)
    if reference is None:
        try:
            reference = payloads.dumps(cls)
        except BaseException:  # what a class has in it may refuse to be pickled
            reference = None
    ancestors = [name for base in cls.__mro__[1:] if issubclass(base, Exception) and (name := _name_of(base))]
    return _Class(f"{cls.__module__}.{cls.__qualname__}", reference, tuple(ancestors))


def _name_of(cls: type) -> tuple[str, str] | None:
    """The module and the name under which others find a class; None if they don't."""
    module, name = cls.__module__, cls.__qualname__
    if module == "__main__":
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return (module, name) if found is cls else None


# -- from bytes to exceptions


def load_exception(blob: bytes | memoryview, text: str) -> tuple[BaseException, TracebackType | None]:
    """The exception and the traceback in a blob of `dump_exception`, made anew.

    Of a blob that can't be read it is a `RemoteError` with the text.
    """
    try:
        links, pickles, note = pickle.loads(blob)
        loaded = _Unpacker(links, pickles).unpack()
        if note:
            attributes = state.attributes_of(loaded)
            notes = attributes.get("__notes__")
            attributes["__notes__"] = [*notes, note] if isinstance(notes, list) else [note]
    except Exception as failure:
        return RemoteError(f"the task's exception can't be read here ({in_words(failure)}); it was\n\n{text}"), None
    return loaded, state.trace_of(loaded)


def load_copy(blob: bytes) -> BaseException:
    """The exception in a blob of `dump_exception`."""
    return load_exception(blob, "")[0]


class _Unpacker:
    """Makes the exceptions of one blob."""

    def __init__(self, links: list[_Link], pickles: list[bytes]) -> None:
        self._links = links
        self._pickles = pickles
        self._errors: list[BaseException | None] = [None] * len(links)
        self._values: dict[int, Any] = {}  # by the number of the pickle

    def unpack(self) -> BaseException:
        """The first of them."""
        waiting = list(range(len(self._links)))
        while waiting:  # a group is made of its members
            ready = [number for number in waiting if self._has_members(self._links[number])]
            if not ready:
                raise ValueError("a group of exceptions is a member of itself")
            for number in ready:
                self._errors[number] = self._made(self._links[number])
            waiting = [number for number in waiting if self._errors[number] is None]
        for link, error in zip(self._links, self._errors, strict=True):
            assert error is not None
            self._fill(link, error)
        assert self._errors[0] is not None
        return self._errors[0]

    def _has_members(self, link: _Link) -> bool:
        return link.group is None or all(self._errors[number] is not None for number in link.group[1])

    def _made(self, link: _Link) -> BaseException:
        try:
            return self._made_by(_class_at(link.cls.reference), link)
        except BaseException as failure:  # importing and unpickling run anybody's code
            return self._substitute(link, _not_interrupt(failure))

    def _made_by(self, cls: type[BaseException], link: _Link) -> BaseException:
        """Made as its class says, if that has a say and does it; else as all are."""
        if link.own is not None:
            try:
                error = self._loads(link.own)
                if type(error) is cls:
                    return error
            except BaseException as failure:  # a method of the user's
                _not_interrupt(failure)
        return state.make(cls, *self._group(link))

    def _group(self, link: _Link) -> tuple[Any, ...]:
        return () if link.group is None else (link.group[0], [self._errors[number] for number in link.group[1]])

    def _substitute(self, link: _Link, failure: BaseException) -> BaseException:
        ancestors = []
        for name in link.cls.ancestors:
            try:
                ancestors.append(_class_at(name))
            except BaseException as refused:
                _not_interrupt(refused)
        why = f"its class {link.cls.shown} can't be used in this process: {in_words(failure)}"
        try:
            error = state.make(substitute(link.cls.shown, link.cls, why, ancestors), *self._group(link))
        except Exception:  # a native class among them
            error = state.make(substitute(link.cls.shown, link.cls, why, ()))
        state.set_args(error, (link.words or link.cls.shown,))
        return error

    def _fill(self, link: _Link, error: BaseException) -> None:
        """Put into an exception what there was in it."""
        if not issubclass(type(error), Substitute):
            state.set_args(error, tuple([self._value(value) for value in link.args]))
        attributes = state.attributes_of(error)
        for name, value in link.attributes.items():
            # What its own class has put in the place of a value that can't be sent is better than nothing.
            if type(value) is not _Left or name not in attributes:
                attributes[name] = self._value(value)
        state.fill_slots(error)
        there = state.fields_of(error)
        for name, value in link.fields.items():
            if type(value) is not _Left or name not in there:
                try:
                    state.set_field(error, name, self._value(value))
                except (AttributeError, TypeError, ValueError):  # it takes this only
                    attributes.setdefault(name, self._value(value))
        cause, context = (None if n == _NO_LINK else self._errors[n] for n in (link.cause, link.context))
        state.set_links(error, cause, context, link.suppress_context)
        state.set_trace(error, traceback_of(link.frames))

    def _value(self, value: Any) -> Any:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is _Linked:
            return self._errors[value.number]
        if kind is _Left:
            return Unsent(value.why)
        if value.number not in self._values:
            try:
                self._values[value.number] = self._loads(self._pickles[value.number])
            except BaseException as error:  # importing and unpickling run anybody's code
                _not_interrupt(error)
                self._values[value.number] = Unsent(f"it can't be unpickled here: {shortened(in_words(error), 200)}")
        return self._values[value.number]

    def _loads(self, data: bytes) -> Any:
        return _Unpickler(io.BytesIO(data), self._errors).load()


class _Unpickler(importing.Unpickler):
    """Finds the exceptions of a blob within its values."""

    def __init__(self, file: io.BytesIO, errors: list[BaseException | None]) -> None:
        super().__init__(file)
        self._errors = errors

    def persistent_load(self, pid: Any) -> Any:
        error = self._errors[pid]
        if error is None:
            raise ValueError("an exception that isn't made yet")
        return error


def _class_at(reference: tuple[str, str] | bytes | None) -> type[BaseException]:
    if reference is None:
        raise TypeError("it can't be pickled")
    if isinstance(reference, bytes):
        load = _class_by_value if len(reference) <= MAX_KEPT_NBYTES else importing.loads
        found = load(reference)
    else:
        found = importing.import_alone(reference[0])
        for part in reference[1].split("."):
            found = getattr(found, part)
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise TypeError(f"{found!r:.200} is no class of exceptions")
    return found


@functools.lru_cache(MAX_KEPT)
def _class_by_value(pickled: bytes) -> Any:
    """A class: many tasks fail with the same."""
    return importing.loads(pickled)


def _not_interrupt(error: BaseException) -> BaseException:
    """Whatever a user's code raises here is a failure of it, except that somebody interrupts this program."""
    if isinstance(error, KeyboardInterrupt):
        raise error
    return error


# -- in words


def shortened(text: str, length: int) -> str:
    """A text, or its beginning and its end."""
    if len(text) <= length:
        return text
    half = max(0, length - 60) // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters are left out …\n{text[-half:]}"


def _format(error: BaseException) -> str:
    try:
        return sendable("".join(traceback.format_exception(error)))
    except BaseException:  # it looks into the user's objects, to find what a misspelt name may have meant
        return in_words(error)


def _words_for(value: Any) -> str:
    """What to show of a value that isn't sent."""
    try:
        return sendable(_repr.repr(value))
    except BaseException:  # a method of the user's
        return f"a {type(value).__qualname__}"
