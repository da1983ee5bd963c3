"""The benchmark of durable datasets runs and measures everything that its table names."""

from __future__ import annotations

from pathlib import Path

from benchmarks import durable
from benchmarks.figures import parse


def test_a_small_run_measures_all(tmp_path: Path) -> None:
    output = tmp_path / "figures"
    arguments = ["--rounds", "1", "--nbytes", "4000000", "--partitions", "4", "--output", str(output)]
    assert durable.main([*arguments, "--directory", str(tmp_path)]) == 0
    figures = [parse(line) for line in output.read_text().splitlines()]
    assert {(figure.system, figure.metric) for figure in figures if figure is not None} == {
        ("floor", "durable_write"),
        ("floor", "durable_read"),
        ("holdfast", "durable_write"),
        ("holdfast", "durable_read"),
        ("holdfast", "task_alone"),
        ("holdfast", "task_meanwhile"),
    }
    assert [path.name for path in tmp_path.iterdir()] == ["figures"]
