"""How long a scheduler that goes on where another one has ended waits for those that it had.

Awaited are the hosts of the journal, and the workers that these keep (`machine/recovery.py`). When all are back, or
time is over, the machine goes on (`events.Recovered`). Until then clients are not heard: what they say waits in their
inboxes.

A host at whose port no process listens any more has no agent that could come back, as after the head with all its
processes was killed. So it is not waited for.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from holdfast.cluster.clock import Alarm, Rounds
from holdfast.cluster.comm.addresses import parse_address
from holdfast.cluster.scheduler.machine.machine import SchedulerState

logger = logging.getLogger(__name__)

#: How long they are waited for.
RECOVERY_SECONDS = 10.0
#: How often it is tried whether the agents of hosts that are missing live, and how often none may be there.
PROBE_SECONDS = 1.0
MOST_REFUSALS = 2
#: So many of those that are not back are named in the log.
MISSING_SHOWN = 20


class ComingBack:
    """Waits for hosts and workers. Used in the thread of the scheduler's loop.

    Parameters
    ----------
    state
        The machine that is being brought back.
    seconds
        How long they are waited for.
    done
        Called once, when all are back or time is over.

    Attributes
    ----------
    is_over : bool
        Whether that was called.
    """

    def __init__(self, state: SchedulerState, seconds: float, done: Callable[[], None]) -> None:
        self.is_over = False
        self._state = state
        self._seconds = seconds
        self._done = done
        self._alarm: Alarm | None = None
        self._looks = False
        self._refusals: Counter[str] = Counter()  # how often nobody was there, by the address of a host
        self._probing: Alarm | None = None
        self._probe: asyncio.Task[None] | None = None

    def start(self, rounds: Rounds) -> None:
        """Begin to wait."""
        self._loop = asyncio.get_running_loop()
        self._rounds = rounds
        self._alarm = rounds.call_later(self._seconds, self._time_over)
        self._probing = rounds.call_later(PROBE_SECONDS, self._begin_to_probe)
        self._look()

    def look(self) -> None:
        """One has come back: see soon whether all are."""
        if not self._looks and not self.is_over:
            self._looks = True
            self._loop.call_soon(self._look)

    def close(self) -> None:
        """Wait no more."""
        self.is_over = True
        for waiting in (self._alarm, self._probing, self._probe):
            if waiting is not None:
                waiting.cancel()

    def _look(self) -> None:
        self._looks = False
        if not self.is_over and not self._missing():
            self._conclude()

    def _missing(self) -> list[str]:
        if self._state.recovery is None:
            return []
        return [address for address in self._state.recovery.awaited if self._refusals[address] < MOST_REFUSALS]

    def _begin_to_probe(self) -> None:
        self._probe = self._loop.create_task(self._look_for_agents())

    async def _look_for_agents(self) -> None:
        """Count the hosts out at whose ports nobody listens."""
        expected = () if self._state.recovery is None else self._state.recovery.expected
        hosts = [address for address in self._missing() if address in expected and address not in self._state.hosts]
        for address, is_there in zip(hosts, await asyncio.gather(*map(_listens, hosts)), strict=True):
            if is_there:
                del self._refusals[address]
            else:
                self._refusals[address] += 1
        self._probe = None  # which is not to be cancelled from here
        self._look()
        if not self.is_over:
            self._probing = self._rounds.call_later(PROBE_SECONDS, self._begin_to_probe)

    def _time_over(self) -> None:
        missing = self._missing()
        more = f" and {len(missing) - MISSING_SHOWN:,} more" if len(missing) > MISSING_SHOWN else ""
        names = ", ".join(missing[:MISSING_SHOWN])
        logger.warning("not back after %g s, and not waited for any longer: %s%s", self._seconds, names, more)
        self._conclude()

    def _conclude(self) -> None:
        self.close()
        self._done()


async def _listens(address: str) -> bool:
    """Whether a process listens there; also if that can't be found out."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(*parse_address(address))
    except ConnectionRefusedError:
        return False
    except (OSError, TimeoutError):
        return True
    writer.close()
    return True
