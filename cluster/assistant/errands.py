"""What the assistant does: the handler of each errand (`cluster/protocol/errands.py`)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from holdfast.cluster.assistant.plugins import SchedulerPlugins
from holdfast.cluster.assistant.view import SchedulerView
from holdfast.cluster.errands.calls import Called, Calls
from holdfast.cluster.errands.own_client import OwnClient
from holdfast.cluster.errands.threads import Handlers, Stored
from holdfast.cluster.protocol.assistant import EVENT_LOGGED, LISTEN
from holdfast.cluster.protocol.errands import (
    ASSISTANT,
    ASSISTANT_RESULT_NBYTES,
    RUN_ON_SCHEDULER,
    SET_UP_SCHEDULER_PLUGINS,
    TAKE_DOWN_SCHEDULER_PLUGIN,
)
from holdfast.cluster.protocol.limits import ERROR_TEXT_LENGTH
from holdfast.cluster.protocol.records import record_of, topic_names
from holdfast.objectstore import Encoded, decode, encode

logger = logging.getLogger(__name__)


class AssistantErrands:
    """Does the errands of an assistant.

    Parameters
    ----------
    address
        The scheduler's.
    token
        The cluster's.
    send
        Sends the scheduler a message, in any thread.
    """

    def __init__(self, address: str, token: bytes, send: Callable[[tuple[Any, ...]], None]) -> None:
        self._client = OwnClient(address, token, "the scheduler's assistant")
        self._send = send
        self.view = SchedulerView(address, self._client, self._log_event)
        self.calls = Calls(
            "the assistant of the scheduler",
            {"dask_scheduler": self.view},
            encode=encode,
            store=_refuse,
            inside=contextlib.nullcontext,
            name="holdfast-errand-assistant",
            inline_nbytes=ASSISTANT_RESULT_NBYTES,
        )
        self.plugins = SchedulerPlugins(
            self.view, self.calls, self._values, listen=lambda hooks: send(LISTEN(hooks)), note=self._note
        )

    def handlers(self) -> Handlers:
        """What is done about each."""
        return {
            RUN_ON_SCHEDULER: self._run,
            SET_UP_SCHEDULER_PLUGINS: self.plugins.set_up,
            TAKE_DOWN_SCHEDULER_PLUGIN: self.plugins.take_down,
        }

    def close(self) -> None:
        """Take the plugins down, and end what runs."""
        self.plugins.close()
        self.calls.close()

    def _run(self, call: bytes | memoryview, dependencies: Any = (), waits: bool = True) -> Called:
        return self.calls.call(call, self._values(dependencies), waits=waits)

    def _log_event(self, topic: Any, msg: Any) -> None:
        self._send(EVENT_LOGGED(topic_names(topic), record_of(msg)))

    def _note(self, plugin: str, text: str) -> None:
        """Tell those that listen to the topic of plugins that one has failed."""
        logger.warning("the scheduler plugin %r: %s", plugin, text)
        what = {"action": "plugin-failed", "plugin": plugin, "worker": ASSISTANT, "text": text[:ERROR_TEXT_LENGTH]}
        self._log_event(("plugins", "all", ASSISTANT), what)

    def _values(self, dependencies: Any) -> Mapping[Any, Any] | None:
        return _Values(dependencies, self._client) if dependencies else None


class _Values(Mapping[Any, Any]):
    """Large data among the arguments of a function, which lies in stores."""

    def __init__(self, dependencies: Any, client: Callable[[], Any]) -> None:
        self._entries = {key: (object_id, inline, nodes) for key, object_id, inline, nodes in dependencies}
        self._client = client

    def __getitem__(self, key: Any) -> Any:
        object_id, inline, nodes = self._entries[key]
        from holdfast.client.stores.location import Location  # as in `OwnClient`

        location = Location(object_id, 0, inline, tuple(nodes))
        return self._client()._core.stores.read(location, writable=True) if inline is None else decode(inline)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _refuse(encoded: Encoded) -> Stored:
    raise ValueError(
        f"the result takes {encoded.nbytes:,} bytes, and the scheduler passes on {ASSISTANT_RESULT_NBYTES:,} at most: "
        "scatter it with get_client(), and publish the future"
    )
