"""Charts as SVG: lines over a logarithmic axis of sizes, from zero up, for a page that is read light or dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 720, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 190, 40, 48
_COLORS = ("#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6", "#6b7280")
_GRAY = "#808080"

Line = Sequence[tuple[float, float]]


def chart(title: str, x: str, y: str, lines: Mapping[str, Line]) -> str:
    """An SVG with the lines, each by its name, of points ``(size, value)``."""
    points = [point for line in lines.values() for point in line]
    low, high = math.log10(min(size for size, _ in points)), math.log10(max(size for size, _ in points))
    step = _step(max(value for _, value in points))
    top = step * math.ceil(max(value for _, value in points) / step)

    def at(size: float, value: float) -> tuple[float, float]:
        share = (math.log10(size) - low) / (high - low) if high > low else 0.5
        across = _LEFT + share * (_WIDTH - _LEFT - _RIGHT)
        return across, _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12" fill="{_GRAY}">',
        _text(_LEFT, 20, title, size=14),
        _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, x, anchor="middle"),
        _text(_LEFT, _TOP - 6, y, anchor="middle"),
    ]
    for tick in range(round(top / step) + 1):
        _, height = at(10**low, tick * step)
        parts.append(_path([(_LEFT, height), (_WIDTH - _RIGHT, height)], _GRAY, width=0.4))
        parts.append(_text(_LEFT - 8, height + 4, f"{tick * step:,g}", anchor="end"))
    for size in sorted({size for size, _ in points}):
        parts.append(_text(at(size, 0)[0], _HEIGHT - _BOTTOM + 18, f"{size:,.0f}", anchor="middle"))
    labels = _apart({name: at(*line[-1])[1] for name, line in lines.items()})
    for (name, line), color in zip(lines.items(), _COLORS, strict=False):
        parts.append(_path([at(*point) for point in line], color, width=2))
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{color}"/>' for a, b in (at(*p) for p in line)]
        parts.append(_text(_WIDTH - _RIGHT + 10, labels[name] + 4, name, color=color))
    return "\n".join([*parts, "</svg>\n"])


def _step(most: float) -> float:
    """A round number that divides an axis up to ``most`` into four to ten."""
    power = 10.0 ** math.floor(math.log10(most or 1.0))
    return next(power * share for share in (0.2, 0.25, 0.5, 1.0, 2.0) if most / (power * share) <= 8)


def _apart(heights: dict[str, float], distance: float = 15.0) -> dict[str, float]:
    """The heights moved down until no two labels lie on each other."""
    found: dict[str, float] = {}
    last = -math.inf
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        last = found[name] = max(height, last + distance)
    return found


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, color: str = _GRAY) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{color}">{escape(text)}</text>'
    )


def _path(points: Sequence[tuple[float, float]], color: str, *, width: float) -> str:
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{joined}" fill="none" stroke="{color}" stroke-width="{width}"/>'
