"""A scheduler that dies and comes back.

Another process of the scheduler knows what the former one has written down: that is true to the last event, or to the
one of which nothing has left. What was under way to peers is lost; what they had said, and was not handled, they say
again. Hosts join anew with what they have. Workers say which runs they have, clients which keys they hold, and they ask
again for what has no answer. `Coordination` stays: what it knows was answered has to be true afterwards.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulator.world import World


def restart(world: World, chance: random.Random) -> None:
    """Another process takes the place of the scheduler's, at once or when it has handled one event more."""
    if chance.random() < 0.5:
        world.scheduler.dies_next = True
    else:
        world.scheduler.begin_again()
