"""Campaigns: tests that do something to a system at random for a time, and count what they checked."""

from __future__ import annotations

import os
import random
import time
from collections import Counter

#: What campaigns have counted in this test, for the summary of the session.
REPORTS: list[str] = []

#: How long a campaign lasts whose share is 1, where nobody says otherwise: in the suite each has a part of that.
DEFAULT_SECONDS = 30.0


def campaign_seconds(share: float = 1.0) -> float:
    """How long a campaign goes on: ``share`` of half a minute, or of what ``HOLDFAST_ATTACK_SECONDS`` says."""
    return share * float(os.environ.get("HOLDFAST_ATTACK_SECONDS", DEFAULT_SECONDS))


class Campaign:
    """A stretch of time, a seed, and what was counted.

    Parameters
    ----------
    name : str
        Of the campaign, in the summary.
    share : float
        How much of half a minute, or of ``HOLDFAST_ATTACK_SECONDS``, it goes on.

    Attributes
    ----------
    random : random.Random
        All chance comes from here. Its seed is ``HOLDFAST_ATTACK_SEED`` or a fresh one, and stands in the summary.
    counts : collections.Counter
        What happened, by name: operations checked, wrong, hung, faults injected.

    Examples
    --------
    >>> with Campaign("pauses", share=0.5) as campaign:
    ...     while campaign.goes_on():
    ...         campaign.counts["checked"] += 1
    """

    def __init__(self, name: str, share: float = 1.0) -> None:
        self.name = name
        self.seconds = campaign_seconds(share)
        self.seed = int(os.environ.get("HOLDFAST_ATTACK_SEED") or random.SystemRandom().randrange(1 << 32))
        self.random = random.Random(f"{name} {self.seed}")
        self.counts: Counter[str] = Counter()
        self._started: float | None = None

    def goes_on(self) -> bool:
        """Whether there is time for one more. There is for the first one: the time begins when it is asked for."""
        if self._started is None:
            self._started = time.monotonic()
        return time.monotonic() - self._started < self.seconds

    def __enter__(self) -> Campaign:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        counted = ", ".join(f"{count:,} {what}" for what, count in self.counts.items())
        outcome = f"broken off by {kind.__name__}" if kind is not None else "passed"
        took = "no time" if self._started is None else f"{time.monotonic() - self._started:.0f} s"
        REPORTS.append(f"{self.name}: {outcome} after {took}, seed {self.seed}: {counted or 'nothing counted'}")
