"""What all records of a journal come to: the tasks that are still of use, their holders, and the entries of tables.

`Tables.apply` takes records in their order. It is what recovery begins with, and what compaction writes down. It knows
nothing of states, hosts or results: which tasks have results is known to those that have these.

A task is *of use* if something keeps it: a client that holds it, an entry of a table, or a task of use that depends on
it, or that has an entry which keeps it. `Tables.sweep` forgets all others, with their entries. In between, tables only
grow: a record is applied without a look at what it leaves behind.

A key means the task that was made last under it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from holdfast.cluster.errors import JournalError
from holdfast.cluster.journal import records
from holdfast.cluster.journal.batches import Record
from holdfast.cluster.journal.records import Serial

Key: TypeAlias = Any


class Specification(NamedTuple):
    """A task as it was made: a computation, or data that a client brought.

    Attributes
    ----------
    digest, payload
        Of a computation: its function and arguments, as a client has sent them. The payload of data is None.
    dependencies
        The serials of the tasks that it reads.
    origin
        Where it comes from.
    options
        Those of the submit, which are the same object for all tasks of it; those of the task alone are among them.
    data
        Of data: the object, its bytes, its type, and its encoding if it lies in no store.
    """

    key: Key
    digest: bytes | None
    payload: Any
    dependencies: tuple[Serial, ...]
    origin: records.Origin
    options: dict[str, Any]
    data: tuple[bytes, int, str, Any] | None = None


class Held(NamedTuple):
    """An entry of a table."""

    value: Any
    holds: tuple[Serial, ...]


class Client:
    """What a client has.

    Attributes
    ----------
    name, about, worker
        As in `records.joined`.
    holds
        The tasks that it holds.
    entries
        Its entries in tables: the values by table and key.
    """

    __slots__ = ("about", "entries", "holds", "name", "worker")

    def __init__(self, name: str, about: dict[str, Any], worker: tuple[str, int | None] | None) -> None:
        self.name = name
        self.about = about
        self.worker = worker
        self.holds: dict[Serial, None] = {}
        self.entries: dict[str, dict[Key, Any]] = {}


class Tables:
    """All that a journal says.

    Attributes
    ----------
    tasks
        The tasks, by serial.
    clients
        The clients, by id.
    entries
        The named tables.
    entries_of_tasks
        The named tables of tasks, by serial.
    last_serial
        The highest one that was ever given.
    let_go_of
        The objects of data that `sweep` has forgotten.
    forgotten
        The entries of tasks that it has.
    """

    def __init__(self) -> None:
        self.tasks: dict[Serial, Specification] = {}
        self.clients: dict[str, Client] = {}
        self.entries: dict[str, dict[Key, Held]] = {}
        self.entries_of_tasks: dict[str, dict[Serial, Held]] = {}
        self.last_serial = 0
        self.let_go_of: set[bytes] = set()  # only asked for membership
        self.forgotten: dict[str, dict[Serial, Held]] = {}
        self._serials: dict[Key, Serial] = {}  # what a key means
        self._appliers: dict[int, Callable[..., None]] = {
            records.TASKS: self._tasks,
            records.DATA: self._data,
            records.JOINED: self._joined,
            records.HOLD: self._hold,
            records.UNHOLD: self._unhold,
            records.LEFT: self._left,
            records.PUT: self._put,
            records.REMOVE: self._remove,
            records.PUT_OF: self._put_of,
            records.REMOVE_OF: self._remove_of,
            records.PUT_FOR: self._put_for,
            records.REMOVE_FOR: self._remove_for,
            records.WHOLE: self._whole,
            records.LAST_SERIAL: self._last_serial,
        }

    def apply(self, batch: Iterable[Record]) -> None:
        """Take the records of a batch.

        Raises
        ------
        JournalError
            One of them is none that this version knows, or does not have its form.
        """
        appliers = self._appliers
        for kind, *fields in batch:
            try:
                appliers[kind](*fields)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise JournalError(f"a record of kind {kind!r:.20} can't be read: {error!r:.200}") from error

    def serial_of(self, key: Key) -> Serial | None:
        """The task that a key means."""
        return self._serials.get(key)

    # -- tasks

    def _tasks(
        self,
        origin: records.Origin,
        serials: Serial | Sequence[Serial],
        entries: Sequence[records.Entry],
        options: dict[str, Any],
    ) -> None:
        meant, tasks = self._serials, self.tasks
        if isinstance(serials, int):
            serials = range(serials, serials + len(entries))
        for serial, (key, digest, payload, read) in zip(serials, entries, strict=True):
            if not serial:
                continue
            # One that nobody knows is no dependency: the task has failed for it, which is an entry of its own.
            dependencies = tuple([meant[other] for other in read if other in meant]) if read else ()
            tasks[serial] = Specification(key, digest, payload, dependencies, origin, options)
            meant[key] = serial
            if serial > self.last_serial:
                self.last_serial = serial

    def _data(self, origin: records.Origin, objects: Sequence[tuple[Key, Serial, bytes, int, str, Any]]) -> None:
        for key, serial, object_id, nbytes, type_name, inline in objects:
            data = (object_id, nbytes, type_name, inline)
            self.tasks[serial] = Specification(key, None, None, (), origin, {}, data)
            self._serials[key] = serial
            self.last_serial = max(self.last_serial, serial)

    def _whole(
        self,
        origins: Sequence[records.Origin],
        options: Sequence[dict[str, Any]],
        tasks: Sequence[tuple[Serial, Key, bytes | None, Any, tuple[Serial, ...], int, int, Any]],
    ) -> None:
        for serial, key, digest, payload, dependencies, origin, its_options, data in tasks:
            self.tasks[serial] = Specification(
                key, digest, payload, dependencies, origins[origin], options[its_options], data
            )
            self._serials[key] = serial
            self.last_serial = max(self.last_serial, serial)

    def _last_serial(self, serial: Serial) -> None:
        self.last_serial = max(self.last_serial, serial)

    # -- clients

    def _joined(self, client: str, name: str, about: dict[str, Any], worker: tuple[str, int | None] | None) -> None:
        self.clients[client] = Client(name, about, worker)

    def _hold(self, client: str, ranges: Sequence[int]) -> None:
        self._client(client).holds.update(dict.fromkeys(records.in_ranges(ranges)))

    def _unhold(self, client: str, ranges: Sequence[int]) -> None:
        holds = self._client(client).holds
        for serial in records.in_ranges(ranges):
            holds.pop(serial, None)

    def _left(self, client: str) -> None:
        self.clients.pop(client, None)

    def _put_for(self, table: str, client: str, key: Key, value: Any) -> None:
        self._client(client).entries.setdefault(table, {})[key] = value

    def _remove_for(self, table: str, client: str, key: Key) -> None:
        self._client(client).entries.get(table, {}).pop(key, None)

    def _client(self, id: str) -> Client:
        """A client; one of which the journal has lost how it came is there all the same."""
        client = self.clients.get(id)
        if client is None:
            client = self.clients[id] = Client(id, {}, None)
        return client

    # -- entries

    def _put(self, table: str, key: Key, value: Any, holds: tuple[Serial, ...]) -> None:
        self.entries.setdefault(table, {})[key] = Held(value, holds)

    def _remove(self, table: str, key: Key) -> None:
        _remove(self.entries, table, key)

    def _put_of(self, table: str, serial: Serial, value: Any, holds: tuple[Serial, ...]) -> None:
        self.entries_of_tasks.setdefault(table, {})[serial] = Held(value, holds)

    def _remove_of(self, table: str, serial: Serial) -> None:
        _remove(self.entries_of_tasks, table, serial)

    # -- what is of use

    def held(self) -> Iterator[Serial]:
        """The serials of the tasks that something keeps which is no task; some of them more than once."""
        for client in self.clients.values():
            yield from client.holds
        for entries in self.entries.values():
            for entry in entries.values():
                yield from entry.holds

    def sweep(self) -> None:
        """Forget the tasks that are of no use any more."""
        inner: dict[Serial, tuple[Serial, ...]] = {}
        for entries in self.entries_of_tasks.values():
            for serial, entry in entries.items():
                if entry.holds:
                    inner[serial] = inner.get(serial, ()) + entry.holds
        of_use: set[Serial] = set()
        stack = list(self.held())
        while stack:
            serial = stack.pop()
            task = self.tasks.get(serial)
            if task is not None and serial not in of_use:
                of_use.add(serial)
                stack += task.dependencies
                if serial in inner:
                    stack += inner[serial]
        if len(of_use) == len(self.tasks):
            return
        for serial, task in self.tasks.items():
            if task.data is not None and serial not in of_use:
                self.let_go_of.add(task.data[0])
        self.tasks = {serial: task for serial, task in self.tasks.items() if serial in of_use}
        self._serials = {key: serial for key, serial in self._serials.items() if serial in of_use}
        for table, entries in list(self.entries_of_tasks.items()):
            kept = {serial: entry for serial, entry in entries.items() if serial in of_use}
            if len(kept) < len(entries):
                gone = {serial: entry for serial, entry in entries.items() if serial not in of_use}
                self.forgotten.setdefault(table, {}).update(gone)
            if kept:
                self.entries_of_tasks[table] = kept
            else:
                del self.entries_of_tasks[table]


def _remove(tables: dict[str, dict[Any, Held]], table: str, key: Any) -> None:
    entries = tables.get(table)
    if entries is not None:
        entries.pop(key, None)
        if not entries:
            del tables[table]
