"""Which versions there are in the cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from holdfast.client.methods.face import Face
from holdfast.client.operations import versions


class VersionMethods(Face):
    """The method of a client that compares versions."""

    def get_versions(self, check: bool = False, packages: Iterable[str] | None = None) -> Any:
        """The versions of Python and of libraries that the scheduler, the workers and this process have.
        In an asynchronous client: await it.

        A client or worker whose Python can't read what the others have pickled is refused when it joins. A client
        that differs from the workers otherwise is told so by a warning when it is opened.

        Parameters
        ----------
        check : bool
            Whether to raise an error if they differ.
        packages : list of str, optional
            Further packages.

        Returns
        -------
        dict
            ``"scheduler"`` and ``"client"`` with a dictionary each, and ``"workers"`` with one for each address: its
            ``"host"``, and its ``"packages"``, a version for each name, None for what is not installed.

        Raises
        ------
        ValueError
            With ``check=True``, they differ; the error has a table. The scheduler counts for Python, Holdfast and
            msgpack only, since it reads no values.

        Examples
        --------
        >>> versions = client.get_versions(check=True, packages=["zarr"])
        >>> versions["client"]["packages"]["python"] == versions["scheduler"]["packages"]["python"]
        True
        >>> len(versions["workers"])
        2
        """
        return self._run(versions.get_versions(self._core, check, packages))
