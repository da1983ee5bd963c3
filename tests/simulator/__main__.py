"""``python -m tests.simulator``: whole clusters in pretended time, many seeds on all processors, or one of them."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import Any

from tests.simulator import scale
from tests.simulator.history import STEPS, History, Outcome
from tests.simulator.shrinking import explain
from tests.simulator.trace import Trace

#: So many seeds are given to a process at a time.
BATCH = 5
#: After so many failures no other seed is begun, and of so many it is said how they come about.
MAX_FAILURES = 20
MAX_EXPLAINED = 3


def main(arguments: list[str] | None = None) -> int:
    """Runs seeds; 1 if one of them fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument("--seeds", type=int, default=1_000, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, help="the first of them (default: by chance; it is printed)")
    parser.add_argument("--events", type=int, help="go on until there were so many, instead of so many seeds")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each seed (default: %(default)s)")
    parser.add_argument("--no-faults", action="store_true", help="let nothing go wrong")
    parser.add_argument("--restarts", action="store_true", help="let the scheduler die often: a step of 33")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="(default: one for each processor)")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--keep", help="only these steps of it, as in 3,14,15")
    parser.add_argument("--trace", action="store_true", help="print what happens in it")
    parser.add_argument("--scale", action="store_true", help="measure 1,000 hosts, 8,000 workers and 1,000,000 tasks")
    options = parser.parse_args(arguments)
    if options.scale:
        return scale.main()
    if options.seed is not None:
        return _one(options)
    return _many(options)


def _one(options: argparse.Namespace) -> int:
    keep = None
    if options.keep:
        keep = {int(number) for number in options.keep.split(",") if number != "none"}
    trace = Trace() if options.trace else None
    history = History(options.seed, keep=keep, trace=trace, **_kind(options))
    outcome = history.run()
    if trace is not None:
        print(history.profile, *trace.lines, sep="\n")
    if outcome.failure and not options.trace and keep is None:
        print(explain(outcome, **_kind(options)))
    elif outcome.failure:
        print(outcome.failure)
    else:
        print(f"seed {options.seed}: {outcome.events:,} events, {outcome.seconds:,.0f} s, no fault")
    return bool(outcome.failure)


def _kind(options: argparse.Namespace) -> dict[str, Any]:
    """What kind of history each seed is."""
    return {"steps": options.steps, "with_faults": not options.no_faults, "often": options.restarts}


def _run(seeds: range, kind: dict[str, Any]) -> list[Outcome]:
    return [History(seed, **kind).run() for seed in seeds]


def _many(options: argparse.Namespace) -> int:
    first = random.SystemRandom().randrange(1 << 40) if options.first is None else options.first
    print(f"seeds from {first} on", flush=True)
    began = time.monotonic()
    outcomes: list[Outcome] = []
    failed: list[Outcome] = []
    with ProcessPoolExecutor(options.processes) as pool:
        batches = _batches(first, None if options.events else options.seeds)
        running = set()
        events = 0
        while True:
            enough = len(failed) >= MAX_FAILURES or (options.events is not None and events >= options.events)
            while len(running) < 2 * options.processes and not enough:
                batch = next(batches, None)
                if batch is None:
                    break
                running.add(pool.submit(_run, batch, _kind(options)))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                for outcome in future.result():
                    outcomes.append(outcome)
                    events += outcome.events
                    if outcome.failure:
                        failed.append(outcome)
                        print(f"seed {outcome.seed} fails: {outcome.signature}", flush=True)
    _summarize(outcomes, time.monotonic() - began)
    for outcome in list({outcome.signature: outcome for outcome in failed}.values())[:MAX_EXPLAINED]:
        print()
        print(explain(outcome, **_kind(options)))
    return bool(failed)


def _batches(first: int, count: int | None) -> Iterator[range]:
    start = first
    while count is None or start < first + count:
        stop = start + BATCH if count is None else min(start + BATCH, first + count)
        yield range(start, stop)
        start = stop


def _summarize(outcomes: list[Outcome], seconds: float) -> None:
    events = sum(outcome.events for outcome in outcomes)
    steps: Counter[str] = Counter()
    for outcome in outcomes:
        steps.update(outcome.steps)
    hours = sum(outcome.seconds for outcome in outcomes) / 3600
    failed = sum(bool(outcome.failure) for outcome in outcomes)
    print(
        f"{len(outcomes):,} seeds, {events:,} events in {hours:,.1f} hours of pretended time; "
        f"{sum(outcome.reads for outcome in outcomes):,} values read; {failed} seeds failed; "
        f"{seconds:.0f} s, {events / seconds:,.0f} events a second"
    )
    print(", ".join(f"{name} {count:,}" for name, count in sorted(steps.items())))


if __name__ == "__main__":
    sys.exit(main())
