"""The plugins of a worker: set up, told of tasks, and taken down.

The scheduler sends them by the errands `SET_UP_PLUGINS` and `TAKE_DOWN_PLUGIN`. They are told of tasks only while one
of them wants to hear of tasks: then these run by `observed`, and at no other time does a task pass anything of this.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

from holdfast.cluster.errands.calls import Calls
from holdfast.cluster.errands.plugin_table import PluginTable
from holdfast.cluster.plugins.base import WorkerPlugin
from holdfast.cluster.protocol.message import Message
from holdfast.cluster.protocol.worker import DEPENDENCIES_MISSING, ERRED, FINISHED, RESCHEDULED
from holdfast.cluster.worker.execution import Outcome, Task
from holdfast.cluster.worker.task_states import TaskState

logger = logging.getLogger(__name__)

#: What a plugin is told of the end of a run, for each outcome that `execution` gives.
_FINISHES: dict[Message, str] = {
    FINISHED: "memory",
    ERRED: "error",
    DEPENDENCIES_MISSING: "missing",
    RESCHEDULED: "rescheduled",
}


class WorkerPlugins(PluginTable):
    """Keeps the plugins of a worker.

    Parameters
    ----------
    worker
        What they get; its ``plugins`` is the table.
    calls, values_of
        See `PluginTable`.
    run_by
        ``run_by(run)``: from now on tasks are run by ``run(task)``; None: by what has run them at first.
    run
        Runs a task, and returns its outcome.
    read
        ``read(object_id)``: an object of the store.
    """

    def __init__(
        self,
        worker: Any,
        calls: Calls,
        values_of: Callable[[Any], Mapping[Any, Any] | None],
        run_by: Callable[[Callable[[Task], None] | None], None],
        run: Callable[[Task], Outcome | None],
        read: Callable[[Any], Any],
    ) -> None:
        super().__init__("the plugin", worker.plugins, calls, values_of)
        self._worker = worker
        self._run_by = run_by
        self._run = run
        self._read = read
        self._observers: tuple[Callable[..., Any], ...] = ()
        self._noted: set[str] = set()  # the plugins whose `transition` has failed

    def _setup_of(self, plugin: Any) -> Callable[[], Any] | None:
        return functools.partial(plugin.setup, worker=self._worker) if hasattr(plugin, "setup") else None

    def _teardown_of(self, plugin: Any) -> Callable[[], Any] | None:
        return functools.partial(plugin.teardown, worker=self._worker) if hasattr(plugin, "teardown") else None

    # -- tasks

    def _changed(self) -> None:
        observers = []
        for plugin in list(self.table.values()):
            transition = getattr(plugin, "transition", None)
            if transition is not None and getattr(transition, "__func__", None) is not WorkerPlugin.transition:
                observers.append(transition)
        self._observers = tuple(observers)
        self._run_by(self.observed if observers else None)

    def observed(self, task: Task) -> None:
        """Run a task, and tell the plugins that want to hear of it."""
        key, _, _, _, _, _, _ = task
        told = self._worker.state.told
        told[key] = TaskState(key, "executing")
        try:
            self._tell(key, "ready", "executing")
            outcome = self._run(task)
            finish = "error" if outcome is None else _FINISHES[outcome[0]]
            told[key] = TaskState(key, finish, outcome, self._read)
            self._tell(key, "executing", finish)
        finally:
            told.pop(key, None)  # a plugin may keep what it was told; nothing else does

    def _tell(self, key: Any, start: str, finish: str) -> None:
        for transition in self._observers:
            try:
                transition(key, start, finish)
            except BaseException as error:  # a plugin is not to cost anybody a task
                logger.exception("a plugin has failed at %r, which goes from %s to %s", key, start, finish)
                self._note(transition, error)

    def _note(self, transition: Callable[..., Any], error: BaseException) -> None:
        """Tell those that listen to the topic of plugins, once of each plugin."""
        name = next(
            (name for name, plugin in self.table.items() if plugin is getattr(transition, "__self__", None)), ""
        )
        if name in self._noted:
            return
        self._noted.add(name)
        text = self._calls.failure(error)["text"]
        what = {"action": "plugin-failed", "plugin": name, "worker": self._worker.address, "text": text}
        self._worker.log_event(("plugins", "all", self._worker.address), what)
