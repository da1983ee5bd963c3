"""The process of a client: does one operation after the other, and says what has come of each, a line of JSON.

It ends when its standard input does, after the operation that it is at. On SIGUSR1 it writes what its threads are
doing to standard error.
"""

from __future__ import annotations

import argparse
import dataclasses
import faulthandler
import functools
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

from holdfast import Client
from tests.chaos.operations import OPERATIONS, PATIENCE_SECONDS, Operation, Work, look_again
from tests.chaos.timeline import Answer
from tests.chaos.verdicts import GIVEN_UP, is_given_up


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--holders", type=Path, required=True)
    parser.add_argument("--operations", nargs="*", default=[])
    parser.add_argument("--remote", action="store_true", help="don't attach to the store of a host")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # that is for the run, which ends this process in order
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    chance = random.Random(f"client {options.number} {options.seed}")
    wanted = options.operations or [operation.__name__ for operation in OPERATIONS]
    chosen = {operation: weight for operation, weight in OPERATIONS.items() if operation.__name__ in wanted}
    with Client(options.address, timeout=PATIENCE_SECONDS, attach=not options.remote) as client:
        work = Work(client, chance, options.holders)
        while not over.is_set():
            (operation,) = chance.choices(list(chosen), chosen.values())
            do(options.number, operation, work)
        while work.kept:
            do(options.number, look_again, work)


def do(number: int, operation: Operation, work: Work) -> None:
    """Do an operation once, and say what came of it. A client whose session has ended can do nothing more."""
    answer = attempt(number, operation, work)
    say(answer)
    if is_given_up(answer):
        sys.exit(GIVEN_UP)


def attempt(number: int, operation: Operation, work: Work) -> Answer:
    """Do an operation once."""
    work.begin()
    error = text = ""
    try:
        operation(work)
    except Exception as raised:
        error, text = type(raised).__name__, str(raised)
    answer = Answer(
        number, name_of(operation), work.since, time.monotonic(), error, text, tuple(work.fragile), tuple(work.places),
        os.getpid(),
    )  # fmt: skip
    # An operation that needs no answer may come to its end between the deed and the news of it.
    return dataclasses.replace(answer, since=work.began) if is_given_up(answer) else answer


def name_of(operation: Operation) -> str:
    while isinstance(operation, functools.partial):
        operation = operation.func
    return operation.__name__


def say(answer: Answer) -> None:
    print(json.dumps(dataclasses.asdict(answer)), flush=True)


if __name__ == "__main__":
    main()
