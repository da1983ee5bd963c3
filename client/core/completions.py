"""Which of many states become ready, in the order in which they do: what `as_completed` hears of."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from holdfast.client.core.key_state import KeyState


class Completions:
    """Hears of states that become ready, of any number of key tables.

    `KeyTable.hear` enters it with states. Each of them comes out of ``ready`` once for each time that it was entered.

    Attributes
    ----------
    ready : deque of KeyState
        Those that are ready, and that nothing has taken yet.
    wakes : list of callable
        Of those that wait for one to be ready. They are called under a table's lock, so they must not wait.
    """

    __slots__ = ("ready", "wakes")

    def __init__(self) -> None:
        self.ready: deque[KeyState] = deque()
        self.wakes: list[Callable[[], None]] = []

    def notify(self, state: KeyState) -> bool:
        """A state is ready. It wakes what waits by itself, so no reader is to be woken for it."""
        # In this order, as one that waits enters its wake-up before it looks.
        self.ready.append(state)
        for wake in tuple(self.wakes):
            wake()
        return False
