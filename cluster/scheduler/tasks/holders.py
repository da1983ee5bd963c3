"""The holders that there are without any part of the scheduler: clients, and objects that contain futures."""

from __future__ import annotations

from typing import ClassVar

from holdfast.cluster.scheduler.tasks.model import Holder, HolderDescription, Task, Worker
from holdfast.cluster.scheduler.tasks.names import Digest


class Client(Holder):
    """A connected client, or one that has left while its holds are given up."""

    __slots__ = ("functions", "name", "worker")

    id: str
    kind: ClassVar[str] = "client"

    def __init__(self, id: str, name: str, worker: Worker | None = None) -> None:
        super().__init__(id, peer=id)
        self.name = name
        self.worker = worker  # whose tasks share it; it lives and dies with that worker
        self.functions: dict[Digest, None] = {}

    def describe(self) -> HolderDescription:
        return HolderDescription(self.kind, self.name)

    def leave(self) -> None:
        """The client is gone, and hears nothing any more."""
        self.peer = ""


class Contents(Holder):
    """What an object that a client brought contains: futures of other tasks, which it holds.

    Attributes
    ----------
    loss : str
        If something belongs to the object that can't be made again: what to say when the object is lost. Else empty.
    """

    __slots__ = ("task",)

    loss: ClassVar[str] = ""

    kind: ClassVar[str] = "object"

    def __init__(self, task: Task) -> None:
        super().__init__(task.key)
        self.task = task

    def describe(self) -> HolderDescription:
        return HolderDescription(self.kind, f"{self.task.key!r:.200}")

    def forgotten(self) -> None:
        """The task is not needed."""
