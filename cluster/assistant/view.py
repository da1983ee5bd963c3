"""What functions and plugins see of the scheduler. All of it is read-only, and each look asks the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple


class TaskView(NamedTuple):
    """A task, as it was when it was looked at.

    Attributes
    ----------
    key : key
    state : str
        ``"waiting"``, ``"ready"``, ``"processing"``, ``"memory"``, ``"erred"``, ...
    who_has : tuple of str
        The addresses of the nodes that have its result.
    worker : str or None
        The address of the worker that runs it.
    nbytes : int
        The size of its result.
    """

    key: Any
    state: str
    who_has: tuple[str, ...]
    worker: str | None
    nbytes: int


class WorkerView:
    """A worker, as it was when it was looked at: what `Client.scheduler_info` says of it, as attributes."""

    def __init__(self, address: str, description: Mapping[str, Any]) -> None:
        self.address = address
        self.description = dict(description)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["description"][name]
        except KeyError:
            raise AttributeError(f"nothing is known of a worker under the name {name!r}") from None

    def __repr__(self) -> str:
        return f"<Worker {self.address}>"


class SchedulerView:
    """The scheduler, as functions of `Client.run_on_scheduler` and scheduler plugins see it.

    Attributes
    ----------
    address : str
        ``tcp://host:port``.

    Examples
    --------
    >>> from holdfast import Client
    >>> def count(dask_scheduler):
    ...     return len(dask_scheduler.workers)
    >>> with Client(n_workers=2, set_as_default=False) as client:
    ...     client.run_on_scheduler(count)
    2
    """

    def __init__(self, address: str, client: Callable[[], Any], log_event: Callable[[Any, Any], None]) -> None:
        self.address = address
        self._client = client
        self._log_event = log_event

    @property
    def client(self) -> Any:
        """A client of the cluster, for all that is not here."""
        return self._client()

    @property
    def id(self) -> str:
        """The scheduler's id."""
        return str(self.client.scheduler_info()["id"])

    @property
    def status(self) -> str:
        """``"running"``: this process ends with the scheduler."""
        return "running"

    @property
    def workers(self) -> dict[str, WorkerView]:
        """The workers that there are, by address."""
        described = self.client.scheduler_info(n_workers=-1)["workers"]
        return {address: WorkerView(address, worker) for address, worker in described.items()}

    @property
    def tasks(self) -> Mapping[Any, TaskView]:
        """All tasks that there are, by key."""
        return _Tasks(self.client._list_tasks())

    @property
    def clients(self) -> dict[str, str]:
        """The names of all clients, by id, those that tasks share and this process's own included."""
        return dict(self.client._list_clients())

    def get_events(self, topic: str | None = None) -> Any:
        """The events of a topic, or of all: as `Client.get_events`."""
        return self.client.get_events(topic)

    def log_event(self, topic: Any, msg: Any) -> None:
        """Log an event, as `Client.log_event`, without waiting until the scheduler has it."""
        self._log_event(topic, msg)

    def __repr__(self) -> str:
        return f"<Scheduler {self.address}>"

    def __reduce__(self) -> Any:
        raise TypeError("the scheduler can't be pickled: its address names it anywhere")


class _Tasks(Mapping[Any, TaskView]):
    """Tasks as they were listed, each of which is made when it is looked at."""

    def __init__(self, listed: list[Any]) -> None:
        self._listed = {entry[0]: entry for entry in listed}

    def __getitem__(self, key: Any) -> TaskView:
        key, state, who_has, worker, nbytes = self._listed[key]
        return TaskView(key, state, tuple(who_has), worker or None, nbytes)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)
