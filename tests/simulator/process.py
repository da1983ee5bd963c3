"""What all pretended processes have in common: they can stop and go on, and die."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulator.network import Link
    from tests.simulator.world import World


class Peer:
    """A process.

    Attributes
    ----------
    is_alive
        It is there.
    is_stopped
        It does nothing, since a signal has stopped it: what reaches it waits.
    link
        Its connection with the scheduler, if it has one.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.is_alive = True
        self.is_stopped = False
        self.stopped_at = 0.0
        self.link: Link | None = None
        self._waiting: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def do(self, what: Callable[..., None], *arguments: Any) -> None:
        """Something reaches it, or a timer of its own is over."""
        if self.is_stopped:
            self._waiting.append((what, arguments))
        elif self.is_alive:
            what(*arguments)

    def later(self, seconds: float, what: Callable[..., None], *arguments: Any) -> None:
        """Have it do something after a while."""
        self.world.agenda.later(seconds, self.do, what, *arguments)

    def say(self, event: Any) -> None:
        """Tell the scheduler something, if it is connected."""
        if self.link is not None:
            self.link.say(event)

    def stop(self) -> None:
        if not self.is_stopped:
            self.is_stopped = True
            self.stopped_at = self.world.agenda.now

    def go_on(self) -> None:
        self.is_stopped = False
        waiting, self._waiting = self._waiting, []
        for what, arguments in waiting:
            self.do(what, *arguments)

    def end(self) -> None:
        """The process is gone, and whatever reaches it is lost."""
        self.is_alive = self.is_stopped = False
        self._waiting.clear()

    def told(self, instruction: Any, turn: int) -> None:
        """The scheduler has said something."""
        raise NotImplementedError

    def parted(self) -> None:
        """The connection with the scheduler has ended."""
        raise NotImplementedError

    def lost_scheduler(self) -> None:
        """The scheduler has died, and another one takes its place."""
        raise NotImplementedError
