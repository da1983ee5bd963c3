"""What a task raised, out of the bytes that `dumping` made."""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Callable
from types import TracebackType
from typing import Any

from holdfast.cluster.errors import RemoteError
from holdfast.cluster.failures.dumping import dump_exception
from holdfast.cluster.failures.links import NO_LINK, PLAIN, Link, LinkedValue, OmittedValue, Unsent, shortened
from holdfast.cluster.failures.substitutes import Substitute, substitute
from holdfast.cluster.failures.tracebacks import traceback_of
from holdfast.objectstore.errors import in_words
from holdfast.objectstore.pickling import exceptions as state
from holdfast.objectstore.pickling import importing

#: So many classes that came by value are kept, if their pickles aren't larger.
MAX_KEPT = 64
MAX_KEPT_NBYTES = 64 << 10


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


def _reduced(error: Substitute) -> tuple[Callable[[bytes], BaseException], tuple[bytes]]:
    """How a substitute is pickled: as what it stands for."""
    return load_copy, (dump_exception(error)[0],)


class _Unpacker:
    """Makes the exceptions of one blob."""

    def __init__(self, links: list[Link], pickles: list[bytes]) -> None:
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

    def _has_members(self, link: Link) -> bool:
        return link.group is None or all(self._errors[number] is not None for number in link.group[1])

    def _made(self, link: Link) -> BaseException:
        try:
            return self._made_by(_class_at(link.cls.reference), link)
        except BaseException as failure:  # importing and unpickling run any code
            return self._substitute(link, _not_interrupt(failure))

    def _made_by(self, cls: type[BaseException], link: Link) -> BaseException:
        """Made as its class says, if that has a say and does it; else as all are."""
        if link.own is not None:
            try:
                error = self._loads(link.own)
                if type(error) is cls:
                    return error
            except BaseException as failure:  # a method of the user's
                _not_interrupt(failure)
        return state.make(cls, *self._group(link))

    def _group(self, link: Link) -> tuple[Any, ...]:
        return () if link.group is None else (link.group[0], [self._errors[number] for number in link.group[1]])

    def _substitute(self, link: Link, failure: BaseException) -> BaseException:
        ancestors = []
        for name in link.cls.ancestors:
            try:
                ancestors.append(_class_at(name))
            except BaseException as refused:
                _not_interrupt(refused)
        why = f"its class {link.cls.shown} can't be used in this process: {in_words(failure)}"
        try:
            error = state.make(substitute(link.cls.shown, link.cls, why, ancestors, _reduced), *self._group(link))
        except Exception:  # a native class among them
            error = state.make(substitute(link.cls.shown, link.cls, why, (), _reduced))
        state.set_args(error, (link.words or link.cls.shown,))
        return error

    def _fill(self, link: Link, error: BaseException) -> None:
        """Put into an exception what there was in it."""
        if not issubclass(type(error), Substitute):
            state.set_args(error, tuple([self._value(value) for value in link.args]))
        attributes = state.attributes_of(error)
        for name, value in link.attributes.items():
            # What its own class has put in the place of a value that can't be sent is better than nothing.
            if type(value) is not OmittedValue or name not in attributes:
                attributes[name] = self._value(value)
        state.fill_slots(error)
        there = state.fields_of(error)
        for name, value in link.fields.items():
            if type(value) is not OmittedValue or name not in there:
                try:
                    state.set_field(error, name, self._value(value))
                except (AttributeError, TypeError, ValueError):  # it takes this only
                    attributes.setdefault(name, self._value(value))
        cause, context = (None if n == NO_LINK else self._errors[n] for n in (link.cause, link.context))
        state.set_links(error, cause, context, link.suppress_context)
        state.set_trace(error, traceback_of(link.frames))

    def _value(self, value: Any) -> Any:
        kind = type(value)
        if kind in PLAIN:
            return value
        if kind is LinkedValue:
            return self._errors[value.number]
        if kind is OmittedValue:
            return Unsent(value.why)
        if value.number not in self._values:
            try:
                self._values[value.number] = self._loads(self._pickles[value.number])
            except BaseException as error:  # importing and unpickling run any code
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
    """Whatever a user's code raises here is a failure of it, except an interrupt of this program."""
    if isinstance(error, KeyboardInterrupt):
        raise error
    return error
