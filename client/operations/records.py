"""Metadata and events: what users leave with the scheduler for each other."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.core.subscriptions import Event, Told
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Elsewhere, Operation
from holdfast.client.operations.datasets import NO_DEFAULT
from holdfast.cluster import protocol
from holdfast.cluster.protocol.limits import MAX_RECORD_DEPTH
from holdfast.cluster.protocol.records import check_topic, is_key, record_of, topic_names, value_of
from holdfast.objectstore.errors import in_words

logger = logging.getLogger(__name__)

#: A handler that fails with each event would fill the log: it is said again after so long.
FAILURE_PAUSE_SECONDS = 10.0

# -- metadata


def set_metadata(core: Core, keys: Any, value: Any) -> Operation[None]:
    """See `Client.set_metadata`."""
    path = _path(keys)
    record = yield Elsewhere(lambda: record_of(value))
    yield Ask(core.session, protocol.requests.SET_METADATA, path=path, record=record)


def get_metadata(core: Core, keys: Any, default: Any) -> Operation[Any]:
    """See `Client.get_metadata`."""
    path = _path(keys)
    answer = yield Ask(core.session, protocol.requests.GET_METADATA, path=path)
    if answer["found"]:
        return (yield Elsewhere(lambda: value_of(answer["record"])))
    if default is NO_DEFAULT:
        missing = KeyError(path[0] if len(path) == 1 else list(path))
        missing.add_note("No metadata was set under it. get_metadata(keys, default) gives the default then.")
        raise missing
    return default


def _path(keys: Any) -> tuple[Any, ...]:
    path = tuple(keys) if isinstance(keys, (list, tuple)) else (keys,)
    if not path:
        raise ValueError("metadata is found by a key, or by a list of keys, which is empty here")
    if len(path) > MAX_RECORD_DEPTH:
        raise ValueError(f"metadata is up to {MAX_RECORD_DEPTH} keys deep, not {len(path)}")
    for key in path:
        if not is_key(key):
            raise TypeError(f"the key of metadata is a text, a number, bytes or a tuple of these, not {key!r:.100}")
    return path


# -- events


def log_event(core: Core, topics: Any, msg: Any) -> Operation[None]:
    """See `Client.log_event`."""
    names = topic_names(topics)
    record = yield Elsewhere(lambda: record_of(msg), at_once=lambda: record_of(msg))
    yield Ask(core.session, protocol.requests.LOG_EVENT, topics=names, record=record)


def get_events(core: Core, topic: str | None) -> Operation[Any]:
    """See `Client.get_events`."""
    if topic is not None:
        check_topic(topic)
    answer = yield Ask(core.session, protocol.requests.GET_EVENTS, topic=topic)
    found = yield Elsewhere(lambda: {name: tuple(map(_event, events)) for name, events in answer.items()})
    return found if topic is None else found.get(topic, ())


def _event(event: Event) -> tuple[float, Any]:
    at, record = event
    try:
        return at, value_of(record)
    except Exception as error:  # others have logged it, perhaps with what there isn't here
        return at, f"<an event that can't be unpickled here: {in_words(error)}>"


# -- subscriptions


def subscribe(core: Core, topic: str, handler: Any, on_missed: Any) -> Operation[None]:
    """See `Client.subscribe_topic`."""
    check_topic(topic)
    if not callable(handler):
        raise TypeError(f"the handler of a topic is a function of one event, not {handler!r:.100}")
    hearing = _Hearing(core, topic, handler, on_missed)
    before = core.session.subscriptions.put(topic, hearing.hear)
    try:
        yield Ask(core.session, protocol.requests.SUBSCRIBE, topic=topic)
    except BaseException:
        if before is None:
            core.session.subscriptions.drop(topic)
        else:
            core.session.subscriptions.put(topic, before)
        raise


def unsubscribe(core: Core, topic: str) -> Operation[None]:
    """See `Client.unsubscribe_topic`."""
    check_topic(topic)
    if topic not in core.session.subscriptions:
        raise ValueError(f"this client is not subscribed to the topic {topic!r}")
    core.session.subscriptions.drop(topic)
    yield Ask(core.session, protocol.requests.UNSUBSCRIBE, topic=topic)


class _Hearing:
    """Calls a handler with each event of a topic, and says when it has handled what it was told.

    The scheduler sends no more until then: so a slow handler holds up nothing but itself.
    """

    def __init__(
        self,
        core: Core,
        topic: str,
        handler: Callable[[tuple[float, Any]], Any],
        on_missed: Callable[[int], Any] | None,
    ) -> None:
        self._session = core.session
        self._callbacks = core.callbacks
        self._is_on_loop = core.driver.asynchronous
        self._topic = topic
        self._handler = handler
        self._on_missed = on_missed or self._warn
        self._handling: set[asyncio.Task[None]] = set()
        self._failures = 0  # since the last one that was logged
        self._logged = float("-inf")

    def hear(self, told: Told) -> None:
        """In any thread."""
        self._callbacks.call(self._begin, told)

    def _begin(self, told: Told) -> None:
        if not self._is_on_loop:
            self._handle(told)
            return
        handling = asyncio.ensure_future(self._handle_on_loop(told))
        self._handling.add(handling)
        handling.add_done_callback(self._handling.discard)

    def _handle(self, told: Told) -> None:
        try:
            for call, argument in self._calls(told):
                result = self._call(call, argument)
                if inspect.isawaitable(result):
                    self._call(asyncio.run, _awaited(result))
        finally:
            self._heard(told)

    async def _handle_on_loop(self, told: Told) -> None:
        try:
            for call, argument in self._calls(told):
                result = self._call(call, argument)
                if inspect.isawaitable(result):
                    try:
                        await result
                    except Exception:
                        self._failed()
        finally:
            self._heard(told)

    def _calls(self, told: Told) -> Iterable[tuple[Callable[[Any], Any], Any]]:
        if told.missed:
            yield self._on_missed, told.missed
        for event in told.events:
            if not self._is_current():
                return
            yield self._handler, _event(event)

    def _is_current(self) -> bool:
        return self._session.subscriptions.is_called(self._topic, self.hear)

    def _call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        try:
            return function(argument)
        except Exception:  # the next events are for it as well
            self._failed()

    def _failed(self) -> None:
        now = time.monotonic()
        if now - self._logged < FAILURE_PAUSE_SECONDS:
            self._failures += 1
            return
        more = f", and {self._failures:,} times before since this was said last" if self._failures else ""
        logger.exception("a handler of the topic %r failed%s", self._topic, more)
        self._failures, self._logged = 0, now

    def _heard(self, told: Told) -> None:
        if self._topic in self._session.subscriptions and self._session.ended is None:
            self._session.post(protocol.client.EVENTS_HEARD(told.topic, told.number))

    def _warn(self, missed: int) -> None:
        warnings.warn(
            f"{missed:,} events of the topic {self._topic!r} were missed: they came faster than they were handled. "
            "Handle them faster, or have the scheduler keep more (HOLDFAST_EVENTS_LOG_LENGTH)",
            RuntimeWarning,
            stacklevel=2,
        )


async def _awaited(awaitable: Any) -> Any:
    return await awaitable
