"""Figures of what a cluster did, made with bokeh, which nothing else here needs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from holdfast.cluster.key_prefixes import prefix_of
from holdfast.cluster.processes import profiling

_PALETTE = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#882255", "#117733", "#999933")
_GREY, _RED = "#bbbbbb", "#000000"
#: Functions that take less of the whole are not drawn.
_LEAST_SHARE = 0.0005
#: So many tasks are drawn at most, the last ones.
MAX_DRAWN = 50_000


def _bokeh() -> Any:
    try:
        import bokeh.plotting
    except ImportError as error:
        text = "a plot needs bokeh: pip install 'holdfast[plots]', or leave plot= and filename= out"
        raise ImportError(text) from error
    return bokeh.plotting


def save(figure: Any, filename: str, title: str, resources: Any = None) -> None:
    """Write a figure into an HTML file. Directories that are missing are made: what it shows is gone if it can't be.

    Parameters
    ----------
    resources
        Where the page has bokeh's scripts from, as bokeh takes it; None: from bokeh's site.
    """
    _bokeh()
    from bokeh.io import save as save_page
    from bokeh.resources import CDN

    os.makedirs(os.path.dirname(os.path.abspath(filename)), exist_ok=True)
    save_page(figure, filename=filename, title=title, resources=CDN if resources is None else resources)


def of_task_stream(records: Sequence[dict[str, Any]]) -> Any:
    """A figure of what ran when in which thread: a bar for each task, by its prefix."""
    plotting = _bokeh()
    records = records[-MAX_DRAWN:]
    rows = {place: row for row, place in enumerate(sorted({(r["worker"], r["thread"]) for r in records}))}
    start = min((step["start"] for r in records for step in r["startstops"]), default=0.0)
    colours: dict[str, str] = {}
    data: dict[str, list[Any]] = {
        name: [] for name in ("left", "right", "bottom", "top", "colour", "key", "what", "worker", "ms")
    }
    for record in records:
        prefix = prefix_of(record["key"])
        row = rows[record["worker"], record["thread"]]
        for step in record["startstops"]:
            colour = colours.setdefault(prefix, _PALETTE[len(colours) % len(_PALETTE)])
            if step["action"] != "compute":
                colour = _GREY
            elif record["status"] != "OK":
                colour = _RED
            data["left"].append(step["start"] - start)
            data["right"].append(step["stop"] - start)
            data["bottom"].append(row)
            data["top"].append(row + 0.9)
            data["colour"].append(colour)
            data["key"].append(f"{record['key']!r:.200}")
            data["what"].append(f"{prefix} ({step['action']}, {record['status']})")
            data["worker"].append(record["worker"])
            data["ms"].append(1000 * (step["stop"] - step["start"]))
    figure = plotting.figure(
        title="Task stream",
        x_axis_label="seconds",
        y_axis_label="threads",
        sizing_mode="stretch_both",
        tools="xwheel_zoom,xpan,reset,hover,box_zoom",
        tooltips=[("task", "@key"), ("what", "@what"), ("worker", "@worker"), ("took", "@ms{0.000} ms")],
    )
    figure.quad(left="left", right="right", bottom="bottom", top="top", color="colour", source=data)
    return figure


def of_profile(state: profiling.State) -> Any:
    """A figure of a profile: a bar for each function above the one that called it, as wide as the time in it."""
    plotting = _bokeh()
    whole = max(state["count"], 1)
    data: dict[str, list[Any]] = {
        name: [] for name in ("left", "right", "bottom", "top", "colour", "name", "where", "line", "share")
    }
    for depth, before, node in profiling.rows(state):
        if node["count"] < _LEAST_SHARE * whole:
            continue
        said = node["description"]
        data["left"].append(before / whole)
        data["right"].append((before + node["count"]) / whole)
        data["bottom"].append(depth)
        data["top"].append(depth + 0.95)
        data["colour"].append(_PALETTE[sum(said["filename"].encode()) % len(_PALETTE)])
        data["name"].append(said["name"] or "all")
        data["where"].append(f"{said['filename']}:{said['line_number']}")
        data["line"].append(said["line"])
        data["share"].append(node["count"] / whole)
    figure = plotting.figure(
        title="Profile",
        x_axis_label="share of the time",
        y_axis_label="depth",
        sizing_mode="stretch_both",
        tools="xwheel_zoom,xpan,reset,hover,box_zoom",
        tooltips=[("function", "@name"), ("where", "@where"), ("line", "@line"), ("share", "@share{0.0 %}")],
    )
    figure.quad(left="left", right="right", bottom="bottom", top="top", color="colour", line_color="white", source=data)
    return figure
