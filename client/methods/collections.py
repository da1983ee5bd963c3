"""What is known of dask's collections before they are computed."""

from __future__ import annotations

from typing import Any

from holdfast.client.methods.face import Face
from holdfast.client.operations import collections as operations


class CollectionMethods(Face):
    """The methods of a client that look at collections, and compute nothing."""

    def normalize_collection(self, collection: Any) -> Any:
        """The same collection, with futures in the place of those tasks whose results this client holds.

        Computing does that by itself. This is for code that looks at graphs.

        Parameters
        ----------
        collection : dask collection

        Returns
        -------
        A collection of the same kind. Tasks that only such results needed are not in its graph.

        Raises
        ------
        TypeError
            It is no dask collection.

        Examples
        --------
        >>> import dask.array as da
        >>> from holdfast import futures_of
        >>> x = da.ones(100, chunks=10)
        >>> held = client.persist(x)
        >>> y = client.normalize_collection(x + 1)
        >>> len(futures_of(y))
        10
        """
        return operations.normalized(self._core, collection)

    @staticmethod
    def collections_to_dsk(collections: Any, optimize_graph: bool = True, **kwargs: Any) -> dict[Any, Any]:
        """The graph of one or several dask collections, optimized together.

        Parameters
        ----------
        collections : list of dask collections
        optimize_graph : bool
            Whether dask optimizes it.
        **kwargs
            Taken for compatibility.

        Returns
        -------
        dict
            The tasks by their keys.

        Examples
        --------
        >>> import dask.array as da
        >>> len(client.collections_to_dsk([da.ones(100, chunks=10)]))
        10
        """
        return operations.graph_of(collections, optimize_graph)

    @classmethod
    def get_restrictions(
        cls, collections: Any, workers: Any, allow_other_workers: Any
    ) -> tuple[dict[Any, list[str]], list[Any]]:
        """Which workers may compute which keys, as `compute` and `persist` take it from their arguments.

        Parameters
        ----------
        collections : list of dask collections
        workers, allow_other_workers
            As for `compute`.

        Returns
        -------
        (dict, list)
            The names of workers for keys that are restricted, and those of these keys which other workers may compute
            as well.

        Examples
        --------
        >>> import dask.array as da
        >>> x = da.ones(20, chunks=10)
        >>> restrictions, loose = client.get_restrictions([x], ["alice"], False)
        >>> len(restrictions), loose
        (2, [])
        """
        return operations.restrictions(collections, workers, allow_other_workers)
