"""The scheduler's state machine: ``SchedulerState.handle(event, now) -> instructions``.

Theory of operation
-------------------
Nothing here does I/O, reads a clock, or depends on chance or on the order of a set: the same events at the same times
give the same instructions, in production and in a simulation.

Each event changes the tables, by way of `Lifecycle` where tasks are concerned. Then, always in this order,

1. what follows from it in other tasks is seen to, or some of it, if there is much: what is not needed any more is
   released and forgotten, what has been lost is made again (`FollowUp.run`),
2. resources go back to runs that have lent them (`Lending.grant`), and ready tasks go to workers with room
   (`Lifecycle.fill`),
3. parts that have asked for it do what they have left to do (`Part.follow_up`),

and the machine returns the instructions, and tells the listeners what has happened (`tasks/feed.py`). A
`validation.CheckedState` checks that each move of a task is a legal one, and after each event that every invariant
holds.

One table, made once, says what answers an event or a request: the handlers of hosts, workers, clients, objects and
runs, which are about the life of tasks, or the parts (`parts/part.py`), which are about all else. The machine can't be
made if two of them answer one thing.

Everything with a deadline is in one heap (`tasks/deadlines.py`). `next_deadline` is its top, and the event `TimePassed`
expires what is due. If a step that follows from an event fails, the machine tries it again `FAILURE_PAUSE_SECONDS`
later.

An event is well-formed (`holdfast.cluster.protocol`), but need not be right. If it is wrong, its handler raises a
`ProtocolError` before it has changed anything that others rely on. All other exceptions are faults of the machine. A
fault in the steps above has nothing to do with the event: the machine reports it to ``on_failure`` and goes on.

What a task costs on its way from submit to gather: one entry of `TasksSubmitted`, one assignment, one entry of
`TasksFinished`, one report to each client that holds it, one entry of `KeysReleased`, one deletion. None of them
looks at other tasks than the neighbours in the graph; an assignment looks at each queue of ready tasks once, of which
there is one for each set of requirements in use and one for each host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.journal.tables import Tables
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.scheduler.machine.clients import Clients
from holdfast.cluster.scheduler.machine.hosts import Hosts
from holdfast.cluster.scheduler.machine.late_contents import LateContents
from holdfast.cluster.scheduler.machine.mending import mend
from holdfast.cluster.scheduler.machine.missing import Missing
from holdfast.cluster.scheduler.machine.objects import Objects
from holdfast.cluster.scheduler.machine.orders import Orders
from holdfast.cluster.scheduler.machine.recovery import OF_HOSTS, OF_RUNS, Recovery
from holdfast.cluster.scheduler.machine.runs import Runs
from holdfast.cluster.scheduler.machine.timeouts import Awaited, NoWorkerTimeout
from holdfast.cluster.scheduler.machine.workers import Workers
from holdfast.cluster.scheduler.parts.actors import Actors
from holdfast.cluster.scheduler.parts.bringing import Bringing
from holdfast.cluster.scheduler.parts.carrying import Carrying
from holdfast.cluster.scheduler.parts.copies import Copies
from holdfast.cluster.scheduler.parts.datasets import PUBLISH_SECONDS, Datasets
from holdfast.cluster.scheduler.parts.durable import Durable
from holdfast.cluster.scheduler.parts.errands import Errands
from holdfast.cluster.scheduler.parts.events import Events
from holdfast.cluster.scheduler.parts.expectations import Expectations
from holdfast.cluster.scheduler.parts.finding import Finding
from holdfast.cluster.scheduler.parts.inquiries import Inquiries
from holdfast.cluster.scheduler.parts.kills import Kills
from holdfast.cluster.scheduler.parts.locks import Locks
from holdfast.cluster.scheduler.parts.metadata import Metadata
from holdfast.cluster.scheduler.parts.part import EventHandlers, Part, Shared
from holdfast.cluster.scheduler.parts.pickled import Pickled
from holdfast.cluster.scheduler.parts.places import Places
from holdfast.cluster.scheduler.parts.plugins import Plugins
from holdfast.cluster.scheduler.parts.queues import Queues
from holdfast.cluster.scheduler.parts.replicas import Replicas
from holdfast.cluster.scheduler.parts.restarting import Restarting
from holdfast.cluster.scheduler.parts.retiring import Retiring
from holdfast.cluster.scheduler.parts.scaling import Scaling
from holdfast.cluster.scheduler.parts.semaphores import Semaphores
from holdfast.cluster.scheduler.parts.standing import Standing
from holdfast.cluster.scheduler.parts.successors import Successors
from holdfast.cluster.scheduler.parts.topics import KEPT as EVENTS_KEPT
from holdfast.cluster.scheduler.parts.topics import Topics
from holdfast.cluster.scheduler.parts.unattended import Unattended
from holdfast.cluster.scheduler.parts.unstarted import Unstarted
from holdfast.cluster.scheduler.parts.variables import Variables
from holdfast.cluster.scheduler.parts.waits import Refusal
from holdfast.cluster.scheduler.parts.worker_waits import WorkerWaits
from holdfast.cluster.scheduler.placing.lending import Lending
from holdfast.cluster.scheduler.placing.placement import Placement
from holdfast.cluster.scheduler.placing.recall import Recall
from holdfast.cluster.scheduler.placing.revocation import STOPPED_SECONDS, Revocation
from holdfast.cluster.scheduler.placing.suspects import PATIENCE_SECONDS as SUSPECTS_PATIENCE_SECONDS
from holdfast.cluster.scheduler.placing.suspects import Suspects
from holdfast.cluster.scheduler.placing.unrunnable import Unrunnable
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.deadlines import Timed
from holdfast.cluster.scheduler.tasks.decisions import Decisions
from holdfast.cluster.scheduler.tasks.feed import Submitted
from holdfast.cluster.scheduler.tasks.functions import Functions
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.instructions import (
    DiscardResults,
    Disconnect,
    DropRuns,
    Instruction,
    Instructions,
    Log,
)
from holdfast.cluster.scheduler.tasks.lifecycle import Lifecycle
from holdfast.cluster.scheduler.tasks.lost import PATIENCE_SECONDS
from holdfast.cluster.scheduler.tasks.model import Host, Task, Worker
from holdfast.cluster.scheduler.tasks.moves import Moves
from holdfast.cluster.scheduler.tasks.names import Key
from holdfast.cluster.scheduler.tasks.partitioned import PartitionedDict

#: A task that no worker may run fails after this.
NO_WORKER_TIMEOUT_SECONDS = 30.0
#: A task is given up when it is charged for this many deaths.
MAX_FAILURES = 3
#: What follows from an event is seen to in pieces of so many tasks: some milliseconds.
FOLLOW_UP_LIMIT = 500
#: What a scheduler numbers has numbers from its epoch times two to the power of this on: runs, calls and errands.
NUMBER_SHIFT = 40
#: After a failure in what follows from earlier events, the rest of it is tried that much later.
FAILURE_PAUSE_SECONDS = 1.0


class SchedulerState:
    """Everything that the scheduler knows.

    Parameters
    ----------
    no_worker_timeout
        Seconds after which a task fails that no worker of the cluster may run.
    patience_seconds
        How long data that can't be made again is awaited when its host is gone. 0: it is given up at once.
    max_failures
        Number of deaths for which a task is charged before it fails.
    suspects_patience_seconds
        How long one that may have killed a worker waits for a worker that it has for itself.
    follow_up_limit
        Number of tasks that one event deals with beyond those that it touches itself.
    stopped_seconds
        What a stopped worker has begun is not waited for any longer than this.
    publish_seconds
        How long a publisher waits for second copies of what can't be made again.
    durable_place
        Where datasets are durable if no place is named; None: nowhere.
    host_id, process
        Of the scheduler: the host that makes places if it can, and the process that writes to them.
    address
        Of the scheduler: messages to people name it, so that they can add workers.
    events_kept
        How many events of each topic are kept.
    wall_time
        The clock of the machine, for times that people read and that outlive a scheduler; the times of the events that
        are handled, if not given.
    on_failure
        ``on_failure(what, error)``: takes a failure in what follows from earlier events. None: it is raised.
    moves
        Changes the states of tasks.
    decisions
        Takes what is to be in the journal.

    Attributes
    ----------
    parts : tuple of Part
        All parts, in the order in which they are told of what happens.
    """

    def __init__(
        self,
        *,
        no_worker_timeout: float = NO_WORKER_TIMEOUT_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
        max_failures: int = MAX_FAILURES,
        suspects_patience_seconds: float = SUSPECTS_PATIENCE_SECONDS,
        follow_up_limit: int = FOLLOW_UP_LIMIT,
        stopped_seconds: float = STOPPED_SECONDS,
        publish_seconds: float = PUBLISH_SECONDS,
        durable_place: str | None = None,
        host_id: str = "",
        process: Sequence[Any] = (),
        address: str = "",
        events_kept: int = EVENTS_KEPT,
        wall_time: Callable[[], float] | None = None,
        on_failure: Callable[[str, Exception], None] | None = None,
        moves: Moves | None = None,
        decisions: Decisions | None = None,
    ) -> None:
        self.decisions = decisions = decisions or Decisions()
        self.hosts: dict[str, Host] = {}
        self.workers: dict[str, Worker] = {}
        self.instructions = Instructions()
        self.placement = Placement(self.hosts, self.workers)
        self.feed = moves = moves or Moves()
        self.life = Lifecycle(
            self.instructions,
            self.placement,
            Functions(self.instructions, self.workers, decisions),
            follow_up_limit=follow_up_limit,
            awaits_lost=patience_seconds > 0,
            moves=moves,
            decisions=decisions,
        )
        shared = self._shared = Shared(
            self.instructions, self.hosts, self.workers, self.placement, self.life, self.feed
        )
        self.clients: dict[str, Client] = shared.clients
        self.deadlines = shared.deadlines
        self.waits = shared.waits
        self.revocation = Revocation(self.instructions, self.placement, self.life, stopped_seconds=stopped_seconds)
        self.suspects = Suspects(self.placement, self.life, self.workers, patience_seconds=suspects_patience_seconds)
        self.lending = Lending(self.instructions, self.placement, self.life, self.revocation)
        self.recall = Recall(self.instructions, self.placement, self.revocation)
        self.unrunnable = Unrunnable(
            self.instructions,
            self.hosts,
            self.workers,
            self.life.unrunnable,
            self.placement.eligibility,
            fail_seconds=no_worker_timeout,
        )
        self._no_worker_timeout = NoWorkerTimeout(self.life, self.unrunnable, no_worker_timeout)
        self._awaited = Awaited(self.life, patience_seconds)
        reservations = self.placement.reservations
        self._tables_of_waiting = (
            self.placement.ahead,
            self.revocation.unanswered,
            reservations.isolated,
            reservations.workers,
            self.life.unrunnable,
            self.life.awaited,
        )
        self.copies = Copies(shared)
        self.carrying = Carrying(shared, self.copies)
        kills = Kills(shared, self.revocation)
        successors = Successors(shared, kills, self.revocation)
        errands = self._errands = Errands(shared, successors)
        places = Places(shared, errands, host_id=host_id)
        self.durable = Durable(shared, errands, places, self.copies, process=process)
        self.datasets = Datasets(
            shared, self.copies, self.durable, place=durable_place, publish_seconds=publish_seconds
        )
        bringing = Bringing(shared, self.carrying)
        self.metadata = Metadata(shared)
        self.topics = Topics(shared, kept=events_kept, wall_time=wall_time)
        missing = Missing(self.instructions, self.life)
        self.actors = Actors(shared, missing.could_not_read)
        self.expectations = Expectations(shared)
        self.parts: tuple[Part, ...] = (
            self.copies,
            self.carrying,
            bringing,
            places,
            self.durable,
            self.datasets,
            self.metadata,
            self.topics,
            successors,  # before that one, which forgets what it has ended
            kills,
            self.actors,
            WorkerWaits(shared, address=address),
            Retiring(shared, self.carrying, self.copies, self.revocation, successors),
            Replicas(shared, self.carrying, self.copies),
            Restarting(shared, successors),
            Finding(shared),
            Inquiries(shared),
            Scaling(shared),
            errands,
            Plugins(shared, errands, self.copies, self.topics, self.revocation, successors),
            self.expectations,
            Pickled(shared, self.expectations, wall_time=wall_time),
            Unattended(shared),
            Standing(shared, errands),
            Unstarted(shared),
            Locks(shared),
            Semaphores(shared),
            Events(shared),
            Queues(shared),
            Variables(shared),
        )
        self.objects = Objects(shared, self.copies, self.carrying, self.revocation)
        clients = self._client_events = Clients(
            shared, self.parts, self.unrunnable, self.objects, self.actors, self.expectations
        )
        self._worker_events = Workers(
            shared,
            self.parts,
            clients,
            self.revocation,
            self.lending,
            self.suspects,
            self.objects,
            kills,
            max_failures=max_failures,
        )
        hosts = Hosts(
            shared, self.parts, self._worker_events, self.objects, self.copies, self.revocation, self.suspects
        )
        self._orders = Orders(shared, self.copies, self.expectations, missing, kills, bringing)
        self._late_contents = LateContents(self.life)
        self._runs = Runs(shared, self.revocation, self.lending, missing, kills, self.copies, self._late_contents)
        self._handlers = table_of_events(
            {
                events.TimePassed: self._time_passed,
                events.Requested: self._requested,
                events.RepliesHeard: self._replies_heard,
                events.RunsKept: self._runs_kept,
                events.Recovered: self._recovered,
            },
            hosts.events,
            self._worker_events.events,
            self.objects.events,
            clients.events,
            self._orders.events,
            self._runs.events,
            *(part.events for part in self.parts),
        )
        self._not_while_recovering = {event: self._handlers[event] for event in (*OF_RUNS, *OF_HOSTS)}
        self._answers = table_of_requests(self.parts)
        self._quiet = frozenset(request.operation for request in self.requests if request.quiet)
        self.recovery: Recovery | None = None
        self._asked_again = False  # whether there was an earlier scheduler, and clients may ask what they asked that
        self._on_failure = on_failure
        self._not_before = float("-inf")  # when something may be due again, after a failure

    @property
    def tasks(self) -> PartitionedDict[Key, Task]:
        return self.life.generations.tasks

    @property
    def requests(self) -> list[Request]:
        """The requests that are answered here, when they come as `Requested`."""
        return [request for part in self.parts for request in part.requests]

    def handle(self, event: events.Event, now: float) -> list[Instruction]:
        """Take in an event; return what is to be done about it, in order.

        Parameters
        ----------
        event
            What happened. Events about workers, hosts and clients that are not there (any more) change nothing.
        now
            The time in seconds; never less than in the call before.

        Raises
        ------
        ProtocolError
            The event can't be right. The state is as it was, but for parts of the event that came before; what is to
            be done about these is in ``instructions``.
        Exception
            A fault in the handler of the event. What it had done until then is done.
        """
        self.life.now = now
        follow_up = self.life.follow_up
        in_between = follow_up.has_more and type(event) is not events.TimePassed
        try:
            self._handlers[type(event)](event)
        finally:
            if follow_up.has_more:
                self._follow_up("what follows from earlier events", lambda: follow_up.run(in_between=in_between))
            if self.lending.reclaiming:
                self._follow_up("giving resources back", self.lending.grant)
            self._follow_up("giving tasks to workers", self.life.fill)
            if self._shared.unfinished:
                self._follow_up("what parts have left to do", self._shared.follow_up)
            if self.feed.is_heard:
                self._follow_up("telling those that listen", lambda: self._publish(event))
            self._watch()
        return self._take()

    def _take(self) -> list[Instruction]:
        """All instructions. Replies of what was decided are noted with that."""
        taken = self.instructions.take()
        if self.decisions.has_some:
            self._shared.replies.note(taken)
        return taken

    def holds_back(self, client: str) -> bool:
        """Whether what a client has said before isn't done: what it says now has to wait."""
        return any(client in chore.holds_back for chore in self.life.follow_up.chores)

    @property
    def held_back(self) -> Iterator[str]:
        """The clients of which this is so."""
        return (client for chore in self.life.follow_up.chores for client in chore.holds_back)

    @property
    def light_requests(self) -> frozenset[Request]:
        """Those of `requests` that `answer` takes."""
        return frozenset(request for part in self.parts if part.moves_no_task for request in part.requests)

    def answer(self, event: events.Requested, now: float) -> list[Instruction] | None:
        """`handle` a request of a part that moves no task, from which mostly nothing follows.

        None: something follows, and `TimePassed` is to be handled at once, which gives all that is to be done.
        """
        self.life.now = now
        was_behind = self.life.follow_up.has_more  # so its turn comes anyway
        self._requested(event)
        if (self.life.follow_up.has_more and not was_behind) or self._shared.unfinished:
            return None
        return self._take()

    # -- coming back

    def is_awaited(self, client: str) -> bool:
        """Whether a client of an earlier scheduler has not said yet what it has: what it asks it has asked that one."""
        return self._shared.replies.is_awaited(client)

    def recover(self, tables: Tables, epoch: int, *, is_damaged: bool = False) -> None:
        """Begin where another scheduler has ended, before any event. `events.Recovered` says that all are back.

        Parameters
        ----------
        tables
            What the journal says.
        epoch
            No two schedulers of a cluster have the same; a later one has a higher one.
        is_damaged
            Whether the journal may have lost something.
        """
        if is_damaged:
            mend(tables)
        first = epoch << NUMBER_SHIFT
        self._asked_again = True
        self._runs.follows_another = True
        self.life.number_runs_from(first)
        self.actors.number_from(first)
        self._errands.number_from(first)
        self.recovery = Recovery(
            self._shared,
            self.objects,
            self._client_events,
            self.actors,
            self._late_contents,
            self.parts,
            tables,
            is_damaged=is_damaged,
        )
        self.objects.on_reported = self.recovery.reported
        self._handlers.update(dict.fromkeys(OF_RUNS, self.recovery.said))
        self._handlers.update(dict.fromkeys(OF_HOSTS, self.recovery.put_off))

    def _runs_kept(self, event: events.RunsKept) -> None:
        worker = self.workers.get(event.worker)
        if worker is None:
            return
        if self.recovery is not None:
            self.recovery.kept(worker, event.runs, event.results)
        else:  # it has come too late
            for run_id, *_ in event.runs:
                self.instructions.add(DropRuns, worker.address, run_id)
            for _, object_id, *_ in event.results:
                self.instructions.add(DiscardResults, worker.address, object_id)

    def _recovered(self, event: events.Recovered) -> None:
        recovery, self.recovery = self.recovery, None
        if recovery is None:
            return
        self.objects.on_reported = None
        self._handlers.update(self._not_while_recovering)
        recovery.conclude()
        for client, cancelling in recovery.cancelling.items():
            self._orders.go_on_cancelling(client, cancelling, recovery.tasks)
        for said in recovery.later:
            try:
                self._handlers[type(said)](said)
            except ProtocolError as error:
                self.instructions.put(Log(f"{said.worker} said before its scheduler was back what can't be: {error}"))
                self.instructions.put(Disconnect(said.worker))

    # -- what follows

    def _publish(self, event: events.Event) -> None:
        first = []
        if isinstance(event, events.TasksSubmitted):
            tasks = [(key, dependencies) for key, _, _, dependencies in event.tasks]
            first.append(Submitted(event.client, event.wants, tasks, event.options))
        self.feed.publish(self.life.now, first)

    def _follow_up(self, what: str, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            self._not_before = self.life.now + FAILURE_PAUSE_SECONDS
            if self._on_failure is None:
                raise
            self._on_failure(what, error)

    # -- time

    def _watch(self) -> None:
        """See to it that deadlines are known that depend on what is in tables, and that this event may have made."""
        ahead, unanswered, isolated, reserved, unrunnable, awaited = self._tables_of_waiting
        # Most of the time there is nothing in any of these.
        if ahead:
            self.deadlines.watch(self.recall)
        if unanswered:
            self.deadlines.watch(self.revocation)
        if isolated or reserved:
            self.deadlines.watch(self.suspects)
        if unrunnable:
            self.deadlines.watch(self.unrunnable)
            self.deadlines.watch(self._no_worker_timeout)
        if awaited:
            self.deadlines.watch(self._awaited)

    @property
    def next_deadline(self) -> float | None:
        """When `TimePassed` is due, None if there is nothing to wait for. At once, if an event has left work over."""
        due = self.life.now if self.life.follow_up.has_more or self._shared.unfinished else self.deadlines.next
        return due if due is None or due > self._not_before else self._not_before

    def _time_passed(self, event: events.TimePassed) -> None:
        self._follow_up("what is due", self._expire)

    def _expire(self) -> None:
        self.deadlines.expire(self.life.now)

    # -- requests

    def _requested(self, event: events.Requested) -> None:
        if self._asked_again and event.operation not in self._quiet and self._was_asked(event.client, event.request):
            return
        try:
            self._answers[event.operation](self.clients[event.client], event.request, **event.arguments)
        except Refusal as refusal:
            self.instructions.reply(event.client, event.request, False, [refusal.error, refusal.text])

    def _was_asked(self, client: str, request: int) -> bool:
        """Whether a request was posed to an earlier scheduler; it gets the answer that it had, if it is posed again."""
        if self.is_awaited(client):
            return True
        given = self._shared.replies.get(client, request)
        if given is not None:
            self.instructions.reply(client, request, *given)
        return given is not None or self.waits.has(client, request)

    def _replies_heard(self, event: events.RepliesHeard) -> None:
        self._shared.replies.heard(event.client, event.requests)
        self.actors.heard(event.client, event.calls)

    # -- for validation

    def check(self) -> None:
        """Raise `AssertionError` if something doesn't hold in deadlines, waits or parts."""
        derived: list[Timed] = [
            self.recall,
            self.revocation,
            self.suspects,
            self.unrunnable,
            self._no_worker_timeout,
            self._awaited,
        ]
        self.deadlines.check(derived)
        self.placement.eligibility.check()
        self.waits.check()
        for wait in self.waits:
            assert wait.client in self.clients, f"{wait!r} is of a client that has left"
        assert not self._shared.unfinished
        self._worker_events.check()
        for part in self.parts:
            part.check()


def table_of_events(*tables: EventHandlers) -> dict[type, Callable[[Any], None]]:
    """The handler of each class of events.

    Raises
    ------
    ValueError
        Two of the tables answer the same.
    """
    found: dict[type, Callable[[Any], None]] = {}
    for table in tables:
        if both := found.keys() & table.keys():
            raise ValueError(f"two answer {', '.join(sorted(event.__name__ for event in both))}")
        found.update(table)
    return found


def table_of_requests(parts: Iterable[Part]) -> dict[str, Callable[..., None]]:
    """The handler of each request, by the name of its operation.

    Raises
    ------
    ValueError
        Two parts answer the same.
    """
    found: dict[str, Callable[..., None]] = {}
    for part in parts:
        for request, handler in part.requests.items():
            if request.operation in found:
                raise ValueError(f"two parts answer the request {request.operation!r}")
            found[request.operation] = handler
    return found
