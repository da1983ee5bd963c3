"""What happened when: what was done to processes, and what clients have seen."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Deed:
    """Something that the nemesis did.

    Attributes
    ----------
    when : float
        Of the monotonic clock, as all times here.
    act : str
        ``"killed"``, ``"stopped"``, ``"let go on"`` or ``"cut"``.
    kind : str
        Of the process: a victim's. ``"link"``, if connections were cut.
    pid : int
        Of a link: how many connections were cut.
    seconds : float
        How long it was to stand still, if it was stopped.
    addresses : tuple of str
        Where the process listened, if it was a host's agent.
    """

    when: float
    act: str
    kind: str
    pid: int
    seconds: float = 0.0
    addresses: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.act} {self.kind} {self.pid}" + (f" for {self.seconds:.1f} s" if self.seconds else "")


@dataclass(frozen=True)
class Answer:
    """What came of one operation of a client.

    Attributes
    ----------
    client : int
        The number of the client's process.
    operation : str
    since : float
        When the oldest of what it used was made.
    ended : float
    error : str
        The name of the error's type; ``""``: the answer was right, ``"Wrong"``: it was another one than it has to be.
    text : str
        Of the error.
    fragile : tuple of str
        The keys of what it used that has one copy and can't be made again.
    places : tuple of str
        The addresses of the hosts where that lay at first; empty: that isn't known.
    pid : int
        Of the client's process.
    """

    client: int
    operation: str
    since: float
    ended: float
    error: str = ""
    text: str = ""
    fragile: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    pid: int = 0


@dataclass
class Timeline:
    """All deeds and errors of a run, in the order in which they came about; and how much was done and checked."""

    began: float = field(default_factory=time.monotonic)
    done: Counter[tuple[str, str]] = field(default_factory=Counter)  # what was done to processes: the act and the kind
    right: Counter[str] = field(default_factory=Counter)  # operations whose value was right
    explained: Counter[str] = field(default_factory=Counter)  # errors that may reach a user, by type
    unexplained: Counter[str] = field(default_factory=Counter)  # all others
    _entries: list[tuple[float, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, when: float, entry: Any) -> None:
        """Note a deed, or a line about something else."""
        with self._lock:
            self._entries.append((when, entry))
            if isinstance(entry, Deed):
                self.done[entry.act, entry.kind] += 1

    def say(self, line: str) -> None:
        """Note that something has happened now."""
        self.add(time.monotonic(), line)

    def deeds(self, since: float, until: float) -> Iterator[Deed]:
        """Everything that was done to processes in a stretch of time."""
        with self._lock:
            entries = list(self._entries)
        return (deed for _, deed in entries if isinstance(deed, Deed) and since <= deed.when <= until)

    def lines(self, last: int | None = None) -> list[str]:
        """The entries in words, each with the seconds since the run began; only the last so many of them."""
        with self._lock:
            entries = sorted(self._entries, key=lambda entry: entry[0])
        shown = entries if last is None else entries[-last:]
        return [f"{when - self.began:9.3f}  {entry}" for when, entry in shown]

    def done_to(self, act: str) -> int:
        """How many processes were ``"killed"`` or ``"stopped"``."""
        return sum(count for (each, _), count in self.done.items() if each == act)

    @property
    def checked(self) -> int:
        """How many operations have come to an end."""
        return sum(map(Counter.total, (self.right, self.explained, self.unexplained)))

    def summary(self) -> list[str]:
        """What was done and checked, in lines."""
        killed, stopped, cut = (
            Counter({kind: count for (act, kind), count in self.done.items() if act == each})
            for each in ("killed", "stopped", "cut")
        )
        lines = [f"{killed.total():,} processes killed: {_listed(killed)}"]
        lines.append(f"{stopped.total():,} stopped: {_listed(stopped)}; links cut {cut.total():,} times")
        lines.append(f"{self.checked:,} operations checked, {self.right.total():,} right: {_listed(self.right)}")
        lines += [f"errors that may be: {_listed(self.explained)}"] if self.explained else []
        return lines + ([f"errors that may not: {_listed(self.unexplained)}"] if self.unexplained else [])


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "none"
