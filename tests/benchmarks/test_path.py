"""The path of one task: spans from points, and the benchmark as a command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks.figures import parse
from benchmarks.path_points import SPANS, START, Span
from benchmarks.path_spans import IncompletePathError, path_of, percentile_99
from benchmarks.processor_time import ProcessorTime

REPOSITORY = Path(__file__).parents[2]
TWO = (Span("sent", "client", "send it"), Span("back", "hop", "wait for it"))


def passed(key: str, *microseconds: float) -> list[tuple[str, str, int]]:
    points = (START, *(span.point for span in TWO))
    return [(point, key, int(at * 1000)) for point, at in zip(points, microseconds, strict=False)]


def test_spans_add_up_to_the_round_trips():
    path = path_of([*passed("a", 0, 10, 30), *passed("b", 100, 120, 200)], TWO)
    assert [(measured.median, measured.p99, measured.mean) for measured in path.spans] == [(15, 20, 15), (50, 80, 50)]
    assert path.roundtrips == (30, 100)
    assert path.mean == sum(measured.mean for measured in path.spans)
    assert path.left_out == 0


def test_points_may_come_in_any_order_and_from_tasks_of_no_interest():
    points = [*passed("a", 0, 10, 30), *passed("b", 0, 10, 30)[1:]]
    assert path_of(points[::-1], TWO).roundtrips == (30,)


def test_tasks_that_missed_a_point_or_passed_two_in_another_order_are_left_out():
    path = path_of([*passed("a", 0, 10, 30), *passed("b", 0, 10), *passed("c", 0, 30, 10)], TWO)
    assert path.roundtrips == (30,)
    assert path.left_out == 2


def test_points_that_nobody_passes_are_named():
    with pytest.raises(IncompletePathError, match=r"missing: back$"):
        path_of(passed("a", 0, 10), TWO)


def test_the_table_has_the_spans_their_sums_and_the_whole():
    text = path_of(passed("a", 0, 10, 40), TWO).table()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()][2:]
    assert rows == [
        ["client", "send it", "10.0", "10.0", "10.0", "25 %"],
        ["hop", "wait for it", "30.0", "30.0", "30.0", "75 %"],
        ["client", "**together**", "", "", "10.0", "25 %"],
        ["hop", "**together**", "", "", "30.0", "75 %"],
        ["", "**round trip**", "40.0", "40.0", "40.0", "100 %"],
    ]


def test_the_99th_percentile_is_a_value_that_one_in_a_hundred_exceeds():
    assert percentile_99(range(1, 101)) == 99
    assert percentile_99([7]) == 7


def test_processor_time_is_told_apart_by_thread():
    groups = {"this": [os.getpid()]}
    may_end = threading.Event()
    done = threading.Event()

    def work() -> None:
        sum(range(1_000_000))
        done.set()
        may_end.wait(60)

    thread = threading.Thread(target=work)
    before = ProcessorTime(groups)
    thread.start()
    try:
        assert done.wait(60)
        main, others = ProcessorTime(groups).since(before)["this"]
    finally:
        may_end.set()
        thread.join()
    assert others.nanoseconds > 0
    assert others.turns > 0
    assert main.nanoseconds >= 0


def test_every_span_of_a_real_task_is_seen_and_every_process_has_its_processor_time(tmp_path):
    output = tmp_path / "path.jsonl"
    command = [sys.executable, "-m", "benchmarks.path", "--tasks", "20", "--map-tasks", "200", "--output", str(output)]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=110)
    assert result.returncode == 0, result.stderr
    figures = [parse(line) for line in output.read_text().splitlines()]
    values = {figure.metric: figure.value for figure in figures if figure is not None}
    assert len(values) == len(figures)
    assert all(values[f"span {span.point}"] >= 0 for span in SPANS)
    for group in ("client", "scheduler", "workers"):  # a node agent has nothing to do with small results
        for what in ("single", "map"):
            assert (
                sum(
                    value
                    for name, value in values.items()
                    if name.startswith(f"{what} {group} ") and name.endswith("cpu")
                )
                > 0
            )
    for span in SPANS:
        assert re.search(rf"^\| {span.where} +\| {re.escape(span.what)} +\|", result.stdout, re.MULTILINE)
