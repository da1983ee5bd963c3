"""Published datasets: the methods for them, and all of them as a mapping."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, MutableMapping
from typing import Any

from holdfast.client.drivers.kinds import takes_its_kind
from holdfast.client.methods.face import Face
from holdfast.client.operations import datasets, information
from holdfast.cluster import protocol
from holdfast.cluster.errors import DatasetNotFoundError
from holdfast.cluster.notebook import card
from holdfast.objectstore.errors import HoldfastError

#: How long showing the names may take, and how many of them are shown.
_SHOW_SECONDS = 5.0
_SHOWN_MAX = 50


class DatasetMethods(Face):
    """The methods of a client that publish, list, get and unpublish datasets."""

    def publish_dataset(
        self,
        *args: Any,
        name: Any = None,
        override: bool = False,
        durable: bool | str | os.PathLike[str] | None = None,
        copies: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Give collections or futures a name in the cluster; they stay when this client is gone.
        In an asynchronous client: await it.

        A collection that was not persisted is published as a recipe: getting it works, and computing it starts from
        scratch. Data that is large goes into the object store, and every process that gets the dataset reads it in
        place. Several datasets are published together or, if one can't be, none of them.

        Parameters
        ----------
        *args
            A dataset, published as ``name``. Several are published as one list.
        name : str, number or tuple of these, optional
        override : bool
            Whether it may replace a dataset of this name.
        durable : bool, str or path, optional
            True: the datasets are also written to the cluster's place for durable datasets, and are there again when
            the cluster is started anew, or in another cluster that has the same place. A directory or a URL that fsspec
            opens, such as ``"s3://bucket/published"``: to that place. The call returns when all of it is safe there,
            which includes that the results in it are computed; the cluster goes on with it also if this client leaves.
            A collection that was not persisted is durable as its recipe: what it computes may differ the next time, if
            it reads files or draws random numbers. Persist it, if it is to stay the same.
        copies : int, optional
            On how many hosts all results in it are to lie, as long as there are so many. Of data that can't be computed
            again there are two copies in any case, if there are two hosts and the dataset isn't durable.
        **kwargs
            Datasets by their names.

        Raises
        ------
        DatasetExistsError
            A name is taken.
        TypeError
            It can't be pickled, or the name is none.
        ValueError
            A name is too long, or there are too many datasets; says how many there may be.
        StoreFullError
            There is no room for its data; says what there is and which clients hold it.
        DurableError
            It can't be written to the place; names the place, the reason, and what to do. Nothing has changed then.

        Examples
        --------
        >>> import dask.array as da
        >>> x = da.arange(10, chunks=5)
        >>> client.publish_dataset(numbers=x.persist())
        >>> client.publish_dataset(x + 1, name="numbers", override=True)
        >>> client.publish_dataset(x, name=("numbers", 2026))
        >>> client.publish_dataset(kept=x.persist(), durable=True)
        >>> client.list_datasets(detail=True)["kept"]["kind"]
        'persisted'
        >>> client.unpublish_dataset("kept")
        """
        named = datasets.named(args, name, kwargs)
        return self._run(datasets.publish(self._core, named, override, durable, copies))

    @takes_its_kind
    def list_datasets(self, *, detail: bool = False, durable: bool | str | os.PathLike[str] | None = None) -> Any:
        """The names of all published datasets. In an asynchronous client: await it.

        Datasets in the cluster's place for durable datasets are among them.

        Parameters
        ----------
        detail : bool
            Whether to say what is known of each, too.
        durable : bool, str or path, optional
            The datasets of which place; see `publish_dataset`. True: of the cluster's place alone.

        Returns
        -------
        tuple, or dict with ``detail``
            Names that are text come first, in order. With ``detail`` what is known of each dataset by name: ``kind`` is
            ``"recipe"``, ``"persisted"`` or ``"values"``; ``durable`` the place where it is durable, or None;
            ``nbytes`` the bytes of its results and of what refers to them, and ``keys`` how many results there are;
            ``type``, ``shape``, ``npartitions``, ``columns`` and the like what it is; ``publisher``, ``user``, ``host``
            and ``published`` (seconds since 1970) whose it is; ``versions`` what it needs.

        Examples
        --------
        >>> client.publish_dataset(flights=[1, 2, 3])
        >>> client.list_datasets()
        ('flights',)
        >>> client.list_datasets(detail=True)["flights"]["kind"]
        'values'
        """
        operation = datasets.descriptions if detail else datasets.names
        return self._run(operation(self._core, durable))

    @takes_its_kind
    def get_dataset(
        self,
        *names: Any,
        name: Any = datasets.NO_DEFAULT,
        default: Any = datasets.NO_DEFAULT,
        durable: bool | str | os.PathLike[str] | None = None,
    ) -> Any:
        """A published dataset: the same collection, on futures of this client. In an asynchronous client: await it.

        One that is durable is loaded from the cluster's place if it isn't known to the cluster. That brings no data:
        each result is read when it is used.

        Parameters
        ----------
        *names : str, number or tuple of these
            Of one dataset, or of several.
        name : optional
            One more, by this keyword.
        default : object, optional
            What to return where there is none of a name.
        durable : bool, str or path, optional
            Where to look for it: in this directory or at this URL, where this or another cluster has published it. It
            is not listed in this cluster by that.

        Returns
        -------
        The dataset; of several names a tuple of them.

        Raises
        ------
        DatasetNotFoundError
            There is none of this name; lists those that there are.
        UnreadableError
            It can't be unpickled here; says why, and what is missing of what it was made with.
        DurableError
            The place can't be read, or what lies there is damaged.

        Examples
        --------
        >>> import dask.array as da
        >>> client.publish_dataset(numbers=da.arange(10, chunks=5).persist(), words=["a", "b"])
        >>> int(client.get_dataset("numbers").sum().compute())
        45
        >>> client.get_dataset("words", "letters", default=[])
        (['a', 'b'], [])
        """
        all_names = names if name is datasets.NO_DEFAULT else (*names, name)
        return self._run(datasets.get(self._core, all_names, default, durable))

    @takes_its_kind
    def unpublish_dataset(
        self,
        *names: Any,
        name: Any = datasets.NO_DEFAULT,
        durable: bool | str | os.PathLike[str] | None = None,
    ) -> Any:
        """Take datasets' names away. Their data goes with its last holder. In an asynchronous client: await it.

        What is durable is removed from its place, too.

        Nothing happens where there is no dataset of a name.

        Parameters
        ----------
        *names : str, number or tuple of these
            Of one dataset, or of several.
        name : optional
            One more, by this keyword.
        durable : bool, str or path, optional
            The place to remove them from. What is published here under these names, and isn't durable there, stays.

        Examples
        --------
        >>> client.publish_dataset(flights=[1, 2, 3])
        >>> client.unpublish_dataset("flights")
        >>> client.list_datasets()
        ()
        """
        all_names = names if name is datasets.NO_DEFAULT else (*names, name)
        return self._run(datasets.unpublish(self._core, all_names, durable))

    @property
    def datasets(self) -> Datasets:
        """The published datasets, as a mapping by name.

        Examples
        --------
        >>> client.datasets["primes"] = [2, 3, 5]
        >>> client.datasets["primes"]
        [2, 3, 5]
        """
        return Datasets(self)


class Datasets(MutableMapping[Any, Any]):
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

    def __init__(self, client: DatasetMethods) -> None:
        self._client = client

    def __getitem__(self, name: Any) -> Any:
        return self._client.get_dataset(name)

    def __setitem__(self, name: Any, data: Any) -> None:
        self._check_blocking("client.publish_dataset(data, name=name, override=True)")
        self._client.publish_dataset(data, name=name, override=True)

    def __delitem__(self, name: Any) -> None:
        self._check_blocking("client.unpublish_dataset(name)")
        if name not in self:
            raise DatasetNotFoundError(
                f"there is no dataset {name!r}; there are: {', '.join(map(str, self)) or 'none'}"
            )
        self._client.unpublish_dataset(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._names())

    async def __aiter__(self) -> AsyncIterator[Any]:
        for name in await self._client.list_datasets():
            yield name

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> tuple[Any, ...]:
        self._check_blocking("client.list_datasets()")
        names: tuple[Any, ...] = self._client.list_datasets()
        return names

    def _check_blocking(self, instead: str) -> None:
        if self._client._core.driver.gives_awaitables:
            raise TypeError(f"this is a mapping of an asynchronous client: await {instead}")

    def __repr__(self) -> str:
        return f"<Datasets: {self._names_in_words()}>"

    def _repr_html_(self) -> str:
        return card("Datasets", {"names": self._names_in_words()})

    def _names_in_words(self) -> str:
        """The names, or why they aren't known: what is shown in passing neither raises nor waits for long."""
        client = self._client
        try:
            if client._core.driver.gives_awaitables:
                return "await client.list_datasets()"
            names = client._run(information.ask(client._core, protocol.requests.LIST_DATASETS, _SHOW_SECONDS, {}))
        except (HoldfastError, RuntimeError, TimeoutError) as error:
            return f"unknown: {error}"
        more = f", … {len(names) - _SHOWN_MAX:,} more" if len(names) > _SHOWN_MAX else ""
        return (", ".join(map(str, names[:_SHOWN_MAX])) or "none") + more
