"""The scheduler's I/O: messages become events of the state machine, its instructions become messages."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import holdfast
from holdfast.cluster import protocol
from holdfast.cluster.clock import STEP_SECONDS, ListeningClock, Rounds
from holdfast.cluster.comm import listening
from holdfast.cluster.comm.addresses import format_address
from holdfast.cluster.comm.listening import Listener
from holdfast.cluster.comm.resume import cluster_of
from holdfast.cluster.durations import SCHEDULER_TIMEOUT_SECONDS
from holdfast.cluster.errors import InternalError, JournalFullError, ProtocolError
from holdfast.cluster.failures import dumping
from holdfast.cluster.naming import id_of_tasks
from holdfast.cluster.processes import kept_logs
from holdfast.cluster.processes.host_id import host_id
from holdfast.cluster.protocol.errands import ASSISTANT
from holdfast.cluster.protocol.limits import MAX_ITEMS
from holdfast.cluster.protocol.message import Answering, Dispatch, Request, RequestError
from holdfast.cluster.protocol.opening import PROTOCOL_VERSION
from holdfast.cluster.scheduler.io.assistant import Assistant
from holdfast.cluster.scheduler.io.coming_back import RECOVERY_SECONDS, ComingBack
from holdfast.cluster.scheduler.io.instruction_messages import MESSAGES, REPORTS, message_of
from holdfast.cluster.scheduler.io.journaling import ADDING, Journal
from holdfast.cluster.scheduler.io.membership import ALWAYS_ANSWERED, SILENCE_SECONDS, Membership
from holdfast.cluster.scheduler.io.peers import ClientPeer, Peer
from holdfast.cluster.scheduler.machine.machine import (
    MAX_FAILURES,
    NO_WORKER_TIMEOUT_SECONDS,
    SchedulerState,
)
from holdfast.cluster.scheduler.machine.validation import CheckedState
from holdfast.cluster.scheduler.parts import topics
from holdfast.cluster.scheduler.placing.revocation import STOPPED_SECONDS
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks import instructions as to_do
from holdfast.cluster.scheduler.tasks.decisions import Decisions
from holdfast.cluster.scheduler.watching import feed_log, reading
from holdfast.cluster.scheduler.watching.process import LoopProfile
from holdfast.cluster.scheduler.watching.reading import READERS, Surroundings
from holdfast.cluster.scheduler.watching.story import Story
from holdfast.objectstore.durable.sweeping import Process

logger = logging.getLogger(__name__)

#: How long a node or worker, and a client, may be cut off without having left.
RESUME_SECONDS = 15.0
CLIENT_RESUME_SECONDS = 30.0
#: By how much a timer may come before its time: uvloop's clock counts milliseconds.
CLOCK_TICK_SECONDS = 0.001
#: How many characters of an event that it failed at stand in its log.
EVENT_IN_LOG_LENGTH = 500
#: What a client is told of a failure of the scheduler's own.
FAILED = "the scheduler failed at it, and goes on; its log says how"


class Scheduler:
    """A scheduler that listens on a socket, in the event loop in which it is started.

    Parameters
    ----------
    token
        The cluster's token.
    sock
        A bound socket (`holdfast.cluster.comm.listening.bound_socket`), which the scheduler owns from here on.
    no_worker_timeout
        Seconds after which a task fails that no worker may run.
    silence_timeout
        Seconds after which a node that says nothing is given up.
    stopped_seconds
        What a stopped worker has begun is not waited for any longer than this.
    resume_seconds, client_resume_seconds
        For so long a node or worker, and a client, may be cut off without having left. Zero: a connection that breaks
        has ended.
    events_kept
        How many events of each topic are kept.
    blocked_requests
        What no client may ask.
    max_failures
        A task that is charged for so many deaths of workers fails.
    durable
        Where datasets are durable if no place is named: a path or a URL. None: nowhere.
    journal
        Where the scheduler's decisions are written, and what an earlier one has left; the scheduler owns it from here
        on. None: they are not.
    recovery_seconds
        How long hosts and workers of an earlier scheduler are waited for.
    restart_seconds
        How long peers look for another scheduler when this one is gone, if there is a journal.
    validate
        Check all invariants after every event: for tests.
    """

    def __init__(
        self,
        *,
        token: bytes,
        sock: socket.socket,
        no_worker_timeout: float = NO_WORKER_TIMEOUT_SECONDS,
        silence_timeout: float = SILENCE_SECONDS,
        stopped_seconds: float = STOPPED_SECONDS,
        resume_seconds: float = RESUME_SECONDS,
        client_resume_seconds: float = CLIENT_RESUME_SECONDS,
        events_kept: int = topics.KEPT,
        blocked_requests: Collection[str] = (),
        max_failures: int = MAX_FAILURES,
        durable: str | None = None,
        journal: Journal | None = None,
        recovery_seconds: float = RECOVERY_SECONDS,
        restart_seconds: float = SCHEDULER_TIMEOUT_SECONDS,
        validate: bool = False,
    ) -> None:
        # One that goes on where another has ended is the same to clients.
        self.id = f"scheduler-{secrets.token_hex(4) if journal is None else cluster_of(journal.epoch)[:8]}"
        self._validate = validate
        self.failures = 0  # of the scheduler's own

        def make() -> SchedulerState:
            return (CheckedState if validate else SchedulerState)(
                no_worker_timeout=no_worker_timeout,
                stopped_seconds=stopped_seconds,
                max_failures=max_failures,
                durable_place=durable,
                host_id=host_id(),
                process=list(Process.own()),
                address=format_address(*sock.getsockname()[:2]),
                events_kept=events_kept,
                wall_time=time.time,
                on_failure=None if validate else self._failed,
                decisions=Decisions(journal is not None),
            )

        self._journal = journal
        self.state = make() if journal is None else journal.recovered(make)
        self._recovery_seconds = recovery_seconds
        self._client_resume_seconds = client_resume_seconds
        # All that a peer may be late with counts in time in which this process listened.
        self._clock = ListeningClock(min(STEP_SECONDS, silence_timeout / 10))
        self._sock = sock
        self._token = token
        self._members = Membership(
            self.state,
            clock=self._clock,
            silence_timeout=silence_timeout,
            handle=self._handle,
            happen=self._happen,
            handle_message=self._handle_message,
            describe=self.describe,
            positions={} if journal is None else journal.positions,
        )
        self._peers = self._members.peers
        self._listener = Listener(
            token,
            self._members.welcome,
            self._members.connected,
            grace=lambda role: client_resume_seconds if role == "client" else resume_seconds,
            epoch=self.id if journal is None else journal.epoch,
            journal=None if journal is None else listening.Journal(restart_seconds, self._members.recorded),
            call_later=lambda seconds, callback: self._rounds.call_later(seconds, callback),
        )
        self._surroundings = Surroundings(
            self.describe,
            self._members.silences,
            self._members.silence_of,
            self._members.absent.describe,
            self._members.what_it_said,
            lambda start, stop: self._profile.ask(start, stop),
            lambda keys: self._story.of(keys),
        )
        self._blocked_requests = frozenset(blocked_requests)
        self._requests = self._handlers_of_requests()
        self._dispatches = self._handlers_of_messages()
        self._failed_at = self._handlers_of_failures()
        self._timer: asyncio.Handle | None = None
        self._timer_due = 0.0
        self._feed_log: feed_log.FeedLog | None = None
        self._started = time.time()
        self._closing = False

    async def start(self) -> None:
        kept_logs.keep_own()
        self._profile = LoopProfile()
        self._loop = asyncio.get_running_loop()
        self._story = Story(self.state.feed, self._loop.call_soon)
        self._rounds = Rounds(self._clock)
        self.finished = asyncio.Event()
        self._members.start(self._rounds)
        if self._journal is not None:
            self._journal.start(self._tell, self._members.stand_still, self._journal_failed)
            self._members.watch_what_is_heard()
            self._members.await_return(ComingBack(self.state, self._recovery_seconds, self._all_are_back))
        await self._listener.listen(self._sock)
        self._assistant = Assistant(
            token=self._token,
            feed=self.state.feed,
            done=lambda *fields: self._happen(events.ErrandDone(ASSISTANT, *fields)),
            stored=lambda *fields: self._happen(events.ErrandStored(ASSISTANT, *fields)),
            logged=lambda *fields: self._happen(events.EventLogged(ASSISTANT, *fields)),
            left=lambda reason: self._happen(events.AssistantLeft(reason)),
            priority_of=lambda key: None if (task := self.state.tasks.get(key)) is None else task.priority,
        )
        if feed_log.logger.isEnabledFor(logging.DEBUG):
            self._feed_log = feed_log.FeedLog(self.state.feed, self._loop.call_soon)
        logger.info("scheduler %s listens on %s", self.id, self.address)

    @property
    def address(self) -> str:
        """``tcp://host:port``."""
        return self._listener.address

    def describe(self) -> dict[str, Any]:
        return {
            "address": self.address,
            "id": self.id,
            "pid": os.getpid(),
            "started": self._started,
            "version": holdfast.__version__,
            "protocol": PROTOCOL_VERSION,
            "failures": self.failures,
            "epoch": None if self._journal is None else self._journal.epoch,
            "recovering": self.state.recovery is not None,
            "journal": None if self._journal is None else self._journal.describe(),
        }

    async def close(self, reason: str = "the scheduler was stopped", *, forget: bool = True) -> None:
        """Tell all peers, and go. Nodes stop their workers and stores; clients fail what they wait for.

        Parameters
        ----------
        reason
            What they are told.
        forget
            Leave nothing in the journal that another scheduler could go on with.
        """
        if self._closing:
            return
        self._closing = True
        logger.info("closing: %s", reason)
        self._profile.close()
        if self._timer is not None:
            self._timer.cancel()
        self._members.begin_closing()
        self._rounds.cancel()
        await self._assistant.close()
        await self._members.close(reason)
        await self._listener.close()  # not before: a peer that is cut off may come back, and is told then
        if self._feed_log is not None:
            self._feed_log.close()
        self._story.close()
        if self._journal is not None:
            await self._journal.close(forget=forget)
        self.finished.set()

    async def abandon(self) -> None:
        """Stop, and tell nobody: peers look for a scheduler that goes on from here."""
        self._closing = True
        if self._journal is not None:
            await self._journal.close(forget=False)

    def _shut_down(self, reason: str) -> None:
        # Kept, or the loop would be its only, weak, holder.
        self._shutdown = self._loop.create_task(self.close(reason))

    # -- peers

    def _send(self, name: str, message: tuple[Any, ...]) -> None:
        peer = self._peers.get(name)
        if peer is not None:
            peer.send(message)

    # -- the state machine

    def _handle(self, event: events.Event) -> None:
        """Take in an event, and do what is to be done about it. Raises what `SchedulerState.handle` raises."""
        try:
            instructions = self.state.handle(event, self._clock.time())
        except Exception as error:
            self._carry_out(self.state.instructions.take())
            if not isinstance(error, ProtocolError):
                error.add_note(f"the event was {event!r:.{EVENT_IN_LOG_LENGTH}}")
            raise
        else:
            self._carry_out(instructions)
        finally:
            self._set_timer()
            self._members.hold_back()

    def _happen(self, event: events.Event) -> None:
        """`_handle` what has happened by itself: no peer is to blame if that fails."""
        try:
            self._handle(event)
        except Exception as error:
            self._failed("handling an event", error)

    def _carry_out(self, instructions: list[to_do.Instruction]) -> None:
        """Write down what was decided, then tell the peers what to do."""
        if self._journal is None:
            self._tell(instructions)
        else:
            self._journal.commit(self.state.decisions.take(), instructions)

    def _tell(self, instructions: list[to_do.Instruction]) -> None:
        for instruction in instructions:
            peer = self._peers.get(instruction.peer)
            if peer is None and isinstance(instruction, to_do.SendErrand) and instruction.peer == ASSISTANT:
                self._assistant.send(message_of(instruction), self.address)
                continue
            if peer is None:
                if isinstance(instruction, to_do.Log):
                    logger.warning("%s", instruction.text)
                continue
            kind = type(instruction)
            if kind in MESSAGES:
                peer.send(MESSAGES[kind](instruction))
                if self._journal is not None and isinstance(peer, ClientPeer):
                    peer.answered(instruction)
            elif kind in REPORTS:
                assert isinstance(peer, ClientPeer)
                peer.report(instruction, self.state)
            elif isinstance(instruction, to_do.Answer):
                self._members.begin(peer.name, self._answer(*instruction))
            else:
                assert isinstance(instruction, to_do.Disconnect)
                peer.give_up()

    def _set_timer(self) -> None:
        deadline = self.state.next_deadline
        if deadline is None or self._closing:
            return
        due = deadline + CLOCK_TICK_SECONDS
        if self._timer is None or due < self._timer_due:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_due = due  # one that is due already has no time that it could be asked for
            self._timer = self._loop.call_later(max(0.0, due - self._clock.time()), self._time_passed)

    def _time_passed(self) -> None:
        self._timer = None
        self._happen(events.TimePassed())

    # -- going on where another scheduler has ended

    def _all_are_back(self) -> None:
        recovery = self.state.recovery
        missing = [] if recovery is None else [host for host in recovery.expected if host not in self.state.hosts]
        self._happen(events.Recovered())
        self._members.hear()
        if missing:  # clients that came before knew them still
            self._members.tell_clients(protocol.client.NODES_CHANGED([], missing))
        self._rounds.call_later(self._client_resume_seconds, self._members.part_with_missing_clients)

    def _journal_failed(self, reason: str) -> None:
        logger.critical("the cluster ends: %s", reason)
        self._shutdown = self._loop.create_task(self.close(reason, forget=False))

    # -- failures of the scheduler's own

    def _failed(self, what: str, error: Exception) -> None:
        """Note a failure that is this program's own fault. The scheduler goes on; in tests it raises."""
        self.failures += 1
        logger.error("the scheduler failed, and goes on: %s", what, exc_info=error)
        if self._validate:
            raise error

    def _handlers_of_failures(self) -> Dispatch[None]:
        """A client's message could not be handled to its end: the client must not wait for what won't come."""
        return Dispatch(
            protocol.client.FROM_CLIENT,
            {
                protocol.client.REQUEST: self._request_failed,
                protocol.client.SUBMIT: self._submit_failed,
                protocol.client.SCATTERED: self._scattered_failed,
                protocol.client.WANT: self._keys_failed,
                protocol.client.CALL: self._calls_failed,
                protocol.client.EXPECT: self._keys_failed,
                protocol.client.RETRY: self._retry_failed,
            },
            otherwise=lambda peer, message: None,
        )

    def _request_failed(self, peer: str, number: int, operation: str, arguments: dict[str, Any]) -> None:
        self._refuse(peer, number, "InternalError", FAILED)

    def _submit_failed(self, peer: str, tasks: Sequence[Any], wants: Any, options: Any, call_site: str) -> None:
        self._keys_failed(peer, [key for key, _, _, _ in tasks])

    def _scattered_failed(self, peer: str, objects: Sequence[Any], chosen: bool, call_site: str) -> None:
        self._keys_failed(peer, [key for key, _, _, _, _, _ in objects])

    def _calls_failed(self, peer: str, calls: Sequence[Any]) -> None:
        for number in self.state.actors.unanswered(peer, [number for number, _, _, _, _ in calls]):
            blob, text = dumping.dump_exception(InternalError(FAILED))
            self._send(peer, protocol.client.CALLED([(number, False, blob, None, text, ())]))

    def _retry_failed(self, peer: str, keys: Sequence[Any]) -> None:
        """The client takes these for pending."""
        self._send(peer, protocol.client.CANCELLED(list(keys), FAILED, self._turn_of(peer)))

    def _keys_failed(self, peer: str, keys: Sequence[Any]) -> None:
        """The client was to hold these keys."""
        if lost := self._not_held(peer, keys):
            self._send(peer, protocol.client.CANCELLED(lost, FAILED, self._turn_of(peer)))

    def _not_held(self, peer: str, keys: Sequence[Any]) -> list[Any]:
        holder = self.state.clients.get(peer)
        if holder is None:
            return []
        return [key for key in keys if (task := self.state.tasks.get(key)) is None or holder not in task.holders]

    # -- a disk that is full

    @property
    def _is_full(self) -> bool:
        return self._journal is not None and self._journal.is_full

    def _refuse_keys(self, peer: str, keys: Sequence[Any]) -> None:
        """The client was to hold these keys, and the journal has no room for that."""
        assert self._journal is not None
        blob, text = dumping.dump_exception(JournalFullError(self._journal.refusal))
        errors = [(key, blob, text) for key in self._not_held(peer, keys)]
        self._send(peer, protocol.client.ERRED(errors, self._turn_of(peer)))

    # -- requests

    def _handlers_of_requests(self) -> Answering[Iterator[None] | None]:
        """What is done about each request: those that the state machine answers are events, others are only read."""
        handlers: dict[Request, Callable[..., Iterator[None] | None]] = {
            request: self._reading(request) for request in READERS
        }
        handlers.update({request: self._asking(request) for request in self.state.requests})
        handlers[protocol.requests.SHUTDOWN] = self._shutdown_asked
        return Answering(protocol.requests.REQUESTS, handlers)

    def _asking(self, request: Request) -> Callable[..., None]:
        operation, state = request.operation, self.state

        def ask(client: str, number: int, **arguments: Any) -> None:
            self._handle(events.Requested(client, number, operation, arguments))

        def ask_light(client: str, number: int, **arguments: Any) -> None:
            try:
                done = state.answer(events.Requested(client, number, operation, arguments), self._clock.time())
            except Exception:
                self._carry_out(state.instructions.take())
                self._set_timer()
                raise
            if done is None:
                self._handle(events.TimePassed())
                return
            if done or self._journal is not None:
                self._carry_out(done)
                if not self._peers[client].inbox.waits:
                    # Somebody waits for each of these, and nothing else is about to be said.
                    for instruction in done:
                        if (peer := self._peers.get(instruction.peer)) is not None:
                            peer.flush()
            due = state.deadlines.next
            if due is not None and (self._timer is None or due + CLOCK_TICK_SECONDS < self._timer_due):
                self._set_timer()

        return ask_light if request in state.light_requests else ask

    def _reading(self, request: Request) -> Callable[..., Iterator[None] | None]:
        def read(client: str, number: int, **arguments: Any) -> Iterator[None] | None:
            if self.state.is_awaited(client) and request.operation not in ALWAYS_ANSWERED:
                return None  # it was asked of an earlier scheduler, and is asked again if it is still of use
            return self._answer(client, number, request.operation, arguments)

        return read

    def _request(self, client: str, number: int, operation: str, arguments: dict[str, Any]) -> Iterator[None] | None:
        """Answer a request. A job, if that is done step by step."""
        if operation not in self._requests:
            self._refuse(client, number, "ValueError", f"the scheduler knows no request {operation!r}")
            return None
        if operation in self._blocked_requests:
            text = f"the scheduler was told to answer no request {operation!r} (blocked_handlers)"
            self._refuse(client, number, "PermissionError", text)
            return None
        if self._journal is not None and self._journal.is_stuck:
            return self._answer(client, number, operation, arguments)  # one that is always answered
        if self._is_full and operation in ADDING:
            assert self._journal is not None
            self._refuse(client, number, "JournalFullError", self._journal.refusal)
            return None
        try:
            return self._requests(operation, arguments, client, number)
        except RequestError as error:
            self._refuse(client, number, "ProtocolError", str(error))
            return None

    def _answer(self, client: str, number: int, operation: str, arguments: dict[str, Any]) -> Iterator[None]:
        """A job that answers a request that only reads."""
        steps = reading.answer(self.state, self._surroundings, client, number, operation, arguments)
        try:
            while True:
                try:
                    part = next(steps)
                except StopIteration as end:
                    self._send(client, message_of(end.value))
                    return
                if part is not None:
                    self._send(client, message_of(part))
                yield
        except Exception as error:
            self._refuse(client, number, "InternalError", FAILED)
            self._failed("answering a request", error)

    def _refuse(self, client: str, number: int, error: str, text: str) -> None:
        self._send(client, protocol.client.REPLY(number, False, [error, text]))

    def _shutdown_asked(self, client: str, number: int) -> None:
        self._send(client, protocol.client.REPLY(number, True, None))
        self._shut_down(f"{self.state.clients[client].name} asked for it")

    # -- messages

    def _handle_message(self, peer: Peer, message: tuple[Any, ...]) -> Iterator[None] | None:
        try:
            return self._dispatches[peer.role](message, peer.name)
        except ProtocolError:
            raise
        except Exception as error:
            if peer.role == "client":
                self._failed_at(message, peer.name)
            self._failed(f"handling a message of {peer.name}", error)
            return None

    def _handlers_of_messages(self) -> dict[str, Dispatch[Iterator[None] | None]]:
        """What is done about each message, by the role of the peer that sends it. Handlers get its name first."""
        return {
            "client": Dispatch(
                protocol.client.FROM_CLIENT,
                {
                    protocol.client.TURN_BEGINS: self._turn_began,
                    protocol.client.FUNCTIONS_SENT: self._taking(events.FunctionsSent),
                    protocol.client.FUNCTIONS_FORGOTTEN: self._taking(events.FunctionsForgotten),
                    protocol.client.SUBMIT: self._submitted,
                    protocol.client.SCATTERED: self._scattered,
                    protocol.client.CONTAINS: self._taking(events.ReferencesFound),
                    protocol.client.WANT: self._taking(events.KeysWanted),
                    protocol.client.EXPECT: self._taking(events.KeysExpected),
                    protocol.client.PICKLED: self._taking(events.FuturesPickled),
                    protocol.client.UNPICKLED: self._taking(events.FuturesUnpickled),
                    protocol.client.RETRY: self._taking(events.KeysRetried),
                    protocol.client.RUN_UNATTENDED: self._taking(events.KeysUnattended),
                    protocol.client.RELEASE: self._taking(events.KeysReleased),
                    protocol.client.CANCEL: self._taking(events.KeysCancelled),
                    protocol.client.RESULTS_MISSING: self._taking(events.ResultsMissing),
                    protocol.client.EVENTS_HEARD: self._taking(events.EventsHeard),
                    protocol.client.CALL: self._called,
                    protocol.client.REQUEST: self._request,
                    protocol.client.REJOINED: self._rejoined,
                },
            ),
            "worker": Dispatch(
                protocol.worker.FROM_WORKER,
                {
                    protocol.worker.FUTURES_INSIDE: self._futures_inside,
                    protocol.worker.FINISHED: self._of_runs(protocol.worker.FINISHED, events.TasksFinished),
                    protocol.worker.ERRED: self._of_runs(protocol.worker.ERRED, events.TasksErred),
                    protocol.worker.DEPENDENCIES_MISSING: self._of_runs(
                        protocol.worker.DEPENDENCIES_MISSING, events.DependenciesMissing
                    ),
                    protocol.worker.RESCHEDULED: self._of_runs(protocol.worker.RESCHEDULED, events.RunsRescheduled),
                    protocol.worker.WROTE: self._taking(events.FunctionsWrote),
                    protocol.worker.DROPPED: self._of_runs(protocol.worker.DROPPED, events.RunsDropped),
                    protocol.worker.CONFIRMED: self._of_runs(protocol.worker.CONFIRMED, events.RevocationConfirmed),
                    protocol.worker.BEGUN: self._of_runs(protocol.worker.BEGUN, events.RunsBegun),
                    protocol.worker.RUNS_KEPT: self._runs_kept,
                    protocol.worker.ACTORS_MADE: self._of_runs(protocol.worker.ACTORS_MADE, events.ActorsMade),
                    protocol.worker.CALLS_DONE: self._of_runs(protocol.worker.CALLS_DONE, events.CallsDone),
                    protocol.worker.CALLS_MISSING: self._of_runs(protocol.worker.CALLS_MISSING, events.CallsMissing),
                    protocol.worker.BLOCKED: self._of_runs(protocol.worker.BLOCKED, events.RunsBlocked),
                    protocol.worker.RECLAIM: self._of_runs(protocol.worker.RECLAIM, events.ResourcesReclaimed),
                    protocol.worker.RETURNED: self._of_runs(protocol.worker.RETURNED, events.RunsReturned),
                    protocol.worker.TASKS_OPENED: self._tasks_opened,
                    protocol.worker.EVENT_LOGGED: self._taking(events.EventLogged),
                    protocol.worker.RESTART_WANTED: self._taking(events.RestartWanted),
                    protocol.worker.FROM_TASKS: self._tasks_said,
                    protocol.errands.ERRAND_DONE: self._taking(events.ErrandDone),
                    protocol.errands.ERRAND_STORED: self._taking(events.ErrandStored),
                },
            ),
            "node": Dispatch(
                protocol.node.FROM_NODE,
                {
                    protocol.node.INVENTORY: self._taking(events.ObjectsReported),
                    protocol.node.READY: self._host_ready,
                    protocol.node.PLACES_CHANGED: self._places_changed,
                    protocol.node.NANNY_LEFT: self._taking(events.NannyLeft),
                    protocol.node.COPIED: self._taking(events.ObjectsFound),
                    protocol.node.FORGOT: self._taking(events.ObjectsForgotten),
                    protocol.node.NOT_COPIED: self._taking(events.CopiesFailed),
                    protocol.node.EXITED: self._worker_exited,
                    protocol.node.LEFT: self._taking(events.OwnerLeft),
                    protocol.node.REVOKED: self._taking(events.RunsRevoked),
                    protocol.node.HEARTBEAT: self._heart_beat,
                    protocol.errands.ERRAND_DONE: self._taking(events.ErrandDone),
                    protocol.errands.ERRAND_STORED: self._taking(events.ErrandStored),
                },
            ),
        }

    def _taking(self, event: Callable[..., events.Event]) -> Callable[..., None]:
        """A handler for a message that is an event as it stands."""

        def handle(peer: str, *fields: Any) -> None:
            self._handle(event(peer, *fields))

        return handle

    def _of_runs(self, message: protocol.message.Message, event: Callable[..., events.Event]) -> Callable[..., None]:
        """A handler for what a worker says of its runs.

        It is put off with what the tasks of the worker say, and handled in the order in which the worker has said it:
        a result may contain futures of what they have just submitted.
        """

        def handle(peer: str, *fields: Any) -> None:
            if self._members.puts_off(peer):
                self._members.put_off(peer, message(*fields))
            else:
                self._handle(event(peer, *fields))

        return handle

    def _futures_inside(self, peer: str, runs: Sequence[Any]) -> None:
        # Outcomes of before are known while others are awaited, and what they contain may be submitted later.
        if self._members.is_recovering:
            self._members.put_off(peer, protocol.worker.FUTURES_INSIDE(runs))
        if not self._members.puts_off(peer):
            self._handle(events.FuturesInside(peer, runs))

    def _turn_began(self, peer: str, number: int) -> None:
        client = self._peers.get(peer)
        if isinstance(client, ClientPeer):
            client.turn = number

    def _turn_of(self, name: str) -> int:
        client = self._peers.get(name)
        return client.turn if isinstance(client, ClientPeer) else 0

    def _called(self, peer: str, calls: Sequence[Any]) -> None:
        # One that rejoins makes all its calls again, in their order, when it has said which ones.
        if self._members.is_back(peer):
            self._handle(events.CallsSent(peer, calls))

    def _rejoined(self, peer: str, epoch: str, keys: Sequence[Any], is_last: bool, calls: Sequence[int]) -> None:
        if self._journal is None or epoch != self._journal.epoch:
            return  # it was said to a scheduler that has died, and is said again
        self._handle(events.ClientRejoined(peer, keys, is_last, calls))
        if is_last:
            self._members.client_is_back(peer)

    def _submitted(
        self, peer: str, tasks: Sequence[Any], wants: Sequence[Any] | None, options: dict[str, Any], call_site: str
    ) -> None:
        if len(tasks) > MAX_ITEMS:  # one that could not be cut
            raise ProtocolError(f"{len(tasks):,} tasks in one message are more than {MAX_ITEMS:,}")
        if self._is_full:
            self._refuse_keys(peer, [key for key, _, _, _ in tasks])
            return
        self._handle(events.TasksSubmitted(peer, tasks, wants, options, call_site))

    def _host_ready(self, peer: str) -> None:
        self._handle(events.HostReady(peer))
        self._members.came_back()

    def _scattered(self, peer: str, objects: Sequence[Any], chosen: bool, call_site: str) -> None:
        if self._is_full:
            self._refuse_keys(peer, [key for key, _, _, _, _, _ in objects])
            return
        self._handle(events.ObjectsScattered(peer, objects, chosen, call_site))

    def _runs_kept(self, peer: str, epoch: str, runs: Sequence[tuple[int, int, bool]]) -> None:
        if self._journal is not None and epoch == self._journal.epoch:  # not an earlier scheduler's, sent again
            kept = [(run_id, serial, True, is_blocked) for run_id, serial, is_blocked in runs]
            self._handle(events.RunsKept(peer, kept, ()))
            self._members.worker_is_back(peer)
            self._members.came_back()

    def _places_changed(self, peer: str, places: Sequence[Any]) -> None:
        self._handle(events.PlacesChanged(peer, places))
        if (host := self.state.hosts.get(peer)) is not None:
            self._members.tell_clients(protocol.client.NODES_CHANGED([host.description], []))

    def _worker_exited(self, peer: str, *how: Any) -> None:
        event = events.WorkerExited(peer, *how)
        logger.log(logging.INFO if event.asked else logging.WARNING, "worker %s ended: %s", event.worker, event.reason)
        self._handle(event)
        self._members.worker_exited(event.worker, event.incarnation)

    def _tasks_opened(self, worker: str) -> None:
        self._members.tasks_announced(worker)
        if self._members.is_recovering:
            self._members.put_off(worker, protocol.worker.TASKS_OPENED())
        else:
            self._members.tasks_opened(worker)

    def _tasks_said(self, worker: str, *message: Any) -> Iterator[None] | None:
        if self._members.is_recovering:
            self._members.put_off(worker, protocol.worker.FROM_TASKS(*message))
            return None
        tasks = self._peers.get(id_of_tasks(worker))
        if tasks is None:  # it was closed, or its worker is gone
            if message[0] == protocol.client.REJOINED.operation:
                self._members.unknown_tasks_rejoined(worker)
            return None
        if self.state.holds_back(tasks.name) or self._members.awaits_others(worker):
            return self._say_later(worker, message)
        try:
            return self._handle_message(tasks, message)
        except ProtocolError as error:  # the worker has nothing to do with it
            logger.warning("the tasks of %s are no client any more: %s", worker, error)
            tasks.give_up(error)
            self._members.tasks_closed(worker)
            return None

    def _say_later(self, worker: str, message: tuple[Any, ...]) -> Iterator[None]:
        """A job that handles what tasks say when what they have said before is done, and others have caught up."""
        while self.state.holds_back(id_of_tasks(worker)) or self._members.awaits_others(worker):
            yield
        job = self._tasks_said(worker, *message)
        if job is not None:
            yield from job

    def _heart_beat(self, peer: str, beat: dict[str, Any]) -> None:
        self._handle(events.HostReported(peer, {**beat, "time": time.time()}))
