"""``make bench-store``: the object store's figures beside those of its peers, and what came of the goals.

Machines are noisy, and noisy for minutes. So the systems take turns, in as many rounds as asked for, and each figure is
the median of its rounds: what disturbs the machine for a while then disturbs all of them alike.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import goals, machine, page, systems
from benchmarks.figures import Figure, Figures, medians
from benchmarks.table import table

_PAGE = systems.REPOSITORY / "docs" / "performance.md"
_ROUNDS = 3
_SYSTEMS = ("floor", goals.SYSTEM, "plasma", "ray")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    if options.quick and options.write_docs:
        print("a quick run's figures mean nothing: --write-docs needs a whole one", file=sys.stderr)
        return 2
    try:
        commands = _commands(options)
        figures = medians(_rounds(commands, options.rounds))
    except (FileNotFoundError, systems.SystemFailedError) as error:
        print(error, file=sys.stderr)
        return 1
    lines = "".join(f"{figure.to_json()}\n" for figure in figures)
    if options.output:
        options.output.write_text(lines)
    print(lines)
    result = table(goals.STORE, Figures(figures))
    print(result)
    if options.write_docs:
        made = _how_it_was_made(options)
        page.replace_section(_PAGE, "bench-store", f"{machine.describe()}\n\n{made}\n\n{result}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description=__doc__)
    parser.add_argument(
        "--rounds", type=_positive, default=_ROUNDS, help=f"how often each system's turn comes (default: {_ROUNDS})"
    )
    parser.add_argument("--only", nargs="+", choices=_SYSTEMS, default=_SYSTEMS, help="measure these systems only")
    parser.add_argument("--without-peers", action="store_true", help=f"the same as --only {goals.SYSTEM}")
    parser.add_argument("--peers", metavar="DIR", help="where the peers' program lies; see HOLDFAST_PEERS")
    parser.add_argument("--output", metavar="FILE", type=Path, help="write the JSON lines there too")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--quick", action="store_true", help="a smoke run with tiny sizes; its figures mean nothing")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(f"{number} rounds")
    return number


def _commands(options: argparse.Namespace) -> dict[str, list[str]]:
    """How each system that is to be measured is run."""
    wanted = [goals.SYSTEM] if options.without_peers else [name for name in _SYSTEMS if name in options.only]
    peers = None if wanted == [goals.SYSTEM] else str(systems.find_peers(options.peers))
    holdfast = systems.module("store_workloads", *(["--quick"] if options.quick else []))
    return {name: [peers, name] if peers and name != goals.SYSTEM else holdfast for name in wanted}


def _rounds(commands: dict[str, list[str]], rounds: int) -> list[Figure]:
    figures = []
    for number in range(1, rounds + 1):
        for name, command in commands.items():
            _say(f"round {number} of {rounds}: {name}")
            try:
                figures += systems.measure(name, command, _say)
            except systems.SystemFailedError as error:
                if name == goals.SYSTEM:
                    raise
                _say(f"{error}\ngoing on without this round of {name}")
    return figures


def _how_it_was_made(options: argparse.Namespace) -> str:
    """The command, without the options that change no figure: where files lie is this machine's own matter."""
    given = [] if options.rounds == _ROUNDS else ["--rounds", str(options.rounds)]
    if options.without_peers:
        given.append("--without-peers")
    elif set(options.only) != set(_SYSTEMS):
        given += ["--only", *options.only]
    command = f'make bench-store ARGS="{shlex.join(given)}"' if given else "make bench-store"
    rounds = "1 round" if options.rounds == 1 else f"{options.rounds} rounds"
    return f"Made with `{command}`: medians of {rounds}, the systems taking turns."


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
