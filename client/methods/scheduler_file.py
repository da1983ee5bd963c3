"""The file by which others find the cluster of a client."""

from __future__ import annotations

import os
from typing import Any

from holdfast.client.methods.face import Face
from holdfast.client.operations import scheduler_file as files


class SchedulerFileMethods(Face):
    """The method of a client that writes a scheduler file."""

    def write_scheduler_file(self, scheduler_file: str | os.PathLike[str]) -> Any:
        """Write a file that says where the scheduler is, for ``scheduler_file=`` of others and of `Client`. In an
        asynchronous client: await it.

        The token is not in it: processes of other hosts need that beside it.

        Parameters
        ----------
        scheduler_file : path
            Only this user can read and write it. A file of this name is replaced.

        Raises
        ------
        HoldfastError
            It can't be written; says why.

        Examples
        --------
        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = os.path.join(directory, "scheduler.json")
        ...     client.write_scheduler_file(path)
        ...     with Client(scheduler_file=path, set_as_default=False) as other:
        ...         other.scheduler_address == client.scheduler_address
        True
        """
        return self._run(files.write(self._core, scheduler_file))
