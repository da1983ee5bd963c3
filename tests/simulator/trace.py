"""What has happened, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.cluster.scheduler.tasks.events import Event, HostReported, TimePassed
from holdfast.cluster.scheduler.tasks.instructions import Instruction

#: No line is longer.
MAX_LENGTH = 400


class Trace:
    """Keeps the lines.

    Attributes
    ----------
    lines
        One for each event, and for each step.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def step(self, now: float, text: str) -> None:
        self.lines.append(f"{now:10.4f}  ===  {text}")

    def event(self, now: float, event: Event, instructions: Sequence[Instruction]) -> None:
        if type(event) in (TimePassed, HostReported) and not instructions:
            return
        self.lines.append(f"{now:10.4f}  {_text(event)}")
        self.lines += [f"{'':10}      {_text(instruction)}" for instruction in instructions]


def _text(thing: Any) -> str:
    return repr(thing)[:MAX_LENGTH]
