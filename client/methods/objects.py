"""Objects by their ids, and arrays that are filled in the store."""

from __future__ import annotations

from typing import Any

from holdfast.client.methods.face import Face
from holdfast.client.operations import objects
from holdfast.cluster.durations import seconds


class ObjectMethods(Face):
    """The methods of a client that put objects, get them by their ids, and create arrays in place."""

    def put(self, value: Any, *, workers: Any = None, timeout: float | str | None = None) -> Any:
        """Put a value into the object store, under an id that any client of the cluster can get it by.
        In an asynchronous client: await it.

        This client holds the object until it frees it (`free`) or is closed, as it holds results by futures. Futures
        inside the value live as long as it. Inside a task it is the worker that holds it, until it ends.

        Parameters
        ----------
        value : object
            Becomes one object, also if it is a container.
        workers : str or list of str, optional
            Workers or hosts in one of whose stores it goes. Default: this host's, if it has a store; else any.
        timeout : float or str, optional
            How long to wait for a host and for room in its store.

        Returns
        -------
        ObjectID
            Sixteen bytes, which print as hexadecimal digits, and can be pickled.

        Raises
        ------
        StoreFullError, TimeoutError, NoWorkerError, TypeError
            As for `scatter`.

        Examples
        --------
        >>> object_id = client.put({"a": [1, 2, 3]})
        >>> object_id
        ObjectID('...')
        >>> client.get_object(str(object_id))
        {'a': [1, 2, 3]}
        >>> client.free(object_id)
        """
        return self._run(objects.put(self._core, value, workers, seconds(timeout)))

    def get_object(self, object_id: Any, *, timeout: float | str | None = None, writable: bool | None = None) -> Any:
        """The value of an object that was put, by this or another client. In an asynchronous client: await it.

        Parameters
        ----------
        object_id : ObjectID, bytes or str, or list of these
            As `put` has given it, or as it prints. Also of any other result that is there, as ``holdfast memory``
            shows it.
        timeout : float or str, optional
            In seconds, or as text such as ``"10 s"``.
        writable : bool, optional
            As for `Future.result`.

        Returns
        -------
        The value; of a list of ids a list.

        Raises
        ------
        ObjectNotFoundError
            There is no such object, or no more.
        TimeoutError
            It could not be read in time.

        Examples
        --------
        >>> client.get_object([client.put(1), client.put("two")])
        [1, 'two']
        """
        return self._run(objects.get(self._core, object_id, seconds(timeout), writable))

    def free(self, object_ids: Any) -> None:
        """Let go of objects that this client has put. They are gone when nothing else holds them.

        Parameters
        ----------
        object_ids : ObjectID, bytes or str, or list of these

        Raises
        ------
        ValueError
            This client does not hold one of them. None was freed then.

        Examples
        --------
        >>> object_id = client.put("something")
        >>> client.free([object_id])
        """
        objects.free(self._core, object_ids)

    def create(self, shape: Any, dtype: Any = "float64", *, timeout: float | str | None = None) -> Any:
        """An array in the object store of this host, to be filled in place and sealed into a future: no copy at all.
        In an asynchronous client: await it.

        Parameters
        ----------
        shape : int or tuple of int
        dtype : dtype
            Any type without Python objects.
        timeout : float or str, optional
            How long to wait for room in the store, in seconds or as text.

        Returns
        -------
        CreatedArray
            With the ``array``, which is in C order and not initialised. `CreatedArray.seal` gives the future; as a
            context manager it gives the array, and seals it at the end.

        Raises
        ------
        StoreError
            This client has no object store on its host.
        StoreFullError
            There is no room; says what there is and which clients hold it.
        ValueError
            The dtype has Python objects in it, or there is no such shape.

        Examples
        --------
        >>> created = client.create((1000, 1000))
        >>> with created as array:
        ...     array[:] = 1.0
        >>> float(client.submit(lambda x: x.sum(), created.future).result())
        1000000.0
        """
        return self._run(objects.create(self._core, shape, dtype, seconds(timeout)))
