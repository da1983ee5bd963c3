"""Tasks that are to run even if no client holds them any more (`fire_and_forget`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from holdfast.cluster.journal import records
from holdfast.cluster.journal.tables import Held
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.holding import Holding
from holdfast.cluster.scheduler.tasks.instructions import Instructions, Log
from holdfast.cluster.scheduler.tasks.model import Holder, Task

#: So much of an error's text is logged.
LOGGED_LENGTH = 2_000


class UnattendedTasks(Holder):
    """Holds tasks until they have ended. Nobody is told of a failure, so that is logged."""

    __slots__ = ("_holding", "_instructions", "_on_unheld")

    kind: ClassVar[str] = "fire-and-forget"

    def __init__(self, holding: Holding, instructions: Instructions, on_unheld: Callable[[Task], None]) -> None:
        super().__init__(self.kind)
        self._on_unheld = on_unheld
        self._holding = holding
        self._instructions = instructions

    def yields_to(self, client: Holder, *, force: bool) -> bool:
        return force

    def unheld(self, task: Task) -> None:
        self._on_unheld(task)

    def ended(self, task: Task) -> None:
        self._holding.unhold(self, task)
        if task.error is not None:
            text = f"{task.key!r:.200}, which was to run unattended (fire_and_forget), has failed: {task.error.text}"
            self._instructions.put(Log(text[:LOGGED_LENGTH]))


class Unattended(Part):
    """Keeps tasks that are to run unattended."""

    name: ClassVar[str] = "unattended"

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self.events = {events.KeysUnattended: self._keep}
        self._tasks = UnattendedTasks(
            shared.life.holding, shared.instructions, lambda task: self.note_gone(task.serial)
        )

    def holders(self) -> Iterable[Holder]:
        return (self._tasks,)

    def _keep(self, event: events.KeysUnattended) -> None:
        life = self.shared.life
        for key in event.keys:
            task = life.generations.tasks.get(key)
            if task is None or task.state in ("memory", "erred"):
                continue  # it has ended
            life.holding.hold(self._tasks, task)
            if life.decisions.is_kept:
                life.decisions.note(records.put(self.name, task.serial, None, [task.serial]))
            if task.state == "released":
                life.activate(task)

    def recover(self, entries: Mapping[Any, Held], tasks: Mapping[int, Task]) -> None:
        for serial in entries:
            self.shared.life.holding.hold(self._tasks, tasks[serial])

    def check(self) -> None:
        for task in self._tasks.holds:
            assert task.state not in ("memory", "erred"), f"{task!r} has ended, and is held"
