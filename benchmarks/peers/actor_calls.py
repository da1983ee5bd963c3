"""The workloads of actors, with whatever system has them: how long a call takes, and how many there are in a second.

A system says how an actor is made, how its methods are called, and how what they give is waited for. Everything else is
the same for all.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.peers.reporting import Report, timed

#: What the ends of metrics' names mean, as numbers of float64.
LENGTHS = {"100kb": 12_500, "10mb": 1_250_000}


class Echo:
    """What the actors are."""

    def __init__(self) -> None:
        self.made: dict[int, Any] = {}

    def back(self, value: Any) -> Any:
        """Gives what it is given."""
        return value

    def take(self, value: Any) -> float:
        """Looks at an array."""
        return float(value[0])

    def make(self, length: int) -> Any:
        """Gives an array."""
        return np.ones(length)


@dataclass(frozen=True)
class System:
    """How a system's actors are used.

    Attributes
    ----------
    make
        Makes an actor of a class, and gives its handle when it is there.
    call
        ``call(handle, method, argument)``: calls a method; gives what stands for its result.
    result
        Waits for that.
    call_in_tasks
        ``call_in_tasks(handle, tasks, count)``: so many tasks call the actor so often each, at once. Waits for them.
    """

    make: Callable[[type], Any]
    call: Callable[[Any, str, Any], Any]
    result: Callable[[Any], Any]
    call_in_tasks: Callable[[Any, int, int], Any]


@dataclass(frozen=True)
class Counts:
    """How often everything is done."""

    roundtrips: int = 1_000
    calls: int = 3_000
    large_roundtrips: int = 200
    largest_roundtrips: int = 40
    large_calls: int = 500
    callers: int = 2
    calls_of_each: int = 1_000


QUICK = Counts(20, 50, 5, 3, 20, 2, 20)


def run(report: Report, system: System, counts: Counts = Counts()) -> None:
    """Measures everything."""
    actor = system.make(Echo)
    call, result = system.call, system.result

    def once(method: str, argument: Any) -> Any:
        return result(call(actor, method, argument))

    def many(method: str, argument: Any, count: int) -> Any:
        return [result(future) for future in [call(actor, method, argument) for _ in range(count)]]

    def roundtrips(name: str, method: str, argument: Any, count: int) -> list[float]:
        once(method, argument)
        times = sorted(timed(partial(once, method, argument))[0] for _ in range(count))
        report(name, statistics.median(times) * 1e3, "ms")
        return times

    many("back", 1, counts.roundtrips)
    times = roundtrips("actor_call", "back", 1, counts.roundtrips)
    report("actor_call_p99", times[int(len(times) * 0.99)] * 1e3, "ms")
    report.rate("actor_calls", counts.calls, partial(many, "back", 1, counts.calls), "calls/s")
    for name, length in LENGTHS.items():
        count = counts.large_roundtrips if name == "100kb" else counts.largest_roundtrips
        roundtrips(f"actor_call_{name}_argument", "take", np.ones(length), count)
        roundtrips(f"actor_call_{name}_result", "make", length, count)
    large = np.ones(LENGTHS["100kb"])
    report.rate("actor_calls_100kb", counts.large_calls, partial(many, "take", large, counts.large_calls), "calls/s")
    of_all = counts.callers * counts.calls_of_each
    call_in_tasks = partial(system.call_in_tasks, actor, counts.callers, counts.calls_of_each)
    call_in_tasks()
    report.rate("actor_calls_of_tasks", of_all, call_in_tasks, "calls/s")
