"""The benchmark of placement, run as a command with tiny sizes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.figures import parse
from benchmarks.placement_cases import CASES

REPOSITORY = Path(__file__).parents[2]


def bench_placement(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.placement", *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=110, env={**os.environ, **environment}
    )


def test_each_case_has_its_time_and_its_memory(tmp_path):
    output = tmp_path / "figures.jsonl"
    cases = ["tree", "groups"]
    result = bench_placement("--quick", "--rounds", "1", "--without-peers", "--output", str(output), "--cases", *cases)
    assert result.returncode == 0, result.stderr
    figures = [figure for line in output.read_text().splitlines() if (figure := parse(line))]
    metrics = {f"{case}_{what}" for case in cases for what in ("seconds", "memory")}
    assert {figure.metric for figure in figures if figure.system == "floor"} == metrics
    ours = {figure.metric for figure in figures if figure.system == "holdfast"}
    assert ours == metrics | {f"{case}_store" for case in cases}
    for case in CASES:
        assert result.stdout.count(f"| `{case}` ") == (case in cases)


def test_without_a_place_for_the_peers_environment_it_says_how_to_go_on(tmp_path):
    place = tmp_path / "a file"
    place.touch()
    result = bench_placement("--quick", PEERS_HOME=str(place))
    assert result.returncode == 1
    assert str(place) in result.stderr
    assert "--without-peers" in result.stderr


def test_only_a_whole_run_is_written_into_the_documentation():
    result = bench_placement("--quick", "--write-docs")
    assert result.returncode == 2
    assert "--write-docs needs" in result.stderr
