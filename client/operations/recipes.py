"""What is kept for others: a value as the scheduler keeps it, in a dataset, a queue or a variable, and back.

A *recipe* is a pickle of a limited size, which the scheduler never looks into, and the keys that its keeper holds from
then on: of the futures in it, of the large data in it, which lies in stores (`constants.py`), and of such data that
these futures' results are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from holdfast.client.core.core import Core
from holdfast.client.futures.binding import bound
from holdfast.client.futures.future import Future
from holdfast.client.futures.holding import another, own
from holdfast.client.futures.reading import read
from holdfast.client.operations.storing import constants
from holdfast.client.packing import expressions
from holdfast.client.packing.constants import REFUSALS, Packed
from holdfast.client.packing.keys import check_together
from holdfast.objectstore.errors import HoldfastError, UnreadableError
from holdfast.objectstore.pickling.exceptions import ends_an_await
from holdfast.objectstore.pickling.outline import name_in

#: Data in a recipe from this size on is stored by itself.
LARGE_NBYTES = 8 << 10


class Recipe(NamedTuple):
    """What is sent for a value, with futures of the keys that its keeper is to hold."""

    data: bytes
    held: dict[Any, Future]
    has_futures: bool = False


def pack(core: Core, what: str, value: Any, on_part: Callable[[Any], None] | None = None) -> Recipe:
    """The recipe of a value. It may have to wait for room in a store.

    Parameters
    ----------
    on_part
        Is told each object in it that isn't a plain builtin one.

    Raises
    ------
    TypeError
        It can't be pickled.
    StoreFullError, TimeoutError
        There is no room for what of it is large.
    CancelledError
        A future in it was cancelled or released.
    """
    try:
        with core.stores.batch():
            if on_part is None:
                packed = constants(core, LARGE_NBYTES).pack(value)
            else:
                packed = constants(core, LARGE_NBYTES, on_part).pack_large(value)
    except REFUSALS:
        raise
    except Exception as error:
        raise TypeError(f"{what} can't be pickled, so it can't be sent: {error}") from error
    return _recipe(core, what, packed)


def pack_small(core: Core, what: str, value: Any) -> Recipe | None:
    """The recipe of a value that is small, which takes no time and no room. None if it is not small, or fails."""
    try:
        packed = constants(core, LARGE_NBYTES).pack_small(value)
    except Exception:  # `pack` says what it is
        return None
    return None if packed is None else _recipe(core, what, packed)


def _recipe(core: Core, what: str, packed: Packed) -> Recipe:
    held: dict[Any, Any] = {future.key: future for future in packed.stored}
    for future in packed.inside:
        assert isinstance(future, Future)
        mine = own(core, future)
        held[mine.key] = mine
        held.update((kept.key, kept) for kept in mine._state.keeps)
    if held:
        check_together(what, list(held))
    return Recipe(packed.data, held, bool(packed.inside))


def load(core: Core, what: str, data: bytes | memoryview, held: Mapping[Any, Future]) -> Any:
    """The value of a recipe, on this client's futures of its keys.

    Raises
    ------
    UnreadableError
        It can't be unpickled here.
    HoldfastError, TimeoutError
        Its data is lost, or can't be read.
    """
    binding = _Binding(core, held)
    stored = _Stored(core, held)
    outer = bound.to
    bound.to = binding
    try:
        value = expressions.loads(data, stored)
    except (HoldfastError, TimeoutError):  # its data is lost, or can't be read
        raise
    except BaseException as error:  # unpickling runs a user's code, which may raise anything
        if not (isinstance(error, Exception) or ends_an_await(error)):
            raise
        raise UnreadableError(what, name_in(data), error) from error
    finally:
        bound.to = outer
    others = [held[key] for key in held if key not in binding.futures and key not in stored.read]
    _keep_origins(core, binding.futures.values(), others)
    return value


class _Binding:
    """Gives the futures that are unpickled.

    Attributes
    ----------
    core
        The client to which whatever else is unpickled belongs.
    futures
        The futures that were given, by key.
    """

    def __init__(self, core: Core, held: Mapping[Any, Future]) -> None:
        self.core = core
        self.futures: dict[Any, Future] = {}
        self._held = held

    def __call__(self, key: Any) -> Future:
        held = self._held.get(key)
        future = self.futures[key] = Future._wanted(key, self.core) if held is None else another(held)
        return future


def _keep_origins(core: Core, futures: Iterable[Future], others: Sequence[Future]) -> None:
    """What results are made of is held as long as futures of them, as by the client that made them."""
    if others:
        keeps = tuple(others)
        with core.table.lock:
            for future in futures:
                future._state.keeps = future._state.keeps or keeps


class _Stored(Mapping[Any, Any]):
    """The data of a recipe that lies in stores, by its key."""

    def __init__(self, core: Core, held: Mapping[Any, Future]) -> None:
        self._core = core
        self._held = held
        self.read: dict[Any, Any] = {}

    def __getitem__(self, key: Any) -> Any:
        if key not in self.read:
            self.read[key] = self._core.driver.finish(read(self._core, self._held[key]._state))
        return self.read[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)
