"""Tasks of the cluster that run here, for a debugger: `Client.recreate_error_locally`."""

from __future__ import annotations

from typing import Any

from holdfast.client.methods.face import Face
from holdfast.client.operations import replaying


class ReplayMethods(Face):
    """The methods of a client that run tasks of the cluster in this process."""

    def recreate_error_locally(self, future: Any) -> Any:
        """Run the task here that has failed, with the results that it read. In an asynchronous client: await it.

        It is the task that failed first of all that the future needs. It raises here, so that a debugger can look.

        Parameters
        ----------
        future : Future, dask collection, or container of these
            Is waited for.

        Returns
        -------
        What the task returns, if it does not fail here.

        Raises
        ------
        ValueError
            None of them has failed, or there is no future.
        ObjectLostError
            What failed was not a task: data that a client had stored, say.
        Exception
            What the task raises here.

        Examples
        --------
        >>> future = client.submit(divmod, 1, client.submit(int, "0"))
        >>> future.status in ("pending", "error")
        True
        >>> client.recreate_error_locally(future)
        Traceback (most recent call last):
            ...
        ZeroDivisionError: integer division or modulo by zero
        """
        return self._run(replaying.recreate(self._core, future, blamed=True))

    def recreate_task_locally(self, future: Any) -> Any:
        """Run the task of a future here, with the results that it reads. In an asynchronous client: await it.

        Parameters
        ----------
        future : Future, dask collection, or container of these
            Is waited for. Of several, the first one is run.

        Returns
        -------
        What the task returns.

        Raises
        ------
        ValueError, ObjectLostError, Exception
            As for `recreate_error_locally`.

        Examples
        --------
        >>> client.recreate_task_locally(client.submit(divmod, 7, client.submit(int, "2")))
        (3, 1)
        """
        return self._run(replaying.recreate(self._core, future, blamed=False))

    def get_futures_error(self, future: Any) -> Any:
        """What the task consists of that `recreate_error_locally` would run. In an asynchronous client: await it.

        Parameters
        ----------
        future : Future, dask collection, or container of these
            Is waited for.

        Returns
        -------
        Components
            A named tuple of ``function``, ``args``, ``kwargs`` and ``dependencies``: keys stand in the arguments for
            the results that the task reads, and ``dependencies`` has all of these keys.

        Raises
        ------
        ValueError, ObjectLostError
            As for `recreate_error_locally`.

        Examples
        --------
        >>> function, args, kwargs, dependencies = client.get_futures_error(client.submit(divmod, 1, 0))
        >>> function, args, dependencies
        (<built-in function divmod>, (1, 0), [])
        """
        return self._run(replaying.components_of_error(self._core, future))
