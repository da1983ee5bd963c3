"""A scheduler that dies and comes back: the one place to say how.

The fault ``scheduler_dies`` is drawn as soon as `restart` is set. It is to do what a new process of the scheduler does:

1. the connections of all peers end, with what was under way in both directions (`Scheduler.peers`, ``Link.is_over``),
   and what the state machine had not written down is lost;
2. `Scheduler.state` becomes a `WatchedState` that is recovered from what the former one had written. `Coordination`
   stays: what it knows was answered has to be true afterwards;
3. hosts connect anew (`Scheduler.node_connects`) and say what they have; workers say which runs they have, and which
   outcomes nobody has acknowledged; clients say which keys they hold, and ask again for what has no answer
   (``Client.asked``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulator.world import World

#: ``restart(world)``: another process takes the place of the scheduler's, at once. None: nothing can bring it back.
restart: Callable[[World], None] | None = None
