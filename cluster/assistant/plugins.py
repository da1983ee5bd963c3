"""Scheduler plugins, and what they are told of what happens in the scheduler.

The scheduler sends what happens, in order and together, while a plugin wants to hear of something. A plugin that is
slow hears of it later. If it is so slow that the scheduler keeps no more, it misses changes, and the log says how many.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable
from typing import Any

from holdfast.cluster.errands.calls import Calls
from holdfast.cluster.plugins.base import SchedulerPlugin

logger = logging.getLogger(__name__)

#: What a plugin may override to hear of something.
HOOKS = ("transition", "add_worker", "remove_worker", "add_client", "remove_client")


class SchedulerPlugins:
    """Keeps the plugins of a scheduler.

    Parameters
    ----------
    view
        What they get.
    calls
        Calls what may be a coroutine function.
    values_of
        ``values_of(dependencies)``: what the references in a plugin's pickle stand for.
    listen
        ``listen(listens)``: whether the scheduler is to send what happens, from now on.
    """

    def __init__(
        self,
        view: Any,
        calls: Calls,
        values_of: Callable[[Any], Any],
        listen: Callable[[bool], None],
    ) -> None:
        self._view = view
        self._calls = calls
        self._values_of = values_of
        self._listen = listen
        self.table: dict[str, Any] = {}
        self._changing = threading.Lock()
        self._observers: dict[str, tuple[Callable[..., Any], ...]] = {}
        self._told: queue.SimpleQueue[tuple[int, tuple[Any, ...]]] = queue.SimpleQueue()
        self._teller: threading.Thread | None = None

    def set_up(self, plugins: Iterable[tuple[str, bytes | memoryview, Any]]) -> dict[str, Any]:
        """Start plugins, one after the other. Returns those that have failed, and how."""
        failed = []
        for name, call, dependencies in plugins:
            with self._changing:
                try:
                    plugin = self._calls.load(call, self._values_of(dependencies))
                    if name in self.table:
                        self._take_down(name)
                    if hasattr(plugin, "start"):
                        self._calls.result_of(plugin.start, self._view)
                    self.table[name] = plugin
                    self._observe()
                except BaseException as error:  # whatever a user's code raises
                    failure = self._calls.failure(error)
                    logger.error("the scheduler plugin %r can't be started:\n%s", name, failure["text"])
                    failed.append((name, failure["raised"], failure["text"]))
        return {"failed": failed}

    def take_down(self, name: str) -> dict[str, Any]:
        """Close a plugin, if it is there. Returns how it has failed, if it has."""
        with self._changing:
            try:
                if name in self.table:
                    self._take_down(name)
            except BaseException as error:  # as above
                failure = self._calls.failure(error)
                return {"failed": [(name, failure["raised"], failure["text"])]}
        return {"failed": []}

    def close(self) -> None:
        """Close all, the last one first."""
        for name in reversed(list(self.table)):
            self.take_down(name)

    def _take_down(self, name: str) -> None:
        plugin = self.table.pop(name)
        self._observe()
        if hasattr(plugin, "close"):
            self._calls.result_of(plugin.close)

    # -- what happens

    def _observe(self) -> None:
        listened = bool(self._observers)
        observers = {
            hook: tuple([method for plugin in self.table.values() if (method := _overridden(plugin, hook)) is not None])
            for hook in HOOKS
        }
        self._observers = {hook: methods for hook, methods in observers.items() if methods}
        if bool(self._observers) != listened:
            self._listen(not listened)
        if self._observers and self._teller is None:
            self._teller = threading.Thread(target=self._tell, name="holdfast-errand-told", daemon=True)
            self._teller.start()

    def tell(self, missed: int, changes: tuple[Any, ...]) -> None:
        """The scheduler says what has happened, and how much it has left out before that."""
        self._told.put((missed, changes))

    def _tell(self) -> None:
        while True:
            missed, changes = self._told.get()
            if missed:
                logger.warning("scheduler plugins have missed %d changes, since they are too slow", missed)
            for change in changes:
                self._tell_change(*change)

    def _tell_change(self, what: str, *told: Any) -> None:
        if what == "transition":
            key, start, finish = told
            self._call("transition", key, start or "released", finish)
        else:
            self._call(what, self._view, told[0])

    def _call(self, hook: str, *args: Any) -> None:
        for method in self._observers.get(hook, ()):
            try:
                self._calls.result_of(method, *args)
            except BaseException:  # a plugin is not to end this thread
                logger.exception("a scheduler plugin has failed at %s%r", hook, args)


def _overridden(plugin: Any, hook: str) -> Callable[..., Any] | None:
    method: Callable[..., Any] | None = getattr(plugin, hook, None)
    return None if getattr(method, "__func__", None) is getattr(SchedulerPlugin, hook) else method
