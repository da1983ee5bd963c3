"""What a part of the scheduler is: what isn't the life of a task, such as datasets.

A part is a class that says what it answers, what it does when a peer comes or leaves, and what has to hold in it:

=======================================  =============================================================================
`Part.events`, `Part.requests`           the events and the requests that it answers, each with its method. Each is
                                         answered by one part only
`Part.host_joined` … `Part.client_left`  called, for every part in the order of the machine, when that has happened
`Part.holders`                           what keeps results for it
`Part.follow_up`                         what is left to do when an event is handled, if the part has asked for that
`Part.recover`                           what it makes of its entries in the journal, in the next scheduler
`Part.recovered`                         called when all are back that come back to that scheduler
`Part.check`                             its invariants, checked after every event in tests
=======================================  =============================================================================

The machine knows its parts by a tuple that never changes (`machine.SchedulerState.parts`), and nothing else about them.
A part gets all that it works with from `Shared`, and reads the state of tasks, but changes it only by way of the
`Lifecycle`. It does no I/O, reads no clock, and answers clients by instructions.

A handler of a request is called as ``handler(client, request, **arguments)``. The arguments have been checked by their
definition in the protocol. The handler answers at once (`Part.answer`), has the request wait (`Waits.begin`), or raises
a `Refusal`, before it has changed anything: exactly one of these. That of a quiet request (`Request.quiet`) returns or
raises a `Refusal`.

What becomes of a part when another scheduler takes the place of this one
-------------------------------------------------------------------------
A part *notes* what it decides (`Part.note`): entries of the table of its name in the journal, which are written before
anything that follows from the event leaves. Waits are not noted: clients pose their requests again, by their numbers. A
request that was answered has its reply noted with what it has decided (`parts/replies.py`), and gets that. What a
part does not note is found out from others, or lost:

================  ====================================================  ==============================================
part              noted                                                 not noted, and what becomes of it
================  ====================================================  ==============================================
actors            actors; of calls, numbers and whose they are, and     payloads: clients say calls again, and workers
                  what they have given                                  know the numbers of those that they have
bringing          nothing                                               who asked: a client that can't read asks again
carrying          nothing                                               deliveries: whoever wants them asks again
copies            nothing: what holders want                            copies under way: inventories have them, or
                                                                        they are made again
datasets          datasets, also those on their way to their names      lookups: posed again
durable           nothing: `Results.durable` is noted where it is       writings: begun again with their publications,
                  changed                                               and nothing is written twice. Sweeps: the first
                                                                        look at a place sweeps it
errands           that a client has functions called, and where         what that comes to: the client gets an error
                                                                        for each of which it has not heard. What only
                                                                        looks: posed again
events            those that are set                                    nothing
expectations      the keys that clients expect                          nothing
finding           nothing: it has no state                              nothing
inquiries         nothing                                               reports: nodes are asked again
kills             processes that are to be ended                        the time that runs have left: it begins anew;
                                                                        which runs could not be ended
locks             leases that are granted                               leases that wait: posed again
metadata          the leaves                                            nothing
pickled           leases, and when they end                             who unpickles before a lease has come
places            the ids of places                                     who sees them: hosts are asked again
plugins           those that are registered                             who has them: each worker is prepared anew, and
                                                                        sets up no plugin that it has
queues            queues with a limit, items, what is handed out        items that wait for room: posed again. What a
                                                                        getter has collected is in the queue again
replicas          nothing                                               requests: posed again
restarting        that keys were cancelled for a restart of all         restarts: posed again
retiring          hosts that are emptied                                retirements: posed again
scaling           nothing: hosts say which workers they keep            nothing
semaphores        semaphores, and leases that are granted               leases that wait: posed again
standing          the errands that stand                                nothing
successors        nothing                                               whose successor is awaited: it has come when
                                                                        all are back, or is a worker like others
topics            nothing                                               events: they tell what has happened to those
                                                                        that listen, and are no state. Subscriptions:
                                                                        clients say them again
unattended        what is held                                          nothing
unstarted         nothing: it has no state                              nothing
variables         values, and who reads them                            waits: posed again
worker-waits      nothing                                               requests: posed again
================  ====================================================  ==============================================
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, ClassVar, TypeAlias

from holdfast.cluster.journal import records
from holdfast.cluster.journal.tables import Held
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.scheduler.parts.replies import Replies
from holdfast.cluster.scheduler.parts.waits import Waits
from holdfast.cluster.scheduler.placing.placement import Placement
from holdfast.cluster.scheduler.tasks.deadlines import Deadlines
from holdfast.cluster.scheduler.tasks.feed import Feed
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.instructions import Instructions
from holdfast.cluster.scheduler.tasks.lifecycle import Lifecycle
from holdfast.cluster.scheduler.tasks.model import Holder, Host, Task, Worker

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
    deadlines, waits, replies
        What is due when, the requests that wait, and what others were answered.
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
        self.replies = Replies(life.decisions)
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

    #: Names it, and its table in the journal.
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

    # -- the journal

    def note(self, key: Any, value: Any, holder: Holder | None = None) -> None:
        """Something is so from now on, for the next scheduler; it needs what the holder holds."""
        decisions = self.shared.life.decisions
        if decisions.is_kept:
            held = () if holder is None else [task.serial for task in holder.holds]
            decisions.note(records.put(self.name, key, value, held))

    def note_gone(self, key: Any) -> None:
        """Something that was noted is so no longer."""
        self.shared.life.decisions.note(records.remove(self.name, key))

    def recover(self, entries: Mapping[Any, Held], tasks: Mapping[int, Task]) -> None:
        """Take up what an earlier scheduler has noted, in a part that knows nothing.

        Parameters
        ----------
        entries
            What it has noted, by key, in the order in which the keys were first noted.
        tasks
            The tasks by serial, which are all "released". Clients are there, hosts and workers are not.
        """

    def recovered(self) -> None:
        """All that come back are back, and tasks have their states."""

    # -- the rest

    def ask_to_follow_up(self) -> None:
        """Have `follow_up` called when this event is handled."""
        self.shared.unfinished[self] = None

    def follow_up(self) -> None:
        """Do what is left to do."""

    def holders(self) -> Iterable[Holder]:
        """What keeps results for this part."""
        return ()

    def check(self) -> None:
        """Raise `AssertionError` if something doesn't hold."""
