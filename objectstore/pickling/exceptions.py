"""What an exception is made of, and an exception made of it, without a call of its own methods.

Pickle has an exception made anew by ``cls(*args)``. That fails for each class whose ``__init__`` wants something else
than what it gave to ``super().__init__``, and runs a user's code to tell of an error in a user's code. But all that an
exception is lies open:

==============================  ===================================================================
``args``                        a field of `BaseException`
what its methods have set       its ``__dict__``, and the slots of its classes
what built-in classes have set  fields of theirs: the ``errno`` of an `OSError`, the ``value`` of a
                                `StopIteration`, …
a group's message and members   fields, too, but only ``__new__`` sets them
==============================  ===================================================================

So these are read and set, by the descriptors of the built-in classes and past whatever a subclass puts in front of
them: a property named ``args``, a ``__setattr__`` that refuses. A new exception comes from the ``__new__`` of the
nearest built-in class. Classes of native extensions may have more in them, which Python does not show. Those refuse to
be made that way (`make` says so), and are left to their own ``__reduce__``.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from types import GetSetDescriptorType, MemberDescriptorType, TracebackType
from typing import Any

_HEAP_TYPE = 1 << 9  # of ``type.__flags__``: a class that isn't built in
_BASE = vars(BaseException)
_GROUP = vars(BaseExceptionGroup)
#: Not a class's state: what links exceptions has its place elsewhere, and the object that lacks an attribute may be
#: all that a program has.
_NO_STATE = frozenset({*_BASE, *vars(object), "obj", "message", "exceptions"})
_Descriptor = GetSetDescriptorType | MemberDescriptorType


def is_builtin(cls: type) -> bool:
    """Whether a class is Python's own, and the same everywhere."""
    return not cls.__flags__ & _HEAP_TYPE or cls is ExceptionGroup


def ends_an_await(error: BaseException) -> bool:
    """Whether an exception says, to those that await something, that the waiting has ended, and nothing of a failure.

    It comes from coroutines only, never from a signal. So code that isn't one and raises it has failed.
    """
    asyncio = sys.modules.get("asyncio")  # without it nothing of it is raised
    return issubclass(type(error), (GeneratorExit, asyncio.CancelledError) if asyncio else GeneratorExit)


def make(cls: type[BaseException], *args: Any) -> BaseException:
    """A new exception of a class, with nothing in it.

    Parameters
    ----------
    *args
        Of a group: its message and its members.

    Raises
    ------
    TypeError
        It is a class of a native extension that can't be made by the ``__new__`` of a built-in one.
    """
    error = _builtin(cls).__new__(cls, *args)
    assert isinstance(error, BaseException)
    return error


def remake(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """A new exception of a class, with what pickle would call that with. Raises a `TypeError` as `make` does."""
    if issubclass(cls, BaseExceptionGroup):
        return make(cls, *args)
    try:
        # Both get them, as in a call of the class: it's ``OSError.__new__`` that takes those of most kinds of OSError.
        error = make(cls, *args)
    except Exception:
        error = make(cls)
    try:
        _builtin(cls).__init__(error, *args)
    except Exception:  # they aren't what a built-in class takes
        set_args(error, args)
    return error


def _builtin(cls: type) -> Any:
    """The nearest class above that is built in."""
    while cls.__flags__ & _HEAP_TYPE:
        assert cls.__base__ is not None
        cls = cls.__base__
    return cls


def args_of(error: BaseException) -> tuple[Any, ...]:
    """Its ``args``."""
    args: tuple[Any, ...] = _BASE["args"].__get__(error)
    return args


def set_args(error: BaseException, args: tuple[Any, ...]) -> None:
    """Set its ``args``."""
    _BASE["args"].__set__(error, args)


def attributes_of(error: BaseException) -> dict[str, Any]:
    """Its ``__dict__``; what is set there is set."""
    attributes: dict[str, Any] = _BASE["__dict__"].__get__(error)
    return attributes


def fields_of(error: BaseException) -> dict[str, Any]:
    """What was set of its slots, and of the fields that built-in classes have."""
    fields: dict[str, Any] = {}
    for name, descriptor, is_slot in _descriptors(type(error)):
        try:
            value = descriptor.__get__(error)
        except (AttributeError, TypeError):  # it was never set
            continue
        if value is not None or is_slot:
            fields.setdefault(name, value)
    return fields


def set_field(error: BaseException, name: str, value: Any) -> None:
    """Set one of these; where the class has no such field, an attribute."""
    for known, descriptor, _ in _descriptors(type(error)):
        if known == name:
            descriptor.__set__(error, value)
            return
    attributes_of(error)[name] = value


def fill_slots(error: BaseException) -> None:
    """Move attributes to the slots that the class has for them: one that was pickled by value has lost its slots."""
    attributes = attributes_of(error)
    for name, descriptor, is_slot in _descriptors(type(error)):
        if is_slot and name in attributes:
            descriptor.__set__(error, attributes.pop(name))


def _descriptors(cls: type) -> Iterator[tuple[str, _Descriptor, bool]]:
    """``(name, descriptor, whether it is a slot)``."""
    for base in cls.__mro__:
        if not base.__flags__ & _HEAP_TYPE:
            yield from _builtin_fields(base)
        else:
            for name, value in vars(base).items():
                if type(value) is MemberDescriptorType:
                    yield name, value, True


@functools.cache
def _builtin_fields(base: type) -> tuple[tuple[str, _Descriptor, bool], ...]:
    """Of a built-in class, of which there are few."""
    fields = [(name, value) for name, value in vars(base).items() if name not in _NO_STATE]
    return tuple((name, value, False) for name, value in fields if isinstance(value, _Descriptor))


def group_of(error: BaseException) -> tuple[str, tuple[BaseException, ...]] | None:
    """The message and the members of a group; None if it is none."""
    if not issubclass(type(error), BaseExceptionGroup):  # `isinstance` asks the exception too
        return None
    return _GROUP["message"].__get__(error), _GROUP["exceptions"].__get__(error)


def cause_of(error: BaseException) -> BaseException | None:
    """What it was raised from."""
    cause: BaseException | None = _BASE["__cause__"].__get__(error)
    return cause


def context_of(error: BaseException) -> BaseException | None:
    """What was being handled when it was raised."""
    context: BaseException | None = _BASE["__context__"].__get__(error)
    return context


def suppresses_context(error: BaseException) -> bool:
    """Whether what was being handled isn't shown."""
    suppresses: bool = _BASE["__suppress_context__"].__get__(error)
    return suppresses


def trace_of(error: BaseException) -> TracebackType | None:
    """Its traceback."""
    trace: TracebackType | None = _BASE["__traceback__"].__get__(error)
    return trace


def set_trace(error: BaseException, trace: TracebackType | None) -> None:
    """Set its traceback."""
    _BASE["__traceback__"].__set__(error, trace)


def set_context(error: BaseException, context: BaseException | None) -> None:
    """Set what was being handled when it was raised."""
    _BASE["__context__"].__set__(error, context)


def set_links(
    error: BaseException, cause: BaseException | None, context: BaseException | None, suppress_context: bool
) -> None:
    """Set what it was raised from, and what was being handled then."""
    _BASE["__cause__"].__set__(error, cause)
    set_context(error, context)
    _BASE["__suppress_context__"].__set__(error, suppress_context)


def has_own_reduce(cls: type) -> bool:
    """Whether a class that isn't built in says how its exceptions are pickled."""
    for base in cls.__mro__:
        if "__reduce__" in vars(base) or "__reduce_ex__" in vars(base):
            return not is_builtin(base)
    return False


def linked(error: BaseException, limit: int) -> list[BaseException]:
    """An exception, what it was raised from and in the handling of, its members, and so on, each once.

    Parameters
    ----------
    limit
        At most so many, the nearest first.
    """
    links = [error]
    known = {id(error)}
    for link in links:
        group = group_of(link)
        for other in (cause_of(link), context_of(link), *(group[1] if group else ())):
            if other is not None and id(other) not in known and len(links) < limit:
                known.add(id(other))
                links.append(other)
    return links
