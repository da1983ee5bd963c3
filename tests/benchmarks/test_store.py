"""The benchmark of the object store, run as a command with tiny sizes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pretended_peers import pretend_environment

from benchmarks import goals
from benchmarks.figures import parse

REPOSITORY = Path(__file__).parents[2]


def bench_store(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.store", *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=90, env={**os.environ, **environment}
    )


def test_every_metric_comes_once_as_a_line_and_in_the_table(tmp_path):
    output = tmp_path / "figures.jsonl"
    result = bench_store("--quick", "--rounds", "1", "--without-peers", "--output", str(output))
    assert result.returncode == 0, result.stderr
    figures = [parse(line) for line in output.read_text().splitlines()]
    assert all(figure is not None and figure.system == "holdfast" for figure in figures)
    # Of a tiny object's memory as much can be there before as after it.
    assert all(figure.value > 0 or figure.unit == "sizes" for figure in figures)
    assert sorted(figure.metric for figure in figures) == sorted(goal.metric for goal in goals.STORE)
    assert result.stdout.startswith(output.read_text())
    for figure in figures:
        assert result.stdout.count(f"| `{figure.metric}` ") == 1


def test_peers_are_run_in_their_environments_and_a_peer_that_fails_is_left_out(tmp_path):
    pretend_environment(tmp_path, "plasma", "put_8kb", "objects/s")
    pretend_environment(tmp_path, "ray", "put_8kb", "objects/s", status=3)
    result = bench_store("--only", "plasma", "ray", "--rounds", "2", PEERS_HOME=str(tmp_path))
    assert result.returncode == 0, result.stderr
    figures = [figure for line in result.stdout.splitlines() if (figure := parse(line))]
    assert [(figure.system, figure.rounds) for figure in figures] == [("plasma", (0.5, 0.5))]
    assert "no such peer here" in result.stderr


def test_a_peer_that_cant_be_installed_is_left_out_with_the_reason(tmp_path):
    # As without a network: pip finds no package.
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    pretend_environment(tmp_path, "ray", "put_8kb", "objects/s")
    result = bench_store("--only", "plasma", "ray", "--rounds", "1", PEERS_HOME=str(tmp_path), **offline)
    assert result.returncode == 0, result.stderr
    assert [figure.system for line in result.stdout.splitlines() if (figure := parse(line))] == ["ray"]
    assert "pyarrow==11.0.0" in result.stderr
    assert "going on without plasma" in result.stderr
    result = bench_store("--only", "plasma", PEERS_HOME=str(tmp_path), **offline)
    assert result.returncode == 1
    assert result.stdout == ""
    assert "--without-peers" in result.stderr


def test_a_quick_run_is_never_written_into_the_documentation():
    result = bench_store("--quick", "--write-docs")
    assert result.returncode == 2
    assert "mean nothing" in result.stderr
