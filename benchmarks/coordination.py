"""``make bench-coordination``: locks, queues, variables and events, beside distributed's, in one run.

Each system runs in a fresh process (`coordination_run`), the systems taking turns. distributed runs in its environment
(`peers`), with the very same code.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine, page, systems
from benchmarks.figures import Figure, Figures, medians
from benchmarks.goals import SYSTEM
from benchmarks.peers import environments
from benchmarks.peers.environments import UnavailableError
from benchmarks.table import aligned, number

TARGET = "bench-coordination"
PEER = "distributed"
_ROUNDS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit status."""
    parser = argparse.ArgumentParser(prog=f"make {TARGET}", description=__doc__)
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="how often each turn comes (default: %(default)s)")
    parser.add_argument("--without-peers", action="store_true", help="don't run distributed")
    parser.add_argument("--output", metavar="FILE", type=Path, help="write the JSON lines there too")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--quick", action="store_true", help="a smoke run, tiny sizes; its figures mean nothing")
    options = parser.parse_args(arguments)
    if options.quick and options.write_docs:
        print("a quick run's figures mean nothing: --write-docs needs a whole one", file=sys.stderr)
        return 2
    shown = [SYSTEM] if options.without_peers else [SYSTEM, PEER]
    try:
        figures = _measure(shown, options.rounds, quick=options.quick)
    except (UnavailableError, systems.SystemFailedError) as error:
        print(error, file=sys.stderr)
        return 1
    lines = "".join(f"{figure.to_json()}\n" for figure in figures)
    if options.output:
        options.output.write_text(lines)
    print(lines)
    result = table(Figures(figures), shown)
    print(result)
    if options.write_docs:
        made = f"Made with `make {TARGET}`: medians of {options.rounds} rounds, the systems taking turns."
        page.replace_section(page.PERFORMANCE, TARGET, f"{machine.describe()}\n\n{made}\n\n{result}")
    return 0


def table(figures: Figures, shown: Sequence[str]) -> str:
    """One row for each metric: the figure of each system, and how many times the peer's Holdfast's is."""
    rows = [["metric", "unit", *shown, *(f"× {name}" for name in shown if name != SYSTEM)]]
    for metric in figures.metrics:
        found = [figures.get(name, metric) for name in shown]
        unit = next(figure.unit for figure in found if figure is not None)
        values = ["" if figure is None else number(figure.value) for figure in found]
        mine, *others = found
        ratios = ["" if mine is None or other is None else number(mine.value / other.value) for other in others]
        rows.append([f"`{metric}`", unit, *values, *ratios])
    return aligned(rows)


def _measure(shown: Sequence[str], rounds: int, *, quick: bool) -> list[Figure]:
    def progress(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    arguments = ["-W", "ignore", "-m", "benchmarks.coordination_run"]
    size = ["--quick"] if quick else []
    commands = {
        name: [environments.interpreter(PEER, progress) if name == PEER else sys.executable, *arguments, name, *size]
        for name in shown
    }
    figures = []
    for turn in range(rounds):
        for name, command in commands.items():
            progress(f"{name}, round {turn + 1} of {rounds}")
            figures += systems.measure(name, command, progress)
    return medians(figures)


if __name__ == "__main__":
    sys.exit(main())
