"""The plugins of a process, from when each is set up until it is taken down.

Plugins are set up one after the other, in the order in which they came. One of a name that is there is taken down
first. What a plugin does in `setup` and `teardown` is called in a thread of its own (`Calls.within`), and is waited for
only so long. So a plugin that hangs costs its worker that time, and no more:

===========================  ==========================================================================================
`setup` …                    … then
===========================  ==========================================================================================
returns                      the plugin is in the table
raises                       it is not, and the client is told what was raised
takes longer than it may     it is not, and the client is told where it stands. If it returns later, the plugin is in
                             the table from then on, unless it was replaced or unregistered meanwhile: then it is taken
                             down
===========================  ==========================================================================================
"""

from __future__ import annotations

import abc
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from holdfast.cluster.errands.calls import Calls, TooLate
from holdfast.cluster.plugins.base import SETUP_SECONDS

logger = logging.getLogger(__name__)

#: How long the end of one may take.
TEARDOWN_SECONDS = 60.0
#: How long the ends of all may take together when the process ends.
CLOSE_SECONDS = 2.5

#: How a plugin is sent: its name, its pickle, and what the references in that stand for.
Entry = tuple[str, bytes | memoryview, Any]


class PluginTable(abc.ABC):
    """Keeps plugins.

    Parameters
    ----------
    what
        What they are, for people: "the plugin".
    table
        Where they are, by name.
    calls
        Calls what may be a coroutine function.
    values_of
        ``values_of(dependencies)``: what the references in a plugin's pickle stand for.
    """

    def __init__(
        self,
        what: str,
        table: dict[str, Any],
        calls: Calls,
        values_of: Callable[[Any], Mapping[Any, Any] | None],
    ) -> None:
        self.table = table
        self._what = what
        self._calls = calls
        self._values_of = values_of
        self._changing = threading.Lock()  # held while one is set up or taken down, so that these come in turn
        self._said: dict[str, bytes] = {}  # by name: what tells the pickle of each from others
        self._late: dict[str, Any] = {}  # those whose `setup` goes on, and is not waited for any longer

    @abc.abstractmethod
    def _setup_of(self, plugin: Any) -> Callable[[], Any] | None:
        """What sets a plugin up; None: it has nothing of the kind."""

    @abc.abstractmethod
    def _teardown_of(self, plugin: Any) -> Callable[[], Any] | None:
        """What takes a plugin down; None: it has nothing of the kind."""

    @abc.abstractmethod
    def _changed(self) -> None:
        """The table has changed."""

    @property
    def is_setting_up(self) -> bool:
        """Whether an errand sets plugins up."""
        return self._changing.locked()

    # -- errands

    def set_up(self, plugins: Iterable[Entry], first: bool = False) -> dict[str, Any]:
        """Set up plugins. Returns those that have failed, and how.

        Parameters
        ----------
        first
            Whether the scheduler has just heard of this process: then those that are here already stay as they are.
        """
        failed = []
        for name, call, dependencies in plugins:
            said = hashlib.blake2b(call, digest_size=16).digest()
            with self._changing:
                if first and self._said.get(name) == said:
                    continue
                try:
                    plugin = self._calls.load(call, self._values_of(dependencies))
                    self._take_down(name)
                    self._said[name] = said
                    self._set_up(name, plugin)
                except BaseException as error:  # whatever a user's code raises
                    if name not in self._late:
                        self._said.pop(name, None)
                    failed.append(self._failed(name, error, "set up"))
        return {"failed": failed}

    def take_down(self, name: str) -> dict[str, Any]:
        """Take a plugin down, if it is there. Returns how it has failed, if it has."""
        with self._changing:
            try:
                self._take_down(name)
            except BaseException as error:  # as above
                return {"failed": [self._failed(name, error, "taken down")]}
        return {"failed": []}

    def close(self) -> None:
        """Take all down, the last one first. What takes too long is left to the end of the process."""
        end = time.monotonic() + CLOSE_SECONDS
        for name in reversed(list(self.table)):
            try:
                self._take_down(name, max(0.1, end - time.monotonic()))
            except BaseException as error:  # as above
                self._failed(name, error, "taken down")

    # -- one of them

    def _set_up(self, name: str, plugin: Any) -> None:
        function = self._setup_of(plugin)
        if function is not None:
            seconds = _setup_seconds(plugin)
            try:
                self._calls.within(seconds, function, lambda error: self._ended_late(name, plugin, error))
            except TooLate as late:
                self._late[name] = plugin
                text = f"its setup is not waited for any longer, as its setup_timeout says: it {late}"
                raise TimeoutError(text) from None
        self._add(name, plugin)

    def _add(self, name: str, plugin: Any) -> None:
        self.table[name] = plugin
        self._changed()

    def _ended_late(self, name: str, plugin: Any, error: BaseException | None) -> None:
        """The `setup` of a plugin has ended that was not waited for any longer."""
        with self._changing:
            if self._late.get(name) is not plugin:  # it was replaced or unregistered
                if error is None:
                    self._end(plugin, TEARDOWN_SECONDS)
                return
            del self._late[name]
            if error is not None:
                self._failed(name, error, "set up")
                return
            self._add(name, plugin)
            logger.warning("%s %r was set up after all, later than its setup_timeout says", self._what, name)

    def _take_down(self, name: str, seconds: float = TEARDOWN_SECONDS) -> None:
        self._late.pop(name, None)
        self._said.pop(name, None)
        plugin = self.table.pop(name, None)
        if plugin is not None:
            self._changed()
            self._end(plugin, seconds)

    def _end(self, plugin: Any, seconds: float) -> None:
        function = self._teardown_of(plugin)
        if function is not None:
            try:
                self._calls.within(seconds, function)
            except TooLate as late:
                raise TimeoutError(f"its teardown is not waited for any longer: it {late}") from None

    def _failed(self, name: str, error: BaseException, what: str) -> tuple[str, Any, str]:
        failure = self._calls.failure(error)
        logger.error("%s %r can't be %s:\n%s", self._what, name, what, failure["text"])
        return name, failure["raised"], failure["text"]


def _setup_seconds(plugin: Any) -> float | None:
    """How long the `setup` of a plugin is waited for; None: for ever."""
    seconds = getattr(plugin, "setup_timeout", SETUP_SECONDS)
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= threading.TIMEOUT_MAX:
        raise ValueError(f"the setup_timeout of a plugin is a number of seconds above 0, or None, not {seconds!r:.100}")
    return float(seconds)
