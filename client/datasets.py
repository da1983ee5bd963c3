"""The published datasets as a mapping."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, MutableMapping
from typing import Any

from holdfast.cluster import protocol
from holdfast.cluster.errors import DatasetNotFoundError
from holdfast.cluster.notebook import card
from holdfast.objectstore.errors import HoldfastError

#: How long showing the names may take, and how many of them are shown.
_SHOW_SECONDS = 5.0
_SHOWN_MAX = 50


class Datasets(MutableMapping[str, Any]):
    """The published datasets as a mapping: ``client.datasets``.

    Examples
    --------
    >>> import dask.array as da
    >>> client.datasets["x"] = da.ones(10, chunks=5)
    >>> list(client.datasets)
    ['x']
    >>> del client.datasets["x"]

    Of an asynchronous client: ``await client.datasets["x"]`` and ``async for name in client.datasets``. What a mapping
    can't await, its methods of the client do: `Client.publish_dataset`, `Client.unpublish_dataset`.
    """

    __slots__ = ("_client",)

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getitem__(self, name: str) -> Any:
        return self._client.get_dataset(name)

    def __setitem__(self, name: str, data: Any) -> None:
        self._check_blocking("client.publish_dataset(data, name=name, override=True)")
        self._client.publish_dataset(data, name=name, override=True)

    def __delitem__(self, name: str) -> None:
        self._check_blocking("client.unpublish_dataset(name)")
        if name not in self:
            raise DatasetNotFoundError(f"there is no dataset {name!r}; there are: {', '.join(self) or 'none'}")
        self._client.unpublish_dataset(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    async def __aiter__(self) -> AsyncIterator[str]:
        for name in await self._client.list_datasets():
            yield name

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> tuple[str, ...]:
        self._check_blocking("client.list_datasets()")
        names: tuple[str, ...] = self._client.list_datasets()
        return names

    def _check_blocking(self, instead: str) -> None:
        if self._client.asynchronous:
            raise TypeError(f"this is a mapping of an asynchronous client: await {instead}")

    def __repr__(self) -> str:
        return f"<Datasets: {self._names_in_words()}>"

    def _repr_html_(self) -> str:
        return card("Datasets", {"names": self._names_in_words()})

    def _names_in_words(self) -> str:
        """The names, or why they aren't known: what is shown in passing neither raises nor waits for long."""
        if self._client.asynchronous:
            return "await client.list_datasets()"
        try:
            names = self._client._request(protocol.requests.LIST_DATASETS, _timeout=_SHOW_SECONDS)
        except (HoldfastError, RuntimeError, TimeoutError) as error:
            return f"unknown: {error}"
        more = f", … {len(names) - _SHOWN_MAX:,} more" if len(names) > _SHOWN_MAX else ""
        return (", ".join(names[:_SHOWN_MAX]) or "none") + more
