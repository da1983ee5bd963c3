"""What a `LocalCluster` says of its scheduler and its workers."""

from __future__ import annotations

from typing import NamedTuple


class LocalWorker(NamedTuple):
    """A worker of a `LocalCluster`, as that knows it.

    Attributes
    ----------
    name : str
    address : str or None
        By which the scheduler and clients name it; None while its host is being started again.
    nthreads : int
        How many tasks it runs at once.
    """

    name: str
    address: str | None
    nthreads: int

    @property
    def worker_address(self) -> str | None:
        """Another name of ``address``."""
        return self.address


class LocalScheduler(NamedTuple):
    """The scheduler of a `LocalCluster`, as that knows it.

    Attributes
    ----------
    address : str
        ``tcp://host:port``.
    pid : int
        Of its process.
    """

    address: str
    pid: int
