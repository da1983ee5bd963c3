"""The benchmark of restarts runs and measures everything that its table names."""

from __future__ import annotations

from pathlib import Path

from benchmarks import restart
from benchmarks.figures import parse


def test_a_small_run_measures_all(tmp_path: Path) -> None:
    output = tmp_path / "figures"
    arguments = ["--rounds", "1", "--tasks", "200", "--objects", "50", "--output", str(output)]
    assert restart.main(arguments) == 0
    figures = [parse(line) for line in output.read_text().splitlines()]
    assert {figure.metric for figure in figures if figure is not None} == {
        "restart_first_result",
        "restart_ready",
        "restart_cpu",
    }
