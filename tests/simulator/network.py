"""The connections of peers with the scheduler.

What is said in one direction of one connection arrives in order; between connections any order may come about. A
connection that is *cut* keeps what is said, and brings it once it is mended. One that is not mended in time has ended
at both ends, and what was under way is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
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
    is_lost
        The scheduler has died, and the peer looks for another one. What it says waits.
    """

    def __init__(self, world: World, name: str, role: str, peer: Peer) -> None:
        self.name = name
        self.role = role
        self.peer = peer
        self.turn = 0
        self.is_cut = False
        self.is_over = False
        self.is_lost = False
        self._world = world
        self._agenda = world.agenda
        self._random = stream(world.seed, f"link {name} {world.count(name)}").random
        self._latency, self._jitter = world.profile.latency, world.profile.jitter
        self._up_at = self._down_at = 0.0
        self._unheard: deque[tuple[Any, int]] = deque()  # what the peer has said, and the scheduler has not handled
        self._arrived = 0  # of that
        self._held_down: list[tuple[Any, int]] = []
        self._cuts = 0
        self._sockets = 0  # how many there were before: what was under way by these never arrives

    def say(self, event: Any, turn: int = 0) -> None:
        """The peer says something to the scheduler."""
        if not self.is_over:
            self._unheard.append((event, turn))
            if not self.is_lost:
                self._send()

    def _send(self) -> None:
        time = self._agenda.now + self._latency + self._jitter * self._random() ** 4
        self._up_at = time = max(time, self._up_at)
        self._agenda.at(time, self._up, self._sockets)

    def tell(self, instruction: Any, turn: int | None = None) -> None:
        """The scheduler says something to the peer."""
        if self.is_over or self.is_lost:
            return
        time = self._agenda.now + self._latency + self._jitter * self._random() ** 4
        self._down_at = time = max(time, self._down_at)
        self._agenda.at(time, self._down, instruction, self.turn if turn is None else turn, self._sockets)

    def _up(self, sockets: int) -> None:
        if sockets == self._sockets:
            self._arrived += 1
            self.hear()

    def hear(self) -> None:
        """Have the scheduler handle what has arrived, if it listens."""
        while self._arrived and not (self.is_cut or self.is_over) and self._world.scheduler.listens_to(self):
            if self._world.scheduler.holds_back(self, self._unheard[0][0]):
                self._agenda.later(0.001, self.hear)  # until what the peer has said before is done
                return
            self._arrived -= 1
            event, turn = self._unheard.popleft()
            if turn:
                self.turn = turn
            self._world.scheduler.heard(self, event)

    def unhear(self, event: Any, turn: int) -> None:
        """What the scheduler has put off when it died counts as not heard."""
        self._unheard.appendleft((event, turn))

    def lose(self) -> None:
        """The scheduler has died."""
        self.is_lost = True
        self._sockets += 1
        self._arrived = 0
        self._held_down = []

    def rejoin(self, is_said_again: Callable[[Any], bool] = lambda event: True) -> None:
        """Another scheduler has taken the peer: all of this is said again that none has handled."""
        self.is_lost = False
        self._unheard = deque([said for said in self._unheard if is_said_again(said[0])])
        for _ in self._unheard:
            self._send()

    def _down(self, instruction: Any, turn: int, sockets: int) -> None:
        if sockets != self._sockets:
            return
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
        down, self._held_down = self._held_down, []
        self.hear()
        for instruction, turn in down:
            self._down(instruction, turn, self._sockets)

    def _waited_enough(self, cut: int) -> None:
        if self.is_cut and cut == self._cuts and not self.is_over:
            self.end("it was cut off for too long", may_live=True)

    def end(self, reason: str, *, may_live: bool = False) -> None:
        """The scheduler parts with the peer, which notices as soon as anything reaches it."""
        if self.is_over:
            return
        self.is_over = True
        self._unheard.clear()
        self._arrived = 0
        self._held_down = []
        self._world.scheduler.left(self, reason, may_live=may_live)
        self._agenda.later(self._latency, self.peer.do, self.peer.parted)
