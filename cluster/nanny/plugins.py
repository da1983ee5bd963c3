"""The plugins of a host: set up, and taken down, in the nanny's process."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from holdfast.cluster.errands.calls import Calls
from holdfast.cluster.errands.plugin_table import Entry, PluginTable
from holdfast.cluster.nanny.view import NannyView


class NannyPlugins(PluginTable):
    """Keeps the plugins of a host.

    Parameters
    ----------
    view
        What they get; its ``plugins`` is the table.
    calls, values_of
        See `PluginTable`.
    """

    def __init__(self, view: NannyView, calls: Calls, values_of: Callable[[Any], Mapping[Any, Any] | None]) -> None:
        super().__init__("the node plugin", view.plugins, calls, values_of)
        self._view = view

    def set_up_on_host(self, plugins: Iterable[Entry], first: bool = False, again: bool = False) -> dict[str, Any]:
        """`set_up`, which also says whether the workers of the host are to start anew: because a plugin that was set
        up says so, or because they have begun in another environment than is meant for those of a host that comes.

        Parameters
        ----------
        first
            Whether the host has just come.
        again
            Whether the plugins were set up before, by a nanny that has died.
        """
        environment, before = dict(self._view.env), dict(self.table)
        answer = self.set_up(plugins, first)
        new = [plugin for name, plugin in self.table.items() if before.get(name) is not plugin]
        restart = any(getattr(plugin, "restart", False) for plugin in new)
        changed = first and dict(self._view.env) != environment
        return {**answer, "restart": (restart or changed) and not again}

    def _setup_of(self, plugin: Any) -> Callable[[], Any] | None:
        return functools.partial(plugin.setup, self._view) if hasattr(plugin, "setup") else None

    def _teardown_of(self, plugin: Any) -> Callable[[], Any] | None:
        return functools.partial(plugin.teardown, self._view) if hasattr(plugin, "teardown") else None

    def _changed(self) -> None:
        pass  # what sees the table looks at it
