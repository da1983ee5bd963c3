"""The scheduler's I/O: messages become events of the state machine, its instructions become messages."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import holdfast
from holdfast.cluster import protocol
from holdfast.cluster.clock import STEP_SECONDS, Alarm, ListeningClock, Rounds
from holdfast.cluster.comm.connection import Connection, Listener
from holdfast.cluster.comm.frames import raw
from holdfast.cluster.comm.opening import Refused
from holdfast.cluster.errors import ConnectError, ProtocolError
from holdfast.cluster.protocol.limits import MAX_CLIENTS, MAX_ITEMS, MAX_REASON_LENGTH
from holdfast.cluster.protocol.message import Dispatch
from holdfast.cluster.protocol.opening import PROTOCOL_VERSION, check_opening
from holdfast.cluster.scheduler.io.debts import REPORTS, Debts
from holdfast.cluster.scheduler.io.inbox import Inbox, Inboxes
from holdfast.cluster.scheduler.machine.machine import NO_WORKER_TIMEOUT_SECONDS, SchedulerState
from holdfast.cluster.scheduler.machine.validation import CheckedState
from holdfast.cluster.scheduler.parts.requests import FAILED, Requests
from holdfast.cluster.scheduler.placing.revocation import STOPPED_SECONDS
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks import instructions as to_do
from holdfast.cluster.scheduler.watching import feed_log, introspection
from holdfast.cluster.scheduler.watching.absent import Absent

logger = logging.getLogger(__name__)

#: How long the node of a worker that is gone gets to say why.
EXIT_REASON_SECONDS = 1.0
#: A node that says nothing for this long, though it should much more often, is given up, until it comes back.
SILENCE_SECONDS = 30.0
#: How often nodes say how they are, if the scheduler has the patience.
HEARTBEAT_SECONDS = 2.0
#: By how much a timer may come before its time: uvloop's clock counts milliseconds.
CLOCK_TICK_SECONDS = 0.001
#: After a failure in what follows from earlier events, the scheduler tries the rest of it that much later.
FAILURE_PAUSE_SECONDS = 1.0
#: How many characters of an event that it failed at stand in its log.
EVENT_IN_LOG_LENGTH = 500
#: How long peers get to take leave when the cluster shuts down.
CLOSE_SECONDS = 5.0


class Scheduler:
    """A scheduler that listens on a socket, in the event loop in which it is started.

    Parameters
    ----------
    token
        The cluster's token.
    sock
        A bound socket (`holdfast.cluster.comm.connection.bound_socket`), which the scheduler owns from here on.
    no_worker_timeout
        Seconds after which a task fails that no worker may run.
    silence_timeout
        Seconds after which a node that says nothing is given up.
    stopped_seconds
        After this long nobody waits any longer for what a stopped worker has begun.
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
        validate: bool = False,
    ) -> None:
        self.id = f"scheduler-{secrets.token_hex(4)}"
        self._validate = validate
        self.failures = 0  # of the scheduler's own
        state = CheckedState if validate else SchedulerState
        self.state = state(
            no_worker_timeout=no_worker_timeout,
            stopped_seconds=stopped_seconds,
            on_failure=None if validate else self._follow_up_failed,
        )
        # All that anybody may be late with counts in time in which this process listened.
        self._clock = ListeningClock(min(STEP_SECONDS, silence_timeout / 10))
        self._silence_timeout = silence_timeout
        self._sock = sock
        self._listener = Listener(token, self._welcome, self._connected)
        self._peers: dict[str, Connection] = {}  # by node address, worker address or client id
        self._inbox_of: dict[str, Inbox] = {}  # by client
        self._debts: dict[str, Debts] = {}  # what clients are to be told that read slowly
        self._paying: set[str] = set()  # for whom a job does that
        self._turns: dict[str, int] = {}  # the last turn that each client has announced
        self._heartbeats: introspection.Heartbeats = {}
        self._absent = Absent()
        self._requests = Requests(
            self.state,
            self._heartbeats,
            self._absent,
            silences=self._silences,
            send=self._send,
            handle=self._handle,
            call_later=self._call_later,
            describe=self.describe,
            begin=self._begin,
            failed=self._failed,
            shut_down=self._shut_down,
        )
        self._dispatches = self._handlers_of_messages()
        self._failed_at = self._handlers_of_failures()
        self._put: dict[str, list[tuple[str, list[bytes]]]] = {}  # see _user_left
        self._departures: dict[str, _Departure] = {}  # of workers, while one of its two signs is missing
        self._timer: asyncio.Handle | None = None
        self._timer_due = 0.0
        self._not_before = 0.0  # when something may be due again, after a failure
        self._heard: dict[str, float] = {}  # when each node last said something, by the clock
        self._node_inboxes: dict[str, Inbox] = {}
        self._silence_timer: Alarm | None = None
        self._feed_log: feed_log.FeedLog | None = None
        self._started = time.time()
        self._closing = False

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._inboxes = Inboxes()
        self._rounds = Rounds(self._clock)
        self.finished = asyncio.Event()
        await self._listener.listen(self._sock)
        self._watch_silence()
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
        }

    async def close(self, reason: str = "the scheduler was stopped") -> None:
        """Tell everybody, and go. Nodes stop their workers and stores; clients fail what they wait for."""
        if self._closing:
            return
        self._closing = True
        logger.info("closing: %s", reason)
        for timer in (self._timer, self._silence_timer):
            if timer is not None:
                timer.cancel()
        self._requests.close()
        self._rounds.cancel()
        await self._listener.close()
        for connection in list(self._peers.values()):
            connection.send(_FAREWELLS[connection.role](reason))
        deadline = self._loop.time() + CLOSE_SECONDS
        while any(c.role == "node" for c in self._peers.values()) and self._loop.time() < deadline:
            await asyncio.sleep(0.01)
        for connection in list(self._peers.values()):
            connection.close()
        if self._feed_log is not None:
            self._feed_log.close()
        self.finished.set()

    def _shut_down(self, reason: str) -> None:
        # Kept, or the loop would be its only, weak, holder.
        self._shutdown = self._loop.create_task(self.close(reason))

    # -- peers

    def _welcome(self, role: str, info: dict[str, Any]) -> dict[str, Any]:
        if self._closing:
            raise Refused("role", "the cluster is shutting down")
        if role not in self._dispatches:
            raise Refused("role", f"a scheduler does not serve the role {role!r:.80}")
        try:
            check_opening(role, info)
        except ProtocolError as error:
            raise Refused("role", str(error)) from None
        if role == "node":
            self._supersede(info["address"], info["incarnation"])
        elif role == "worker":
            host = self.state.hosts.get(info["node"])
            if host is None or not host.is_ready:
                raise Refused("later", f"node {info['node']} has not joined")
            if info["address"] in self._departures and info["address"] not in self._peers:
                self._departed(info["address"])  # its successor is here already
        elif role == "client" and len(self.state.clients) >= MAX_CLIENTS:
            raise Refused("later", f"{MAX_CLIENTS:,} clients are connected, and no more may be")
        self._refuse_twice(info["id"] if role == "client" else info["address"])
        welcome: dict[str, Any] = {"scheduler": self.describe()}
        if role == "client":
            welcome["nodes"] = [host.description for host in self.state.hosts.values()]
        elif role == "node":
            welcome["heartbeat"] = min(HEARTBEAT_SECONDS, self._silence_timeout / 5)
        return welcome

    def _supersede(self, node: str, incarnation: str) -> None:
        """The very agent that is connected connects anew: its old connection has ended at its side."""
        connection = self._peers.get(node)
        if connection is not None and connection.info["incarnation"] == incarnation:
            connection.abort(_MayLiveError("it connects anew"))

    def _refuse_twice(self, peer: str) -> None:
        if peer in self._peers:
            raise Refused("later", f"{peer} is connected already")

    def _connected(self, connection: Connection) -> None:
        role, info = connection.role, connection.info
        peer = info["id"] if role == "client" else info["address"]
        if peer in self._peers:  # two at the same moment
            connection.abort(ProtocolError(f"{peer} is connected already"))
            return
        self._peers[peer] = connection  # before it joins: there may be work for it at once
        try:
            self._join(role, peer, info)
        except Exception as error:  # its node has just left, or it said something odd about itself
            logger.warning("%s could not join", peer, exc_info=not isinstance(error, ProtocolError))
            del self._peers[peer]
            connection.abort(error)
            return
        dispatch = self._dispatches[role]

        def handle_message(message: tuple[Any, ...]) -> Iterator[None] | None:
            try:
                return dispatch(message, peer)
            except ProtocolError:
                raise
            except Exception as error:
                if role == "client":
                    self._failed_at(message, peer)
                self._failed(f"handling a message of {peer}", error)
                return None

        def ended(error: Exception | None) -> None:
            if self._peers.get(peer) is connection:
                del self._peers[peer]
                self._inbox_of.pop(peer, None)
                self._debts.pop(peer, None)
                reason = str(error) if error else "its connection closed"
                self._leave(role, peer, info, reason, may_live=isinstance(error, _MayLiveError))

        inbox = Inbox(connection, handle_message, ended, needs_room=role == "client")
        if role == "node":
            self._node_inboxes[peer] = inbox
        elif role == "client":
            self._inbox_of[peer] = inbox
            connection.on_room = lambda: self._has_room(peer, inbox)

        def on_batch(messages: tuple[Any, ...]) -> None:
            if role == "node":
                self._heard[peer] = self._clock.time()
            self._inboxes.received(inbox, messages)

        def on_close(error: Exception | None) -> None:
            self._inboxes.ended(inbox, error)

        logger.info("%s %s joined from %s", role, peer, connection.peer)
        connection.start(on_batch, on_close)
        if role == "worker":
            self._requests.worker_joined()

    def _join(self, role: str, peer: str, info: dict[str, Any]) -> None:
        if role == "node":
            self._heard[peer] = self._clock.time()
            self._absent.joined(peer, info["hostname"])
            self._handle(events.HostJoined(peer, info))
            self._tell_clients(protocol.client.NODES_CHANGED([info], []))
        elif role == "worker":
            resources = {name: float(amount) for name, amount in (info.get("resources") or {}).items()}
            if info.get("memory_limit"):
                resources.setdefault("memory", float(info["memory_limit"]))
            incarnation = info.get("incarnation")
            self._handle(
                events.WorkerJoined(peer, info["name"], info["node"], info["nthreads"], resources, incarnation)
            )
        else:
            self._handle(events.ClientJoined(peer, info.get("name") or peer, bool(info.get("of_worker"))))

    def _leave(self, role: str, peer: str, info: dict[str, Any], reason: str, *, may_live: bool) -> None:
        logger.info("%s %s left: %s", role, peer, reason)
        if role == "node":
            if may_live:
                self._absent.gave_up(peer, self.state.hosts[peer].description["hostname"], reason)
            self._heartbeats.pop(peer, None)
            self._heard.pop(peer, None)
            self._node_inboxes.pop(peer, None)
            for worker in self.state.hosts[peer].workers:
                self._departures.pop(worker.address, _Departure("")).cancel()
                self._put.pop(worker.address, None)  # its node will say what it has, if it comes back
                # A process that still runs ends by that. Its agent starts another one, which joins after the agent.
                if (connection := self._peers.pop(worker.address, None)) is not None:
                    connection.abort(ConnectError(f"its node {peer} left: {reason}"))
            self._happen(events.HostLeft(peer, reason, may_live))
            self._tell_clients(protocol.client.NODES_CHANGED([], [peer]))
            self._requests.node_reported(peer)
        elif role == "worker":
            departure = self._departures.setdefault(peer, _Departure(reason))
            if departure.explained or self._closing:
                self._departed(peer)
            else:
                departure.timer = self._call_later(EXIT_REASON_SECONDS, self._departed, peer)
                self._send(info["node"], protocol.node.PARTED(peer, info.get("pid") or 0))
        else:
            self._turns.pop(peer, None)
            self._happen(events.ClientLeft(peer))
            self._reconcile(peer)
            self._requests.client_left(peer)

    def _worker_exited(self, node: str, worker: str, reason: str, *how: Any) -> None:
        """Its node says that a worker process ended. What it sent before may still be on its way here."""
        if not worker.startswith(f"{node}/"):
            raise ProtocolError(f"exited.worker: {worker!r:.80} is none of {node}")
        logger.warning("worker %s ended: %s", worker, reason)
        departure = self._departures.get(worker)
        if departure is not None:
            departure.explain(reason, *how)
            self._departed(worker)
        elif worker in self._peers:
            self._departures[worker] = departure = _Departure(reason)
            departure.explain(reason, *how)
            # A process that the worker forked may keep the connection open.
            departure.timer = self._call_later(EXIT_REASON_SECONDS, self._peers[worker].abort)

    def _watch_silence(self) -> None:
        if any(map(self._is_silent, self._heard)):
            # What they have said may lie in the sockets. The loop looks at these between this turn and the next, and
            # has read them in the one after.
            self._loop.call_soon(self._loop.call_soon, self._give_up_silent)
        self._silence_timer = self._call_later(self._silence_timeout / 10, self._watch_silence)

    def _silences(self) -> dict[str, float]:
        now = self._clock.time()
        return {node: now - heard for node, heard in self._heard.items()}

    def _is_silent(self, node: str) -> bool:
        if self._node_inboxes[node].waits:
            self._heard[node] = self._clock.time()  # it has said more than was looked at, and is not read on
        return self._clock.time() - self._heard[node] > self._silence_timeout

    def _give_up_silent(self) -> None:
        for node in filter(self._is_silent, list(self._heard)):
            silent = self._clock.time() - self._heard[node]
            self._peers[node].abort(_MayLiveError(f"it has said nothing for {silent:.0f} s"))

    def _call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> Alarm:
        return self._rounds.call_later(seconds, callback, *args)

    def _departed(self, worker: str) -> None:
        departure = self._departures.pop(worker)
        departure.cancel()
        self._happen(events.WorkerLeft(worker, departure.reason, *departure.how))
        self._reconcile(worker)

    def _user_left(self, node: str, put: Sequence[dict[str, Any]], name: str) -> None:
        """A process no longer uses a node's store, and had put these objects there.

        If it died before it could tell of some, nobody else will ever name them. That is known as soon as all has been
        read that it had sent, which is when it has left here too.
        """
        peer = name
        for worker in self.state.hosts[node].workers:
            if worker.name == name:
                peer = worker.address
        host = self.state.hosts[node]
        objects = self.state.life.objects
        object_ids = [description["id"] for description in put]
        unheard_of = [i for i in object_ids if (task := objects.get(i)) is None or host not in task.where]
        self._put.setdefault(peer, []).append((node, unheard_of))
        if peer not in self.state.workers and peer not in self.state.clients:
            self._reconcile(peer)

    def _objects_reported(self, node: str, descriptions: Sequence[dict[str, Any]]) -> None:
        """A node that has joined says what its store has.

        What nobody has heard of is deleted, unless a client put it there that may be about to tell of it.
        """
        life = self.state.life
        reported = []
        unheard_of: dict[str, list[bytes]] = {}
        for description in descriptions:
            object_id, owner = description["id"], description.get("owner")
            if owner in self.state.clients and object_id not in life.objects and object_id not in life.lost:
                unheard_of.setdefault(owner, []).append(object_id)
            else:
                reported.append(description)
        for owner, object_ids in unheard_of.items():
            self._put.setdefault(owner, []).append((node, object_ids))
        self._handle(events.ObjectsReported(node, reported))

    def _reconcile(self, peer: str) -> None:
        for node, object_ids in self._put.pop(peer, ()):
            self._happen(events.ObjectsFound(node, object_ids))

    def _tell_clients(self, message: tuple[Any, ...]) -> None:
        for client in self.state.clients:
            self._send(client, message)

    def _send(self, peer: str, message: tuple[Any, ...]) -> None:
        connection = self._peers.get(peer)
        if connection is not None:
            connection.send(message)

    # -- the state machine

    def _handle(self, event: events.Event) -> None:
        """Take in an event, and do what is to be done about it. Raises what `SchedulerState.handle` raises."""
        try:
            instructions = self.state.handle(event, self._clock.time())
        except Exception as error:
            self._carry_out(self.state.outbox.take())
            if not isinstance(error, ProtocolError):
                error.add_note(f"the event was {event!r:.{EVENT_IN_LOG_LENGTH}}")
            raise
        else:
            self._carry_out(instructions)
        finally:
            self._set_timer()

    def _happen(self, event: events.Event) -> None:
        """`_handle` what has happened by itself: nobody is to blame if that fails."""
        try:
            self._handle(event)
        except Exception as error:
            self._failed("handling an event", error)

    def _carry_out(self, instructions: list[to_do.Instruction]) -> None:
        for instruction in instructions:
            peer = instruction.peer
            if type(instruction) in REPORTS:
                self._report(peer, instruction)
            else:
                self._send(peer, message_of(instruction))

    def _report(self, client: str, report: to_do.Instruction) -> None:
        """Tell a client what became of keys; or remember that it is owed that, while it has enough to read."""
        connection = self._peers.get(client)
        if connection is None:
            return
        turn = self._turns.get(client, 0)
        debts = self._debts.get(client)
        if debts is None:
            if not connection.is_full:
                connection.send(message_of(report, turn))
                return
            debts = self._debts[client] = Debts(client, self.state)
        debts.add(report, turn)

    def _has_room(self, client: str, inbox: Inbox) -> None:
        """A client has read what was written for it."""
        if client in self._debts and client not in self._paying:
            self._paying.add(client)
            inbox.begin(self._pay(client))
        self._inboxes.go_on(inbox)

    def _pay(self, client: str) -> Iterator[None]:
        debts = self._debts[client]
        try:
            while debts and client in self._peers:
                for report, turn in debts.take(MAX_ITEMS, self._turns.get(client, 0)):
                    self._send(client, message_of(report, turn))
                if client in self._peers:
                    self._peers[client].flush()  # then it is known whether there is room for more
                yield
        finally:
            self._paying.discard(client)
            if not debts:
                self._debts.pop(client, None)

    def _set_timer(self) -> None:
        deadline = self.state.next_deadline
        if deadline is None or self._closing:
            return
        due = max(deadline + CLOCK_TICK_SECONDS, self._not_before)
        if self._timer is None or due < self._timer_due:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_due = due  # one that is due already has no time that it could be asked for
            self._timer = self._loop.call_later(max(0.0, due - self._clock.time()), self._time_passed)

    def _time_passed(self) -> None:
        self._timer = None
        self._happen(events.TimePassed())

    # -- failures of the scheduler's own

    def _failed(self, what: str, error: Exception) -> None:
        """Note a failure that is nobody's fault but this program's. The scheduler goes on; in tests it raises."""
        self.failures += 1
        logger.error("the scheduler failed, and goes on: %s", what, exc_info=error)
        if self._validate:
            raise error

    def _follow_up_failed(self, what: str, error: Exception) -> None:
        self._not_before = self._clock.time() + FAILURE_PAUSE_SECONDS
        self._failed(what, error)

    def _handlers_of_failures(self) -> Dispatch[None]:
        """A client's message could not be handled to its end: the client must not wait for what won't come."""
        return Dispatch(
            protocol.client.FROM_CLIENT,
            {
                protocol.client.REQUEST: self._request_failed,
                protocol.client.SUBMIT: self._submit_failed,
                protocol.client.SCATTERED: self._scattered_failed,
                protocol.client.WANT: self._keys_failed,
            },
            otherwise=lambda peer, message: None,
        )

    def _request_failed(self, peer: str, number: int, operation: str, arguments: dict[str, Any]) -> None:
        self._requests.refuse(peer, number, "InternalError", FAILED)

    def _submit_failed(self, peer: str, tasks: Sequence[Any], wants: Any, options: Any) -> None:
        self._keys_failed(peer, [key for key, _, _, _ in tasks])

    def _scattered_failed(self, peer: str, objects: Sequence[Any], chosen: bool) -> None:
        self._keys_failed(peer, [key for key, _, _, _, _, _ in objects])

    def _keys_failed(self, peer: str, keys: Sequence[Any]) -> None:
        """The client was to hold these keys."""
        holder = self.state.clients.get(peer)
        if holder is None:
            return
        lost = [key for key in keys if (task := self.state.tasks.get(key)) is None or holder not in task.holders]
        if lost:
            self._send(peer, protocol.client.CANCELLED(lost, FAILED, self._turns.get(peer, 0)))

    def _begin(self, client: str, job: Iterator[None]) -> None:
        """Have a job done for a client, if it is there."""
        inbox = self._inbox_of.get(client)
        if inbox is not None:
            self._inboxes.begin(inbox, job)

    # -- messages

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
                    protocol.client.SCATTERED: self._taking(events.ObjectsScattered),
                    protocol.client.CONTAINS: self._taking(events.ReferencesFound),
                    protocol.client.WANT: self._taking(events.KeysWanted),
                    protocol.client.RELEASE: self._taking(events.KeysReleased),
                    protocol.client.CANCEL: self._taking(events.KeysCancelled),
                    protocol.client.RESULTS_MISSING: self._taking(events.ResultsMissing),
                    protocol.client.REQUEST: self._requests.handle,
                },
            ),
            "worker": Dispatch(
                protocol.worker.FROM_WORKER,
                {
                    protocol.worker.FINISHED: self._taking(events.TasksFinished),
                    protocol.worker.ERRED: self._taking(events.TasksErred),
                    protocol.worker.DEPENDENCIES_MISSING: self._taking(events.DependenciesMissing),
                    protocol.worker.WROTE: self._taking(events.FunctionsWrote),
                    protocol.worker.DROPPED: self._taking(events.RunsDropped),
                    protocol.worker.CONFIRMED: self._taking(events.RevocationConfirmed),
                },
            ),
            "node": Dispatch(
                protocol.node.FROM_NODE,
                {
                    protocol.node.INVENTORY: self._objects_reported,
                    protocol.node.READY: self._taking(events.HostReady),
                    protocol.node.COPIED: self._taking(events.ObjectsFound),
                    protocol.node.NOT_COPIED: self._taking(events.CopiesFailed),
                    protocol.node.EXITED: self._worker_exited,
                    protocol.node.LEFT: self._user_left,
                    protocol.node.REVOKED: self._taking(events.RunsRevoked),
                    protocol.node.HEARTBEAT: self._heart_beat,
                },
            ),
        }

    def _taking(self, event: Callable[..., events.Event]) -> Callable[..., None]:
        """A handler for a message that is an event as it stands."""

        def handle(peer: str, *fields: Any) -> None:
            self._handle(event(peer, *fields))

        return handle

    def _turn_began(self, peer: str, number: int) -> None:
        self._turns[peer] = number

    def _submitted(self, peer: str, tasks: Sequence[Any], wants: Sequence[Any] | None, options: dict[str, Any]) -> None:
        if len(tasks) > MAX_ITEMS:  # one that could not be cut
            raise ProtocolError(f"{len(tasks):,} tasks in one message are more than {MAX_ITEMS:,}")
        self._handle(events.TasksSubmitted(peer, tasks, wants, options))

    def _heart_beat(self, peer: str, beat: dict[str, Any]) -> None:
        self._heartbeats[peer] = {**beat, "time": time.time()}
        self._requests.node_reported(peer)
        self._handle(events.WorkersSeen(peer, _conditions(beat)))


class _MayLiveError(ConnectError):
    """Nobody hears of a node any more, which may live and come back."""


class _Departure:
    """A worker on its way out. There are two signs of it, in either order: its connection ends, and its node says why.

    Only when the connection has ended has everything been read that the worker had sent. The reason is waited
    for, but not for long: a worker may also lose its connection and live.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.how: tuple[Any, ...] = ()  # as `events.WorkerLeft` has it
        self.explained = False
        self.timer: Alarm | None = None

    def explain(self, reason: str, running: Sequence[int], crashed: int | None, fault: bool) -> None:
        self.reason = reason
        self.how = running, crashed, fault
        self.explained = True

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()


def _conditions(beat: dict[str, Any]) -> dict[str, tuple[str, float]]:
    """What a heartbeat says of workers that are processes of their own."""
    return {
        address: (vitals["condition"], vitals["seconds"])
        for address, vitals in beat.get("workers", {}).items()
        if "condition" in vitals and "seconds" in vitals
    }


#: What each kind of peer is told when the cluster ends.
_FAREWELLS: dict[str, Callable[[str], tuple[Any, ...]]] = {
    "client": protocol.client.CLOSING,
    "node": lambda reason: protocol.node.CLOSE(),
    "worker": lambda reason: protocol.worker.CLOSE(),
}


def _run_entry(entry: to_do.RunEntry) -> tuple[Any, ...]:
    key, run_id, digest, payload, dependencies, resources = entry
    return (key, run_id, digest, raw(payload), dependencies, resources)


def _erred_entry(entry: to_do.ErredEntry) -> tuple[Any, ...]:
    key, raised, text = entry
    return (key, raised if type(raised) is tuple else raw(raised), text)


def _reply(instruction: to_do.Reply) -> tuple[Any, ...]:
    value = instruction.value
    if type(value) is dict and "data" in value:
        value = {**value, "data": raw(value["data"])}
    return protocol.client.REPLY(instruction.request, instruction.ok, value)


def message_of(instruction: to_do.Instruction, turn: int = 0) -> tuple[Any, ...]:
    """How an instruction looks on the wire. Those that are `REPORTS` carry the turn that the client has said last."""
    return _MESSAGES[type(instruction)](instruction, turn)


_MESSAGES: dict[type, Callable[[Any, int], tuple[Any, ...]]] = {
    to_do.SendFunctions: lambda i, _: protocol.worker.FUNCTIONS_SENT([(digest, raw(blob)) for digest, blob in i.items]),
    to_do.ForgetFunctions: lambda i, _: protocol.worker.FUNCTIONS_FORGOTTEN(i.items),
    to_do.RunTasks: lambda i, _: protocol.worker.RUN_TASKS([_run_entry(entry) for entry in i.items]),
    to_do.DropRuns: lambda i, _: protocol.worker.DROP(i.items),
    to_do.RevokeRuns: lambda i, _: protocol.node.REVOKE(i.worker, i.incarnation, i.run_ids),
    to_do.TellRevoked: lambda i, _: protocol.worker.REVOKED(i.number, i.run_ids),
    to_do.CopyObjects: lambda i, _: protocol.node.COPY(i.items),
    to_do.DeleteObjects: lambda i, _: protocol.node.DELETE(i.items),
    to_do.DiscardResults: lambda i, _: protocol.worker.DISCARD(i.items),
    to_do.ReportKept: lambda i, _: protocol.client.KEPT(i.items),
    to_do.Warn: lambda i, _: protocol.client.WARNING(i.text[:MAX_REASON_LENGTH]),
    to_do.Reply: lambda i, _: _reply(i),
    to_do.ReportMemory: lambda i, turn: protocol.client.MEMORY(i.items, turn),
    to_do.ReportErred: lambda i, turn: protocol.client.ERRED([_erred_entry(entry) for entry in i.items], turn),
    to_do.ReportPending: lambda i, turn: protocol.client.PENDING(i.items, turn),
    to_do.ReportCancelled: lambda i, turn: protocol.client.CANCELLED(i.items, i.reason, turn),
}
