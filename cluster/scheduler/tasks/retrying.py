"""Which tasks have to run again, so that those which failed can."""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.cluster.scheduler.tasks.model import Task

#: So many tasks are looked at for what has failed below them: some ten milliseconds. If there are more, the rest fails
#: again, and says why.
MAX_LOOKED_AT = 100_000


def failed_below(tasks: Iterable[Task]) -> list[Task]:
    """The tasks that have failed, of these and of all that they need and that has no result; dependencies come first.

    A task that was released since, because what needed it has failed too, leads to those that it needs.
    """
    found: list[Task] = []
    seen: set[Task] = set()  # only asked for membership
    stack: list[tuple[Task, bool]] = [(task, False) for task in tasks]
    while stack:
        task, is_left = stack.pop()
        if is_left:
            if task.state == "erred":
                found.append(task)
        elif task not in seen:
            seen.add(task)
            stack.append((task, True))
            if len(seen) < MAX_LOOKED_AT:
                stack += [(below, False) for below in task.dependencies if below.state in ("erred", "released")]
    return found
