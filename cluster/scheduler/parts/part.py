"""What a part of the scheduler is: what isn't the life of a task, such as datasets.

A part is a class that says what it answers, what it does when a peer comes or leaves, and what has to hold in it:

=======================================  =============================================================================
`Part.events`, `Part.requests`           the events and the requests that it answers, each with its method. Each is
                                         answered by one part only
`Part.host_joined` … `Part.client_left`  called, for every part in the order of the machine, when that has happened
`Part.holders`                           what keeps results for it
`Part.resume`                            how its waits are taken up again. If it has waits, it is a `WaitOwner` too
`Part.follow_up`                         what is left to do when an event is handled, if the part has asked for that
`Part.snapshot`, `restore`               all of it as plain data, and back
`Part.check`                             its invariants, checked after every event in tests
=======================================  =============================================================================

The machine knows its parts by a tuple that never changes (`machine.SchedulerState.parts`), and nothing else about them.
A part gets all that it works with from `Shared`, and reads the state of tasks, but changes it only by way of the
`Lifecycle`. It does no I/O, reads no clock, and answers clients by instructions.

A handler of a request is called as ``handler(client, request, **arguments)``. The arguments have been checked by their
definition in the protocol. The handler answers at once (`Part.answer`), has the request wait (`Waits.begin`), or raises
a `Refusal`, before it has changed anything: exactly one of these. That of a quiet request (`Request.quiet`) returns or
raises a `Refusal`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, ClassVar, TypeAlias

from holdfast.cluster.protocol.message import Request
from holdfast.cluster.scheduler.parts.waits import Wait, Waits
from holdfast.cluster.scheduler.placing.placement import Placement
from holdfast.cluster.scheduler.tasks.deadlines import Deadlines
from holdfast.cluster.scheduler.tasks.feed import Feed
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.instructions import Instructions
from holdfast.cluster.scheduler.tasks.lifecycle import Lifecycle
from holdfast.cluster.scheduler.tasks.model import Holder, Host, Worker

#: By the class of the event.
EventHandlers: TypeAlias = Mapping[type, Callable[[Any], None]]
RequestHandlers: TypeAlias = Mapping[Request, Callable[..., None]]


class Shared:
    """What all handlers of the machine work with.

    Attributes
    ----------
    instructions
        Where instructions go.
    hosts, workers, clients
        All that are there, by address or id.
    placement, life
        The queues of tasks, and the tasks.
    feed
        Where others hear of what happens.
    deadlines, waits
        What is due when, and the requests that wait.
    """

    def __init__(
        self,
        instructions: Instructions,
        hosts: dict[str, Host],
        workers: dict[str, Worker],
        placement: Placement,
        life: Lifecycle,
        feed: Feed,
    ) -> None:
        self.instructions = instructions
        self.hosts = hosts
        self.workers = workers
        self.clients: dict[str, Client] = {}
        self.placement = placement
        self.life = life
        self.feed = feed
        self.deadlines = Deadlines()
        self.waits = Waits(self.deadlines, instructions)
        self.unfinished: dict[Part, None] = {}  # those that have asked to follow up

    @property
    def now(self) -> float:
        """The time of the event."""
        return self.life.now

    def follow_up(self) -> None:
        """Let the parts go on that have asked for it. One that fails goes on after the others, another time."""
        while self.unfinished:
            part = next(iter(self.unfinished))
            del self.unfinished[part]
            try:
                part.follow_up()
            except BaseException:
                self.unfinished[part] = None
                raise


class Part:
    """A part that answers nothing yet.

    Parameters
    ----------
    shared
        What it works with.
    """

    #: Names it in a snapshot.
    name: ClassVar[str]
    #: Whether its requests move no task. They may let go of some.
    moves_no_task: ClassVar[bool] = False

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.events: EventHandlers = {}
        self.requests: RequestHandlers = {}

    def answer(self, client: Client, request: int, value: Any) -> None:
        """Answer a request at once."""
        self.shared.instructions.reply(client.id, request, True, value)

    # -- what happens to others

    def host_joined(self, host: Host) -> None:
        """A host has come."""

    def host_ready(self, host: Host) -> None:
        """A host has said what it has."""

    def host_reported(self, host: Host) -> None:
        """A host has said how it is."""

    def places_left(self, host: Host, addresses: Collection[str]) -> None:
        """A host keeps no workers any more at these addresses. Those that are still there leave."""

    def host_left(self, host: Host) -> None:
        """A host is gone, and its workers before it."""

    def worker_joined(self, worker: Worker) -> None:
        """A worker has come."""

    def worker_left(self, worker: Worker) -> None:
        """A worker is gone."""

    def client_joined(self, client: Client) -> None:
        """A client has come."""

    def client_left(self, client: Client) -> None:
        """A client is gone, and its waits with it."""

    # -- waits

    def resume(self, kind: str, client: str, request: int, due: float, data: Any) -> Wait | None:
        """Make a wait again of what its `Wait.snapshot` gave, and begin it; None if it is none of this part."""
        return None

    # -- the rest

    def ask_to_follow_up(self) -> None:
        """Have `follow_up` called when this event is handled."""
        self.shared.unfinished[self] = None

    def follow_up(self) -> None:
        """Do what is left to do."""

    def holders(self) -> Iterable[Holder]:
        """What keeps results for this part."""
        return ()

    def snapshot(self) -> Any:
        """All that it knows and that can't be found out from the rest of the state, as plain data; None: nothing."""
        return None

    def restore(self, data: Any) -> None:
        """The inverse of `snapshot`, in a part that knows nothing. The tasks that it names are there already."""

    def check(self) -> None:
        """Raise `AssertionError` if something doesn't hold."""
