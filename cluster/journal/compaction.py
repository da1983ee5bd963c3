"""Writes down what the records of closed files come to, in their place.

``python -m holdfast.cluster.journal.compaction DIRECTORY NUMBER`` sums up the files up to that number, in a process of
its own and at the lowest priority, while the scheduler goes on to write the files after it. The summary takes its place
in one step, when all of it is on the disk. Whatever happens before, the files that it stands for are still there; what
happens after only leaves them longer.

A summary is a file like the others: it has the records that make the same tables.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from holdfast.cluster.errors import JournalError
from holdfast.cluster.journal import directory as state
from holdfast.cluster.journal import records
from holdfast.cluster.journal.batches import FORMAT, Heading, Record, pack_heading, packer, prefix_of
from holdfast.cluster.journal.recovery import read
from holdfast.cluster.journal.tables import Tables

#: Given to the process that is to end with its standard input: when a scheduler has ended that had the directory,
#: another one may read it.
ENDS_WITH_INPUT = "--ends-with-input"
#: So many tasks, keys or entries make a batch.
TOGETHER = 500

_Item = TypeVar("_Item")


def summarize(path: Path, through: int) -> Path:
    """Write a summary of the files up to a number, and remove these.

    Returns
    -------
    Path
        The summary.
    """
    recovered = read(path, through=through)
    place = path / "journal" / f"{through:08d}.sum"
    beside = state.beside(place)
    heading = Heading(FORMAT, recovered.cluster or "", recovered.epoch, recovered.next_batch - 1)
    packing = packer()
    with open(beside, "wb", buffering=1 << 20, opener=state.private) as file:
        file.write(pack_heading(0, heading))
        for number, batch in enumerate(records_of(recovered.tables), 1):
            payload: bytes = packing.pack(batch)
            file.write(prefix_of(number, payload) + payload)
        file.flush()
        os.fsync(file.fileno())
    state.rename(beside, place)
    for file_ in state.superseded(path):
        with contextlib.suppress(FileNotFoundError):
            file_.path.unlink()
    return place


def records_of(tables: Tables) -> Iterator[list[Record]]:
    """The records that make these tables, batch by batch."""
    for tasks in _batches(tables.tasks.items()):
        origins, options = _Shared(), _Shared()
        rows = [
            (
                serial,
                task.key,
                task.digest,
                task.payload,
                task.dependencies,
                origins.number_of(task.origin),
                options.number_of(task.options),
                task.data,
            )
            for serial, task in tasks
        ]
        yield [(records.WHOLE, origins.values, options.values, rows)]
    for id, client in tables.clients.items():
        yield [records.joined(id, client.name, client.about, client.worker)]
        for serials in _batches(client.holds):
            yield [records.hold(id, serials)]
        for table, values in client.entries.items():
            for of_client in _batches(values.items()):
                yield [records.put_for(table, id, key, value) for key, value in of_client]
    for table, entries in tables.entries.items():
        for some in _batches(entries.items()):
            yield [records.put(table, key, entry.value, entry.holds) for key, entry in some]
    for table, entries_of_tasks in tables.entries_of_tasks.items():
        for of_tasks in _batches(entries_of_tasks.items()):
            yield [records.put_of(table, serial, entry.value, entry.holds) for serial, entry in of_tasks]
    yield [(records.LAST_SERIAL, tables.last_serial)]


class _Shared:
    """Objects that many tasks of a batch share: each is written once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[int, int] = {}

    def number_of(self, value: Any) -> int:
        number = self._numbers.setdefault(id(value), len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number


def _batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, TOGETHER)):
        yield batch


def main() -> None:
    """What the process does."""
    os.nice(19)
    path, through, *options = sys.argv[1:]
    if ENDS_WITH_INPUT in options:
        threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        summarize(Path(path), int(through))
    except (OSError, JournalError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def _end_with_input() -> None:
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as unbuffered:
        unbuffered.readall()  # a buffered reader has a lock, which the interpreter wants when it ends
    os._exit(1)


if __name__ == "__main__":
    main()
