"""What the scheduler knows of an actor, of a call of its methods, and of what a call depends on: see `actors`."""

from __future__ import annotations

from collections import deque
from typing import ClassVar, Protocol

from holdfast.cluster.scheduler.tasks.holders import Contents
from holdfast.cluster.scheduler.tasks.model import Holder, HolderDescription, Task, Worker
from holdfast.cluster.scheduler.tasks.names import Payload


class SeesToActors(Protocol):
    """The part that the actors belong to, as far as they know it."""

    def let_go(self, actor: Actor) -> None:
        """The task of an actor is not needed any more."""

    def look_at(self, call: Call) -> None:
        """Something that a call depends on has a result, or has failed."""


class Actor(Contents):
    """An actor: it lives as long as the result of the task that has made it is needed.

    Attributes
    ----------
    part
        Sees to it.
    number
        Of the run that has made it.
    name
        What it is: the name of its class.
    worker
        Where it lives, or has lived.
    lost
        Why it is gone; empty while it lives.
    calls
        The calls that have no answer yet, by client and in the order in which they came.
    lines
        Those of them that were not sent, of the clients that have some.
    is_ending
        The task was let go of.
    """

    __slots__ = ("calls", "is_ending", "lines", "lost", "name", "number", "part", "worker")

    kind: ClassVar[str] = "actor"

    def __init__(self, part: SeesToActors, number: int, name: str, task: Task, worker: Worker) -> None:
        super().__init__(task)
        self.part = part
        self.number = number
        self.name = name
        self.worker = worker
        self.lost = ""
        self.calls: dict[str, dict[int, Call]] = {}
        self.lines: dict[str, deque[Call]] = {}
        self.is_ending = False

    @property
    def loss(self) -> str:  # type: ignore[override]  # of other contents it is a constant
        return f"{self.title} can't be reached any more: its handle was lost with the store that had it"

    @property
    def title(self) -> str:
        """What it is called by people."""
        return f"the actor {self.name} ({self.task.key!r:.200})"

    def forgotten(self) -> None:
        self.part.let_go(self)

    def describe(self) -> HolderDescription:
        return HolderDescription(self.kind, f"{self.name} {self.task.key!r:.200}")

    def __repr__(self) -> str:
        return f"<Actor {self.number} {self.name}>"


class Call:
    """A call that has no answer yet.

    Attributes
    ----------
    number
        By which the worker knows it.
    actor, client
        Which it is a call of, and the id of the client whose it is.
    request
        By which its client knows it.
    method
        What is called, or which attribute is asked for.
    payload
        The arguments, if the call may have to be sent (again); a call without dependencies keeps none.
    arguments
        What it depends on; None: nothing.
    is_posed
        Whether its client has said it to this scheduler. One that an earlier scheduler took is said again.
    """

    __slots__ = ("actor", "arguments", "client", "is_posed", "method", "number", "payload", "request")

    def __init__(self, number: int, actor: Actor, client: str, request: int, method: str) -> None:
        self.number = number
        self.actor = actor
        self.client = client
        self.request = request
        self.method = method
        self.payload: Payload | None = None
        self.arguments: Arguments | None = None
        self.is_posed = True

    def __repr__(self) -> str:
        return f"<Call {self.number} of {self.actor.name}.{self.method} by {self.client}>"


class Arguments(Holder):
    """Holds what a call depends on."""

    __slots__ = ("call", "tasks")

    kind: ClassVar[str] = "call"

    def __init__(self, call: Call, tasks: tuple[Task, ...]) -> None:
        super().__init__(call.number)
        self.call = call
        self.tasks = tasks

    def watch(self) -> None:
        """A task has a result, or has failed."""
        self.call.actor.part.look_at(self.call)

    def describe(self) -> HolderDescription:
        call = self.call
        return HolderDescription(self.kind, f"{call.actor.name}.{call.method} of {call.actor.task.key!r:.200}")
