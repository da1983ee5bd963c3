"""The holders that there are without any part of the scheduler: clients, and objects that contain futures."""

from __future__ import annotations

from typing import Any, ClassVar

from holdfast.cluster.scheduler.tasks.model import Holder, HolderDescription, Task, Worker
from holdfast.cluster.scheduler.tasks.names import Digest, Key
from holdfast.cluster.scheduler.tasks.origins import Origin

#: Of each client so many are remembered.
MAX_ORIGINS = 1_000


class Client(Holder):
    """A connected client, or one that has left while its holds are given up."""

    __slots__ = ("_origins", "about", "functions", "name", "worker")

    id: str
    kind: ClassVar[str] = "client"

    def __init__(self, id: str, name: str, worker: Worker | None = None, about: dict[str, Any] | None = None) -> None:
        super().__init__(id, peer=id)
        self.name = name
        self.worker = worker  # whose tasks share it; it lives and dies with that worker
        self.about = about or {}  # what it has said about itself, for people
        self.functions: dict[Digest, None] = {}
        self._origins: dict[tuple[str, Key | None], Origin] = {}

    def origin(self, call_site: str = "", task: Key | None = None) -> Origin:
        """That of what a message of the client brings by a line of code, which is in a task or in none."""
        origin = self._origins.get((call_site, task))
        if origin is None:
            if len(self._origins) >= MAX_ORIGINS:
                self._origins.clear()  # what has been brought keeps its own
            origin = self._origins[call_site, task] = Origin(self.id, self.name, self.about, call_site, task)
        origin.messages += 1
        return origin

    def describe(self) -> HolderDescription:
        return HolderDescription(self.kind, self.name)

    def leave(self) -> None:
        """The client is gone, and hears nothing any more."""
        self.peer = ""


class Raised(Holder):
    """What the exception of a failed task contains: futures of other tasks, as long as a task has failed for it."""

    __slots__ = ()

    kind: ClassVar[str] = "exception"

    def describe(self) -> HolderDescription:
        return HolderDescription(self.kind, f"{self.id!r:.200}")


class Contents(Holder):
    """What the object of a task contains: futures of other tasks, which it holds.

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
