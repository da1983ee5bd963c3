"""The plugins of a worker: set up, told of tasks, and taken down.

The scheduler sends them by the errands `SET_UP_PLUGINS` and `TAKE_DOWN_PLUGIN`. They are set up one after the other, in
the order in which they came. Tasks are told of only while a plugin wants to hear of them: then they run by `observed`,
and at no other time does a task pass anything of this.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from holdfast.cluster.errands.calls import Calls
from holdfast.cluster.plugins.base import WorkerPlugin
from holdfast.cluster.protocol.message import Message
from holdfast.cluster.protocol.worker import DEPENDENCIES_MISSING, ERRED, FINISHED, RESCHEDULED
from holdfast.cluster.worker.execution import Outcome, Task

logger = logging.getLogger(__name__)

#: What a plugin is told of the end of a run, for each outcome that `execution` gives.
_FINISHES: dict[Message, str] = {
    FINISHED: "memory",
    ERRED: "error",
    DEPENDENCIES_MISSING: "missing",
    RESCHEDULED: "rescheduled",
}


class WorkerPlugins:
    """Keeps the plugins of a worker.

    Parameters
    ----------
    worker
        What they get; its ``plugins`` is the table.
    calls
        Calls what may be a coroutine function.
    values_of
        ``values_of(dependencies)``: what the references in a plugin's pickle stand for.
    run_by
        ``run_by(run)``: from now on tasks are run by ``run(task)``; None: by what has run them at first.
    run
        Runs a task, and returns its outcome.
    """

    def __init__(
        self,
        worker: Any,
        calls: Calls,
        values_of: Callable[[Any], Any],
        run_by: Callable[[Callable[[Task], None] | None], None],
        run: Callable[[Task], Outcome | None],
    ) -> None:
        self._worker = worker
        self._calls = calls
        self._values_of = values_of
        self._run_by = run_by
        self._run = run
        self._table: dict[str, Any] = worker.plugins
        self._changing = threading.Lock()
        self._observers: tuple[Callable[..., Any], ...] = ()

    def set_up(self, plugins: Iterable[tuple[str, bytes | memoryview, Any]]) -> dict[str, Any]:
        """Set up plugins, each with its name, its pickle and what the references in that stand for.

        One of a name that is there is taken down first. Returns those that have failed, and how.
        """
        failed = []
        for name, call, dependencies in plugins:
            with self._changing:
                try:
                    plugin = self._calls.load(call, self._values_of(dependencies))
                    if name in self._table:
                        self._take_down(name)
                    if hasattr(plugin, "setup"):
                        self._calls.result_of(plugin.setup, worker=self._worker)
                    self._table[name] = plugin
                    self._observe()
                except BaseException as error:  # whatever a user's code raises
                    failure = self._calls.failure(error)
                    logger.error("the plugin %r can't be set up:\n%s", name, failure["text"])
                    failed.append((name, failure["raised"], failure["text"]))
        return {"failed": failed}

    def take_down(self, name: str) -> dict[str, Any]:
        """Take a plugin down, if it is there. Returns how it has failed, if it has."""
        with self._changing:
            try:
                if name in self._table:
                    self._take_down(name)
            except BaseException as error:  # as above
                failure = self._calls.failure(error)
                return {"failed": [(name, failure["raised"], failure["text"])]}
        return {"failed": []}

    def close(self) -> None:
        """Take all down, the last one first."""
        for name in reversed(list(self._table)):
            for _, _, text in self.take_down(name)["failed"]:
                logger.error("the plugin %r can't be taken down:\n%s", name, text)

    def _take_down(self, name: str) -> None:
        plugin = self._table.pop(name)
        self._observe()
        if hasattr(plugin, "teardown"):
            self._calls.result_of(plugin.teardown, worker=self._worker)

    # -- tasks

    def _observe(self) -> None:
        observers = []
        for plugin in self._table.values():
            transition = getattr(plugin, "transition", None)
            if transition is not None and getattr(transition, "__func__", None) is not WorkerPlugin.transition:
                observers.append(transition)
        self._observers = tuple(observers)
        self._run_by(self.observed if observers else None)

    def observed(self, task: Task) -> None:
        """Run a task, and tell the plugins that want to hear of it."""
        key, _, _, _, _, _ = task
        self._tell(key, "ready", "executing")
        outcome = self._run(task)
        self._tell(key, "executing", "error" if outcome is None else _FINISHES[outcome[0]])

    def _tell(self, key: Any, start: str, finish: str) -> None:
        for transition in self._observers:
            try:
                transition(key, start, finish)
            except BaseException:  # a plugin is not to cost anybody a task
                logger.exception("a plugin has failed at %r, which goes from %s to %s", key, start, finish)
