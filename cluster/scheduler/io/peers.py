"""The peers of the scheduler: one object for each client, node agent and worker that has joined.

A peer is what the scheduler knows by a name: a client's id, the address of a node or of a worker. All that the I/O side
remembers of it is here, and is gone with it. What the state machine knows of it is the machine's own.

The rest of the scheduler speaks to a peer by `Peer.send`, `Peer.flush`, `Peer.is_full` and `Peer.give_up`, and by
nothing else of its connection. So a peer may have a connection of its own or speak through that of another one. A
connection may break and go on (`comm/resume.py`); the peer stays the same.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

from holdfast.cluster import protocol
from holdfast.cluster.comm.connection import Connection
from holdfast.cluster.comm.resumable import ResumableConnection
from holdfast.cluster.errors import ConnectError
from holdfast.cluster.naming import id_of_tasks
from holdfast.cluster.protocol.limits import MAX_ITEMS, MAX_REASON_LENGTH
from holdfast.cluster.scheduler.io.debts import Debts
from holdfast.cluster.scheduler.io.inbox import Inbox
from holdfast.cluster.scheduler.io.instruction_messages import REPORTS
from holdfast.cluster.scheduler.io.progress import Position
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks import instructions as to_do


class MayLiveError(ConnectError):
    """The scheduler does not hear of a node any more, which may live and come back."""


class Heard(NamedTuple):
    """Requests and calls of actors, by number; one that was answered twice is in here once."""

    requests: dict[int, None]
    calls: dict[int, None]


class Peer(abc.ABC):
    """A client, node agent or worker that has joined.

    Parameters
    ----------
    name
        Its id or address.
    info
        What it said about itself when it joined.
    connection
        The one that it joined by.

    Attributes
    ----------
    connection : Connection or None
        None when it has ended.
    inbox : Inbox
        What it has said and was not looked at yet. Set before anything can have come.
    """

    role: ClassVar[str]
    inbox: Inbox

    def __init__(self, name: str, info: dict[str, Any], connection: Connection) -> None:
        self.name = name
        self.info = info
        self.connection: Connection | None = connection

    @property
    def is_connected(self) -> bool:
        return self.connection is not None

    @property
    def is_cut_off(self) -> bool:
        """Whether its connection is broken, and may be taken up again."""
        return self.connection is not None and self.connection.is_broken

    @property
    def is_full(self) -> bool:
        """Whether it has enough to read."""
        return self.connection is not None and self.connection.is_full

    def send(self, message: tuple[Any, ...]) -> None:
        """Send a message with everything else that is sent to it in this turn of the loop. Dropped if it has left."""
        if self.connection is not None:
            self.connection.send(message)

    def flush(self) -> None:
        """Write what has been sent so far now: then `is_full` counts it."""
        if self.connection is not None:
            self.connection.flush()

    @abc.abstractmethod
    def say_goodbye(self, reason: str) -> None:
        """Tell it that the cluster ends."""

    def close(self) -> None:
        """Part with it when all has been written that was sent."""
        if self.connection is not None:
            self.connection.close()

    def give_up(self, error: Exception | None = None) -> None:
        """Part with it at once."""
        if self.connection is not None:
            self.connection.abort(error)


class ClientPeer(Peer):
    """A client.

    Attributes
    ----------
    turn : int
        The last one that it has announced.
    debts : Debts or None
        What it is still to be told, if it reads slowly.
    is_back : bool
        Whether it is one that this scheduler has welcomed first, or has said what it has of an earlier one.
    """

    role = "client"

    def __init__(self, name: str, info: dict[str, Any], connection: Connection) -> None:
        super().__init__(name, info, connection)
        self.turn = 0
        self.debts: Debts | None = None
        self.is_back = _is_new(connection)
        self._answered = Heard({}, {})  # since `take_heard` has looked
        self._unheard: tuple[int, Heard] | None = None  # before that, and the frame of the last of them
        self._is_paid = False  # a job does that

    def answered(self, instruction: to_do.Instruction) -> None:
        """The client was sent this, which may be an answer. To be told where a journal is kept."""
        if isinstance(instruction, to_do.Reply):
            self._answered.requests[instruction.request] = None
        elif isinstance(instruction, to_do.ReportCalled):
            self._answered.calls.update(dict.fromkeys([number for number, *_ in instruction.items]))

    def take_heard(self) -> Heard | None:
        """What the client has got answers to, if more has come to be known."""
        connection = self.connection
        if not isinstance(connection, ResumableConnection):
            return None
        heard = None
        if self._unheard is not None and connection.session.acknowledged >= self._unheard[0]:
            _, heard = self._unheard
            self._unheard = None
        if self._unheard is None and any(self._answered) and (written := connection.written) is not None:
            self._unheard = written, self._answered
            self._answered = Heard({}, {})
        return heard

    def report(self, report: to_do.Instruction, state: SchedulerState) -> None:
        """Tell the client what became of keys; or remember that it is owed that, while it has enough to read."""
        debts = self.debts
        if debts is None:
            if not self.is_full:
                self.send(REPORTS[type(report)](report, self.turn))
                return
            debts = self.debts = Debts(self.name, state)
        debts.add(report, self.turn)

    def begin_paying(self) -> Iterator[None] | None:
        """There is room: a job that tells the client what it is owed, if there is anything and no job does it yet."""
        if self.debts is None or self._is_paid:
            return None
        self._is_paid = True
        return self._pay(self.debts)

    def _pay(self, debts: Debts) -> Iterator[None]:
        try:
            while debts and self.is_connected:
                for report, turn in debts.take(MAX_ITEMS, self.turn):
                    self.send(REPORTS[type(report)](report, turn))
                self.flush()  # then it is known whether there is room for more
                yield
        finally:
            self._is_paid = False
            if not debts:
                self.debts = None

    def say_goodbye(self, reason: str) -> None:
        self.send(protocol.client.CLOSING(reason))


class NodePeer(Peer):
    """A host's agent.

    Attributes
    ----------
    heard : float
        When it last said something, by the scheduler's clock.
    """

    role = "node"

    def __init__(self, name: str, info: dict[str, Any], connection: Connection, now: float) -> None:
        super().__init__(name, info, connection)
        self.heard = now

    def say_goodbye(self, reason: str) -> None:
        self.send(protocol.node.CLOSE())


class WorkerPeer(Peer):
    """A worker.

    Attributes
    ----------
    joins_anew : bool
        Its very process does, because it has not got the welcome.
    put_off : list
        What its tasks have said while hosts and workers were awaited, and it itself of its runs: messages, and how far
        the worker was heard then.
    is_behind : bool
        Whether something that was put off is not handled yet.
    is_back : bool
        Whether it is one that this scheduler has welcomed first, or has said what it has of an earlier one.
    opened_as_back : bool
        Whether it was, when its tasks began to be a client: else they say what they have, too.
    """

    role = "worker"

    def __init__(self, name: str, info: dict[str, Any], connection: Connection) -> None:
        super().__init__(name, info, connection)
        self.joins_anew = False
        self.put_off: list[tuple[tuple[Any, ...], Position | None]] = []
        self.is_behind = False
        self.is_back = _is_new(connection)
        self.opened_as_back = False

    def take_put_off(self) -> list[tuple[tuple[Any, ...], Position | None]]:
        """What was put off, to be handled now."""
        put_off, self.put_off, self.is_behind = self.put_off, [], True
        return put_off

    @property
    def node(self) -> str:
        """The address of its node."""
        return str(self.info["node"])

    def say_goodbye(self, reason: str) -> None:
        self.send(protocol.worker.CLOSE())


class TasksPeer(ClientPeer):
    """The client that the tasks of a worker share. It speaks through the worker's connection, and is gone with it.

    Parameters
    ----------
    worker
        The peer that it is a part of.
    """

    def __init__(self, worker: WorkerPeer) -> None:
        assert worker.connection is not None
        super().__init__(id_of_tasks(worker.name), {}, worker.connection)
        self.worker = worker
        self.inbox = worker.inbox

    def send(self, message: tuple[Any, ...]) -> None:
        """Send a message, as one that carries it."""
        super().send(protocol.worker.TO_TASKS(*message))

    def say_goodbye(self, reason: str) -> None:
        """Nothing: the worker is told."""

    def close(self) -> None:
        """Nothing: the connection is the worker's."""

    def give_up(self, error: Exception | None = None) -> None:
        """Tell the tasks that they are no client any more. The connection is the worker's."""
        self.send(protocol.client.CLOSING(str(error)[:MAX_REASON_LENGTH]))


def _is_new(connection: Connection) -> bool:
    """Whether the peer was welcomed by no earlier scheduler."""
    return not isinstance(connection, ResumableConnection) or connection.was is None
