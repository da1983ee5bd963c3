"""Variables: names for values that clients set, get and wait for.

A value is bytes that only clients read, and keys, whose tasks it holds. A client that gets a value with keys is
*reading* it, until it says that it holds the tasks itself: a value that another one has replaced meanwhile holds them
as long as it is read.

=============================  ======================================================================================
a value …                      … and what comes of it
=============================  ======================================================================================
is set                         those that wait for the variable get it; the value before it is no longer current
is current                     holds its tasks, whoever has set it
is read, and not current       holds its tasks until the last reading ends: the client says so, or leaves
is neither                     is forgotten
=============================  ======================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from holdfast.cluster.journal.tables import Held
from holdfast.cluster.protocol.limits import MAX_VARIABLES, MAX_VARIABLES_NBYTES
from holdfast.cluster.protocol.requests import DELETE_VARIABLE, END_READING, GET_VARIABLE, SET_VARIABLE
from holdfast.cluster.protocol.shapes import key_weight
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.parts.waits import NO_END, Refusal, Wait, WaitOwner
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.model import Holder, HolderDescription, Task
from holdfast.cluster.scheduler.tasks.names import Key, Payload

#: What a value takes beside its data and its keys.
VALUE_NBYTES = 500


class Variable(Holder):
    """A value of a variable.

    Attributes
    ----------
    data, keys
        What clients get.
    readings
        How many there are.
    is_current
        Whether it is the value that the variable has.
    number
        Names it in the journal.
    """

    __slots__ = ("data", "is_current", "keys", "nbytes", "number", "readings")

    kind: ClassVar[str] = "variable"

    def __init__(self, name: Key, data: Payload, keys: Sequence[Key], number: int) -> None:
        super().__init__(name)
        self.number = number
        self.data = bytes(data)  # a view would keep the whole frame
        self.keys = keys
        self.readings = 0
        self.is_current = True
        self.nbytes = VALUE_NBYTES + len(data) + sum(map(key_weight, keys)) + key_weight(name)

    def describe(self) -> HolderDescription:
        return HolderDescription(self.kind, repr(self.id))


class VariableWait(Wait):
    """A client that waits until a variable has a value, and calls that by a number."""

    __slots__ = ("began", "lease", "name")

    kind = "variable"

    def __init__(self, part: Variables, client: str, request: int, due: float, name: Key, lease: int) -> None:
        super().__init__(part, client, request, due)
        self.name = name
        self.lease = lease
        self.began = part.shared.now

    def describe(self) -> str:
        return f"a value of the variable {self.name!r:.200}"


class Variables(Part, WaitOwner):
    """Keeps variables.

    Attributes
    ----------
    current
        The values that variables have, by name.
    readings
        What is read, by client and lease.
    """

    name = "variables"
    moves_no_task = True

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self.requests = {
            SET_VARIABLE: self._set,
            GET_VARIABLE: self._get,
            END_READING: self._end_reading,
            DELETE_VARIABLE: self._delete,
        }
        self.current: dict[Key, Variable] = {}
        self.readings: dict[str, dict[int, Variable]] = {}
        self._waits: dict[Key, dict[VariableWait, None]] = {}
        self._by_lease: dict[tuple[str, int], VariableWait] = {}
        self._nbytes = 0
        self._last_number = 0
        self._recovered: set[tuple[str, int]] = set()  # readings that an earlier scheduler has begun; only asked for

    def holders(self) -> Iterable[Holder]:
        return self._values()

    def _values(self) -> dict[Variable, None]:
        """All values that there are."""
        values = dict.fromkeys(self.current.values())
        for of_client in self.readings.values():
            values.update(dict.fromkeys(of_client.values()))
        return values

    # -- requests

    def _set(self, client: Client, request: int, name: Key, data: Payload, keys: Sequence[Key]) -> None:
        value = Variable(name, data, keys, self._last_number + 1)
        if name not in self.current and len(self.current) >= MAX_VARIABLES:
            text = f"{MAX_VARIABLES:,} variables have a value, and no more may: delete some"
            raise Refusal("RuntimeError", text)
        if self._nbytes + value.nbytes > MAX_VARIABLES_NBYTES:
            text = f"the values of variables take {self._nbytes:,} bytes, and this one would be too much: delete some"
            raise Refusal("RuntimeError", text)
        self._replace(name)
        self._last_number = value.number
        self._keep(value)
        for wait in list(self._waits.get(name, ())):
            self.shared.waits.answer(wait, self._read(value, wait.client, wait.request, wait.lease))
        self.answer(client, request, None)

    def _get(self, client: Client, request: int, name: Key, lease: int, timeout: float | None = None) -> None:
        value = self.readings.get(client.id, {}).get(lease)
        if value is not None and (client.id, lease) in self._recovered:
            self.answer(client, request, {"data": value.data, "keys": value.keys})
            return
        if value is not None or (client.id, lease) in self._by_lease:
            raise Refusal("ProtocolError", f"this client has a reading {lease} already")
        value = self.current.get(name)
        if value is not None:
            self.answer(client, request, self._read(value, client.id, request, lease))
        elif timeout is not None and timeout <= 0:
            raise Refusal("TimeoutError", f"the variable {name!r} has no value")
        else:
            self.shared.waits.demand_room(client.id)
            due = NO_END if timeout is None else self.shared.now + timeout
            self._begin(VariableWait(self, client.id, request, due, name, lease))

    def _delete(self, client: Client, request: int, name: Key) -> None:
        self._replace(name)
        self.answer(client, request, None)

    def _end_reading(self, client: Client, request: int, lease: int) -> None:
        wait = self._by_lease.get((client.id, lease))
        if wait is not None:
            self.expired(wait)  # an answer that nobody reads
        value = self.readings.get(client.id, {}).pop(lease, None)
        if value is not None:
            self._note_end(client.id, lease)
            if not self.readings[client.id]:
                del self.readings[client.id]
            self._is_read_no_more(value)

    # -- values

    def _keep(self, value: Variable) -> None:
        """A value has come. It holds its tasks, those that are still there."""
        self._nbytes += value.nbytes
        self.current[value.id] = value
        tasks = self.shared.life.generations.tasks
        for key in value.keys:
            task = tasks.get(key)
            if task is not None:
                self.shared.life.holding.hold(value, task)
        self._note(value)

    def _note(self, value: Variable) -> None:
        self.note(("value", value.number), (value.id, value.data, value.keys, value.is_current), value)

    def _note_end(self, client: str, lease: int) -> None:
        self._recovered.discard((client, lease))
        self.note_gone(("reading", client, lease))

    def _replace(self, name: Key) -> None:
        value = self.current.pop(name, None)
        if value is not None:
            value.is_current = False
            if value.readings:
                self._note(value)
            self._forget_unneeded(value)

    def _read(self, value: Variable, client: str, request: int, lease: int) -> dict[str, Any]:
        if value.keys:
            self._begin_reading(value, client, lease)
            self.note(("reading", client, lease), value.number)
            self.shared.replies.leave_out(client, request)
        return {"data": value.data, "keys": value.keys}

    def _begin_reading(self, value: Variable, client: str, lease: int) -> None:
        value.readings += 1
        self.readings.setdefault(client, {})[lease] = value

    def _is_read_no_more(self, value: Variable) -> None:
        value.readings -= 1
        self._forget_unneeded(value)

    def _forget_unneeded(self, value: Variable) -> None:
        if not value.readings and not value.is_current:
            self._nbytes -= value.nbytes
            self.note_gone(("value", value.number))
            self.shared.life.holding.let_go(value)

    def client_left(self, client: Client) -> None:
        for lease, value in self.readings.pop(client.id, {}).items():
            self._note_end(client.id, lease)
            self._is_read_no_more(value)

    # -- waits

    def _begin(self, wait: VariableWait) -> None:
        self._waits.setdefault(wait.name, {})[wait] = None
        self._by_lease[wait.client, wait.lease] = wait
        self.shared.waits.begin(wait)

    def expired(self, wait: Wait) -> None:
        assert isinstance(wait, VariableWait)
        text = f"the variable {wait.name!r} had no value for {self.shared.now - wait.began:.3g} s"
        self.shared.waits.refuse(wait, "TimeoutError", text)

    def forget(self, wait: Wait) -> None:
        assert isinstance(wait, VariableWait)
        waits = self._waits[wait.name]
        del waits[wait], self._by_lease[wait.client, wait.lease]
        if not waits:
            del self._waits[wait.name]

    # -- the rest

    def recover(self, entries: Mapping[Any, Held], tasks: Mapping[int, Task]) -> None:
        values: dict[int, Variable] = {}
        for (kind, *key), entry in entries.items():
            if kind == "value":
                (number,) = key
                name, data, keys, is_current = entry.value
                value = values[number] = Variable(name, data, keys, number)
                value.is_current = is_current
                if is_current:
                    self.current[name] = value
                self._nbytes += value.nbytes
                self._last_number = max(self._last_number, number)
                for serial in entry.holds:
                    self.shared.life.holding.hold(value, tasks[serial])
        for (kind, *key), entry in entries.items():
            if kind == "reading":
                client, lease = key
                self._begin_reading(values[entry.value], client, lease)
                self._recovered.add((client, lease))

    def check(self) -> None:
        for name, value in self.current.items():
            assert value.id == name
            assert value.is_current
            assert name not in self._waits, "it has what it waits for"
        waiting = [wait for waits in self._waits.values() for wait in waits]
        assert set(waiting) == {wait for wait in self.shared.waits if wait.part is self}
        assert set(waiting) == set(self._by_lease.values())
        assert self._nbytes == sum(value.nbytes for value in self._values())
        read = [value for of_client in self.readings.values() for value in of_client.values()]
        for value in self._values():
            assert value.readings == read.count(value)
            assert value.is_current == (self.current.get(value.id) is value)
        for client, of_client in self.readings.items():
            assert of_client
            assert client in self.shared.clients, f"{client} has left, and still reads"
