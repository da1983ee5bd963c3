"""The benchmark of the cluster, run as a command with tiny sizes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pretended_peers import pretend_environment

from benchmarks import goals
from benchmarks.figures import parse
from benchmarks.simulated import (
    independent,
    microseconds_per_task,
    microseconds_per_wait,
    run_graph,
    run_independent,
    tree,
)

REPOSITORY = Path(__file__).parents[2]


def bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.cluster", *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=110, env={**os.environ, **environment}
    )


def test_every_metric_comes_once_as_a_line_and_in_the_table(tmp_path):
    output = tmp_path / "figures.jsonl"
    result = bench("--quick", "--rounds", "1", "--without-peers", "--output", str(output))
    assert result.returncode == 0, result.stderr
    figures = [parse(line) for line in output.read_text().splitlines()]
    assert all(figure is not None and figure.system == "holdfast" for figure in figures)
    assert sorted(figure.metric for figure in figures) == sorted(goal.metric for goal in goals.CLUSTER)
    for figure in figures:
        assert result.stdout.count(f"| `{figure.metric}` ") == 1


def test_the_peers_take_turns_with_some_of_the_workloads(tmp_path):
    pretend_environment(tmp_path, "ray", "chain_1k", "tasks/s")
    result = bench(
        "--quick", "--workloads", "chain", "--only", "ray", "holdfast", "--rounds", "2", PEERS_HOME=str(tmp_path)
    )
    assert result.returncode == 0, result.stderr
    figures = [figure for line in result.stdout.splitlines() if (figure := parse(line))]
    assert [(figure.system, figure.metric, len(figure.rounds)) for figure in figures] == [
        ("holdfast", "startup", 2),
        ("holdfast", "chain_1k", 2),
        ("ray", "chain_1k", 2),
    ]
    heads = [line for line in result.stdout.splitlines() if line.startswith("| metric")]
    assert [cell.strip() for cell in heads[0].split("|")[1:-1]] == [
        "metric", "unit", "holdfast", "ray", "× ray", "must", "aim",
    ]  # fmt: skip


@pytest.mark.parametrize("arguments", [["--quick"], ["--workloads", "chain"]])
def test_only_a_whole_run_is_written_into_the_documentation(arguments):
    result = bench(*arguments, "--without-peers", "--write-docs")
    assert result.returncode == 2
    assert "--write-docs needs" in result.stderr


@pytest.mark.parametrize(("graph", "run"), [(independent, run_independent), (tree, run_graph)])
def test_a_simulated_cluster_runs_all_tasks_and_keeps_none(graph, run):
    tasks = graph(1000)
    assert len(tasks) == pytest.approx(1000, rel=0.02)
    assert microseconds_per_task(tasks, run, hosts=2, workers=4) > 0


def test_every_request_that_waits_in_a_simulated_cluster_is_answered():
    assert microseconds_per_wait(1500, hosts=2, workers=4) > 0
