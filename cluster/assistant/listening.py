"""What one scheduler plugin hears of what happens in the scheduler.

Each plugin that wants to hear of something has a thread and a queue of its own, so that one that is slow or hangs costs
no other plugin anything. A queue has an end: what is too much for it is left out from the front, and the log says how
much that was. A call that takes long is named in the log, with the line at which it stands.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from holdfast.cluster.errands.calls import Calls
from holdfast.cluster.plugins.base import SchedulerPlugin
from holdfast.cluster.protocol.records import value_of

logger = logging.getLogger(__name__)

#: What a plugin may override to hear of something.
HOOKS = (
    "transition",
    "update_graph",
    "log_event",
    "restart",
    "add_worker",
    "remove_worker",
    "add_client",
    "remove_client",
)
#: So many changes are kept for a plugin that is slow; a graph counts by its tasks.
KEPT = 100_000
#: A call that takes longer is named.
SLOW_SECONDS = 30.0

#: What has happened: when, which hook hears of it, and what it is given.
Told = tuple[Any, ...]


class Listener:
    """Tells a plugin what happens.

    Parameters
    ----------
    name, plugin
        The plugin.
    view
        What its hooks get for the scheduler.
    calls
        Calls what may be a coroutine function.
    note
        ``note(text)``: says that the plugin has failed.

    Attributes
    ----------
    hooks : dict
        The methods of the plugin that hear of something, by name.
    """

    def __init__(self, name: str, plugin: Any, view: Any, calls: Calls, note: Callable[[str], None]) -> None:
        self.hooks = {hook: method for hook in HOOKS if (method := _overridden(plugin, hook)) is not None}
        self._name = name
        self._view = view
        self._calls = calls
        self._note = note
        self._accepted = {hook: _keywords_of(method) for hook, method in self.hooks.items()}
        self._condition = threading.Condition()
        self._queue: deque[tuple[int, Told]] = deque()  # each with its weight
        self._weight = 0
        self._missed = 0
        self._is_stopped = False
        self._noted: set[str] = set()
        self._call: tuple[str, float] | None = None  # under way: which hook, and since when
        self._thread = threading.Thread(target=self._serve, name="holdfast-errand-told", daemon=True)
        if self.hooks:
            self._thread.start()

    def tell(self, missed: int, changes: Iterable[Told]) -> None:
        """This has happened, after so much that is not told. Never waits."""
        mine = [(_weight_of(change), change) for change in changes if change[1] in self.hooks]
        with self._condition:
            self._queue.extend(mine)
            self._weight += sum(weight for weight, _ in mine)
            self._missed += missed
            while self._weight > KEPT:
                weight, _ = self._queue.popleft()
                self._weight -= weight
                self._missed += 1
            self._condition.notify()
        self._look_at_call()

    def stop(self) -> None:
        """Tell it nothing any more."""
        with self._condition:
            self._is_stopped = True
            self._condition.notify()

    def _look_at_call(self) -> None:
        call = self._call
        if call is not None and time.monotonic() - call[1] > SLOW_SECONDS:
            where = self._calls.where(self._thread)
            text = f"its {call[0]} has taken more than {SLOW_SECONDS:g} s, and it hears of nothing else until that ends"
            self._note_once(f"slow {call[0]}", f"{text}. It stands at\n{where}")

    def _note_once(self, what: str, text: str) -> None:
        if what not in self._noted:
            self._noted.add(what)
            self._note(text)

    # -- in its thread

    def _serve(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._queue or self._is_stopped)
                if self._is_stopped:
                    return
                missed, self._missed = self._missed, 0
                weight, change = self._queue.popleft()
                self._weight -= weight
            if missed:
                logger.warning(
                    "the scheduler plugin %r has missed %d changes, since it is too slow", self._name, missed
                )
            at, hook, *given = change
            for args, keywords in _calls_of(hook, self._view, f"{hook}-{at!r}", given):
                self._tell(hook, args, keywords)

    def _tell(self, hook: str, args: Sequence[Any], keywords: Mapping[str, Any]) -> None:
        accepted = self._accepted[hook]
        self._call = hook, time.monotonic()
        try:
            known = {name: value for name, value in keywords.items() if accepted is None or name in accepted}
            self._calls.result_of(self.hooks[hook], *args, **known)
        except BaseException as error:  # a plugin is not to end this thread
            logger.exception("the scheduler plugin %r has failed at %s%r", self._name, hook, tuple(args)[:3])
            self._note_once(hook, self._calls.failure(error)["text"])
        finally:
            self._call = None


def _calls_of(
    hook: str, view: Any, stimulus_id: str, given: Sequence[Any]
) -> Iterable[tuple[tuple[Any, ...], dict[str, Any]]]:
    """How a hook is called for what has happened."""
    if hook == "transition":
        key, start, finish = given
        yield (key, start or "released", finish), {"stimulus_id": stimulus_id}
    elif hook == "update_graph":
        yield (view,), {"stimulus_id": stimulus_id, **_graph(*given)}
    elif hook == "log_event":
        topics, record = given
        for topic in topics:
            yield (topic, value_of(record)), {}
    else:
        yield (view, *given), {"stimulus_id": stimulus_id}


def _graph(
    client: str, wants: Sequence[Any] | None, tasks: Sequence[Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Submitted tasks, as `SchedulerPlugin.update_graph` is given them."""
    keys = [key for key, _, _ in tasks]
    options = dict(options)
    options.pop("parent", None)
    per_key = options.pop("per_key", None) or {}
    annotations: dict[str, dict[Any, Any]] = {}
    for key in keys:
        for name, value in {**options, **per_key.get(key, {})}.items():
            annotations.setdefault(name, {})[key] = value
    return {
        "client": client,
        "keys": set(keys if wants is None else wants),
        "tasks": keys,
        "annotations": annotations,
        "priority": {key: priority for key, _, priority in tasks if priority is not None},
        "dependencies": {key: set(dependencies) for key, dependencies, _ in tasks},
    }


def _weight_of(change: Told) -> int:
    return 1 + len(change[4]) if change[1] == "update_graph" else 1


def _overridden(plugin: Any, hook: str) -> Callable[..., Any] | None:
    method: Callable[..., Any] | None = getattr(plugin, hook, None)
    return None if getattr(method, "__func__", None) is getattr(SchedulerPlugin, hook) else method


def _keywords_of(method: Callable[..., Any]) -> frozenset[str] | None:
    """The names of the keywords that a method takes; None: of all."""
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):  # it does not say
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_POSITIONAL)
