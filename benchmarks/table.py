"""Figures and goals as a Markdown table that can also be read in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.figures import Figure, Figures
from benchmarks.goals import SYSTEM, AtMost, Goal, Times

#: The machine's own limit for a metric goes by other names.
FLOOR_METRICS = {"put_400mb": "put_400mb_2_threads"}
SYSTEMS = (SYSTEM, "floor", "plasma", "ray")


def table(goals: Iterable[Goal], figures: Figures, systems: Sequence[str] = SYSTEMS) -> str:
    """One row for each goal's metric, one column for each system, then what must be and what is aimed at.

    Metrics that nobody measured are left out.
    """
    rows = [["metric", "unit", *systems, "must", "aim"]]
    for goal in goals:
        found = [_figure_of(system, goal.metric, figures) for system in systems]
        unit = next((figure.unit for figure in found if figure is not None), None)
        if unit is None:
            continue
        values = ["" if figure is None else number(figure.value) for figure in found]
        rows.append([f"`{goal.metric}`", unit, *values, *(_judged(goal, side, figures) for side in ("must", "aim"))])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows)


def number(value: float) -> str:
    """With three significant digits, and no fractions from 100 on.

    Examples
    --------
    >>> number(12345.6), number(13.0), number(0.00731)
    ('12,346', '13.0', '0.00731')
    """
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}"


def _figure_of(system: str, metric: str, figures: Figures) -> Figure | None:
    return figures.get(system, FLOOR_METRICS.get(metric, metric) if system == "floor" else metric)


def _judged(goal: Goal, side: str, figures: Figures) -> str:
    conditions: tuple[AtMost | Times, ...] = getattr(goal, side)
    return "; ".join(str(condition.judge(goal.metric, figures)) for condition in conditions)
