"""Campaigns: tests that do something to a system at random for a time, and count what they checked."""

from __future__ import annotations

import os
import random
import time
from collections import Counter

#: What campaigns have counted in this session, for the summary at its end.
REPORTS: list[str] = []

#: How long a campaign lasts that has a minute to itself.
DEFAULT_SECONDS = 60.0


def campaign_seconds(share: float = 1.0) -> float:
    """How long a campaign goes on: ``share`` of a minute, or of what ``HOLDFAST_ATTACK_SECONDS`` says."""
    return share * float(os.environ.get("HOLDFAST_ATTACK_SECONDS", DEFAULT_SECONDS))


class Campaign:
    """A stretch of time, a seed, and what was counted.

    Parameters
    ----------
    name : str
        Of the campaign, in the summary.
    share : float
        How much of a minute, or of ``HOLDFAST_ATTACK_SECONDS``, it goes on.

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
        self._started = time.monotonic()

    def goes_on(self) -> bool:
        """Whether there is time for one more."""
        return time.monotonic() - self._started < self.seconds

    def __enter__(self) -> Campaign:
        self._started = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        counted = ", ".join(f"{count:,} {what}" for what, count in self.counts.items())
        outcome = f"broken off by {kind.__name__}" if kind is not None else "passed"
        took = f"{time.monotonic() - self._started:.0f} s"
        REPORTS.append(f"{self.name}: {outcome} after {took}, seed {self.seed}: {counted or 'nothing counted'}")
