"""``make bench-bytecodes``: what the interpreter does for one task, in bytecodes, whatever else the machine is doing.

Times differ by a quarter from one minute to the next where others use the machine. The number of bytecodes hardly does,
so it shows a change on a task's path that adds one call. It says nothing about what C code takes, the kernel, or caches
that are cold, so it goes beside ``make bench-path``, and not in its place.

Single tasks are submitted, each waited for before the next one, on a cluster of two workers with one thread each. All
of its processes and threads count (`bytecode_counter`). That is done twice, with a different number of tasks. What
starting and stopping take is the same in both, and is not in the difference. A process that waits does a little more
the longer it waits, so of several rounds the one counts in which a process did least.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from benchmarks.figures import Figure
from benchmarks.goals import SYSTEM
from benchmarks.table import aligned

#: The processes, by the module that the command line of each names.
_PROCESSES = {
    "benchmarks.bytecode_client": "client",
    "holdfast.cluster.scheduler": "scheduler",
    "holdfast.cluster.worker": "workers",
    "holdfast.cluster.node": "node agent",
}
#: Threads that make memory ready, beside whatever tasks there are.
_BACKGROUND = frozenset({"holdfast-store-warm", "holdfast-store-headroom"})
_FEW_TASKS = 50
_REPOSITORY = Path(__file__).parents[1]


class Count(NamedTuple):
    """What was counted, of all tasks or of each."""

    calls: float
    bytecodes: float


#: By process and function.
Counts: TypeAlias = Mapping[str, Mapping[str, Count]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit status."""
    parser = argparse.ArgumentParser(prog="make bench-bytecodes", description=__doc__)
    parser.add_argument("--tasks", type=int, default=200, help="tasks that are counted (default: %(default)s)")
    parser.add_argument(
        "--functions", type=int, metavar="N", default=0, help="list the N functions of each process that do the most"
    )
    parser.add_argument("--output", metavar="FILE", type=Path, help="write the JSON lines there too")
    parser.add_argument("--rounds", type=int, default=3, help="how often all is done (default: %(default)s)")
    options = parser.parse_args(arguments)
    for name in ("tasks", "rounds"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: at least one is needed")

    rounds = [
        per_task(_counted(_FEW_TASKS), _counted(_FEW_TASKS + options.tasks), options.tasks)
        for _ in range(options.rounds)
    ]
    counts = least(rounds)
    lines = "".join(f"{figure.to_json()}\n" for figure in _figures(counts))
    if options.output:
        options.output.write_text(lines)
    print(lines)
    print(_table(counts, options.functions))
    return 0


def _counted(tasks: int) -> Counts:
    """What so many tasks take, and starting and stopping a cluster."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bytecodes-") as directory:
        command = [sys.executable, "-m", "benchmarks.bytecode_client", directory, str(tasks)]
        subprocess.run(command, cwd=_REPOSITORY, check=True)
        return added(json.loads(path.read_text()) for path in Path(directory).glob("*.json"))


def added(counted: Iterable[tuple[Sequence[str], Iterable[tuple[str, str, str, int, int]]]]) -> Counts:
    """What processes have left, added up for those that run the same module."""
    sums: dict[str, dict[str, Count]] = {name: defaultdict(lambda: Count(0, 0)) for name in _PROCESSES.values()}
    for command_line, rows in counted:
        process = next((name for module, name in _PROCESSES.items() if module in " ".join(command_line)), None)
        if process is None:
            continue  # what forks the processes of a cluster has nothing to do with tasks
        of_process = sums[process]
        for thread, file, function, calls, bytecodes in rows:
            if thread in _BACKGROUND:
                continue
            name = f"{'/'.join(Path(file).parts[-2:])}:{function}"
            former = of_process[name]
            of_process[name] = Count(former.calls + calls, former.bytecodes + bytecodes)
    return sums


def per_task(few: Counts, many: Counts, tasks: int) -> Counts:
    """What each of those tasks takes that ``many`` has more than ``few``."""
    nothing = Count(0, 0)
    return {
        process: {
            name: Count((count.calls - former.calls) / tasks, (count.bytecodes - former.bytecodes) / tasks)
            for name, count in functions.items()
            for former in [few[process].get(name, nothing)]
        }
        for process, functions in many.items()
    }


def least(rounds: Sequence[Counts]) -> Counts:
    """For each process the round in which it did least."""
    return {
        process: min((counts[process] for counts in rounds), key=lambda functions: _total(functions).bytecodes)
        for process in rounds[0]
    }


def _total(functions: Mapping[str, Count]) -> Count:
    return Count(sum(count.calls for count in functions.values()), sum(count.bytecodes for count in functions.values()))


def _figures(counts: Counts) -> list[Figure]:
    return [
        Figure(SYSTEM, f"{process} {what}", value, what)
        for process, functions in counts.items()
        for what, value in _total(functions)._asdict().items()
    ]


def _table(counts: Counts, most: int) -> str:
    """A row for each process, and one for each of its functions that do the most."""
    rows = [["process", "function", "calls", "bytecodes"]]
    for process, functions in counts.items():
        for name, count in sorted(functions.items(), key=lambda entry: -entry[1].bytecodes)[:most]:
            rows.append([process, name, f"{count.calls:.2f}", f"{count.bytecodes:.0f}"])
        total = _total(functions)
        rows.append([f"**{process}**", "", f"{total.calls:.1f}", f"{total.bytecodes:.0f}"])
    every = [_total(functions) for functions in counts.values()]
    rows.append(["**all**", "", f"{sum(t.calls for t in every):.1f}", f"{sum(t.bytecodes for t in every):.0f}"])
    return aligned(rows)


if __name__ == "__main__":
    sys.exit(main())
