"""Figures and goals as a Markdown table that can also be read in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.figures import LOWER_IS_BETTER, Figure, Figures
from benchmarks.goals import SYSTEM, Condition, Goal

#: The machine's own limit for a metric goes by other names.
FLOOR_METRICS = {"put_400mb": "put_400mb_2_threads"}


def table(goals: Iterable[Goal], figures: Figures, systems: Sequence[str], ratios: Sequence[str] = ()) -> str:
    """One row for each goal's metric, one column for each system, then what must be and what is aimed at.

    Metrics that nobody measured are left out.

    Parameters
    ----------
    ratios:
        Systems that have one more column: how many times better than theirs Holdfast's figures are.
    """
    rows = [["metric", "unit", *systems, *(f"× {system}" for system in ratios), "must", "aim"]]
    for goal in goals:
        found = [_figure_of(system, goal.metric, figures) for system in systems]
        unit = next((figure.unit for figure in found if figure is not None), None)
        if unit is None:
            continue
        values = ["" if figure is None else number(figure.value) for figure in found]
        times = [_times_better(goal.metric, system, figures) for system in ratios]
        judged = [_judged(goal, side, figures) for side in ("must", "aim")]
        rows.append([f"`{goal.metric}`", unit, *values, *times, *judged])
    return aligned(rows)


def aligned(rows: list[list[str]]) -> str:
    """Rows of cells, the first of them the names of the columns, as Markdown."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return "\n".join("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in lines)


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


def _times_better(metric: str, system: str, figures: Figures) -> str:
    mine, other = figures.get(SYSTEM, metric), _figure_of(system, metric, figures)
    if mine is None or other is None or not mine.value or not other.value:
        return ""
    ratio = other.value / mine.value if mine.unit in LOWER_IS_BETTER else mine.value / other.value
    return number(ratio)


def _judged(goal: Goal, side: str, figures: Figures) -> str:
    conditions: tuple[Condition, ...] = getattr(goal, side)
    return "; ".join(str(condition.judge(goal.metric, figures)) for condition in conditions)
