"""How tasks' origins, holders and hosts are told to clients that look."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.model import Holder, Host, Task
from holdfast.cluster.scheduler.tasks.origins import Origin
from holdfast.cluster.scheduler.tasks.states import ACTIVE

#: ``silence(client)``: the seconds for which a client has said nothing, None if that isn't known; and whether its
#: connection is broken.
Silence = Callable[[str], tuple[float | None, bool]]

#: Of the dependents of a task so many are looked at, to find those that wait for it.
MAX_SEEN = 2_000


def origin(where: Origin) -> dict[str, Any]:
    """What has brought a task, and by which line of code."""
    return {
        "owner": where.owner,
        "client": where.client,
        **where.about,
        "call_site": where.call_site,
        "task": where.task,
    }


def holder(one: Holder, silence: Silence) -> dict[str, Any]:
    """What keeps a task: a client with what it has said about itself, and for how long it has said nothing else."""
    kind, name = one.describe()
    if not isinstance(one, Client):
        return {"kind": kind, "name": name}
    seconds, cut_off = silence(one.id)
    described = {"kind": kind, "name": name, "client": one.id, **one.about, "silent_seconds": seconds}
    return {**described, "cut_off": True} if cut_off else described


def waiters(task: Task, most: int) -> list[Task]:
    """Some of the tasks that wait for the result of one."""
    if not task.nwaiters:
        return []
    found: Iterable[Task] = (each for each in islice(task.dependents, MAX_SEEN) if each.state in ACTIVE)
    return list(islice(found, most))


def host(one: Host) -> dict[str, Any]:
    """A host: its address, and its name for people."""
    return {"node": one.address, "name": one.description.get("hostname", "")}
