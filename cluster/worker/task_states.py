"""The states of a worker's tasks, as plugins and functions on the worker see them: ``worker.state.tasks``.

A worker knows of a task while the task runs, and while plugins are told of its end. After that the scheduler knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

from holdfast.cluster.comm.frames import Raw
from holdfast.cluster.failures.loading import load_exception
from holdfast.cluster.protocol.worker import ERRED, FINISHED
from holdfast.cluster.worker.execution import Outcome


class TaskState:
    """A task on a worker.

    Attributes
    ----------
    key : key
    state : str
        ``"executing"``, and when its run has ended what `WorkerPlugin.transition` is told.
    nbytes : int or None
        The size of its result, if it has one.
    type : str
        The name of the type of its result; empty if it has none.
    exception_text, traceback_text : str
        What it has raised, as text; empty if it has raised nothing.
    """

    def __init__(self, key: Any, state: str, outcome: Outcome | None = None, read: Callable[[Any], Any] | None = None):
        self.key = key
        self.state = state
        self.nbytes: int | None = None
        self.type = ""
        self.exception_text = self.traceback_text = ""
        self._raised: Any = None
        self._read = read
        self._loaded: tuple[BaseException, TracebackType | None] | None = None
        kind, entry = outcome or (None, ())
        if kind is FINISHED:
            _, _, _, self.nbytes, _, self.type, _ = entry
        elif kind is ERRED:
            _, _, self._raised, self.traceback_text, _ = entry
            self.exception_text = self.traceback_text.strip().rpartition("\n")[2]

    @property
    def exception(self) -> BaseException | None:
        """What it has raised: a copy, as its client gets one. None if it has raised nothing."""
        return self._load()[0]

    @property
    def traceback(self) -> TracebackType | None:
        """The traceback of that."""
        return self._load()[1]

    def _load(self) -> tuple[BaseException | None, TracebackType | None]:
        if self._raised is None:
            return None, None
        if self._loaded is None:
            blob = self._raised
            if isinstance(blob, tuple) and self._read is not None:  # a large one, which lies in the store
                blob = self._read(blob[0])
            self._loaded = load_exception(bytes(blob.data if isinstance(blob, Raw) else blob), self.traceback_text)
        return self._loaded

    def __repr__(self) -> str:
        return f"<TaskState {self.key!r} {self.state}>"


class WorkerState:
    """What a worker knows of its tasks.

    Parameters
    ----------
    running
        ``running()``: the keys of the tasks that it runs.

    Attributes
    ----------
    tasks : Mapping
        A `TaskState` for each task that runs, and for each of which plugins are just told, by key.
    """

    def __init__(self, running: Callable[[], Iterable[Any]]) -> None:
        self.tasks: Mapping[Any, TaskState] = _Tasks(self)
        #: Those of which plugins are told.
        self.told: dict[Any, TaskState] = {}
        self._running = running

    @property
    def executing(self) -> set[Any]:
        """The keys of the tasks that run."""
        return set(self._running())

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"a worker's state has no {name!r}: it has the tasks that run (tasks, executing), and the scheduler knows "
            "of all others (Client.processing, Client.who_has)",
            name=name,
            obj=self,
        )

    def __repr__(self) -> str:
        return f"<WorkerState: {len(self.tasks)} tasks>"


class _Tasks(Mapping[Any, TaskState]):
    """The tasks of a worker, as they are when they are looked at."""

    def __init__(self, state: WorkerState) -> None:
        self._state = state

    def _now(self) -> dict[Any, TaskState]:
        return {key: TaskState(key, "executing") for key in self._state.executing} | self._state.told

    def __getitem__(self, key: Any) -> TaskState:
        told = self._state.told.get(key)
        return told or self._now()[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())
