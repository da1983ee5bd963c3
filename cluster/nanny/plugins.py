"""The plugins of a host: set up one after the other, and taken down."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from holdfast.cluster.errands.calls import Calls
from holdfast.cluster.nanny.view import NannyView

logger = logging.getLogger(__name__)


class NannyPlugins:
    """Keeps the plugins of a host.

    Parameters
    ----------
    view
        What they get; its ``plugins`` is the table.
    calls
        Calls what may be a coroutine function.
    values_of
        ``values_of(dependencies)``: what the references in a plugin's pickle stand for.
    """

    def __init__(self, view: NannyView, calls: Calls, values_of: Callable[[Any], Any]) -> None:
        self._view = view
        self._calls = calls
        self._values_of = values_of
        self._changing = threading.Lock()

    def set_up(
        self, plugins: Iterable[tuple[str, bytes | memoryview, Any]], first: bool = False, again: bool = False
    ) -> dict[str, Any]:
        """Set up plugins, each with its name, its pickle and what the references in that stand for.

        One of a name that is there is taken down first. Returns those that have failed, and how; and whether the
        workers of the host are to start anew, because a plugin says so, or because they have begun in another
        environment than is meant for those of a host that comes.

        Parameters
        ----------
        first
            Whether the host has just come.
        again
            Whether the plugins were set up before, by a nanny that has died.
        """
        failed = []
        restart = False
        with self._changing:
            before = dict(self._view.env)
            for name, call, dependencies in plugins:
                try:
                    plugin = self._calls.load(call, self._values_of(dependencies))
                    if name in self._view.plugins:
                        self._take_down(name)
                    if hasattr(plugin, "setup"):
                        self._calls.result_of(plugin.setup, self._view)
                    self._view.plugins[name] = plugin
                    restart = restart or bool(getattr(plugin, "restart", False))
                except BaseException as error:  # whatever a user's code raises
                    failure = self._calls.failure(error)
                    logger.error("the node plugin %r can't be set up:\n%s", name, failure["text"])
                    failed.append((name, failure["raised"], failure["text"]))
            changed = first and dict(self._view.env) != before
        return {"failed": failed, "restart": (restart or changed) and not again}

    def take_down(self, name: str) -> dict[str, Any]:
        """Take a plugin down, if it is there. Returns how it has failed, if it has."""
        with self._changing:
            try:
                if name in self._view.plugins:
                    self._take_down(name)
            except BaseException as error:  # as above
                failure = self._calls.failure(error)
                return {"failed": [(name, failure["raised"], failure["text"])]}
        return {"failed": []}

    def close(self) -> None:
        """Take all down, the last one first."""
        for name in reversed(list(self._view.plugins)):
            for _, _, text in self.take_down(name)["failed"]:
                logger.error("the node plugin %r can't be taken down:\n%s", name, text)

    def _take_down(self, name: str) -> None:
        plugin = self._view.plugins.pop(name)
        if hasattr(plugin, "teardown"):
            self._calls.result_of(plugin.teardown, self._view)
