"""What a record says.

Tasks have *serials*: a number for each task that was ever made, by which others name it. A client holds tasks by key,
as it says it; everything else holds them by serial. All other facts are entries of named tables (`Tables.entries`): a
value under a key, with the serials of the tasks that the entry keeps.

============  =======================================================================================================
`TASKS`       a client has submitted tasks, and holds some of them
`DATA`        a client has brought data, and holds it
`HOLD`        a client holds tasks, by key
`UNHOLD`      it lets go of them
`LEFT`        a client is gone: its holds, and its entries in tables of clients, go with it
`PUT`         a table has an entry
`REMOVE`      it has it no more
`PUT_OF`      a table of tasks has an entry about a task, which goes with the task
`REMOVE_OF`   it goes before
`POSITION`    of a client's messages everything up to here is in the journal
`WHOLE`       tasks as they are, with what they depend on by serial (`compaction`)
`HOLDS`       what a client holds, by serial (`compaction`)
`LAST_SERIAL` the highest serial that was ever given (`compaction`)
============  =======================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from holdfast.cluster.journal.batches import Record

TASKS, DATA, HOLD, UNHOLD, LEFT, PUT, REMOVE, PUT_OF, REMOVE_OF, POSITION, WHOLE, HOLDS, LAST_SERIAL = range(13)

Serial: TypeAlias = int
#: A task's key, digest of its function, payload, and the keys that it reads.
Entry: TypeAlias = Sequence[Any]


def tasks(
    client: str,
    owner: str,
    serials: int | Sequence[int],
    entries: Sequence[Entry],
    options: dict[str, Any],
    held: Sequence[Any] | None,
) -> Record:
    """A client has submitted tasks.

    Parameters
    ----------
    owner
        The client's name, for people.
    serials
        That of the first one, if all are new: the others follow. Else one for each of them: that of a task which was
        there before and is specified by this; zero of one that is as it was.
    entries
        As in `events.TasksSubmitted`: what they read are the tasks that the keys mean now.
    held
        The keys of those that the client holds from now on; None: of all.
    """
    return (TASKS, client, owner, serials, entries, options, held)


def data(client: str, owner: str, objects: Sequence[tuple[Any, Serial, bytes, int, str]]) -> Record:
    """A client has brought data: the key, serial, object, bytes and type of each."""
    return (DATA, client, owner, objects)


def hold(client: str, keys: Sequence[Any]) -> Record:
    return (HOLD, client, keys)


def unhold(client: str, keys: Sequence[Any]) -> Record:
    return (UNHOLD, client, keys)


def left(client: str) -> Record:
    return (LEFT, client)


def put(table: str, key: Any, value: Any, holds: Iterable[Serial] = ()) -> Record:
    """A table has an entry from now on, in the place of one with the same key; it keeps these tasks."""
    return (PUT, table, key, value, tuple(holds))


def remove(table: str, key: Any) -> Record:
    return (REMOVE, table, key)


def put_of(table: str, serial: Serial, value: Any, holds: Iterable[Serial] = ()) -> Record:
    """A table of tasks has an entry about a task, as long as that is known."""
    return (PUT_OF, table, serial, value, tuple(holds))


def remove_of(table: str, serial: Serial) -> Record:
    return (REMOVE_OF, table, serial)


def position(client: str, frames: int, messages: int) -> Record:
    """Of what a client has sent, so many frames are in the journal, and so many messages of the next one."""
    return (POSITION, client, frames, messages)
