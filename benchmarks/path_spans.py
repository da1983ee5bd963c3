"""From the points that tasks have passed to the spans of one task: their median, their 99th percentile, their share."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.path_points import SPANS, START, Span
from benchmarks.table import aligned


class IncompletePathError(Exception):
    """No task has passed all points: the product's functions aren't called as the points expect."""


@dataclass(frozen=True)
class Measured:
    """One span over all tasks, in microseconds."""

    span: Span
    median: float
    p99: float
    mean: float


@dataclass(frozen=True)
class Path:
    """Where the time of a round trip goes.

    Attributes
    ----------
    spans : tuple of Measured
        In the order in which a task passes them. Their means add up to the mean of the round trips.
    roundtrips : tuple of float
        Of each task that passed all points, in microseconds.
    left_out : int
        Tasks that did not, or not in this order, a result that was there before it was waited for, say.
    """

    spans: tuple[Measured, ...]
    roundtrips: tuple[float, ...]
    left_out: int

    @property
    def mean(self) -> float:
        return statistics.fmean(self.roundtrips)

    def table(self) -> str:
        """One row for each span, one for each process, and one for all."""
        rows = [["where", "span", "median µs", "p99 µs", "mean µs", "share"]]
        for measured in self.spans:
            rows.append([measured.span.where, measured.span.what, *self._cells(measured)])
        for where in dict.fromkeys(measured.span.where for measured in self.spans):
            mean = sum(measured.mean for measured in self.spans if measured.span.where == where)
            rows.append([where, "**together**", "", "", f"{mean:.1f}", self._share(mean)])
        trips = self.roundtrips
        rows.append(["", "**round trip**", f"{statistics.median(trips):.1f}", f"{percentile_99(trips):.1f}",
                     f"{self.mean:.1f}", "100 %"])  # fmt: skip
        return aligned(rows)

    def _cells(self, measured: Measured) -> list[str]:
        return [
            *(f"{value:.1f}" for value in (measured.median, measured.p99, measured.mean)),
            self._share(measured.mean),
        ]

    def _share(self, mean: float) -> str:
        return f"{100 * mean / self.mean:.0f} %"


def path_of(points: Iterable[tuple[str, Any, int]], spans: Sequence[Span] = SPANS) -> Path:
    """Put the points of each task in order.

    Parameters
    ----------
    points:
        ``(point, key, nanoseconds)``. What a task passes twice counts the first time, and keys without a start are no
        tasks of interest.

    Raises
    ------
    IncompletePathError
        No task passed all of them; names the points that none has passed.
    """
    by_key: dict[Any, dict[str, int]] = {}
    for point, key, at in points:
        by_key.setdefault(key, {}).setdefault(point, at)
    started = [passed for passed in by_key.values() if START in passed]
    order = (START, *(span.point for span in spans))
    complete = [times for passed in started if (times := _in_order(passed, order)) is not None]
    if not complete:
        seen = {point for passed in started for point in passed}
        missing = (
            ", ".join(point for point in order if point not in seen) or "none of them by all of one task, in order"
        )
        raise IncompletePathError(f"of {len(started)} tasks none passed all points; missing: {missing}")
    measured = []
    for index, span in enumerate(spans):
        values = [(times[index + 1] - times[index]) / 1e3 for times in complete]
        measured.append(Measured(span, statistics.median(values), percentile_99(values), statistics.fmean(values)))
    roundtrips = tuple((times[-1] - times[0]) / 1e3 for times in complete)
    return Path(tuple(measured), roundtrips, len(started) - len(complete))


def percentile_99(values: Sequence[float]) -> float:
    """The least value that 99 % of them don't exceed."""
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


def _in_order(passed: Mapping[str, int], order: Sequence[str]) -> list[int] | None:
    """When a task passed each point; None if it missed one, or passed one before its predecessor."""
    if any(point not in passed for point in order):
        return None
    times = [passed[point] for point in order]
    return times if times == sorted(times) else None
