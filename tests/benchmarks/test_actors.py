"""The benchmark of actors, run as a command with tiny counts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pretended_peers import pretend_environment

from benchmarks import goals
from benchmarks.figures import parse

REPOSITORY = Path(__file__).parents[2]


def bench_actors(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.actors", *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=110, env={**os.environ, **environment}
    )


def test_every_metric_comes_once_as_a_line_and_in_the_table_beside_the_peers(tmp_path):
    pretend_environment(tmp_path, "ray", "actor_calls", "calls/s")
    result = bench_actors("--quick", "--rounds", "1", "--only", "holdfast", "ray", PEERS_HOME=str(tmp_path))
    assert result.returncode == 0, result.stderr
    figures = [figure for line in result.stdout.splitlines() if (figure := parse(line))]
    own = [figure for figure in figures if figure.system == "holdfast"]
    assert sorted(figure.metric for figure in own) == sorted(goal.metric for goal in goals.ACTORS)
    assert all(figure.value > 0 for figure in own)
    assert [figure.metric for figure in figures if figure.system == "ray"] == ["actor_calls"]
    for figure in own:
        assert result.stdout.count(f"| `{figure.metric}` ") == 1
