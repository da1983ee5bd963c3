"""What keeps an object alive: every kind of holder there is.

An object is never deleted while a holder of one of these kinds has it, and is gone soon after the last one has let go.
The scheduler's classes of holders name their kinds by this table, its validation knows no others, and reports say by it
what keeps an object.
"""

from __future__ import annotations

from typing import NamedTuple


class HolderKind(NamedTuple):
    """A kind of holder.

    Attributes
    ----------
    words
        What one of a name is called.
    keeps
        What it keeps.
    until
        When it lets go.
    is_group
        Whether what one holder keeps is a group in reports; else there may be as many holders as objects.
    """

    words: str
    keeps: str
    until: str
    is_group: bool = False


HOLDERS: dict[str, HolderKind] = {
    "client": HolderKind(
        "the client {}",
        "the results of its futures. The tasks of a worker share a client",
        "the last future of a key is gone or released, or the client has left",
        is_group=True,
    ),
    "task": HolderKind(
        "the task {}",
        "what it reads, while it waits or runs: the futures among its arguments, also inside of objects, and those "
        "that its function takes along",
        "it has ended, or is not needed any more",
    ),
    "object": HolderKind(
        "the object {}",
        "the results of futures inside it, in a task's result or in stored data",
        "it is not needed any more, or was made anew with others inside",
    ),
    "exception": HolderKind(
        "the exception of {}",
        "the results of futures inside it",
        "no task is needed any more that has failed for it",
    ),
    "error": HolderKind(
        "{}", "a large exception, which lies in a store", "no task is needed any more that has failed for it"
    ),
    "dataset": HolderKind(
        "the dataset {}",
        "the futures in what was published, and the data that was stored for it",
        "it is unpublished, or replaced",
        is_group=True,
    ),
    "queue": HolderKind(
        "the queue {}",
        "the futures in its items",
        "an item was taken out and its taker has the futures, or the queue is closed",
        is_group=True,
    ),
    "variable": HolderKind(
        "the variable {}",
        "the futures in its value",
        "it has another value or is deleted, and nobody is reading that one",
        is_group=True,
    ),
    "actor": HolderKind(
        "the actor {}",
        "what its handle contains. What it keeps in its state, the client of its worker's tasks holds",
        "no handle or future of it is left, or its worker has died",
        is_group=True,
    ),
    "call": HolderKind("the call {}", "the arguments of an actor's method", "it has its answer"),
    "pickled future": HolderKind(
        "a future pickled by hand, {}",
        "the result of a future that a user has pickled",
        "`HOLDFAST_PICKLED_LEASE` (10 minutes) after that, and not before the client has let go that has pickled it",
    ),
    "plugin": HolderKind("the plugin {}", "the data that was stored for it", "it is unregistered"),
    "fire-and-forget": HolderKind("{}", "tasks that are to run unattended", "they have ended"),
}


def as_table() -> str:
    """The kinds in Markdown, for people.

    Examples
    --------
    >>> as_table().splitlines()[2]
    '| client | the results of its futures. The tasks of a worker share a client | the last future of a key is ...'
    """
    rows = [f"| {kind} | {each.keeps} | {each.until} |\n" for kind, each in HOLDERS.items()]
    return "".join(["| holder | keeps | until |\n", "|---|---|---|\n", *rows])
