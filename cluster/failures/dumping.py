"""What a task raised, as bytes: `links.py` says how."""

from __future__ import annotations

import io
import pickle
import reprlib
import sys
import traceback
from collections.abc import Callable
from typing import Any

from holdfast.cluster.errors import RemoteError
from holdfast.cluster.failures.links import (
    NO_LINK,
    PLAIN,
    ClassReference,
    Link,
    LinkedValue,
    OmittedValue,
    PickledValue,
    shortened,
)
from holdfast.cluster.failures.substitutes import Substitute
from holdfast.cluster.failures.tracebacks import frames_of
from holdfast.cluster.protocol import payloads
from holdfast.cluster.protocol.limits import ERROR_TEXT_LENGTH
from holdfast.objectstore.errors import in_words, sendable
from holdfast.objectstore.pickling import exceptions as state
from holdfast.objectstore.pickling.by_value import ByValuePickler

#: Of an exception with more links than this the nearest are sent.
MAX_LINKS = 1000
#: What a link says about itself, and what is said of a value that isn't sent.
MAX_WORDS_LENGTH = 1 << 12
MAX_UNSENT_LENGTH = 200

#: ``persistent_id(value)`` of a pickler: what is written in the place of a value, None for the value itself.
PersistentId = Callable[[Any], int | None]

_repr = reprlib.Repr()
_repr.maxother = _repr.maxstring = MAX_UNSENT_LENGTH


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
            return NO_LINK
        number = self._numbers.get(id(error), NO_LINK)
        if number == NO_LINK and len(self._links) < MAX_LINKS:
            number = self._numbers[id(error)] = len(self._links)
            self._links.append(error)
        return number

    def _link(self, error: BaseException, is_bare: bool) -> Link:
        cause, context = self._number(state.cause_of(error)), self._number(state.context_of(error))
        group = state.group_of(error)
        members = None
        if group is not None:
            numbers = [self._number(member) for member in group[1]]
            if NO_LINK in numbers:
                left = len(numbers) - len(numbers := [number for number in numbers if number != NO_LINK])
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
                if any(type(value) is OmittedValue for value in sent) or not _can_be_made(kind, group):
                    own = self._own(error)
        return Link(
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
        if type(value) in PLAIN:
            return value
        if issubclass(type(value), BaseException):
            number = self._number(value)
            return OmittedValue("an exception that is one too many") if number == NO_LINK else LinkedValue(number)
        known = self._values.get(id(value))
        if known is None:
            known = self._values[id(value)] = value, self._pickled(value)
        return known[1]

    def _pickled(self, value: Any) -> PickledValue | OmittedValue:
        try:
            data = _dumps(value, self._persistent_id)
        except BaseException as failure:  # pickling runs code of the user's
            return OmittedValue(
                f"not sent: {_words_for(value)}, which can't be pickled ({shortened(in_words(failure), 200)})"
            )
        self._pickles.append(data)
        return PickledValue(len(self._pickles) - 1)

    def _persistent_id(self, value: Any) -> int | None:
        if not issubclass(type(value), BaseException):
            return None
        number = self._number(value)
        return None if number == NO_LINK else number

    def _own(self, error: BaseException) -> bytes | None:
        itself = id(error)

        def persistent_id(value: Any) -> int | None:
            return None if id(value) == itself else self._persistent_id(value)

        try:
            return _dumps(_Reduced(error.__reduce_ex__(5)), persistent_id)
        except BaseException:  # a method of the user's
            return None


def _dumps(value: Any, persistent_id: PersistentId) -> bytes:
    """As `payloads.dumps`, with a persistent id in the place of each value that is given one."""
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


def _class_of(cls: type[BaseException]) -> ClassReference:
    if state.is_builtin(cls):
        return ClassReference(cls.__qualname__, ("builtins", cls.__qualname__), ())
    reference: tuple[str, str] | bytes | None = _name_of(cls)
    if reference is None:
        try:
            reference = payloads.dumps(cls)
        except BaseException:  # what a class has in it may refuse to be pickled
            reference = None
    ancestors = [name for base in cls.__mro__[1:] if issubclass(base, Exception) and (name := _name_of(base))]
    return ClassReference(f"{cls.__module__}.{cls.__qualname__}", reference, tuple(ancestors))


def _name_of(cls: type) -> tuple[str, str] | None:
    """The module and the name under which others find a class; None if they don't."""
    module, name = cls.__module__, cls.__qualname__
    if module == "__main__":
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return (module, name) if found is cls else None


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
