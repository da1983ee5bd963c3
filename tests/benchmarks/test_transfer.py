"""The benchmark of transfers between hosts runs and measures everything that its table names."""

from __future__ import annotations

from pathlib import Path

from benchmarks import transfer
from benchmarks.figures import parse


def test_a_small_run_measures_every_size(tmp_path: Path) -> None:
    output = tmp_path / "figures"
    arguments = ["--rounds", "2", "--large", "4000000", "--count", "4", "--output", str(output)]
    assert transfer.main(arguments) == 0
    figures = [parse(line) for line in output.read_text().splitlines()]
    found = {(figure.system, figure.metric): figure for figure in figures if figure is not None}
    assert list(found) == [
        ("floor", "transfer_large"),
        ("holdfast", "transfer_large"),
        ("holdfast", "transfer_8kb"),
        ("holdfast", "transfer_200kb"),
        ("holdfast", "transfer_1600kb"),
    ]
    # What a call costs without an object is subtracted, which can be more than so small a one takes.
    assert all(len(figure.rounds) == 2 and all(figure.rounds) for figure in found.values())
