"""Node agents of this machine are started again when they die, as agents do it with their workers.

What was in the store of one that died is gone. The new one is a new host with an empty store: the scheduler has made
again what can be, and a client that asks for the rest gets an error that names it. What becomes of an agent that has
ended:

================================ ======================================================================================
it was told to close (code 0)    nothing, until the cluster is to have workers there again (`AgentKeeper.refill`)
it has left (`LEFT_EXIT_CODE`):  if the scheduler is a process of ours, another is started; if it runs elsewhere, it
it lost the scheduler            is gone, and with it the cluster
anything else                    another is started, for ever (`cluster/processes/restarts.py` says when)
================================ ======================================================================================

When a scheduler of ours has ended, and no other goes on (`scheduler_place.py`), the cluster has ended: no agent is
started any more.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from holdfast.cluster.comm.loops import LoopThread
from holdfast.cluster.deploy.plan import NodePlan
from holdfast.cluster.deploy.scheduler_place import SchedulerPlace
from holdfast.cluster.processes.child import LEFT_EXIT_CODE
from holdfast.cluster.processes.parent import ChildProcess, describe_exit
from holdfast.cluster.processes.restarts import Restarts
from holdfast.objectstore.errors import HoldfastError

logger = logging.getLogger(__name__)

READY_TIMEOUT_SECONDS = 60.0
#: How long one that has failed, or takes too long, may take to end.
END_SECONDS = 10.0


class AgentPlace:
    """One place for a node agent.

    Attributes
    ----------
    child : ChildProcess or None
        That fills it now. The keeper's, while there is one.
    info : dict or None
        What the agent said when it was ready; None while there is no agent that is.
    restarts : Restarts
        What became of those that were here before.
    ended : str
        How the last agent ended, in words.
    is_over : bool
        There is no agent, and none will come by itself.
    """

    def __init__(self, name: str, plan: NodePlan) -> None:
        self.name = name
        self.plan = plan
        self.child: ChildProcess | None = None
        self.info: dict[str, Any] | None = None
        self.restarts = Restarts()
        self.ended = ""
        self.is_over = False

    def describe(self) -> dict[str, Any]:
        """For people: the host's ``name``, and what `Restarts.describe` says."""
        return {"name": self.plan.name or socket.gethostname(), **self.restarts.describe()}


class AgentKeeper:
    """Watches agents that run, in a thread, and starts others in the places of those that die.

    Parameters
    ----------
    places : sequence of AgentPlace
        Each with an agent that is ready.
    scheduler : SchedulerPlace or None
        Has the scheduler, if it is one of ours.
    fork : callable
        ``fork(place)`` starts an agent for a place.
    on_change : callable
        Called in the keeper's thread when it is otherwise with a place than before.

    Attributes
    ----------
    over_fd : int
        There is something to read from this descriptor once nothing is left to watch.
    code : int
        Then: 0 if what had to run here was told to close, 1 if it failed.
    """

    def __init__(
        self,
        places: Sequence[AgentPlace],
        scheduler: SchedulerPlace | None,
        fork: Callable[[AgentPlace], Awaitable[ChildProcess]],
        on_change: Callable[[], object],
    ) -> None:
        self.over_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self.code = 0
        self._places = places
        self._scheduler = scheduler
        self._fork = fork
        self._on_change = on_change
        self._keepers: list[asyncio.Future[int]] = []
        self._thread = LoopThread("holdfast-agent-keeper")
        self._watching = asyncio.run_coroutine_threadsafe(self._watch(), self._thread.loop)

    @property
    def is_current(self) -> bool:
        """Whether the caller runs in the keeper's thread."""
        return self._thread.is_current

    def close(self) -> None:
        """Start nothing any more. What runs still runs, and is the caller's. Twice is no error."""
        self._thread.close()
        if self.over_fd >= 0:
            os.close(self.over_fd)
            self.over_fd = -1

    def refill(self, place: AgentPlace) -> None:
        """Start an agent in a place whose last one was told to close; nothing, if the place is not so, or of no use."""
        self._thread.loop.call_soon_threadsafe(self._refill, place)

    def _refill(self, place: AgentPlace) -> None:
        if place.is_over and (self._scheduler is None or self._scheduler.ended is None):
            place.is_over = False
            self._keepers.append(asyncio.ensure_future(self._keep(place, self._begin)))

    async def _watch(self) -> None:
        keepers = self._keepers = [asyncio.ensure_future(self._keep(place, self._first)) for place in self._places]
        try:
            if self._scheduler is not None:
                code = await self._scheduler.keep(self._changed)
            else:
                code = max(await asyncio.gather(*keepers))
            self.code = 0 if code == 0 else 1
        finally:
            for keeper in keepers:
                keeper.cancel()
        os.eventfd_write(self.over_fd, 1)

    async def _keep(self, place: AgentPlace, first: Callable[[AgentPlace], Awaitable[tuple[int, str]]]) -> int:
        """Keep an agent in its place; ``first(place)`` awaits the end of the first. Returns how the last one ended."""
        code, reason = await first(place)
        while not self._is_last_word(code):
            place.info, place.ended = None, reason
            pause = place.restarts.ended(reason)
            logger.warning("%s %s: starting it again in %.2g s", place.name, reason, pause)
            self._changed()
            await asyncio.sleep(pause)
            code, reason = await self._begin(place)
        logger.info("%s %s", place.name, reason)
        place.info, place.ended = None, reason
        place.is_over = True
        self._changed()
        return code

    def _changed(self) -> None:
        try:
            self._on_change()
        except OSError:
            logger.exception("can't tell what becomes of the processes")

    def _is_last_word(self, code: int) -> bool:
        return code == 0 or (code == LEFT_EXIT_CODE and self._scheduler is None)

    async def _first(self, place: AgentPlace) -> tuple[int, str]:
        """Wait for the end of the agent that this keeper was given: its exit code, and how it ended, in words."""
        assert place.child is not None
        code = await place.child.exited()
        return code, _how_it_ended(code)

    async def _begin(self, place: AgentPlace) -> tuple[int, str]:
        place.restarts.begin()
        self._changed()
        return await self._run_once(place)

    async def _run_once(self, place: AgentPlace) -> tuple[int, str]:
        """Start an agent and wait for its end: its exit code, and how it ended, in words."""
        try:
            child = place.child = await self._fork(place)
        except Exception as error:
            # No process, memory or descriptor is left to run it with. Whatever else it is, the next one may start.
            if not isinstance(error, OSError | HoldfastError):
                logger.exception("starting %s failed", place.name)
            return 1, f"could not be started: {error}"
        try:
            place.info = await child.ready(READY_TIMEOUT_SECONDS)
        except HoldfastError as error:
            code = await _end_of(child)
            return LEFT_EXIT_CODE if code == LEFT_EXIT_CODE else 1, str(error).removeprefix(f"{place.name} ")
        place.restarts.ready()
        logger.warning("%s runs again (pid %d)", place.name, child.pid)
        self._changed()
        code = await child.exited()
        return code, _how_it_ended(code)


def _how_it_ended(code: int) -> str:
    return "has lost the scheduler" if code == LEFT_EXIT_CODE else describe_exit(code)


async def _end_of(child: ChildProcess) -> int:
    """The exit code of an agent that could not start. It has more to take down than the word that it sent before."""
    child.terminate()
    try:
        async with asyncio.timeout(END_SECONDS):
            return await child.exited()
    except TimeoutError:
        child.kill()
        return await child.exited()
