"""``make bench-placement``: graphs that are hard on a scheduler, run by Holdfast, by distributed and by dask's threads.

For each case and system a fresh process (`placement_run`), the systems taking turns: the time of the case, and the
memory that it takes beyond the idle cluster's. distributed runs in its environment (`peers`), with the very same code.
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
from benchmarks.placement_cases import CASES
from benchmarks.table import aligned, number

PEER = "distributed"
SYSTEMS = (SYSTEM, "floor", PEER)
_ROUNDS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit status."""
    parser = argparse.ArgumentParser(prog="make bench-placement", description=__doc__)
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="how often each turn comes (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="of one thread each (default: %(default)s)")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), help="run these only")
    parser.add_argument("--without-peers", action="store_true", help="don't run distributed")
    parser.add_argument("--output", metavar="FILE", type=Path, help="write the JSON lines there too")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--quick", action="store_true", help="a smoke run, tiny sizes; its figures mean nothing")
    options = parser.parse_args(arguments)
    if options.write_docs and (options.quick or options.without_peers or options.cases != list(CASES)):
        print("--write-docs needs a whole run of all cases, with distributed", file=sys.stderr)
        return 2
    shown = [name for name in SYSTEMS if name != PEER or not options.without_peers]
    try:
        figures = _measure(shown, options)
    except (UnavailableError, systems.SystemFailedError) as error:
        print(error, file=sys.stderr)
        return 1
    lines = "".join(f"{figure.to_json()}\n" for figure in figures)
    if options.output:
        options.output.write_text(lines)
    print(lines)
    result = table(Figures(figures), options.cases, shown)
    print(result)
    if options.write_docs:
        rounds = "1 round" if options.rounds == 1 else f"medians of {options.rounds} rounds"
        made = f"Made with `make bench-placement`: {rounds}, {options.workers} workers of one thread."
        page.replace_section(page.PERFORMANCE, "bench-placement", f"{machine.describe()}\n\n{made}\n\n{result}")
    return 0


def table(figures: Figures, cases: Sequence[str], shown: Sequence[str]) -> str:
    """A row for each case: what each system took, and how many times more distributed took than Holdfast."""
    head = ["case", *(f"{name} s" for name in shown), *(f"{name} GB" for name in shown), "in the store GB"]
    if PEER in shown:
        head += ["× time", "× memory"]
    rows = [head]
    for case in cases:
        row = [f"`{case}`"]
        row += [_value(figures, name, f"{case}_{what}") for what in ("seconds", "memory") for name in shown]
        row.append(_value(figures, SYSTEM, f"{case}_store"))
        if PEER in shown:
            row += [_ratio(figures, f"{case}_{what}") for what in ("seconds", "memory")]
        rows.append(row)
    return aligned(rows)


def _value(figures: Figures, system: str, metric: str) -> str:
    found = figures.get(system, metric)
    return "" if found is None else number(found.value)


def _ratio(figures: Figures, metric: str) -> str:
    mine, other = figures.get(SYSTEM, metric), figures.get(PEER, metric)
    return "" if mine is None or other is None or mine.value <= 0 else number(other.value / mine.value)


def _measure(shown: Sequence[str], options: argparse.Namespace) -> list[Figure]:
    interpreters = {name: environments.interpreter(name, _say) if name == PEER else sys.executable for name in shown}
    given = ["--workers", str(options.workers), *(["--quick"] if options.quick else [])]
    found = []
    for turn in range(1, options.rounds + 1):
        for case in options.cases:
            for name in shown:
                _say(f"round {turn} of {options.rounds}: {case}, {name}")
                command = [interpreters[name], "-W", "ignore", "-m", "benchmarks.placement_run", name, case, *given]
                found += systems.measure(name, command, _say)
    return medians(found)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
