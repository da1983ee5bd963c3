"""Published datasets: collections and futures that have a name in the cluster and outlive their publisher.

What is published is a pickle of a limited size, which the scheduler never looks into, and the keys that the dataset
holds from then on: of the futures in it, of the large data in it, which lies in stores (`constants.py`), and of such
data that these futures' results are made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from holdfast.client.futures.future import Future, binding
from holdfast.client.packing import expressions
from holdfast.client.packing.constants import REFUSALS
from holdfast.client.packing.keys import check_text, check_together
from holdfast.cluster import protocol
from holdfast.cluster.comm.frames import raw
from holdfast.cluster.errors import DatasetNotFoundError
from holdfast.cluster.notebook import card
from holdfast.objectstore.errors import HoldfastError, UnreadableError
from holdfast.objectstore.pickling.outline import name_in

if TYPE_CHECKING:
    from holdfast.client.client import Client


#: Data in a dataset from this size on is stored by itself.
LARGE_NBYTES = 8 << 10
#: Of a default that was not given.
NO_DEFAULT: Any = object()
#: How long showing the names may take, and how many of them are shown.
_SHOW_SECONDS = 5.0
_SHOWN_MAX = 50


def check_name(name: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"the name of a dataset is a string, not {name!r}")
    if not name:
        raise ValueError("the name of a dataset has a character at least, and this one is empty")
    check_text("the dataset", name)


def publish(client: Client, named: Mapping[str, Any], override: bool) -> None:
    """Publish datasets: all of them, or none."""
    for name in named:
        check_name(name)
    packed = {name: _pack(client, name, data) for name, data in named.items()}
    datasets = [(name, raw(recipe.data), list(recipe.held)) for name, recipe in packed.items()]
    client._request(protocol.requests.PUBLISH, datasets=datasets, override=bool(override))
    del packed  # until here this client holds what the datasets are to hold


class _Recipe(NamedTuple):
    """What is sent of a dataset, with futures of the keys that it is to hold."""

    data: bytes
    held: dict[Any, Future]


def _pack(client: Client, name: str, data: Any) -> _Recipe:
    try:
        with client._stores.batch():
            packed = client._constants(LARGE_NBYTES).pack(data)
    except REFUSALS:
        raise
    except Exception as error:
        raise TypeError(f"the dataset {name!r} can't be pickled, so it can't be published: {error}") from error
    held: dict[Any, Future] = {future.key: future for future in packed.stored}
    for future in packed.inside:
        own = client._own(future)
        held[own.key] = own
        held.update((kept.key, kept) for kept in own._state.keeps)
    check_together(f"the dataset {name!r}", list(held))
    return _Recipe(packed.data, held)


def get(client: Client, name: str, default: Any = NO_DEFAULT) -> Any:
    """A published dataset, on futures of this client."""
    check_name(name)
    try:
        answer = client._request(protocol.requests.GET_DATASET, name=name)
    except DatasetNotFoundError:
        if default is NO_DEFAULT:
            raise
        return default
    # The scheduler counts this client as a holder of these keys from its answer on. Saying that it wants them as well
    # is needed where it let go of one of them in the meantime, and has the results announced.
    held = client._hold_all(answer["keys"])
    bound: dict[Any, Future] = {}

    def bind(key: Any) -> Future:
        future = bound[key] = client._another(held[key]) if key in held else Future(key, client)
        return future

    stored = _Stored(held)
    try:
        with binding(bind):
            value = expressions.loads(answer["data"], stored)
    except (HoldfastError, TimeoutError):  # its data is lost, or can't be read
        raise
    except Exception as error:  # unpickling runs a user's code, which may raise anything
        raise UnreadableError(f"the dataset {name!r}", name_in(answer["data"]), error) from error
    _keep_origins(client, bound.values(), [held[key] for key in held if key not in bound and key not in stored.read])
    return value


def _keep_origins(client: Client, futures: Iterable[Future], others: Sequence[Future]) -> None:
    """What results are made of is held as long as futures of them, as by the client that made them."""
    if others:
        keeps = tuple(others)
        with client._table.lock:
            for future in futures:
                future._state.keeps = future._state.keeps or keeps


class _Stored(Mapping[Any, Any]):
    """The data of a dataset that lies in stores, by its key."""

    def __init__(self, held: Mapping[Any, Future]) -> None:
        self._held = held
        self.read: dict[Any, Any] = {}

    def __getitem__(self, key: Any) -> Any:
        if key not in self.read:
            self.read[key] = self._held[key].result()
        return self.read[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


class Datasets(MutableMapping[str, Any]):
    """The published datasets as a mapping: ``client.datasets``.

    Examples
    --------
    >>> client.datasets["x"] = x  # doctest: +SKIP
    >>> list(client.datasets)  # doctest: +SKIP
    ['x']
    >>> del client.datasets["x"]  # doctest: +SKIP
    """

    __slots__ = ("_client",)

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getitem__(self, name: str) -> Any:
        return self._client.get_dataset(name)

    def __setitem__(self, name: str, data: Any) -> None:
        self._client.publish_dataset(data, name=name, override=True)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise DatasetNotFoundError(f"there is no dataset {name!r}; there are: {', '.join(self) or 'none'}")
        self._client.unpublish_dataset(name)

    def __contains__(self, name: object) -> bool:
        return name in self._client.list_datasets()

    def __iter__(self) -> Iterator[str]:
        return iter(self._client.list_datasets())

    def __len__(self) -> int:
        return len(self._client.list_datasets())

    def __repr__(self) -> str:
        return f"<Datasets: {self._names_in_words()}>"

    def _repr_html_(self) -> str:
        return card("Datasets", {"names": self._names_in_words()})

    def _names_in_words(self) -> str:
        """The names, or why they aren't known: what is shown in passing neither raises nor waits for long."""
        try:
            names = self._client._request(protocol.requests.LIST_DATASETS, _timeout=_SHOW_SECONDS)
        except (HoldfastError, RuntimeError, TimeoutError) as error:
            return f"unknown: {error}"
        more = f", … {len(names) - _SHOWN_MAX:,} more" if len(names) > _SHOWN_MAX else ""
        return (", ".join(names[:_SHOWN_MAX]) or "none") + more
