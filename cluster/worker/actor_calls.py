"""Calls of one actor that wait to be begun, in their order.

A call whose dependency can't be read anywhere is *put off*: the scheduler is told, and sends the call once more or
drops it. Until then no later call of its caller begins, and calls of other callers pass.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Any

#: ``(number, actor, caller, method, payload or None, dependencies)``, as it stands in a ``calls`` message.
Call = tuple[int, int, str, str, Any, tuple[Any, ...]]


class WaitingCalls:
    """Thread-safe.

    Attributes
    ----------
    ready : OrderedDict
        Those that may begin, by number. Other threads only look whether there are any.
    """

    def __init__(self) -> None:
        self.ready: OrderedDict[int, Call] = OrderedDict()
        self._lock = threading.Lock()
        self._put_off: dict[str, tuple[int, deque[Call]]] = {}  # by caller: a call, and those that came after it
        self._last: dict[str, int] = {}  # by caller: the last call that came. Their numbers grow

    def add(self, call: Call) -> None:
        """Add a call at the end, or where it was if it was put off.

        One that has come before is not added: a scheduler that goes on where another one has ended sends what that may
        have sent.
        """
        number, _, caller, _, _, _ = call
        with self._lock:
            awaited, later = self._put_off.get(caller, (0, None))
            if number == awaited and later is not None:
                del self._put_off[caller]
                self._go_on([call, *later])
            elif number > self._last.get(caller, 0):
                self._last[caller] = number
                if later is None:
                    self.ready[number] = call
                else:
                    later.append(call)

    def take(self) -> Call | None:
        """The next call; None if there is none."""
        if not self.ready:
            return None
        with self._lock:
            return self.ready.popitem(last=False)[1] if self.ready else None

    def put_off(self, call: Call) -> None:
        """Don't begin the call that was taken last, nor a later one of its caller, until it comes again."""
        number, _, caller, _, _, _ = call
        with self._lock:
            later = deque([other for other in self.ready.values() if other[2] == caller])
            for other in later:
                del self.ready[other[0]]
            self._put_off[caller] = (number, later)

    def drop(self, numbers: Iterable[int]) -> None:
        """Forget these, if they are here."""
        with self._lock:
            for number in numbers:
                if self.ready.pop(number, None) is None:
                    self._drop_put_off(number)

    def _drop_put_off(self, number: int) -> None:
        for caller, (awaited, later) in self._put_off.items():
            if number == awaited:
                del self._put_off[caller]
                self._go_on(later)
                return
            for call in later:
                if call[0] == number:
                    later.remove(call)
                    return

    def _go_on(self, calls: Iterable[Call]) -> None:
        """These come before all others: they have waited for longest."""
        others = list(self.ready.items())
        self.ready.clear()
        self.ready.update((call[0], call) for call in calls)
        self.ready.update(others)
