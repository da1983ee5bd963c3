"""Counting what the interpreter does for a task: adding up, and the benchmark as a command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import psutil

from benchmarks.bytecode_counter import Counter
from benchmarks.bytecodes import Count, added, least, per_task
from benchmarks.figures import parse

REPOSITORY = Path(__file__).parents[2]
WORKER = ["python", "-m", "holdfast.cluster.worker", "--index", "0"]


def rows(*counted: tuple[str, int, int]) -> list[tuple[str, str, str, int, int]]:
    return [("MainThread", "/somewhere/worker/running.py", function, *counts) for function, *counts in counted]


def test_processes_of_one_kind_add_up_and_others_do_not_count():
    counted = added([(WORKER, rows(("run", 1, 10))), (WORKER, rows(("run", 2, 30))), (["forks"], rows(("fork", 1, 1)))])
    assert counted["workers"] == {"worker/running.py:run": Count(3, 40)}
    assert not counted["scheduler"]


def test_threads_that_make_memory_ready_do_not_count():
    warm = [("holdfast-store-warm", "/somewhere/warm.py", "warm", 100, 1000)]
    assert not added([(WORKER, warm)])["workers"]


def test_what_starting_takes_is_no_cost_of_a_task():
    few = added([(WORKER, rows(("start", 1, 500), ("run", 10, 100)))])
    many = added([(WORKER, rows(("start", 1, 500), ("run", 30, 300), ("rare", 1, 10)))])
    each = per_task(few, many, 20)["workers"]
    assert each["worker/running.py:start"] == Count(0, 0)
    assert each["worker/running.py:run"] == Count(1, 10)
    assert each["worker/running.py:rare"] == Count(0.05, 0.5)


def test_the_round_counts_in_which_a_process_did_least():
    one = {"client": {"f": Count(1, 10)}, "workers": {"g": Count(1, 5)}}
    two = {"client": {"f": Count(1, 12)}, "workers": {"g": Count(1, 4)}}
    assert least([one, two]) == {"client": one["client"], "workers": two["workers"]}


def test_bytecodes_of_all_threads_are_counted(tmp_path):
    def work(times: int) -> None:
        for _ in range(times):
            pass

    def counted(times: int) -> tuple[int, int]:
        counter = Counter()
        previous, previous_of_threads = sys.gettrace(), threading.gettrace()
        counter.start()
        try:
            thread = threading.Thread(target=work, args=(times,))
            thread.start()
            thread.join()
            work(times)
        finally:
            sys.settrace(previous)
            threading.settrace(previous_of_threads)  # type: ignore[arg-type]
        counter.write(tmp_path)
        (file,) = tmp_path.glob("*.json")
        command_line, found = json.loads(file.read_text())
        assert command_line == psutil.Process().cmdline()
        of_work = [(calls, bytecodes) for _, _, name, calls, bytecodes in found if name.endswith("work")]
        assert len(of_work) == 2, "one for each thread"
        return sum(calls for calls, _ in of_work), sum(bytecodes for _, bytecodes in of_work)

    calls, bytecodes = counted(10)
    again, more = counted(20)
    assert calls == again == 2
    assert more > bytecodes
    assert (more - bytecodes) % 20 == 0, "each round of the loop takes the same"


def test_every_process_on_a_tasks_path_is_counted(tmp_path):
    output = tmp_path / "bytecodes.jsonl"
    options = ["--tasks", "50", "--rounds", "1", "--functions", "3", "--output", str(output)]
    command = [sys.executable, "-m", "benchmarks.bytecodes", *options]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=110)
    assert result.returncode == 0, result.stderr
    figures = [parse(line) for line in output.read_text().splitlines()]
    values = {figure.metric: figure.value for figure in figures if figure is not None}
    for process in ("client", "scheduler", "workers"):
        assert values[f"{process} calls"] > 10
        assert values[f"{process} bytecodes"] > 100
    assert "| **scheduler**" in result.stdout
    assert len(re.findall(r"^\| scheduler +\| \w+/\w+\.py:\S+ ", result.stdout, re.MULTILINE)) == 3, (
        "what does the most"
    )
