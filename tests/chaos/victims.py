"""What is killed and stopped, and the nemesis that does it."""

from __future__ import annotations

import contextlib
import heapq
import os
import random
import signal
import time
from dataclasses import dataclass

from tests.chaos.place import Place
from tests.chaos.timeline import Deed, Timeline
from tests.support.proxy import Proxy


@dataclass(frozen=True)
class Victim:
    """A kind of process.

    Attributes
    ----------
    kind : str
        What it is called.
    module : str
        That its command line names.
    kills, stops : int
        Of the deeds, how many are of this kind, beside those of the others.
    """

    kind: str
    module: str
    kills: int
    stops: int


VICTIMS = (
    Victim("worker", "holdfast.cluster.worker", kills=12, stops=5),
    Victim("agent", "holdfast.cluster.node", kills=4, stops=2),
    Victim("page maker", "holdfast.cluster.node.page_maker", kills=2, stops=1),
    Victim("fork server", "holdfast.cluster.processes.fork_server", kills=2, stops=1),
    Victim("assistant", "holdfast.cluster.assistant", kills=2, stops=1),
    Victim("nanny", "holdfast.cluster.nanny", kills=2, stops=1),
    Victim("scheduler", "holdfast.cluster.scheduler", kills=2, stops=1),
    Victim("client", "tests.chaos.client_program", kills=3, stops=2),
)

#: Between two deeds. Often there is time for recovery, and often there is none.
PAUSES_SECONDS = (0.0, 0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 12.0)
#: How many processes are killed or stopped at one time.
BURSTS = (1, 1, 1, 1, 2, 2, 3, 5)
#: How often a link is cut, beside what is done to processes.
CUTS = 0.3
#: How long one stands still, in shares of the time for which a host may be silent.
STOPS = (0.02, 0.05, 0.1, 0.1, 0.2, 0.3, 0.3, 0.5, 0.9, 1.2, 2.0)


class Nemesis:
    """Kills and stops processes, as a seed says.

    Parameters
    ----------
    seed : int
    kinds : sequence of str
        The kinds of victims; empty: all.
    place : Place
        Knows the processes that there are.
    link : Proxy
        Between some clients and the scheduler.
    timeline : Timeline
        Where it notes what it has done.
    silence_seconds : float
        For so long a host of the cluster may be silent.
    """

    def __init__(
        self,
        seed: int,
        kinds: tuple[str, ...],
        place: Place,
        link: Proxy,
        timeline: Timeline,
        silence_seconds: float,
    ) -> None:
        self._chance = random.Random(f"nemesis {seed}")
        self._victims = {each.kind: each for each in VICTIMS if not kinds or each.kind in kinds}
        self._choices = [(kind, act) for kind in self._victims for act in ("killed", "stopped")]
        self._weights = [
            self._victims[kind].kills if act == "killed" else self._victims[kind].stops for kind, act in self._choices
        ]
        self._place = place
        self._link = link
        self._timeline = timeline
        self._silence_seconds = silence_seconds
        self._stopped: list[tuple[float, int, str]] = []  # until when, which process, and of which kind
        self._next = time.monotonic()

    def act(self) -> None:
        """Do what is due: let processes go on that stood still for long enough, kill and stop others."""
        now = time.monotonic()
        while self._stopped and self._stopped[0][0] <= now:
            self._let_go_on()
        if now < self._next:
            return
        there = self._place.processes()
        for kind, act in self._chance.choices(self._choices, self._weights, k=self._chance.choice(BURSTS)):
            # What is drawn doesn't depend on what there is, so that the same seed draws the same.
            index, share = self._chance.random(), self._chance.choice(STOPS)
            pids = [pid for pid, command in sorted(there.items()) if self._victims[kind].module in command.split()]
            if pids:
                self._do(act, kind, pids[int(index * len(pids))], share * self._silence_seconds)
        if self._chance.random() < CUTS:
            self._link.cut()
            self._timeline.add(time.monotonic(), Deed(time.monotonic(), "cut", "link", 0))
        self._next = time.monotonic() + self._chance.choice(PAUSES_SECONDS)

    def heal(self) -> None:
        """Let everything go on."""
        while self._stopped:
            self._let_go_on()

    def _do(self, act: str, kind: str, pid: int, seconds: float) -> None:
        stops = act == "stopped"
        addresses = self._place.addresses(pid) if kind == "agent" else ()
        try:
            os.kill(pid, signal.SIGSTOP if stops else signal.SIGKILL)
        except ProcessLookupError:
            return
        now = time.monotonic()
        if stops:
            heapq.heappush(self._stopped, (now + seconds, pid, kind))
        self._timeline.add(now, Deed(now, act, kind, pid, seconds if stops else 0.0, addresses))

    def _let_go_on(self) -> None:
        _, pid, kind = heapq.heappop(self._stopped)
        if any(pid == other for _, other, _ in self._stopped):
            return  # it was stopped twice, and the longer time counts
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
            now = time.monotonic()
            self._timeline.add(now, Deed(now, "let go on", kind, pid))
