"""What has brought a task, and by which line of code: shared by all tasks that have this in common."""

from __future__ import annotations

from typing import Any

from holdfast.cluster.scheduler.tasks.names import Key


class Origin:
    """Where tasks and data come from.

    Attributes
    ----------
    client
        The id of the client that has brought them.
    owner
        The name of that client, or of what stands for it.
    about
        What the client has said about itself: ``"user"``, ``"hostname"`` and ``"pid"``.
    call_site
        The line of the user's code; empty if it isn't known.
    task
        The key of the task in which that line was; None: it was in none.
    messages
        How many messages have brought something by this line.
    """

    __slots__ = ("about", "call_site", "client", "messages", "owner", "task")

    def __init__(self, client: str, owner: str, about: dict[str, Any], call_site: str, task: Key | None) -> None:
        self.client = client
        self.owner = owner
        self.about = about
        self.call_site = call_site
        self.task = task
        self.messages = 0

    def as_plain(self) -> tuple[Any, ...]:
        """It as plain data; `Origin(*data)` is the inverse."""
        return (self.client, self.owner, self.about, self.call_site, self.task)

    def __repr__(self) -> str:
        return f"<Origin {self.owner} {self.call_site}>"
