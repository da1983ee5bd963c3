"""Published datasets: collections and futures that have a name in the cluster and outlive their publisher.

What is published is a pickle that the scheduler never looks into, and the keys of the futures in it, which the dataset
holds from then on.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from holdfast.client import expressions
from holdfast.client.arguments import collecting
from holdfast.client.futures import Future, binding
from holdfast.client.keys import check_text, check_together
from holdfast.cluster import payload
from holdfast.cluster.comm.frames import raw
from holdfast.cluster.errors import CancelledError, DatasetNotFoundError
from holdfast.cluster.notebook import card
from holdfast.cluster.protocol.limits import MAX_DATASET_NBYTES
from holdfast.objectstore.errors import HoldfastError

if TYPE_CHECKING:
    from holdfast.client.client import Client


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


def publish(client: Client, name: str, data: Any, override: bool) -> None:
    """Publish one dataset."""
    check_name(name)
    try:
        with collecting() as found:
            blob = payload.dumps(data)
    except CancelledError:
        raise
    except Exception as error:
        raise TypeError(f"the dataset {name!r} can't be pickled, so it can't be published: {error}") from error
    if len(blob) > MAX_DATASET_NBYTES:
        raise ValueError(
            f"the dataset {name!r} takes {len(blob):,} bytes without its futures' results, and the scheduler keeps "
            f"{MAX_DATASET_NBYTES:,} of one: scatter or persist its data first, and publish the futures"
        )
    held = [client._own(future) for future in found]
    keys = list(dict.fromkeys(future.key for future in held))
    check_together(f"the dataset {name!r}", keys)
    client._request("publish", name=name, data=raw(blob), keys=keys, override=bool(override))


def get(client: Client, name: str, default: Any = NO_DEFAULT) -> Any:
    """A published dataset, on futures of this client."""
    check_name(name)
    try:
        answer = client._request("get-dataset", name=name)
    except DatasetNotFoundError:
        if default is NO_DEFAULT:
            raise
        return default
    # The scheduler counts this client as a holder of these keys from its answer on. Saying that it wants them as well
    # is needed where it let go of one of them in the meantime, and has the results announced.
    held = client._hold_all(answer["keys"])

    def bind(key: Any) -> Future:
        return client._another(held[key]) if key in held else Future(key, client)

    try:
        with binding(bind):
            return expressions.loads(answer["data"])
    except Exception as error:  # unpickling runs a user's code, which may raise anything
        raise RuntimeError(f"the dataset {name!r} can't be unpickled here: {error!r}") from error


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
            names = self._client._request("list-datasets", _timeout=_SHOW_SECONDS)
        except (HoldfastError, RuntimeError, TimeoutError) as error:
            return f"unknown: {error}"
        more = f", … {len(names) - _SHOWN_MAX:,} more" if len(names) > _SHOWN_MAX else ""
        return (", ".join(names[:_SHOWN_MAX]) or "none") + more
