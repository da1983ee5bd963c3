"""``python -m tests.chaos --seconds 600 --seed 7``: see the package. ``make chaos`` runs it for ten minutes."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from collections.abc import Sequence

from tests.chaos.operations import OPERATIONS
from tests.chaos.place import Place
from tests.chaos.run import SHOWN, Options, Run
from tests.chaos.victims import VICTIMS

#: Between two lines of progress, on a terminal and in a file.
PROGRESS_SECONDS = (0.5, 15.0)


class Progress:
    """Shows how a run stands: on a terminal in one line, else a line now and then."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._next = 0.0

    def __call__(self, line: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PROGRESS_SECONDS[not self._terminal]
            text = f"\r\033[K{line}" if self._terminal else f"{line}\n"
            print(text, end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._terminal:
            print(file=sys.stderr)


def parse(arguments: Sequence[str] | None = None) -> Options:
    """The options of a command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    kinds = [victim.kind for victim in VICTIMS]
    names = [operation.__name__ for operation in OPERATIONS]
    parser.add_argument("--seconds", type=float, default=600.0, help="of faults (default: %(default)g)")
    parser.add_argument("--seed", type=int, help="default: a new one, which is printed")
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--workers", type=int, default=4, help="of all hosts together")
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", default=[], choices=kinds, metavar="KIND", help=", ".join(kinds))
    parser.add_argument("--operations", nargs="+", default=[], choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--silence", type=float, default=6.0, help="seconds for which a host may be silent")
    parser.add_argument("--fast", action="store_true", help="don't have the scheduler check itself after each event")
    given = parser.parse_args(arguments)
    return Options(
        seconds=given.seconds,
        seed=random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed,
        hosts=given.hosts,
        workers=given.workers,
        clients=given.clients,
        kinds=tuple(given.kinds),
        operations=tuple(given.operations),
        silence_seconds=given.silence,
        validate=not given.fast,
    )


def again(options: Options) -> str:
    """The command that does the same again."""
    plain = Options(seconds=options.seconds, seed=options.seed)
    words = ["python -m tests.chaos", f"--seconds {options.seconds:g}", f"--seed {options.seed}"]
    for name in ("hosts", "workers", "clients"):
        if getattr(options, name) != getattr(plain, name):
            words.append(f"--{name} {getattr(options, name)}")
    for name in ("kinds", "operations"):
        if chosen := getattr(options, name):
            words.append(f"--{name} {' '.join(f'{each!r}' if ' ' in each else each for each in chosen)}")
    if options.silence_seconds != plain.silence_seconds:
        words.append(f"--silence {options.silence_seconds:g}")
    return " ".join(words + ([] if options.validate else ["--fast"]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; returns the exit code: 0 if all is right, 1 if not, 130 if it was interrupted."""
    options = parse(arguments)
    print(f"chaos: {again(options)}", flush=True)
    place, progress = Place(), Progress()
    run = Run(options, place, progress)
    signal.signal(signal.SIGINT, lambda *_: run.interrupt())
    try:
        run.run()
    except Exception as error:
        run.failures.append(f"the run broke off: {type(error).__name__}: {error}")
        raise
    finally:
        progress.end()
        report(run, place)
    return 1 if run.failures else 130 if run.interrupted else 0


def report(run: Run, place: Place) -> None:
    """Say what was done and found; of a failure, everything that may tell why."""
    summary = [f"  {line}" for line in run.timeline.summary()]
    if not run.failures:
        place.remove()
        print(
            "\n".join([*summary, f"chaos: {'interrupted' if run.interrupted else 'passed'}, seed {run.options.seed}"])
        )
        return
    everything = place.path / "timeline"
    everything.write_text("\n".join([*run.timeline.lines(), ""]))
    print(
        "\n".join(
            [
                f"chaos: FAILED, seed {run.options.seed}",
                *summary,
                "",
                *(f"* {failure}" for failure in run.failures),
                "",
                f"The last of what happened (all of it: {everything})",
                *run.timeline.lines(SHOWN),
                "",
                place.tails(),
                "",
                f"To do the same again: {again(run.options)}",
            ]
        )
    )


if __name__ == "__main__":
    sys.exit(main())
