"""Leases: who may use what there is a limited number of, and who waits for it, in the order in which they came.

A *line* is what a name stands for. It has so many *places* (a lock has one), and a queue of those that wait for one. A
*lease* is what a client asks for: a place in one line, or places in so many of several lines. It is *granted* when it
has them all. A client names its leases by numbers of its own, so it can give one back without knowing what has become
of it meanwhile: the answer may be under way when a client gives up.

=========  ===============================================  ==========================================================
a lease    what happens                                     what comes of it
=========  ===============================================  ==========================================================
is unknown `LeasePart.ask`: there are places                granted: the answer is true
is unknown `LeasePart.ask`: there are not, and no time      still unknown: the answer is false
is unknown `LeasePart.ask`: there are not                   waits at the end of the lines that have none
is unknown given back                                       nothing
waits      a place becomes free in a line that it heads     has that place; granted if it was the last: true
waits      its time is up                                   leaves all lines: the answer is false
waits      given back                                       leaves all lines: the answer, which nobody reads, is false
waits      its client leaves                                leaves all lines: no answer
is granted given back, or its client leaves                 its places are free: those that wait get them
=========  ===============================================  ==========================================================

A lease belongs to the identity of its client: a connection that breaks and is taken up again keeps it.

A lease enters all its lines at once. So those that came earlier are before it in each of them, the first one of all
waits for granted leases only, and two that want the same names can't wait for each other. What a lease has that waits
for more, nobody else has: those that want few names can't keep one from ever going on that wants many.

Invariants: (1) a line has at most as many places taken as there are; (2) nobody waits in a line with a free place; (3)
a granted lease waits in no line, and has as many places as it needs; (4) one that isn't granted has a request that
waits for it, unless its client has left; (5) a line that nobody needs isn't kept, unless it was opened.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.cluster.journal.tables import Held
from holdfast.cluster.protocol.limits import MAX_LEASES
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.parts.waits import NO_END, Refusal, Wait, WaitOwner
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.model import Task
from holdfast.cluster.scheduler.tasks.names import Key
from holdfast.cluster.scheduler.tasks.wording import some


class Line:
    """What a name stands for.

    Attributes
    ----------
    name
    size
        How many places there are.
    is_open
        Whether it is kept when nobody needs it.
    taken
        The leases that have a place.
    waiting
        Those that wait for one, the first one first.
    """

    __slots__ = ("is_open", "name", "size", "taken", "waiting")

    def __init__(self, name: Key, size: int, *, is_open: bool = False) -> None:
        self.name = name
        self.size = size
        self.is_open = is_open
        self.taken: dict[Lease, None] = {}
        self.waiting: OrderedDict[Lease, None] = OrderedDict()


class Lease:
    """What a client has, or waits for.

    Attributes
    ----------
    client, number
        Whose it is, and what the client calls it.
    lines
        Where it may have places; when it is granted, where it has them.
    needed
        In how many of them.
    places
        Where it has one.
    wait
        The request that is answered when it is granted; None if it is granted, or nobody is there to be answered.
    is_recovered
        Whether an earlier scheduler has granted it: its client may ask for it once more.
    """

    __slots__ = ("client", "is_recovered", "lines", "needed", "number", "places", "wait")

    def __init__(self, client: str, number: int, lines: Sequence[Line], needed: int) -> None:
        self.client = client
        self.number = number
        self.lines = lines
        self.needed = needed
        self.places: dict[Line, None] = {}
        self.wait: LeaseWait | None = None
        self.is_recovered = False

    def __repr__(self) -> str:
        return f"<Lease {self.number} of {self.client}: {', '.join(repr(line.name) for line in self.lines)}>"

    @property
    def is_granted(self) -> bool:
        return len(self.places) == self.needed


class LeaseWait(Wait):
    """A client that waits for a lease."""

    __slots__ = ("lease",)

    kind = "lease"

    def __init__(self, part: LeasePart, client: str, request: int, due: float, lease: Lease) -> None:
        super().__init__(part, client, request, due)
        self.lease = lease

    def describe(self) -> str:
        assert isinstance(self.part, LeasePart)
        return f"{self.part.waited_for} {some(f'{line.name!r:.200}' for line in self.lease.lines)}"


class LeasePart(Part, WaitOwner):
    """A part that grants leases.

    Attributes
    ----------
    lines
        All that are known, by name.
    leases
        All leases by client and number, in the order in which they were asked for.
    """

    #: What people call what a lease is of.
    noun: str
    #: What somebody waits for, before the names.
    waited_for: str

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self.lines: dict[Key, Line] = {}
        self.leases: dict[str, dict[int, Lease]] = {}
        self._count = 0

    # -- for the parts

    def ask(
        self, client: Client, request: int, number: int, lines: Sequence[Line], needed: int, timeout: float | None
    ) -> None:
        """Grant a lease, or have its request wait.

        Raises
        ------
        Refusal
            There are too many, or one of this number already.
        """
        known = self.leases.get(client.id, {}).get(number)
        if known is not None and known.is_granted and known.is_recovered:  # by an earlier scheduler
            self._forget_unneeded(lines)
            self.answer(client, request, True)
            return
        try:
            self._demand_room(client.id, number)
            if timeout is None or timeout > 0:
                self.shared.waits.demand_room(client.id)
        except Refusal:
            self._forget_unneeded(lines)
            raise
        lease = Lease(client.id, number, lines, needed)
        self.leases.setdefault(client.id, {})[number] = lease
        self._count += 1
        for line in lines:
            if len(line.taken) < line.size:
                self._place(lease, line)
                if lease.is_granted:
                    break
        if lease.is_granted:
            self._settle(lease)
            self.answer(client, request, True)
        elif timeout is not None and timeout <= 0:
            self._drop(lease)
            self.answer(client, request, False)
        else:
            for line in lines:
                if line not in lease.places:
                    line.waiting[lease] = None
            due = NO_END if timeout is None else self.shared.now + timeout
            lease.wait = LeaseWait(self, client.id, request, due, lease)
            self.shared.waits.begin(lease.wait)

    def give_back(self, client: Client, lease: int) -> None:
        """A client does not want a lease, whatever has become of it."""
        known = self.leases.get(client.id, {}).get(lease)
        if known is not None:
            self._end(known)

    def close_line(self, line: Line, error: str, text: str) -> int:
        """Forget a name: those that wait are refused. How many places were taken."""
        for lease in list(line.waiting):
            if lease.wait is not None:
                self.shared.waits.refuse(lease.wait, error, text)
            self._drop(lease)
        taken = len(line.taken)
        for lease in list(line.taken):
            self._drop(lease)
        if line.is_open:
            line.is_open = False
            self.note_gone(("line", line.name))
        self._forget_unneeded([line])
        return taken

    # -- steps

    def _demand_room(self, client: str, number: int) -> None:
        if self._count >= MAX_LEASES:
            text = f"{MAX_LEASES:,} {self.noun} are held or waited for, and no more may be: release some"
            raise Refusal("RuntimeError", text)
        if number in self.leases.get(client, ()):
            raise Refusal("ProtocolError", f"this client has a lease {number} already")

    def _place(self, lease: Lease, line: Line) -> None:
        line.taken[lease] = None
        lease.places[line] = None

    def _end(self, lease: Lease) -> None:
        """A lease isn't wanted any more."""
        wait = lease.wait
        if wait is not None:
            self.shared.waits.answer(wait, False)
        self._drop(lease)

    def _drop(self, lease: Lease) -> None:
        """Forget a lease, and let those go on that it was in the way of."""
        of_client = self.leases[lease.client]
        del of_client[lease.number]
        self._count -= 1
        if lease.is_granted:
            self.note_gone(("lease", lease.client, lease.number))
        if not of_client:
            del self.leases[lease.client]
        for line in lease.lines:
            if line.taken.pop(lease, self) is self:
                line.waiting.pop(lease, None)
        for line in lease.lines:
            self._advance(line)
        self._forget_unneeded(lease.lines)

    def _advance(self, line: Line) -> None:
        while line.waiting and len(line.taken) < line.size:
            lease, _ = line.waiting.popitem(last=False)
            self._place(lease, line)
            if lease.is_granted:
                self._settle(lease)
                if lease.wait is not None:
                    self.shared.waits.answer(lease.wait, True)

    def _settle(self, lease: Lease) -> None:
        """A lease has what it needs, and nothing to do with other lines any more."""
        if len(lease.lines) > lease.needed:
            others = [line for line in lease.lines if line not in lease.places]
            lease.lines = list(lease.places)
            for line in others:
                line.waiting.pop(lease, None)
            self._forget_unneeded(others)
        self.note(("lease", lease.client, lease.number), [line.name for line in lease.lines])

    def open_line(self, name: Key, size: int) -> Line:
        """A name is kept from now on, until it is closed."""
        line = self.lines[name] = Line(name, size, is_open=True)
        self.note(("line", name), size)
        return line

    def _forget_unneeded(self, lines: Sequence[Line]) -> None:
        for line in lines:
            if not (line.taken or line.waiting or line.is_open):
                self.lines.pop(line.name, None)

    # -- what happens

    def client_left(self, client: Client) -> None:
        for lease in list(self.leases.get(client.id, {}).values()):
            self._drop(lease)

    def expired(self, wait: Wait) -> None:
        assert isinstance(wait, LeaseWait)
        self._end(wait.lease)

    def forget(self, wait: Wait) -> None:
        assert isinstance(wait, LeaseWait)
        wait.lease.wait = None

    # -- the rest

    def recover(self, entries: Mapping[Any, Held], tasks: Mapping[int, Task]) -> None:
        for (kind, *key), entry in entries.items():
            if kind == "line":
                (name,) = key
                self.lines[name] = Line(name, entry.value, is_open=True)
        for (kind, *key), entry in entries.items():
            if kind == "lease":
                client, number = key
                lines = [self.lines.get(name) or self.lines.setdefault(name, Line(name, 1)) for name in entry.value]
                lease = Lease(client, number, lines, len(lines))
                lease.is_recovered = True
                self.leases.setdefault(client, {})[number] = lease
                self._count += 1
                for line in lines:
                    self._place(lease, line)

    def check(self) -> None:
        for name, line in self.lines.items():
            assert line.name == name
            assert len(line.taken) <= line.size, "1"
            assert not line.waiting or len(line.taken) == line.size, "2"
            assert line.taken or line.waiting or line.is_open, "5"
            for lease in (*line.taken, *line.waiting):
                assert line in lease.lines
                assert self.leases[lease.client][lease.number] is lease
                assert (line in lease.places) == (lease in line.taken)
        assert self._count == sum(map(len, self.leases.values())) <= MAX_LEASES
        waits = {wait for wait in self.shared.waits if wait.part is self}
        for client, leases in self.leases.items():
            assert leases, f"no lease is kept for {client}"
            assert client in self.shared.clients, f"{client} has left, and still has leases"
            for lease in leases.values():
                assert 0 < lease.needed <= len(lease.lines)
                assert len(lease.places) <= lease.needed, "3"
                assert (lease.wait is None) == lease.is_granted, "4"
                assert lease.wait is None or lease.wait in waits
                for line in lease.lines:
                    assert self.lines.get(line.name) is line
                    assert (lease in line.waiting) == (line not in lease.places)
                assert not lease.is_granted or set(lease.lines) == set(lease.places), "3"
        assert len(waits) == sum(lease.wait is not None for of in self.leases.values() for lease in of.values())


def _tables(line: Line) -> tuple[dict[Lease, None], OrderedDict[Lease, None]]:
    return line.taken, line.waiting
