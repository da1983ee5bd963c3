"""Cancelling tasks and all that depend on them, a task at a time: there may be a million of them (`follow_up`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TypeAlias

from holdfast.cluster.scheduler.tasks.follow_up import Chore
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.holding import Holding
from holdfast.cluster.scheduler.tasks.model import Run, Task, Worker
from holdfast.cluster.scheduler.tasks.serials import Serials
from holdfast.cluster.scheduler.tasks.states import ACTIVE

#: A task, and what ran it.
Running: TypeAlias = tuple[Task, Worker, Run]


class Cancellation(Chore):
    """Gives up a client's holds (with ``force`` those of all that hear) on tasks and on all that depend on them.

    What others hold, such as published datasets, stays. Objects that only keep each other are freed with ``force``.

    Parameters
    ----------
    holding
        Which holder holds which task.
    tasks
        Those that the client names.
    client
        Whose holds they are.
    force
        Whether others that hear lose theirs too.
    reason
        Why, in the words of a user, for those that held them; may be empty.
    on_end
        Is told which of these tasks, and of those that they wait for, were running; some may be needed still. None: it
        is not looked for.
    on_done
        Called when it is done.
    """

    def __init__(
        self,
        holding: Holding,
        tasks: Iterable[Task],
        client: Client,
        *,
        force: bool,
        reason: str,
        on_end: Callable[[list[Running]], None] | None = None,
        on_done: Callable[[], None] = lambda: None,
    ) -> None:
        self.holds_back: Collection[str] = (client.id,)
        self._holding = holding
        self._client = client
        self._force = force
        self._text = f"cancelled by {client.name}{reason and ': '}{reason}"
        self._on_end = on_end
        self._on_done = on_done
        self._above = list(tasks)[::-1]  # to be cancelled; the next one last
        self._seen = Serials()
        self._below: list[Task] = []  # what the next one waits for, of which it isn't known whether it runs
        self._seen_below = Serials()
        self._kept: list[Task] = []  # what others keep, which may be objects that only keep each other
        self._running: list[Running] = []

    def step(self) -> bool:
        if self._below:
            self._look_below(self._below.pop())
        elif self._above:
            task = self._above[-1]
            if self._on_end is not None and task.serial not in self._seen_below:
                self._below.append(task)  # before it lets go of these
            else:
                self._above.pop()
                if self._seen.add(task.serial):
                    self._above.extend(task.dependents)
                    self._cancel(task)
        elif self._kept:
            self._holding.free_from_objects(self._kept.pop())
        else:
            on_end, self._on_end = self._on_end, None
            if on_end is not None:
                on_end(self._running)
            self._on_done()
            return False
        return True

    def _look_below(self, task: Task) -> None:
        if not self._seen_below.add(task.serial):
            return
        if task.state == "processing" and task.worker is not None:
            self._running.append((task, task.worker, task.worker.runs[task.run_id]))
        elif task.state in ACTIVE:
            self._below.extend(task.dependencies)

    def _cancel(self, task: Task) -> None:
        for holder in task.holders:
            if holder.yields_to(self._client, force=self._force):
                self._holding.give_up(holder, task, self._text)
        if self._force and task.holders and self._holding.contents:
            self._kept.append(task)


class CancellationOfAll(Chore):
    """Gives up all that clients hold."""

    def __init__(self, holding: Holding, clients: Iterable[Client], reason: str) -> None:
        self._holding = holding
        self._holds = {client: list(client.holds)[::-1] for client in clients}
        self.holds_back: Collection[str] = {client.id for client in self._holds}
        self._reason = reason

    def step(self) -> bool:
        client = next(iter(self._holds), None)
        if client is None:
            return False
        if self._holds[client]:
            self._holding.give_up(client, self._holds[client].pop(), self._reason)
        else:
            del self._holds[client]
        return True
