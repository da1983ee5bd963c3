"""The scheduler's answers to requests, and what is called when they are there."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from holdfast.cluster.errors import error_named
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

    __slots__ = ("_fragments", "_said", "_wake", "gate")

    def __init__(self, wake: Callable[[], None] | None = None) -> None:
        self._wake = wake
        self._fragments: list[Any] = []
        self._said: tuple[bool, Any] | None = None
        self.gate = threading.Lock()
        self.gate.acquire()

    def begin(self, fragment: Any) -> None:
        """The scheduler has said the beginning of it, or a further part."""
        self._fragments.append(fragment)

    def give(self, ok: bool, value: Any) -> None:
        """The scheduler has said this. To be told twice is no harm."""
        self._said = self._said or (ok, value)
        with contextlib.suppress(RuntimeError):  # it was given before
            self.gate.release()
        if self._wake is not None:
            self._wake()

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
