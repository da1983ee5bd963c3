"""The scheduler's answers to requests, and what is called when they are there."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from holdfast.cluster import protocol
from holdfast.cluster.errors import error_named
from holdfast.cluster.protocol import requests
from holdfast.cluster.protocol.answers import merged


class Answer:
    """The answer of the scheduler to one request.

    Parameters
    ----------
    wake
        Called when it is there, in any thread.

    Attributes
    ----------
    gate : threading.Lock
        Held until the answer is there.
    """

    __slots__ = ("_arguments", "_asked", "_began", "_fragments", "_said", "_wake", "gate")

    def __init__(self, wake: Callable[[], None] | None = None) -> None:
        self._wake = wake
        self._asked: tuple[int, str] | None = None
        self._arguments: dict[str, Any] = {}
        self._began = 0.0
        self._fragments: list[Any] = []
        self._said: tuple[bool, Any] | None = None
        self.gate = threading.Lock()
        self.gate.acquire()

    def asked(self, number: int, operation: str, arguments: dict[str, Any]) -> tuple[Any, ...]:
        """The message that asks for it."""
        self._asked, self._arguments, self._began = (number, operation), arguments, time.monotonic()
        return protocol.client.REQUEST(number, operation, arguments)

    def asked_again(self) -> tuple[Any, ...] | None:
        """The message that asks another scheduler for it: which waits no longer than what is left of the time."""
        if self._asked is None or self._said is not None:
            return None
        if not self._stands_alone:
            self._fragments.clear()
        arguments = self._arguments
        if arguments.get("timeout") is not None:
            left = arguments["timeout"] - (time.monotonic() - self._began)
            arguments = {**arguments, "timeout": max(0.0, left)}
        return protocol.client.REQUEST(*self._asked, arguments)

    def begin(self, fragment: Any) -> None:
        """The scheduler has said the beginning of it, or a further part."""
        if self._said is None:
            # What came first counts: a scheduler knows nothing of what an earlier one has said.
            self._fragments.insert(0 if self._stands_alone else len(self._fragments), fragment)

    @property
    def _stands_alone(self) -> bool:
        """Whether each fragment is of use without the others, as what one of several has answered."""
        return self._asked is not None and self._asked[1] == requests.ERRAND.operation

    def keys_given(self) -> list[Any]:
        """The keys in what has come of it by now: its client holds them when all of it is there."""
        if not self._stands_alone:
            return []
        return [outcome["key"] for part in self._fragments for outcome in part.values() if "key" in outcome]

    def give(self, ok: bool, value: Any) -> None:
        """The scheduler has said this. To be told twice is no harm."""
        self._said = self._said or (ok, value)
        with contextlib.suppress(RuntimeError):  # it was given before
            self.gate.release()
        if self._wake is not None:
            self._wake()

    def wake_by(self, wake: Callable[[], None]) -> bool:
        """Call this when it is there, from now on. Whether it is there already."""
        self._wake = wake
        return self._said is not None

    def fail(self, reason: Exception) -> None:
        """The scheduler will say nothing any more."""
        self.give(False, reason)

    def value(self) -> Any:
        """The answer. Raises what it is if it's an error."""
        assert self._said is not None
        ok, value = self._said
        if ok:
            return merged([*self._fragments, value]) if self._fragments else value
        raise type(value)(*value.args) if isinstance(value, Exception) else error_named(*value)
