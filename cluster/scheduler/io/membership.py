"""Which peers are part of the cluster: how they join and leave, and which are silent.

A peer joins when its connection has opened, and leaves when all has been handled that it had sent (`inbox`), or its
node is given up. What follows from that is up to the state machine (`machine/hosts.py`, `workers.py`, `clients.py`).

A connection over the network that ends without a goodbye is waited for (`comm/listening.py`): its peer is *cut off*,
and leaves when it is not back in time. It leaves at once when it is known to have ended: a worker when its node says
so, or another one comes in its place; a node when no process listens at its port any more, or another agent does. A
worker that is cut off gets nothing new to do (`placing/revocation.py`).

Where a journal is kept, a peer may have joined an earlier scheduler, and *rejoin* this one: a client that is in the
journal, and a worker. It goes on to speak where it was heard last (`progress`). While hosts and workers of the earlier
scheduler are awaited, clients are not heard; what the tasks of a worker say, as a client, is put off.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from holdfast.cluster import protocol, versions
from holdfast.cluster.clock import Alarm, ListeningClock, Rounds
from holdfast.cluster.comm.addresses import parse_address
from holdfast.cluster.comm.connection import Connection
from holdfast.cluster.comm.listening import GraceOverError
from holdfast.cluster.comm.opening import Refused
from holdfast.cluster.comm.resumable import ResumableConnection
from holdfast.cluster.comm.resume import Was
from holdfast.cluster.errors import ConnectError, ProtocolError
from holdfast.cluster.naming import id_of_tasks
from holdfast.cluster.protocol.limits import MAX_CLIENTS
from holdfast.cluster.protocol.opening import check_opening
from holdfast.cluster.scheduler.io.absent import Absent
from holdfast.cluster.scheduler.io.coming_back import ComingBack
from holdfast.cluster.scheduler.io.inbox import Inbox, Inboxes
from holdfast.cluster.scheduler.io.peers import ClientPeer, MayLiveError, NodePeer, Peer, TasksPeer, WorkerPeer
from holdfast.cluster.scheduler.io.progress import Position, Progress
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks import events

logger = logging.getLogger(__name__)

#: A node that says nothing for this long, though it should much more often, is given up, until it comes back.
SILENCE_SECONDS = 30.0
#: How often nodes say how they are, if the scheduler has the patience.
HEARTBEAT_SECONDS = 2.0
#: How long a node's port is tried when its connection has broken.
PROBE_SECONDS = 5.0
PROBE_PAUSE_SECONDS = 0.05
#: How often it is looked which replies clients have got, where a journal is kept.
HEARD_SECONDS = 1.0
#: A client is told of so many sets of versions that workers have.
MAX_VERSIONS = 20
#: What people ask when a scheduler does nothing else.
ALWAYS_ANSWERED = frozenset({protocol.requests.STATUS.operation, protocol.requests.SCHEDULER_LOGS.operation})
#: How long nodes get to take leave when the cluster shuts down.
CLOSE_SECONDS = 5.0

_SERVED = (ClientPeer.role, NodePeer.role, WorkerPeer.role)


class Membership:
    """Keeps the peers of a scheduler. Used in the thread of its event loop, from `start` on.

    Parameters
    ----------
    state
        The state machine, which is read.
    clock
        By which silence is counted.
    silence_timeout
        Seconds after which a node that says nothing is given up.
    handle
        Takes an event; raises what the state machine raises.
    happen
        Takes an event that no peer is to blame for; raises nothing.
    handle_message
        ``handle_message(peer, message)`` handles what a peer has sent; may return a job (`inbox`).
    describe
        The scheduler's description of itself.
    positions
        How far an earlier scheduler has heard each peer, by name.

    Attributes
    ----------
    peers : dict
        Those that are there, by name.
    absent : Absent
        The hosts that were given up.
    """

    def __init__(
        self,
        state: SchedulerState,
        *,
        clock: ListeningClock,
        silence_timeout: float,
        handle: Callable[[events.Event], None],
        happen: Callable[[events.Event], None],
        handle_message: Callable[[Peer, tuple[Any, ...]], Iterator[None] | None],
        describe: Callable[[], dict[str, Any]],
        positions: Mapping[str, Position],
    ) -> None:
        self.peers: dict[str, Peer] = {}
        self.absent = Absent()
        self._state = state
        self._clock = clock
        self._silence_timeout = silence_timeout
        self._handle = handle
        self._happen = happen
        self._handle_message = handle_message
        self._describe = describe
        self._positions = positions
        self._silence_timer: Alarm | None = None
        self._closing = False
        self._is_still = False
        self._coming_back: ComingBack | None = None
        self._probes: set[asyncio.Task[None]] = set()

    def start(self, rounds: Rounds) -> None:
        """Begin to look for silent nodes."""
        self._loop = asyncio.get_running_loop()
        self._inboxes = Inboxes()
        self._behind: dict[str, WorkerPeer] = {}  # those that are heard again with what was put off
        self._held_back: dict[str, None] = {}  # the clients that wait for what they have said before
        self._rounds = rounds
        self._watch_silence()

    def begin_closing(self) -> None:
        """Take no peer any more."""
        self._closing = True
        if self._coming_back is not None:
            self._coming_back.close()
        self.stand_still(False)  # or nobody's leaving would be noticed
        if self._silence_timer is not None:
            self._silence_timer.cancel()
        for probe in self._probes:
            probe.cancel()

    async def close(self, reason: str) -> None:
        """Tell all peers that the cluster ends, give nodes the time to leave, and part with all."""
        for peer in list(self.peers.values()):
            peer.say_goodbye(reason)
        deadline = self._loop.time() + CLOSE_SECONDS
        while any(isinstance(peer, NodePeer) for peer in self.peers.values()) and self._loop.time() < deadline:
            await asyncio.sleep(0.01)
        for peer in list(self.peers.values()):
            peer.close()

    def what_it_said(self, name: str) -> dict[str, Any]:
        """What a peer has said about itself when it joined; nothing of one that isn't there."""
        peer = self.peers.get(name)
        return {} if peer is None else peer.info

    def begin(self, client: str, job: Iterator[None]) -> None:
        """Have a job done for a client, if it is there."""
        peer = self.peers.get(client)
        if peer is not None and not self._closing:
            self._inboxes.begin(peer.inbox, job)

    def tell_clients(self, message: tuple[Any, ...]) -> None:
        for client in self._state.clients:
            peer = self.peers.get(client)
            if peer is not None:
                peer.send(message)

    def watch_what_is_heard(self) -> None:
        """Have the machine forget the replies that their clients have, now and then."""
        for peer in list(self.peers.values()):
            if isinstance(peer, ClientPeer) and (heard := peer.take_heard()) is not None:
                self._happen(events.RepliesHeard(peer.name, list(heard.requests), list(heard.calls)))
        self._rounds.call_later(HEARD_SECONDS, self.watch_what_is_heard)

    # -- whom the scheduler hears

    def await_return(self, coming_back: ComingBack) -> None:
        """Hear no client until all are back that an earlier scheduler had."""
        self._coming_back = coming_back
        coming_back.start(self._rounds)

    def is_back(self, client: str) -> bool:
        """Whether a client has said what it has of an earlier scheduler, if there was one."""
        peer = self.peers.get(client)
        return not isinstance(peer, ClientPeer) or peer.is_back

    def client_is_back(self, client: str) -> None:
        """A client has said what it has of an earlier scheduler."""
        peer = self.peers.get(client)
        if isinstance(peer, ClientPeer):
            peer.is_back = True

    def worker_is_back(self, worker: str) -> None:
        """A worker has said what it has of an earlier scheduler."""
        peer = self.peers.get(worker)
        if isinstance(peer, WorkerPeer):
            peer.is_back = True

    def tasks_announced(self, worker: str) -> None:
        """The tasks of a worker say that they are a client, which may be put off."""
        peer = self.peers.get(worker)
        if isinstance(peer, WorkerPeer) and not peer.is_behind:  # else it was looked at when it was put off
            peer.opened_as_back = peer.is_back

    def came_back(self) -> None:
        """A host or a worker has said all that it has of an earlier scheduler."""
        if self._coming_back is not None:
            self._coming_back.look()

    @property
    def is_recovering(self) -> bool:
        """Whether those are awaited still that an earlier scheduler had."""
        return self._coming_back is not None and not self._coming_back.is_over

    def stand_still(self, is_still: bool) -> None:
        """Hear nobody, or everybody again."""
        self._is_still = is_still
        self.hear()

    def hear(self) -> None:
        """Go on with the inboxes of those that may be heard now."""
        if not self.is_recovering:
            self._begin_to_catch_up()
        for peer in list(self.peers.values()):
            if isinstance(peer, TasksPeer):
                if peer.name not in self._state.clients:
                    self._part_with_tasks(peer.worker)
                continue
            self._see_to(peer)
            self._inboxes.go_on(peer.inbox)

    def _see_to(self, peer: Peer) -> None:
        """See to it that a peer is heard if it may be, and that what is handled counts if it is safe."""
        is_client = isinstance(peer, ClientPeer)
        is_held = is_client and (self.is_recovering or bool(self._behind) or self._state.holds_back(peer.name))
        peer.inbox.is_held = self._is_still or is_held
        progress = peer.inbox.progress
        if progress is not None:
            is_put_off = isinstance(peer, WorkerPeer) and (self.is_recovering or peer.is_behind)
            progress.counts = not (self._is_still or is_put_off)
            progress.tell()

    def _part_with_tasks(self, worker: WorkerPeer) -> None:
        """The tasks of a worker are no client that the machine knows."""
        self.peers.pop(id_of_tasks(worker.name), None)
        reason = "the scheduler was started again, and does not know the client of these tasks any more"
        worker.send(protocol.worker.TO_TASKS(*protocol.client.CLOSING(reason)))

    def unknown_tasks_rejoined(self, worker: str) -> None:
        """The tasks of a worker believe that they are a client, and are none."""
        peer = self.peers.get(worker)
        if isinstance(peer, WorkerPeer):
            self._part_with_tasks(peer)

    def puts_off(self, worker: str) -> bool:
        """Whether what a worker says of its runs is handled when all are back: it has said what it has."""
        peer = self.peers.get(worker)
        return isinstance(peer, WorkerPeer) and peer.is_back and self.is_recovering

    def put_off(self, worker: str, message: tuple[Any, ...]) -> None:
        """Handle a message of a worker, or of its tasks, when all are back."""
        peer = self.peers.get(worker)
        if isinstance(peer, WorkerPeer):
            peer.put_off.append((message, None if peer.inbox.progress is None else peer.inbox.progress.position))

    def awaits_others(self, worker: str) -> bool:
        """Whether the tasks of a worker are heard when others have caught up, whose results they may have read."""
        return bool(self._behind) and worker not in self._behind

    def _begin_to_catch_up(self) -> None:
        """Handle what was put off. Until that is done no client is heard: what one has read may be of that."""
        for peer in list(self.peers.values()):
            if isinstance(peer, WorkerPeer) and peer.put_off:
                self._behind[peer.name] = peer
                peer.inbox.begin(self._hear_what_was_put_off(peer, *peer.take_put_off()))

    def _hear_what_was_put_off(
        self, worker: WorkerPeer, *put_off: tuple[tuple[Any, ...], Position | None]
    ) -> Iterator[None]:
        progress = worker.inbox.progress
        for message, position in put_off:
            if progress is not None and position is not None:
                progress.note(position)
            job = self._handle_message(worker, message)
            yield
            if job is not None:
                yield from job
        worker.is_behind = False
        self._see_to(worker)
        self._catches_up_no_more(worker)

    def _catches_up_no_more(self, worker: WorkerPeer) -> None:
        """All is handled that was put off of what a worker has said, or it has left."""
        if self._behind.get(worker.name) is worker:
            del self._behind[worker.name]
            if not self._behind:
                self.hear()

    def hold_back(self) -> None:
        """Nothing is handled of what clients say until what they have said before is done, and then it is."""
        if not self._held_back and not self._state.life.follow_up.chores:
            return  # as most of the time
        for name in list(self._held_back):
            if not self._state.holds_back(name):
                del self._held_back[name]
                self._hold_or_not(name)
        for name in self._state.held_back:
            if name not in self._held_back:
                self._held_back[name] = None
                self._hold_or_not(name)

    def _hold_or_not(self, name: str) -> None:
        peer = self.peers.get(name)
        if peer is not None and not isinstance(peer, TasksPeer):  # whose inbox is that of their worker
            self._see_to(peer)
            self._inboxes.go_on(peer.inbox)

    # -- joining

    def recorded(self, role: str, info: dict[str, Any], was: Was) -> int:
        """How many frames of a peer that rejoins had their effects in an earlier scheduler. Raises `Refused`."""
        try:
            check_opening(role, info)
        except ProtocolError as error:
            raise Refused("role", str(error)) from None
        name = _name_of(role, info)
        # Of one that was welcomed just now the journal may know nothing. It says all again that it has said.
        if role == ClientPeer.role and name not in self._state.clients and was.acknowledged:
            raise Refused("resume", f"the scheduler was started again, and does not know the client {name} any more")
        former = self.peers.get(name)
        if former is not None:
            connection = former.connection
            if (
                not isinstance(connection, ResumableConnection)
                or connection.was is None
                or connection.numbered_since != was.session
                or connection.was.attempt >= was.attempt
                or connection.has_come
            ):
                raise Refused("resume", f"{name} is connected already")
            # The very peer that has rejoined does so once more: it has not got the welcome.
            del self.peers[name]
            connection.abort()
        position = self._positions.get(name)
        return position.frames if position is not None and position.line == was.session else 0

    def welcome(self, role: str, info: dict[str, Any]) -> dict[str, Any]:
        """What a peer is told that wants to join. Raises `Refused`."""
        if self._closing:
            raise Refused("role", "the cluster is shutting down")
        if role not in _SERVED:
            raise Refused("role", f"a scheduler does not serve the role {role!r:.80}")
        try:
            check_opening(role, info)
        except ProtocolError as error:
            raise Refused("role", str(error)) from None
        if role != NodePeer.role and (why := versions.refusal(role, info.get("versions") or {})) is not None:
            raise Refused("version", why)
        name = _name_of(role, info)
        former = self.peers.get(name)
        if isinstance(former, NodePeer) and former.info["incarnation"] == info["incarnation"]:
            # The very agent that is connected connects anew: its old connection has ended at its side.
            former.give_up(MayLiveError("it connects anew"))
        elif former is not None and former.is_cut_off:
            if isinstance(former, WorkerPeer):
                former.joins_anew = all(former.info.get(field) == info.get(field) for field in ("pid", "incarnation"))
            former.give_up(ConnectError("another one has come in its place"))
        if role == "worker":
            host = self._state.hosts.get(info["node"])
            if host is None or not host.is_ready:
                raise Refused("later", f"node {info['node']} has not joined")
        elif role == "client" and len(self._state.clients) >= MAX_CLIENTS:
            raise Refused("later", f"{MAX_CLIENTS:,} clients are connected, and no more may be")
        if name in self.peers:
            raise Refused("later", f"{name} is connected already")
        welcome: dict[str, Any] = {"scheduler": self._describe()}
        if role == "client":
            welcome["nodes"] = self._descriptions()
            welcome["versions"] = {"scheduler": versions.own(), "workers": self._versions_of_workers()}
        elif role == "node":
            welcome["heartbeat"] = min(HEARTBEAT_SECONDS, self._silence_timeout / 5)
        return welcome

    def _descriptions(self) -> list[dict[str, Any]]:
        """The hosts whose stores a client may use."""
        return [host.description for host in self._state.hosts.values() if not host.leaving]

    def _versions_of_workers(self) -> dict[str, dict[str, str | None]]:
        """The versions that workers have, each of which stands once, with one of those that have them."""
        found: dict[tuple[Any, ...], str] = {}
        for address in self._state.workers:
            peer = self.peers.get(address)
            if peer is not None and (theirs := peer.info.get("versions")):
                found.setdefault(tuple(theirs.items()), address)
                if len(found) >= MAX_VERSIONS:
                    break
        return {address: dict(theirs) for theirs, address in found.items()}

    def connected(self, connection: Connection) -> None:
        """A peer that is welcome has connected."""
        peer = self._peer(connection)
        if peer.name in self.peers:  # two at the same moment
            connection.abort(ProtocolError(f"{peer.name} is connected already"))
            return

        def ended(error: Exception | None) -> None:
            peer.connection = None
            if self.peers.get(peer.name) is peer:
                if peer.inbox.progress is not None:
                    peer.inbox.progress.forget()
                reason = str(error) if error else "its connection closed"
                self._leave(peer, reason, may_live=isinstance(error, (MayLiveError, GraceOverError)))

        inbox = peer.inbox = Inbox(
            connection,
            functools.partial(self._handle_message, peer),
            ended,
            needs_room=isinstance(peer, ClientPeer),
            passes=_asks_how_it_is,
            progress=self._progress_of(peer),
        )
        self.peers[peer.name] = peer  # before it joins: there may be work for it at once
        try:
            if not self._is_known(peer):
                self._join(peer)
        except Exception as error:  # its node has just left, or it said something odd about itself
            logger.warning("%s could not join", peer.name, exc_info=not isinstance(error, ProtocolError))
            del self.peers[peer.name]
            connection.abort(error)
            return
        self._see_to(peer)
        on_batch: Callable[[tuple[Any, ...]], None]
        if isinstance(peer, NodePeer):
            node = peer

            def on_batch(messages: tuple[Any, ...]) -> None:
                node.heard = self._clock.time()
                self._inboxes.received(inbox, messages)
        else:

            def on_batch(messages: tuple[Any, ...]) -> None:
                self._inboxes.received(inbox, messages)

        if isinstance(peer, ClientPeer):
            client = peer
            connection.on_room = lambda: self._has_room(client)
        connection.on_break = functools.partial(self._on_break, peer)
        logger.info("%s %s joined from %s", peer.role, peer.name, connection.peer)
        connection.start(on_batch, lambda error: self._inboxes.ended(inbox, error))

    def _progress_of(self, peer: Peer) -> Progress | None:
        connection = peer.connection
        if not isinstance(connection, ResumableConnection) or not connection.is_recorded:
            return None
        decisions = None if isinstance(peer, NodePeer) else self._state.decisions
        return Progress(peer.name, connection, decisions, self._positions.get(peer.name))

    def _is_known(self, peer: Peer) -> bool:
        """Whether the state machine knows a peer that comes, from the journal or from its last attempt to rejoin."""
        rejoins = isinstance(peer.connection, ResumableConnection) and peer.connection.was is not None
        if isinstance(peer, ClientPeer):
            known = peer.name in self._state.clients
            if known and not rejoins:
                self._handle(events.ClientLeft(peer.name))  # it has not got the welcome when it joined
                return False
            return known
        if isinstance(peer, WorkerPeer) and rejoins:
            if peer.name not in self._state.workers:
                self._join(peer)
            if id_of_tasks(peer.name) in self._state.clients:
                self._open_tasks(peer, is_back=False)
            return True
        return False

    def _peer(self, connection: Connection) -> Peer:
        info = connection.info
        if connection.role == "client":
            return ClientPeer(info["id"], info, connection)
        if connection.role == "node":
            return NodePeer(info["address"], info, connection, self._clock.time())
        return WorkerPeer(info["address"], info, connection)

    def _join(self, peer: Peer) -> None:
        info = peer.info
        if isinstance(peer, NodePeer):
            self.absent.joined(peer.name, info["hostname"])
            self._handle(events.HostJoined(peer.name, info))
            self.tell_clients(protocol.client.NODES_CHANGED([info], []))
        elif isinstance(peer, WorkerPeer):
            resources = {name: float(amount) for name, amount in (info.get("resources") or {}).items()}
            if info.get("memory_limit"):
                resources.setdefault("memory", float(info["memory_limit"]))
            incarnation = info.get("incarnation")
            self._handle(
                events.WorkerJoined(peer.name, info["name"], peer.node, info["nthreads"], resources, incarnation)
            )
        else:
            rejoins = isinstance(peer, ClientPeer) and not peer.is_back
            self._handle(events.ClientJoined(peer.name, info.get("name") or peer.name, None, _about(info), rejoins))

    def _has_room(self, client: ClientPeer) -> None:
        """A client has read what was written for it."""
        paying = client.begin_paying()
        if paying is not None:
            client.inbox.begin(paying)
        self._inboxes.go_on(client.inbox)

    # -- the clients that the tasks of each worker share

    def tasks_opened(self, name: str) -> None:
        """The tasks of a worker have begun to be a client."""
        self.tasks_closed(name)
        worker = self.peers.get(name)
        if not isinstance(worker, WorkerPeer) or worker.connection is None or name not in self._state.workers:
            return
        about = _about(worker.info)
        is_back = worker.opened_as_back
        self._open_tasks(worker, is_back=is_back)
        tasks = id_of_tasks(name)
        name = f"the tasks of {worker.info['name']}"
        self._handle(events.ClientJoined(tasks, name, worker.name, about, rejoins=not is_back))

    def _open_tasks(self, worker: WorkerPeer, *, is_back: bool) -> None:
        assert worker.connection is not None
        tasks = TasksPeer(worker)
        tasks.is_back = is_back
        self.peers[tasks.name] = tasks
        worker.connection.on_room = lambda: self._has_room(tasks)
        tasks.send(protocol.client.NODES_CHANGED(self._descriptions(), []))

    def tasks_closed(self, name: str) -> None:
        """The tasks of a worker are no client any more; no error if they were none."""
        tasks = id_of_tasks(name)
        self.peers.pop(tasks, None)
        if tasks in self._state.clients:
            self._happen(events.ClientLeft(tasks))

    def part_with_missing_clients(self) -> None:
        """Those that an earlier scheduler had and that are not back have left."""
        for client in [client for client in self._state.clients if client not in self.peers]:
            logger.info("client %s is not back, and has left", client)
            self._happen(events.ClientLeft(client))
        for peer in self._positions:
            if peer not in self.peers:
                self._state.decisions.forget_peer(peer)
        self._happen(events.TimePassed())  # which writes that down

    # -- being cut off

    def _on_break(self, peer: Peer, is_broken: bool) -> None:
        """A peer's connection has broken, or goes on."""
        logger.info("%s %s %s", peer.role, peer.name, "is cut off" if is_broken else "is back")
        if isinstance(peer, WorkerPeer):
            self._happen(events.WorkerCutOff(peer.name, is_broken))
        elif isinstance(peer, NodePeer) and is_broken:
            probe = self._loop.create_task(self._probe(peer))
            self._probes.add(probe)
            probe.add_done_callback(self._probes.discard)

    async def _probe(self, node: NodePeer) -> None:
        """Give up a node at whose port no process listens any more: its agent has ended.

        A process that is ending may lose its connections before its port: then it takes one more, and says nothing.
        """
        host, port = parse_address(node.name)
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(PROBE_SECONDS):
                while node.is_cut_off:
                    try:
                        reader, writer = await asyncio.open_connection(host, port)
                    except ConnectionRefusedError:
                        if node.is_cut_off:
                            node.give_up(ConnectError(f"nobody listens at {node.name} any more"))
                        return
                    try:
                        if await reader.read(1):  # it has begun to say hello
                            return
                    except ConnectionError as error:
                        logger.debug("%s ends: %s", node.name, error)
                    finally:
                        writer.close()
                    await asyncio.sleep(PROBE_PAUSE_SECONDS)

    def worker_exited(self, worker: str, incarnation: int | None) -> None:
        """A process of a worker has ended: if it is the one that is cut off, it won't be back."""
        peer = self.peers.get(worker)
        if peer is not None and peer.is_cut_off and peer.info.get("incarnation") == incarnation:
            peer.give_up()

    # -- leaving

    def _leave(self, peer: Peer, reason: str, *, may_live: bool) -> None:
        """All has been handled that the peer had sent, and its connection has ended."""
        logger.info("%s %s left: %s", peer.role, peer.name, reason)
        del self.peers[peer.name]
        if isinstance(peer, NodePeer):
            self._node_left(peer, reason, may_live=may_live)
        elif isinstance(peer, WorkerPeer):
            self._catches_up_no_more(peer)
            self.peers.pop(id_of_tasks(peer.name), None)  # which leaves with the worker
            # Its agent sees to it that the process ends, if it knows which one.
            pid = 0 if peer.joins_anew else peer.info.get("pid") or 0
            self._happen(events.WorkerParted(peer.name, reason, pid))
        else:
            self._happen(events.ClientLeft(peer.name))

    def _node_left(self, node: NodePeer, reason: str, *, may_live: bool) -> None:
        if may_live:
            self.absent.gave_up(node.name, self._state.hosts[node.name].description["hostname"], reason)
        for worker in self._state.hosts[node.name].workers:
            self.peers.pop(id_of_tasks(worker.address), None)
            peer = self.peers.pop(worker.address, None)
            if isinstance(peer, WorkerPeer):
                self._catches_up_no_more(peer)
                # A process that still runs ends by that. Its agent starts another one, which joins after the agent.
                peer.give_up(ConnectError(f"its node {node.name} left: {reason}"))
        self._happen(events.HostLeft(node.name, reason, may_live))
        self.tell_clients(protocol.client.NODES_CHANGED([], [node.name]))

    # -- silence

    def silences(self) -> dict[str, float]:
        """How many seconds ago each node said something."""
        now = self._clock.time()
        return {peer.name: now - peer.heard for peer in self._nodes()}

    def silence_of(self, client: str) -> tuple[float | None, bool]:
        """For how many seconds a client has said nothing; and whether its connection is broken."""
        peer = self.peers.get(client)
        if peer is None:
            return None, False
        return max(0.0, time.monotonic() - peer.inbox.heard), peer.is_cut_off

    def _nodes(self) -> Iterator[NodePeer]:
        # Those of the state machine, which are few among all peers.
        for address in list(self._state.hosts):
            peer = self.peers.get(address)
            if isinstance(peer, NodePeer):
                yield peer

    def _watch_silence(self) -> None:
        if any(map(self._is_silent, self._nodes())):
            # What they have said may lie in the sockets. The loop looks at these between this turn and the next, and
            # has read them in the one after.
            self._loop.call_soon(self._loop.call_soon, self._give_up_silent)
        self._silence_timer = self._rounds.call_later(self._silence_timeout / 10, self._watch_silence)

    def _is_silent(self, node: NodePeer) -> bool:
        if node.inbox.waits:
            node.heard = self._clock.time()  # it has said more than was looked at, and is not read on
        return self._clock.time() - node.heard > self._silence_timeout

    def _give_up_silent(self) -> None:
        for node in filter(self._is_silent, self._nodes()):
            silent = self._clock.time() - node.heard
            node.give_up(MayLiveError(f"it has said nothing for {silent:.0f} s"))


def _asks_how_it_is(message: tuple[Any, ...]) -> bool:
    """Whether it is a question that has an answer at any time, also while nobody is heard."""
    return message[0] == protocol.client.REQUEST.operation and message[2] in ALWAYS_ANSWERED


def _name_of(role: str, info: dict[str, Any]) -> str:
    return str(info["id"] if role == ClientPeer.role else info["address"])


def _about(info: dict[str, Any]) -> dict[str, Any]:
    """What people are told of a peer besides its name."""
    return {name: info[name] for name in ("user", "hostname", "pid") if info.get(name)}
