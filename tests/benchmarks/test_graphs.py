"""Large graphs: the benchmark as a command, with small ones, and its charts."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from benchmarks import graphs
from benchmarks.chart import chart
from benchmarks.figures import parse
from benchmarks.graph_run import SHAPES

REPOSITORY = Path(__file__).parents[2]


def test_a_quick_run_has_every_figure_of_every_graph_and_can_be_shown_again(tmp_path):
    output = tmp_path / "graphs.jsonl"
    command = [sys.executable, "-m", "benchmarks.graphs", "--quick", "--output", str(output)]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=110, env=os.environ)
    assert result.returncode == 0, result.stderr
    found = [parse(line) for line in output.read_text().splitlines()]
    assert {figure.metric for figure in found} == {
        f"{shape} {size} {metric}" for shape in SHAPES for size in graphs.QUICK_SIZES for metric in graphs.COLUMNS
    }
    assert all(figure.value >= 0 for figure in found if "left" not in figure.metric)
    table = result.stdout[result.stdout.index("| graph") :]
    assert len(table.splitlines()) == 2 + len(SHAPES) * len(graphs.QUICK_SIZES)
    command = [sys.executable, "-m", "benchmarks.graphs", "--figures", str(output)]
    again = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    rows = [line.split("|")[1:3] for line in again.stdout.strip().splitlines()]
    assert rows == [line.split("|")[1:3] for line in table.splitlines()]


def test_a_chart_has_its_lines_ticks_and_labels_inside_of_it():
    drawn = ElementTree.fromstring(chart("Time", "tasks", "µs", {"a & b": [(10, 3.0), (1000, 4.5)], "c": [(10, 4.4)]}))
    name = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in drawn.iter(f"{name}text")]
    assert {"Time", "tasks", "µs", "a & b", "c", "0", "10", "1,000"} <= set(texts)
    assert len(list(drawn.iter(f"{name}circle"))) == 3
    _, _, width, height = map(float, drawn.get("viewBox").split())
    for circle in drawn.iter(f"{name}circle"):
        assert 0 < float(circle.get("cx")) < width
        assert 0 < float(circle.get("cy")) < height
