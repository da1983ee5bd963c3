"""The benchmark of coordination, run as a command with tiny sizes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks import page
from benchmarks.coordination import TARGET, table
from benchmarks.figures import Figure, Figures, parse

REPOSITORY = Path(__file__).parents[2]
METRICS = [
    "lock_alone",
    "lock_threads",
    "lock_processes",
    "lock_tasks",
    "queue_put",
    "queue_get",
    "queue_get_batch",
    "queue_between",
    "queue_futures",
    "variable_set",
    "variable_get",
    "event",
]


def bench_coordination(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.coordination", *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=110, env={**os.environ, **environment}
    )


def test_each_workload_has_its_figure(tmp_path):
    output = tmp_path / "figures.jsonl"
    result = bench_coordination("--quick", "--rounds", "1", "--without-peers", "--output", str(output))
    assert result.returncode == 0, result.stderr
    figures = [figure for line in output.read_text().splitlines() if (figure := parse(line))]
    assert [figure.metric for figure in figures] == METRICS
    for metric in METRICS:
        assert f"| `{metric}` " in result.stdout


def test_the_table_has_ratios():
    figures = [
        Figure("holdfast", "lock_alone", 1000.0, "locks/s"),
        Figure("distributed", "lock_alone", 100.0, "locks/s"),
    ]
    shown = table(Figures(figures), ["holdfast", "distributed"])
    assert [cell.strip() for cell in shown.splitlines()[-1].strip("|").split("|")] == [
        "`lock_alone`",
        "locks/s",
        "1,000",
        "100",
        "10.0",
    ]


def test_a_quick_run_is_not_written_into_the_docs():
    result = bench_coordination("--quick", "--write-docs")
    assert result.returncode == 2
    assert "--write-docs needs a whole one" in result.stderr


def test_the_page_has_a_place_for_the_table(tmp_path):
    copy = tmp_path / "performance.md"
    copy.write_text(page.PERFORMANCE.read_text())
    page.replace_section(copy, TARGET, "| the table |")
    assert "| the table |" in copy.read_text()
    assert copy.read_text().count("| `lock_alone` ") == page.PERFORMANCE.read_text().count("| `lock_alone` ") - 1


def test_without_a_place_for_the_peers_environment_it_says_how_to_go_on(tmp_path):
    place = tmp_path / "a file"
    place.touch()
    result = bench_coordination("--quick", PEERS_HOME=str(place))
    assert result.returncode == 1
    assert str(place) in result.stderr
    assert "--without-peers" in result.stderr
