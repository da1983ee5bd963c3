"""What a record says.

Tasks have *serials*: a number for each task that was ever made, by which everything else names it. Only what a task
reads is named by key, as its client has named it: a key means the task that was made last under it. All facts that are
not of tasks and their holders are entries of named tables: a value under a key, with the tasks that the entry keeps.

=============  ======================================================================================================
`TASKS`        tasks were made, or specified
`DATA`         data was brought
`JOINED`       a client has come
`HOLD`         a client holds tasks
`UNHOLD`       it lets go of them
`LEFT`         it is gone, with its holds and its entries
`PUT`          a table has an entry
`REMOVE`       it has it no more
`PUT_OF`       a table of tasks has an entry about a task, which goes with the task
`REMOVE_OF`    it goes before
`PUT_FOR`      a table has an entry for a client, which goes with the client
`REMOVE_FOR`   it goes before
`WHOLE`        tasks as they are, with what they read by serial (`compaction`)
`LAST_SERIAL`  the highest serial that was ever given (`compaction`)
=============  ======================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from holdfast.cluster.journal.batches import Record

(
    TASKS,
    DATA,
    JOINED,
    HOLD,
    UNHOLD,
    LEFT,
    PUT,
    REMOVE,
    PUT_OF,
    REMOVE_OF,
    PUT_FOR,
    REMOVE_FOR,
    WHOLE,
    LAST_SERIAL,
) = range(14)

Serial: TypeAlias = int
#: A task's key, digest of its function, payload, and the keys that it reads.
Entry: TypeAlias = Sequence[Any]
#: Where a task comes from, as plain data that nothing here looks into.
Origin: TypeAlias = Sequence[Any]


def tasks(
    origin: Origin, serials: Serial | Sequence[Serial], entries: Sequence[Entry], options: dict[str, Any]
) -> Record:
    """Tasks were made, or specified.

    Parameters
    ----------
    serials
        That of the first one, if the others follow it. Else that of each; zero of one that is as it was.
    entries
        As in `events.TasksSubmitted`.
    options
        Of all of them; those of one alone are among them.
    """
    return (TASKS, origin, serials, entries, options)


def data(origin: Origin, objects: Sequence[tuple[Any, Serial, bytes, int, str, Any]]) -> Record:
    """Data was brought: the key, serial, object, bytes and type of each, and its encoding if it lies in no store."""
    return (DATA, origin, objects)


def joined(client: str, name: str, about: dict[str, Any], worker: tuple[str, int | None] | None) -> Record:
    """A client has come; the worker is the one whose tasks share it: its address, and which process it is."""
    return (JOINED, client, name, about, worker)


def hold(client: str, serials: Iterable[Serial]) -> Record:
    return (HOLD, client, ranges(serials))


def unhold(client: str, serials: Iterable[Serial]) -> Record:
    return (UNHOLD, client, ranges(serials))


def left(client: str) -> Record:
    return (LEFT, client)


def put(table: str, key: Any, value: Any, holds: Iterable[Serial] = ()) -> Record:
    """A table has an entry from now on, in the place of one with the same key; it keeps these tasks."""
    return (PUT, table, key, value, tuple(holds))


def remove(table: str, key: Any) -> Record:
    return (REMOVE, table, key)


def put_of(table: str, serial: Serial, value: Any, holds: Iterable[Serial] = ()) -> Record:
    """A table of tasks has an entry about a task. It keeps these tasks, as long as that one is of use."""
    return (PUT_OF, table, serial, value, tuple(holds))


def remove_of(table: str, serial: Serial) -> Record:
    return (REMOVE_OF, table, serial)


def put_for(table: str, client: str, key: Any, value: Any) -> Record:
    """A table has an entry for a client."""
    return (PUT_FOR, table, client, key, value)


def remove_for(table: str, client: str, key: Any) -> Record:
    return (REMOVE_FOR, table, client, key)


def ranges(serials: Iterable[Serial]) -> list[int]:
    """Serials as first and count of each run of them.

    Examples
    --------
    >>> ranges([7, 8, 9, 3])
    [7, 3, 3, 1]
    """
    found: list[int] = []
    after = -1
    for serial in serials:
        if serial == after:
            found[-1] += 1
        else:
            found += (serial, 1)
        after = serial + 1
    return found


def in_ranges(found: Sequence[int]) -> Iterable[Serial]:
    """The inverse of `ranges`."""
    for first, count in zip(found[::2], found[1::2], strict=True):
        yield from range(first, first + count)
