"""Figures: what was measured of whom, as the JSON lines that Holdfast's workloads and the peers' print."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

LOWER_IS_BETTER = frozenset({"s", "ms", "us", "GB", "sizes"})


@dataclass(frozen=True)
class Figure:
    """One number.

    Attributes
    ----------
    system : str
        Whose: ``holdfast``, ``plasma``, ``ray``, ``floor``.
    metric, unit : str
        What of it, and in what.
    value : float
        The median, if there were several rounds.
    rounds : tuple of float
        The value of each round.
    """

    system: str
    metric: str
    value: float
    unit: str
    rounds: tuple[float, ...] = ()

    def to_json(self) -> str:
        """The figure as one line."""
        fields = {"system": self.system, "metric": self.metric, "value": round(self.value, 4), "unit": self.unit}
        if self.rounds:
            fields["rounds"] = [round(value, 4) for value in self.rounds]
        return json.dumps(fields)


def parse(line: str) -> Figure | None:
    """The figure in a line of output; None if the line is something else.

    Examples
    --------
    >>> parse('{"system": "ray", "metric": "put_400mb", "value": 13.5, "unit": "GB/s"}')
    Figure(system='ray', metric='put_400mb', value=13.5, unit='GB/s', rounds=())
    """
    try:
        fields = json.loads(line)
        return Figure(
            str(fields["system"]),
            str(fields["metric"]),
            float(fields["value"]),
            str(fields["unit"]),
            tuple(map(float, fields.get("rounds", ()))),
        )
    except (ValueError, TypeError, KeyError):
        return None


def medians(figures: Iterable[Figure]) -> list[Figure]:
    """One figure for each system and metric, in the order in which they first came."""
    grouped: dict[tuple[str, str], list[Figure]] = {}
    for figure in figures:
        grouped.setdefault((figure.system, figure.metric), []).append(figure)
    found = []
    for (system, metric), group in grouped.items():
        rounds = tuple(figure.value for figure in group)
        found.append(Figure(system, metric, statistics.median(rounds), group[0].unit, rounds))
    return found


class Figures:
    """What one run measured, looked up by system and metric."""

    def __init__(self, figures: Iterable[Figure]) -> None:
        self._found = {(figure.system, figure.metric): figure for figure in figures}

    @property
    def metrics(self) -> list[str]:
        """What was measured of any system, each once."""
        return list(dict.fromkeys(metric for _, metric in self._found))

    def get(self, system: str, metric: str) -> Figure | None:
        """The figure, if it was measured."""
        return self._found.get((system, metric))

    def best(self, systems: Iterable[str], metric: str) -> Figure | None:
        """The best of several systems' figures."""
        found = [figure for system in systems if (figure := self.get(system, metric)) is not None]
        if not found:
            return None
        pick = min if found[0].unit in LOWER_IS_BETTER else max
        return pick(found, key=lambda figure: figure.value)
