"""The connections of peers with the scheduler.

What is said in one direction of one connection arrives in order; between connections any order may come about. A
connection that is *cut* keeps what is said, and brings it once it is mended. One that is not mended in time has ended
at both ends, and what was under way is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tests.simulator.clock import stream

if TYPE_CHECKING:
    from tests.simulator.process import Peer
    from tests.simulator.world import World

#: How long a cut connection is waited for, as in `cluster/comm/listening.py`.
GRACE_SECONDS = {"client": 30.0, "node": 15.0, "worker": 15.0}


class Closed(NamedTuple):
    """The last thing that comes from a process whose sockets its kernel has closed."""

    reason: str


class Link:
    """The connection of a peer with the scheduler.

    Parameters
    ----------
    world
        Where time passes.
    name
        Of the peer.
    role
        Its kind.
    peer
        The process at the other end.

    Attributes
    ----------
    turn
        The last turn of a client that the scheduler has begun to read (`client.core.key_table`).
    is_cut
        Nothing arrives until it is mended.
    is_over
        Both ends have parted.
    """

    def __init__(self, world: World, name: str, role: str, peer: Peer) -> None:
        self.name = name
        self.role = role
        self.peer = peer
        self.turn = 0
        self.is_cut = False
        self.is_over = False
        self._world = world
        self._agenda = world.agenda
        self._random = stream(world.seed, f"link {name} {world.count(name)}").random
        self._latency, self._jitter = world.profile.latency, world.profile.jitter
        self._up_at = self._down_at = 0.0
        self._held_up: list[tuple[Any, int]] = []
        self._held_down: list[tuple[Any, int]] = []
        self._cuts = 0

    def say(self, event: Any, turn: int = 0) -> None:
        """The peer says something to the scheduler."""
        if self.is_over:
            return
        time = self._agenda.now + self._latency + self._jitter * self._random() ** 4
        self._up_at = time = max(time, self._up_at)
        self._agenda.at(time, self._up, event, turn)

    def tell(self, instruction: Any, turn: int | None = None) -> None:
        """The scheduler says something to the peer."""
        if self.is_over:
            return
        time = self._agenda.now + self._latency + self._jitter * self._random() ** 4
        self._down_at = time = max(time, self._down_at)
        self._agenda.at(time, self._down, instruction, self.turn if turn is None else turn)

    def _up(self, event: Any, turn: int) -> None:
        if self.is_cut:
            self._held_up.append((event, turn))
        elif not self.is_over:
            if turn:
                self.turn = turn
            self._world.scheduler.heard(self, event)

    def _down(self, instruction: Any, turn: int) -> None:
        if self.is_cut:
            self._held_down.append((instruction, turn))
        elif not self.is_over:
            self.peer.do(self.peer.told, instruction, turn)

    def cut(self) -> None:
        """Nothing arrives any more, for a while."""
        if self.is_cut or self.is_over:
            return
        self.is_cut = True
        self._cuts += 1
        self._world.scheduler.is_cut_off(self, True)
        self._agenda.later(GRACE_SECONDS[self.role], self._waited_enough, self._cuts)

    def mend(self) -> None:
        """It goes on, with nothing lost."""
        if not self.is_cut or self.is_over:
            return
        self.is_cut = False
        self._world.scheduler.is_cut_off(self, False)
        up, self._held_up = self._held_up, []
        down, self._held_down = self._held_down, []
        for event, turn in up:
            self._up(event, turn)
        for instruction, turn in down:
            self._down(instruction, turn)

    def _waited_enough(self, cut: int) -> None:
        if self.is_cut and cut == self._cuts and not self.is_over:
            self.end("it was cut off for too long", may_live=True)

    def end(self, reason: str, *, may_live: bool = False) -> None:
        """The scheduler parts with the peer, which notices as soon as anything reaches it."""
        if self.is_over:
            return
        self.is_over = True
        self._held_up, self._held_down = [], []
        self._world.scheduler.left(self, reason, may_live=may_live)
        self._agenda.later(self._latency, self.peer.do, self.peer.parted)
