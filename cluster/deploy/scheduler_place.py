"""The place of a scheduler of ours: another one is started there when it has died, and goes on from its journal.

It gets the same socket, which is never closed meanwhile: who connects waits a moment for the next scheduler to answer,
and no other process can take the port. What becomes of a scheduler that has ended:

=================================================  ==================================================================
it was told to close (code 0)                      nothing: the cluster has ended
it has no journal, or nobody waits for it          nothing: the cluster ends
(`HOLDFAST_SCHEDULER_TIMEOUT` is 0)
it could not start again for as long as peers      it is given up, and the cluster ends; the journal stays
wait for it, or has died `MOST_DEATHS` times
without having run well in between
anything else                                      another is started: at once if it was ready, else after a pause
                                                   (`cluster/processes/restarts.py`)
=================================================  ==================================================================
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

from holdfast.cluster.processes.parent import ChildProcess, describe_exit
from holdfast.cluster.processes.restarts import Restarts
from holdfast.objectstore.errors import HoldfastError

logger = logging.getLogger(__name__)

#: One that dies so often, each time before it has run well, will do so again.
MOST_DEATHS = 10
#: One that was ready for so long has run well.
RUN_WELL_SECONDS = 10.0
#: How long one that could not start may take to end.
END_SECONDS = 5.0


class SchedulerPlace:
    """Has a scheduler, and another one when it has died.

    Parameters
    ----------
    child
        The first one.
    sock
        On which schedulers listen. The place owns it from here on.
    fork
        ``fork(sock)`` starts another one. None: there is no journal to go on from.
    timeout_seconds
        How long peers wait for a scheduler.

    Attributes
    ----------
    child : ChildProcess
        The scheduler, or the last one.
    restarts : Restarts
        What became of those before.
    ended : str or None
        How the last one has ended, in words, if there will be no other.
    was_given_up : bool
        Whether another one could go on from the journal.
    """

    def __init__(
        self,
        child: ChildProcess,
        sock: socket.socket,
        fork: Callable[[socket.socket], Awaitable[ChildProcess]] | None,
        timeout_seconds: float,
    ) -> None:
        self.child = child
        self.restarts = Restarts(tasks_may_kill=True)
        self.ended: str | None = None
        self.was_given_up = False
        self._sock = sock
        self._fork = fork if timeout_seconds > 0 else None
        self._timeout_seconds = timeout_seconds
        self._was_ready = time.monotonic()
        self._deaths = 0  # since one has run well
        if self._fork is None:
            self.close()

    def close(self) -> None:
        """Start no other scheduler. Twice is no error."""
        self._fork = None
        self._sock.close()

    def is_ready(self) -> None:
        """The scheduler is ready."""
        self.restarts.ready()
        self._was_ready = time.monotonic()

    def describe(self) -> dict[str, Any]:
        """For people."""
        return {"name": self.child.name, **self.restarts.describe()}

    async def keep(self, on_change: Callable[[], None]) -> int:
        """Start schedulers until there is none and will be none. Returns how the last one has ended."""
        code = await self.child.exited()
        reason = describe_exit(code)
        while code != 0 and self._goes_on(reason):
            pause = self.restarts.ended(reason)
            logger.warning("%s %s: another one goes on in %.2g s", self.child.name, reason, pause)
            on_change()
            await asyncio.sleep(pause)
            self.restarts.begin()
            code, reason = await self._run_once(on_change)
        self.close()
        self.ended = f"{self.child.name} (pid {self.child.pid}) {reason}"
        if self.was_given_up:
            self.ended += f"; it is given up after {self._deaths} deaths. Its journal stays"
        logger.log(logging.INFO if code == 0 else logging.ERROR, "%s", self.ended)
        return code

    def _goes_on(self, reason: str) -> bool:
        if self._fork is None:
            return False
        if self.restarts.state == "running" and time.monotonic() - self._was_ready >= RUN_WELL_SECONDS:
            self._deaths = 0
        if self.restarts.state == "running":
            self._was_ready = time.monotonic()  # until now
        self._deaths += 1
        self.was_given_up = self._deaths >= MOST_DEATHS or self._left() <= 0
        return not self.was_given_up

    def _left(self) -> float:
        """For how many seconds peers wait for a scheduler still."""
        return self._was_ready + self._timeout_seconds - time.monotonic()

    async def _run_once(self, on_change: Callable[[], None]) -> tuple[int, str]:
        """Start a scheduler and wait for its end: its exit code, and how it ended, in words."""
        assert self._fork is not None
        try:
            child = await self._fork(self._sock)
        except Exception as error:  # no process, memory or descriptor is left to run it with
            if not isinstance(error, OSError | HoldfastError):
                logger.exception("starting %s failed", self.child.name)
            return 1, f"could not be started: {error}"
        self.child = child
        try:
            await child.ready(max(END_SECONDS, self._left()))
        except HoldfastError as error:
            child.kill()
            await child.exited()
            return 1, str(error).removeprefix(f"{child.name} ")
        self.is_ready()
        logger.warning("%s runs again (pid %d)", child.name, child.pid)
        on_change()
        code = await child.exited()
        return code, describe_exit(code)
