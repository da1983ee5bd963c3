"""Comparing Holdfast with its peers: one run in which the systems take turns, its JSON lines, its table, its page.

Machines are noisy, and noisy for minutes. So the systems take turns, in as many rounds as asked for, and each figure is
the median of its rounds: what disturbs the machine for a while then disturbs all of them alike. Every turn is a fresh
process.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import goals, machine, page, systems
from benchmarks.figures import Figure, Figures, medians
from benchmarks.peers.environments import UnavailableError
from benchmarks.table import table

_ROUNDS = 3


@dataclass(frozen=True)
class Comparison:
    """What is compared with whom.

    Attributes
    ----------
    target : str
        Of the Makefile; the part of ``docs/performance.md`` that is generated has the same name.
    workloads : str
        The module of this folder that runs Holdfast through them.
    systems : tuple of str
        In the order of their turns.
    goals : tuple of Goal
        One for each metric, in the order of the table.
    ratios : tuple of str
        The systems that have a column with how many times better than theirs Holdfast's figures are.
    suffix : str
        What follows the name of a peer in that of its module.
    """

    target: str
    workloads: str
    systems: tuple[str, ...]
    goals: tuple[goals.Goal, ...]
    ratios: tuple[str, ...] = ()
    suffix: str = ""

    def run(self, options: argparse.Namespace, given: Sequence[str] = ()) -> int:
        """Measure as the options of `parser` say; ``given`` goes to Holdfast's workloads. The exit status."""
        if options.quick and options.write_docs:
            print("a quick run's figures mean nothing: --write-docs needs a whole one", file=sys.stderr)
            return 2
        try:
            commands = self._commands(options, given)
            figures = medians(_rounds(commands, options.rounds))
        except systems.SystemFailedError as error:
            print(error, file=sys.stderr)
            return 1
        lines = "".join(f"{figure.to_json()}\n" for figure in figures)
        if options.output:
            options.output.write_text(lines)
        print(lines)
        shown = sorted(commands, key=lambda name: name != goals.SYSTEM)
        result = table(self.goals, Figures(figures), shown, [name for name in self.ratios if name in commands])
        print(result)
        if options.write_docs:
            made = self._how_it_was_made(options)
            page.replace_section(page.PERFORMANCE, self.target, f"{machine.describe()}\n\n{made}\n\n{result}")
        return 0

    def parser(self, description: str | None) -> argparse.ArgumentParser:
        """The options that every comparison has."""
        parser = argparse.ArgumentParser(prog=f"make {self.target}", description=description)
        parser.add_argument(
            "--rounds", type=_positive, default=_ROUNDS, help=f"how often each system's turn comes (default: {_ROUNDS})"
        )
        parser.add_argument(
            "--only", nargs="+", choices=self.systems, default=self.systems, help="measure these systems only"
        )
        parser.add_argument("--without-peers", action="store_true", help=f"the same as --only {goals.SYSTEM}")
        parser.add_argument("--output", metavar="FILE", type=Path, help="write the JSON lines there too")
        parser.add_argument("--write-docs", action="store_true", help="put the table into docs/performance.md")
        parser.add_argument("--quick", action="store_true", help="a smoke run, tiny sizes; its figures mean nothing")
        return parser

    def _commands(self, options: argparse.Namespace, given: Sequence[str]) -> dict[str, list[str]]:
        """How each system that is to be measured is run. A peer that can't be installed is left out."""
        wanted = [goals.SYSTEM] if options.without_peers else [name for name in self.systems if name in options.only]
        commands = {}
        for name in wanted:
            try:
                if name == goals.SYSTEM:
                    commands[name] = systems.module(self.workloads, *(["--quick"] if options.quick else []), *given)
                else:
                    commands[name] = systems.peer(name, _say, self.suffix)
            except UnavailableError as error:
                _say(f"{error}\ngoing on without {name}")
        if not commands:
            raise systems.SystemFailedError("nothing is left to be measured")
        return commands

    def _how_it_was_made(self, options: argparse.Namespace) -> str:
        """The command, without the options that change no figure: where files lie is this machine's own matter."""
        given = [] if options.rounds == _ROUNDS else ["--rounds", str(options.rounds)]
        if options.without_peers:
            given.append("--without-peers")
        elif set(options.only) != set(self.systems):
            given += ["--only", *options.only]
        command = f'make {self.target} ARGS="{shlex.join(given)}"' if given else f"make {self.target}"
        rounds = "1 round" if options.rounds == 1 else f"{options.rounds} rounds"
        return f"Made with `{command}`: medians of {rounds}, the systems taking turns."


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


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(f"{number} rounds")
    return number


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
