"""Scheduler plugins: started and closed, and told of what happens in the scheduler (`listening.py`).

The scheduler sends what happens, in order and together, as far as a plugin wants to hear of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from holdfast.cluster.assistant.listening import Listener, Told
from holdfast.cluster.errands.calls import Calls
from holdfast.cluster.errands.plugin_table import PluginTable


class SchedulerPlugins(PluginTable):
    """Keeps the plugins of a scheduler.

    Parameters
    ----------
    view
        What they get.
    calls, values_of
        See `PluginTable`.
    listen
        ``listen(hooks)``: of what the scheduler is to tell from now on.
    note
        ``note(name, text)``: says that a plugin has failed.
    """

    def __init__(
        self,
        view: Any,
        calls: Calls,
        values_of: Callable[[Any], Mapping[Any, Any] | None],
        listen: Callable[[list[str]], None],
        note: Callable[[str, str], None],
    ) -> None:
        super().__init__("the scheduler plugin", {}, calls, values_of)
        self._view = view
        self._listen = listen
        self._note = note
        self._listeners: dict[int, Listener] = {}  # by the plugin's identity, for it need not be hashable
        self._heard: frozenset[str] = frozenset()

    def tell(self, missed: int, changes: Sequence[Told]) -> None:
        """The scheduler says what has happened, and how much it has left out before that."""
        for listener in list(self._listeners.values()):
            listener.tell(missed, changes)

    def close(self) -> None:
        """Close all."""
        super().close()
        for listener in self._listeners.values():
            listener.stop()

    def _setup_of(self, plugin: Any) -> Callable[[], Any] | None:
        return functools.partial(plugin.start, self._view) if hasattr(plugin, "start") else None

    def _teardown_of(self, plugin: Any) -> Callable[[], Any] | None:
        return plugin.close if hasattr(plugin, "close") else None

    def _changed(self) -> None:
        there = {id(plugin): (name, plugin) for name, plugin in list(self.table.items())}
        for identity in [identity for identity in self._listeners if identity not in there]:
            self._listeners.pop(identity).stop()
        for identity, (name, plugin) in there.items():
            if identity not in self._listeners:
                note = functools.partial(self._note, name)
                self._listeners[identity] = Listener(name, plugin, self._view, self._calls, note)
        heard = frozenset(hook for listener in self._listeners.values() for hook in listener.hooks)
        if heard != self._heard:
            self._heard = heard
            self._listen(sorted(heard))
