"""Of a history that fails, the few steps that it takes.

Steps are left out, first many of them together, then fewer, as long as what is left fails in the same way ("delta
debugging"). Each step has random numbers of its own, so the others stay what they were.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tests.simulator.history import STEPS, History, Outcome
from tests.simulator.trace import Trace

#: It is not tried any longer than this.
MAX_SECONDS = 60.0
#: So many of the last lines of a trace are shown.
SHOWN_LINES = 60


def shrunk(
    steps: Sequence[int], fails: Callable[[Sequence[int]], bool], clock: Callable[[], float] = time.monotonic
) -> list[int]:
    """The steps without which it does not fail any more, or those that are left when the time is over."""
    deadline = clock() + MAX_SECONDS
    kept = list(steps)
    size = len(kept)
    while size:
        found, start = False, 0
        while start < len(kept):
            if clock() > deadline:
                return kept
            fewer = kept[:start] + kept[start + size :]
            if fails(fewer):
                kept, found = fewer, True
            else:
                start += size
        if not found:
            size //= 2
    return kept


def explain(failed: Outcome, *, steps: int = STEPS, with_faults: bool = True, often: bool = False) -> str:
    """How a history fails: its fewest steps, what happens then, and the command that shows it once more."""

    def fails(keep: Sequence[int]) -> bool:
        outcome = History(failed.seed, steps=steps, keep=set(keep), with_faults=with_faults, often=often).run()
        return outcome.signature == failed.signature

    history = History(failed.seed, steps=steps, with_faults=with_faults, often=often)
    begun = [number for number, time, _ in history.plan if time <= failed.at]
    kept = shrunk(begun, fails)
    trace = Trace()
    history = History(failed.seed, steps=steps, keep=set(kept), with_faults=with_faults, often=often, trace=trace)
    outcome = history.run()
    numbers = ",".join(map(str, kept))
    more = f" --steps {steps}" * (steps != STEPS) + " --no-faults" * (not with_faults) + " --restarts" * often
    return "\n".join(
        [
            f"seed {failed.seed} fails, with {len(kept)} of its {steps} steps:",
            f"  {history.profile}",
            *[f"  step {number:4} {time:9.3f} s  {name}" for number, time, name in history.plan],
            *["  " + line for line in trace.lines[-SHOWN_LINES:]],
            outcome.failure or failed.failure,
            f"again: python -m tests.simulator --seed {failed.seed} --keep {numbers or 'none'}{more} --trace",
        ]
    )
