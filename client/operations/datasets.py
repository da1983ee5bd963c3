"""Published datasets: collections and futures that have a name in the cluster and outlive their publisher.

What is published is a recipe (`recipes.py`): a pickle that the scheduler never looks into, and the keys that the
dataset holds from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Elsewhere, Operation
from holdfast.client.futures.binding import bound
from holdfast.client.futures.future import Future
from holdfast.client.futures.holding import another, hold_all, own
from holdfast.client.futures.reading import read
from holdfast.client.operations.storing import constants
from holdfast.client.packing import expressions
from holdfast.client.packing.constants import REFUSALS
from holdfast.client.packing.keys import check_text, check_together, wire_key
from holdfast.cluster import protocol
from holdfast.cluster.comm.frames import raw
from holdfast.cluster.errors import DatasetNotFoundError
from holdfast.cluster.protocol.limits import MAX_DATASET_NAME_NBYTES
from holdfast.cluster.protocol.shapes import key_nbytes
from holdfast.objectstore.errors import HoldfastError, UnreadableError
from holdfast.objectstore.pickling.exceptions import ends_an_await
from holdfast.objectstore.pickling.outline import name_in

#: Data in a dataset from this size on is stored by itself.
LARGE_NBYTES = 8 << 10
from holdfast.client.operations.recipes import Recipe, load, pack


class _NoDefault:
    """Stands for a default that was not given."""

    def __repr__(self) -> str:
        return "<an error>"


NO_DEFAULT: Any = _NoDefault()


def wire_name(name: Any) -> Any:
    """The name of a dataset, as messages carry it: equal to the one given, made of builtin types only.

    Raises
    ------
    TypeError
        It can't be a name.
    ValueError
        It is empty, or too long.
    """
    if name is None or name is False or name is True:
        raise TypeError(f"the name of a dataset is a text, a number or a tuple of these, not {name!r}")
    if isinstance(name, str):
        if not name:
            raise ValueError("the name of a dataset has a character at least, and this one is empty")
        check_text("the dataset", name)
    try:
        wire = wire_key(name)
    except TypeError:
        raise TypeError(f"the name of a dataset is a text, a number or a tuple of these, not {name!r:.200}") from None
    except ValueError as error:
        raise ValueError(str(error).replace("can't be a key", "can't be the name of a dataset")) from None
    nbytes = key_nbytes(wire)
    if nbytes > MAX_DATASET_NAME_NBYTES:
        raise ValueError(
            f"{name!r:.40}… can't be the name of a dataset: it takes {nbytes:,} bytes, and a name may take "
            f"{MAX_DATASET_NAME_NBYTES:,}"
        )
    return wire


def named(args: tuple[Any, ...], name: Any, by_keyword: dict[str, Any]) -> dict[Any, Any]:
    """The datasets that a call of `Client.publish_dataset` gives, by their names."""
    if not args and not by_keyword:
        raise ValueError("publish a dataset with name=, or several by keyword: publish_dataset(flights=frame)")
    if not args:
        if name is not None:
            raise ValueError("name= is for a dataset that is given without one")
        return dict(by_keyword)
    if name is None:
        raise ValueError("a dataset needs a name: publish_dataset(frame, name='flights')")
    wire = wire_name(name)
    if wire in by_keyword:
        raise ValueError(f"two datasets of one call have the name {name!r}")
    return {wire: args[0] if len(args) == 1 else list(args), **by_keyword}


def publish(core: Core, named: Mapping[Any, Any], override: bool) -> Operation[None]:
    """Publish datasets: all of them, or none."""
    for name in named:
        wire_name(name)
    packed: dict[Any, _Recipe] = yield Elsewhere(
        lambda: {name: _pack(core, name, data) for name, data in named.items()}
        check_name(name)
    packed: dict[str, Recipe] = yield Elsewhere(
        lambda: {name: pack(core, f"the dataset {name!r}", data) for name, data in named.items()}
    )
    datasets = [(name, raw(recipe.data), list(recipe.held)) for name, recipe in packed.items()]
    yield Ask(core.session, protocol.requests.PUBLISH, datasets=datasets, override=bool(override))
    del packed  # until here this client holds what the datasets are to hold


class _Recipe(NamedTuple):
    """What is sent of a dataset, with futures of the keys that it is to hold."""

    data: bytes
    held: dict[Any, Future]


def _pack(core: Core, name: Any, data: Any) -> _Recipe:
    try:
        with core.stores.batch():
            packed = constants(core, LARGE_NBYTES).pack(data)
    except REFUSALS:
        raise
    except Exception as error:
        raise TypeError(f"the dataset {name!r} can't be pickled, so it can't be published: {error}") from error
    held: dict[Any, Any] = {future.key: future for future in packed.stored}
    for future in packed.inside:
        assert isinstance(future, Future)
        mine = own(core, future)
        held[mine.key] = mine
        held.update((kept.key, kept) for kept in mine._state.keeps)
    check_together(f"the dataset {name!r}", list(held))
    return _Recipe(packed.data, held)


def unpublish(core: Core, names: Sequence[Any]) -> Operation[None]:
def unpublish(core: Core, name: str) -> Operation[None]:
    """See `Client.unpublish_dataset`."""
    for name in [wire_name(name) for name in names]:
        yield Ask(core.session, protocol.requests.UNPUBLISH, name=name)


def names(core: Core, timeout: float | None = None) -> Operation[tuple[Any, ...]]:
    """The names of all datasets."""
    return tuple((yield Ask(core.session, protocol.requests.LIST_DATASETS, timeout)))


def get(core: Core, names: Sequence[Any], default: Any = NO_DEFAULT) -> Operation[Any]:
    """Published datasets, on futures of this client: one, or a tuple of several."""
    if not names:
        raise TypeError("get_dataset takes the name of a dataset, or several")
    wire_names = [wire_name(name) for name in names]
    found = []
    for name in wire_names:
        found.append((yield from _get(core, name, default)))
    return found[0] if len(found) == 1 else tuple(found)


def _get(core: Core, name: Any, default: Any) -> Operation[Any]:
    try:
        answer = yield Ask(core.session, protocol.requests.GET_DATASET, name=name)
    except DatasetNotFoundError:
        if default is NO_DEFAULT:
            raise
        return default
    # The scheduler counts this client as a holder of these keys from its answer on. Saying that it wants them as well
    # is needed where it let go of one of them in the meantime, and has the results announced.
    held = hold_all(core, answer["keys"])
    return (yield Elsewhere(lambda: _load(core, name, answer["data"], held)))


def _load(core: Core, name: Any, data: bytes | memoryview, held: Mapping[Any, Future]) -> Any:
    bound_futures: dict[Any, Future] = {}

    def bind(key: Any) -> Future:
        future = bound_futures[key] = another(held[key]) if key in held else Future._wanted(key, core)
        return future

    stored = _Stored(core, held)
    outer = bound.to
    bound.to = bind
    try:
        value = expressions.loads(data, stored)
    except (HoldfastError, TimeoutError):  # its data is lost, or can't be read
        raise
    except BaseException as error:  # unpickling runs a user's code, which may raise anything
        if not (isinstance(error, Exception) or ends_an_await(error)):
            raise
        raise UnreadableError(f"the dataset {name!r}", name_in(data), error) from error
    finally:
        bound.to = outer
    others = [held[key] for key in held if key not in bound_futures and key not in stored.read]
    _keep_origins(core, bound_futures.values(), others)
    return value


def _keep_origins(core: Core, futures: Iterable[Future], others: Sequence[Future]) -> None:
    """What results are made of is held as long as futures of them, as by the client that made them."""
    if others:
        keeps = tuple(others)
        with core.table.lock:
            for future in futures:
                future._state.keeps = future._state.keeps or keeps


class _Stored(Mapping[Any, Any]):
    """The data of a dataset that lies in stores, by its key."""

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
    return (yield Elsewhere(lambda: load(core, f"the dataset {name!r}", answer["data"], held)))
