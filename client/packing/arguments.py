"""The arguments of a call, as they are sent.

Futures among them, also inside lists, tuples, sets and dictionaries, become references to their keys, and the keys
become dependencies. So do those in the fields of namedtuples, dataclasses and attrs' classes (`structures.py`). A
future inside an object of any other class is pickled with it, as a future; its key is a dependency too, so that it
lives as long as the task may need it. What is large goes into the store by itself, so that it never travels through
the scheduler (`constants.py`).
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

from holdfast.client.packing.constants import Constants
from holdfast.client.packing.foreign import check_no_foreign_future, foreign_future
from holdfast.client.packing.futures import FutureLike, Own, is_future_class
from holdfast.client.packing.keys import check_together
from holdfast.client.packing.sizes import LENGTH_IS_SIZE, size_hint
from holdfast.client.packing.structures import futures_in_fields
from holdfast.cluster.collecting import Values, collecting, collector
from holdfast.cluster.protocol import payloads
from holdfast.cluster.protocol.payloads import Reference
from holdfast.objectstore.errors import HoldfastError

_NO_FUTURES = frozenset({str, int, float, complex, bytes, bytearray, bool, type(None)})


class Call(NamedTuple):
    """Arguments ready to be sent.

    Attributes
    ----------
    payload : bytes
        ``pickle((args, kwargs))`` with references in it.
    dependencies : list
        Distinct keys.
    stored : tuple of Future
        Of arguments that were stored, or that another client holds. They are held as long as the call's result.
    """

    payload: bytes
    dependencies: list[Any]
    stored: tuple[Any, ...]


class Packer:
    """Packs calls of one function: one, or all those of a map.

    Parameters
    ----------
    name:
        The function's, for messages to people.
    function:
        The function; its signature names arguments in messages. May be None.
    own:
        Called with every future that is found: gives the client's own one of its key; raises if there can't be one.
    constants:
        Where large arguments go.
    """

    def __init__(self, name: str, function: Any, own: Own, constants: Constants) -> None:
        self._name = name
        self._function = function
        self._own = own
        self._adopted: list[FutureLike] = []  # of other clients' futures in this call
        self._constants = constants
        self._large_nbytes = constants.large_nbytes

    def pack(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Pack the arguments of one call.

        Raises
        ------
        TypeError
            One can't be pickled, or is a future of another library; names it.
        ValueError, CancelledError
            A future among them is of another cluster, or was cancelled or released.
        """
        found: list[FutureLike] = []
        stored: list[FutureLike] = []
        try:
            sent_args = tuple([self._replace_top(value, found, stored) for value in args])
            sent_kwargs = {k: self._replace_top(v, found, stored) for k, v in kwargs.items()} if kwargs else kwargs
        except _ForeignFutureError as error:
            self._refuse(args, kwargs, error.args[0])
        data, inside = self._dumps(sent_args, sent_kwargs)
        if data is None or len(data) > self._large_nbytes:
            check_together(f"a call of {self._name}", [future.key for future in (*found, *inside)])
            data, inside = self._dumps_large(sent_args, sent_kwargs, stored)
        elif inside and (values := futures_in_fields([sent_args, sent_kwargs])):
            data, inside = self._dumps(sent_args, sent_kwargs, Values(values))
            assert data is not None
        if not found and not inside and not stored:
            return Call(data, [], ())
        if inside:
            self._adopted += [own for future in inside if (own := self._own(future)) is not future]
        if self._adopted:
            stored += self._adopted
            self._adopted = []
        keys = dict.fromkeys([future.key for future in (*found, *inside, *stored)])
        return Call(data, list(keys), tuple(stored))

    def store_large(self, kwargs: dict[str, Any]) -> tuple[dict[str, Any], tuple[Any, ...]]:
        """Arguments that many calls share, with futures in the place of those that are large, and these futures."""
        found: list[FutureLike] = []
        stored: list[FutureLike] = []
        sent = {}
        for name, value in kwargs.items():
            count = len(stored)
            try:
                replaced = self._replace_top(value, found, stored)
            except _ForeignFutureError as error:
                self._refuse((), kwargs, error.args[0])
            if not found and len(stored) == count:
                with contextlib.suppress(Exception):  # it can't be pickled: packing the first call says so in full
                    self._store_large(replaced, stored)
            sent[name] = stored[-1] if len(stored) > count else value
            found.clear()
        return sent, tuple(stored)

    def _replace_top(self, value: Any, found: list[FutureLike], stored: list[FutureLike]) -> Any:
        kind = type(value)
        if kind in _NO_FUTURES and (kind not in LENGTH_IS_SIZE or len(value) <= self._large_nbytes):
            return value
        if size_hint(value) > self._large_nbytes:
            return self._put(value, stored)
        return self._replace(value, found, ())

    def _replace(self, value: Any, found: list[FutureLike], path: tuple[int, ...]) -> Any:
        kind = type(value)
        if kind is list or kind is tuple or kind is set or kind is frozenset:
            if _NO_FUTURES.issuperset(map(type, value)) or id(value) in path:
                return value
            path = (*path, id(value))
            items = [self._replace(item, found, path) for item in value]
            return value if all(map(_is, items, value)) else kind(items)
        if kind is dict:
            if _NO_FUTURES.issuperset(map(type, value.values())) or id(value) in path:
                return value
            path = (*path, id(value))
            items = [self._replace(item, found, path) for item in value.values()]
            return value if all(map(_is, items, value.values())) else dict(zip(value, items, strict=True))
        if is_future_class(kind):
            own = self._own(value)
            if own is not value:
                self._adopted.append(own)
            found.append(own)
            return Reference(value.key)
        if foreign_future(kind) is not None:
            raise _ForeignFutureError(value)
        return value

    def _store_large(self, value: Any, stored: list[FutureLike]) -> Any:
        """Store an argument whose pickle is large, and of a list or the like what is large in it.

        What has references or futures in it stays, since only a task can resolve them.
        """
        if type(value) is Reference or type(value) in _NO_FUTURES - LENGTH_IS_SIZE:
            return value
        value = self._store_items(value, stored, ())
        with collecting() as inside:
            nbytes = payloads.nbytes_of(value)
        if nbytes <= self._large_nbytes or inside or _has_reference(value, ()):
            return value
        return self._put(value, stored)

    def _store_items(self, value: Any, stored: list[FutureLike], path: tuple[int, ...]) -> Any:
        """A list or the like with references in the place of what is large in it."""
        kind = type(value)
        if kind not in (list, tuple, set, frozenset, dict) or id(value) in path:
            return self._put(value, stored) if size_hint(value) > self._large_nbytes else value
        path = (*path, id(value))
        values = value.values() if kind is dict else value
        items = [self._store_items(item, stored, path) for item in values]
        if all(map(_is, items, values)):
            return value
        return dict(zip(value, items, strict=True)) if kind is dict else kind(items)

    def _put(self, value: Any, stored: list[FutureLike]) -> Any:
        future = self._constants.put(value)
        if future is None:
            return value
        stored.append(future)
        return Reference(future.key)

    def _dumps(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], inside: list[FutureLike] | None = None
    ) -> tuple[bytes | None, list[FutureLike]]:
        """The arguments' pickle, and the futures in it; no pickle if there are large arrays or the like in it."""
        outer = collector.found
        if inside is None:
            inside = []
        collector.found = inside
        try:
            return payloads.dumps((args, kwargs), take=self._constants.none_large), inside
        except payloads.LargeBuffer:
            return None, inside
        except HoldfastError:  # a released future inside an object
            raise
        except Exception as error:
            raise self._explained(args, kwargs, error) from error
        finally:
            collector.found = outer

    def _dumps_large(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], stored: list[FutureLike]
    ) -> tuple[bytes, list[FutureLike]]:
        try:
            args = tuple([self._store_large(value, stored) for value in args])
            kwargs = {k: self._store_large(v, stored) for k, v in kwargs.items()}
            packed = self._constants.pack((args, kwargs))
            if packed.inside and (values := futures_in_fields([args, kwargs])):
                packed = self._constants.pack((args, kwargs), values)
        except (HoldfastError, TimeoutError):  # there is no room, or no store
            raise
        except Exception as error:
            raise self._explained(args, kwargs, error) from error
        stored += packed.stored
        return packed.data, packed.inside

    def _refuse(self, args: tuple[Any, ...], kwargs: dict[str, Any], foreign: Any) -> NoReturn:
        for label, value in _labelled(self._function, args, kwargs):
            if value is foreign:
                check_no_foreign_future(foreign, f"{label} of {self._name}")
            elif _holds(value, foreign, ()):
                check_no_foreign_future(foreign, f"something in {label} of {self._name}")
        raise AssertionError("it was among the arguments")

    def _explained(self, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> TypeError:
        for label, value in _labelled(self._function, args, kwargs):
            try:
                with collecting():
                    payloads.dumps(value)
            except Exception as cause:  # pickling runs a user's code, which may raise anything
                return TypeError(f"{label} of {self._name}, a {_type_name(value)}, can't be pickled: {cause}")
        return TypeError(f"the arguments of {self._name} can't be pickled: {error}")


class _ForeignFutureError(Exception):
    """Its argument is a future of another library."""


def _is(one: Any, other: Any) -> bool:
    return one is other


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _has_reference(value: Any, path: tuple[int, ...]) -> bool:
    kind = type(value)
    if kind is Reference:
        return True
    if kind not in (list, tuple, set, frozenset, dict) or id(value) in path:
        return False
    items = value.values() if kind is dict else value
    if _NO_FUTURES.issuperset(map(type, items)):
        return False
    path = (*path, id(value))
    return any(_has_reference(item, path) for item in items)


def _holds(container: Any, value: Any, path: tuple[int, ...]) -> bool:
    if type(container) not in (list, tuple, set, frozenset, dict) or id(container) in path:
        return False
    path = (*path, id(container))
    items = container.values() if type(container) is dict else container
    return any(item is value or _holds(item, value, path) for item in items)


def _labelled(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each argument, with what to call it."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # not every builtin has one
        parameters = []
    for position, value in enumerate(args):
        name = ""
        if position < len(parameters) and parameters[position].kind != inspect.Parameter.VAR_POSITIONAL:
            name = f" ({parameters[position].name!r})"
        elif parameters and parameters[-1].kind == inspect.Parameter.VAR_POSITIONAL:
            name = f" (of '*{parameters[-1].name}')"
        yield f"argument {position + 1}{name}", value
    for name, value in kwargs.items():
        yield f"argument {name!r}", value
