"""The connection of a node agent to the scheduler, and how it is made anew.

A connection that breaks is taken up again by itself (`comm/resume.py`). It ends when that takes too long, or when the
scheduler gives this host up because it was stopped for a while. Neither concerns what this host has. So the agent
connects anew then, with the same *incarnation*, by which the scheduler knows it for the same agent, and joins as it did
at first: it says which objects its store has, none in the beginning, and that this was all. What it could not say
meanwhile is never said: its objects are in the inventory, and the scheduler has parted with this host's workers.

A scheduler that keeps a journal may die and be started again: then this host looks for it, for as long as the first
welcome has said, and its workers go on meanwhile. It joins the other scheduler afresh, as above, and says besides which
workers have ended in between; its workers rejoin by themselves (`worker/rejoining.py`).

It doesn't wait for any other scheduler that is gone: when none listens any more, or that of another cluster does, the
host ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from holdfast.cluster import protocol
from holdfast.cluster.clock import ListeningClock
from holdfast.cluster.comm.connecting import NoAnswerError, connect
from holdfast.cluster.comm.connection import Connection
from holdfast.cluster.comm.opening import RestartedError
from holdfast.cluster.comm.resumable import ResumableConnection
from holdfast.cluster.comm.resume import cluster_of
from holdfast.cluster.errors import ConnectError
from holdfast.cluster.node.deaths import Death
from holdfast.cluster.node.heartbeat import INTERVAL_SECONDS
from holdfast.cluster.node.ledger import Revoked
from holdfast.cluster.protocol import references
from holdfast.cluster.protocol.cutting import pieces
from holdfast.cluster.protocol.limits import MAX_ITEMS, MAX_NAME_LENGTH, MAX_REASON_LENGTH
from holdfast.cluster.protocol.message import Dispatch
from holdfast.objectstore.core.objects import ObjectMeta

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS = 30.0
#: A copy that is in use is forgotten later: so often it is tried, after pauses of this length.
FORGET_TRIES = 40
FORGET_PAUSE_SECONDS = 0.05
#: How long the scheduler is looked for when a connection has ended, and how long each attempt may take: what no machine
#: receives isn't sent again soon.
RECONNECT_SECONDS = 120.0
ATTEMPT_SECONDS = 5.0
#: The pause before the first attempt is none, unless the last connection was new and the same scheduler is looked for.
#: Then it grows up to this.
MAX_PAUSE_SECONDS = 5.0
NEW_SECONDS = 10.0
#: How long is waited when the scheduler is slow to read what this host has.
FULL_PAUSE_SECONDS = 0.02
#: So many workers that have ended while there was no scheduler are told of: the last ones.
MAX_UNTOLD = 100
#: References of the objects that are described together take no more than this and those of one object.
MAX_REFERENCES_TOGETHER = 64 << 10


class SchedulerLink:
    """Speaks for the node agent.

    Parameters
    ----------
    address:
        The scheduler's.
    token:
        The cluster's.
    clock:
        By which time passes here.
    inventory:
        Gives what the store has.
    places:
        Gives the number of threads of all workers of this host, and the places where it keeps workers.
    on_add:
        Called with the numbers of workers that the scheduler wants to have here, too.
    on_remove:
        Called with the addresses of workers that are to be closed for good.
    on_restart:
        Called with the addresses of workers whose places new processes are to take.
    on_delete:
        Called with the object ids that the scheduler wants forgotten.
    on_forget:
        Called with the object ids of copies that the scheduler has no use for; gives those that are in use, and stay.
    on_copy:
        Called with ``(object id, node addresses)`` of the objects that the scheduler wants to have a copy of here.
    on_report:
        Called when the scheduler wants to know at once how this host is; answers with `heartbeat`.
    on_parted:
        ``on_parted(worker_address, pid)``: the connection between the scheduler and this worker has ended.
    on_revoke:
        ``on_revoke(worker_address, incarnation, run_ids)``: the scheduler wants to have runs back from a worker that
        does not answer. Returns the three parts of the answer, or None for none (`AgentLedger.revoke`).
    on_kill:
        ``on_kill(worker_address, incarnation, run_ids, reason)``: the scheduler wants to have a worker ended that is
        at one of these runs. Returns None if it ends or is gone, and an answer as `on_revoke` does if it goes on.
    on_errand:
        ``on_errand(number, operation, arguments)``: something that the agent is to do beside all else. It answers with
        `say`.
    on_end:
        Called once, with None when the scheduler asked this host to close and with a reason when it is gone.

    Attributes
    ----------
    heartbeat_seconds : float
        How often the scheduler wants to hear how this host is.
    """

    def __init__(
        self,
        address: str,
        *,
        token: bytes,
        clock: ListeningClock,
        inventory: Callable[[], Iterable[ObjectMeta]],
        places: Callable[[], tuple[int, list[tuple[str, str, int, dict[str, float]]]]],
        on_add: Callable[[Sequence[int]], None],
        on_remove: Callable[[Sequence[str]], None],
        on_restart: Callable[[Sequence[str]], None],
        on_delete: Callable[[Iterable[bytes]], None],
        on_forget: Callable[[Iterable[bytes]], list[bytes]],
        on_copy: Callable[[Iterable[tuple[bytes, Sequence[str]]]], None],
        on_report: Callable[[], None],
        on_parted: Callable[[str, int], None],
        on_revoke: Callable[[str, int, Sequence[int]], Revoked | None],
        on_kill: Callable[[str, int, Sequence[int], str], Revoked | None],
        on_errand: Callable[[int, str, dict[str, Any]], None],
        on_end: Callable[[str | None], None],
    ) -> None:
        self.heartbeat_seconds = INTERVAL_SECONDS
        self._address = address
        self._token = token
        self._clock = clock
        self._inventory = inventory
        self._places = places
        self._on_revoke = on_revoke
        self._on_forget = on_forget
        self._on_copy = on_copy
        self._in_use: dict[bytes, None] = {}  # what is to be forgotten as soon as nobody looks at it
        self._on_kill = on_kill
        self._on_end = on_end
        self._dispatch: Dispatch[None] = Dispatch(
            protocol.node.TO_NODE,
            {
                protocol.node.DELETE: on_delete,
                protocol.node.FORGET: self._forget,
                protocol.node.COPY: self._copy,
                protocol.node.REPORT: on_report,
                protocol.node.REVOKE: self._revoke,
                protocol.node.KILL: self._kill,
                protocol.node.PARTED: on_parted,
                protocol.node.ADD_WORKERS: on_add,
                protocol.node.REMOVE_WORKERS: on_remove,
                protocol.node.RESTART_WORKERS: on_restart,
                protocol.errands.ERRAND: on_errand,
                protocol.node.CLOSE: lambda: self._end(None),
            },
        )
        self._info: dict[str, Any] = {}
        self._cluster: str | None = None
        self._restart_seconds = 0.0  # for so long a scheduler that is gone may be started again
        self._broke = 0.0  # when the connection did, by the clock
        self._untold: deque[tuple[Any, ...]] = deque(maxlen=MAX_UNTOLD)
        self._connection: Connection | None = None
        self._connected = 0.0  # when, by the clock
        self._pause = 0.0  # before the next attempt
        self._telling: asyncio.Task[None] | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._ended = False

    async def connect(self, info: dict[str, Any], *, again: bool = False) -> None:
        """Register this host; raises `ConnectError` when that can't be done. ``again``: as of `comm.connecting`'s."""
        self._loop = asyncio.get_running_loop()
        self._info = {**info, "incarnation": secrets.token_hex(8)}
        connection = await self._open(CONNECT_TIMEOUT_SECONDS, again=again)
        self._cluster = _cluster(connection)
        self._join(connection)

    async def _open(self, timeout: float, *, again: bool = False) -> Connection:
        nthreads, places = self._places()
        info = {**self._info, "nthreads": nthreads, "places": places}
        connection = await connect(
            self._address, token=self._token, role="node", info=info, timeout=timeout, again=again
        )
        if self._places()[1] != places:  # they have changed meanwhile
            connection.send(protocol.node.PLACES_CHANGED(self._places()[1]))
        return connection

    def _join(self, connection: Connection) -> None:
        self._connection = connection
        self._connected = self._clock.time()
        self.heartbeat_seconds = float(connection.info.get("heartbeat", INTERVAL_SECONDS))
        if isinstance(connection, ResumableConnection):
            self._restart_seconds = connection.session.terms.restart
            connection.on_break = self._on_break
        self._telling = asyncio.ensure_future(self._tell(connection))
        connection.start(self._on_batch, self._on_lost)

    async def _tell(self, connection: Connection) -> None:
        """Say what this host has, in pieces, and that it was all."""
        descriptions: list[dict[str, Any]] = []
        room = MAX_REFERENCES_TOGETHER
        for meta in self._inventory():
            if len(descriptions) == MAX_ITEMS or room < 0:
                connection.send(protocol.node.INVENTORY(descriptions))
                descriptions = []
                room = MAX_REFERENCES_TOGETHER
                await asyncio.sleep(0)
                while connection.is_full:
                    await asyncio.sleep(FULL_PAUSE_SECONDS)
            # The clients that put it chose these names, and their mistake is not this host's.
            names = {"key": meta.key, "type": meta.type_name, "owner": meta.owner}
            known: dict[str, Any] = {
                field: str(name)[:MAX_NAME_LENGTH] for field, name in names.items() if name is not None
            }
            if meta.label:
                known["label"] = meta.label
            if meta.references:
                known["contains"] = references.unpack(meta.references)
                room -= len(meta.references)
            descriptions.append({"id": meta.object_id, "nbytes": meta.nbytes, **known})
        if descriptions:
            connection.send(protocol.node.INVENTORY(descriptions))
        connection.send(protocol.node.READY())
        while self._untold:
            connection.send(self._untold.popleft())

    def _forget(self, object_ids: Sequence[bytes]) -> None:
        self._in_use.update(dict.fromkeys(object_ids))
        self._forget_what_is_not_in_use(object_ids, FORGET_TRIES)

    def _forget_what_is_not_in_use(self, object_ids: Sequence[bytes], tries: int) -> None:
        """What is in use, as what was just sent to another host, is tried again. If it still is then, it stays."""
        asked = [object_id for object_id in object_ids if object_id in self._in_use]
        stay = self._on_forget(asked)
        if stay and tries:
            self._loop.call_later(FORGET_PAUSE_SECONDS, self._forget_what_is_not_in_use, stay, tries - 1)
            self._say_forgotten([object_id for object_id in asked if object_id not in stay])
        else:
            self._say_forgotten(asked)
            if stay:
                self._send(protocol.node.COPIED(stay))

    def _say_forgotten(self, object_ids: Sequence[bytes]) -> None:
        for object_id in object_ids:
            self._in_use.pop(object_id, None)
        if object_ids:
            self._send(protocol.node.FORGOT(object_ids))

    def _copy(self, objects: Sequence[tuple[bytes, Sequence[str]]]) -> None:
        self._say_forgotten([object_id for object_id, _ in objects if object_id in self._in_use])
        self._on_copy(objects)

    def copied(self, object_id: bytes) -> None:
        """This host's store has a copy of an object now."""
        self._send(protocol.node.COPIED([object_id]))

    def not_copied(self, object_id: bytes, reason: str) -> None:
        """A copy that the scheduler asked for could not be brought."""
        self._send(protocol.node.NOT_COPIED([(object_id, reason[:MAX_REASON_LENGTH])]))

    def exited(self, worker_address: str, death: Death) -> None:
        """A worker's process has ended."""
        how = death.reason[:MAX_REASON_LENGTH], death.running, death.crashed, death.fault, death.asked
        exited = protocol.node.EXITED(worker_address, *how, death.incarnation, death.log[:MAX_REASON_LENGTH])
        if self._connection is None or self._connection.is_broken:
            self._untold.append(exited)
        else:
            self._connection.send(exited)

    def left(self, name: str, object_ids: list[Any], incarnation: int | None) -> None:
        """A process that used this host's store has gone, and has put these objects there; which one it was of those in
        a worker's place, if it was a worker's."""
        # The process chose its name, and its mistake is not this host's.
        objects = [{"id": object_id} for object_id in object_ids]
        for message in pieces(protocol.node.LEFT(objects, name[:MAX_NAME_LENGTH], incarnation)):
            self._send(message)

    def places_changed(self) -> None:
        """This host keeps other workers now."""
        self._send(protocol.node.PLACES_CHANGED(self._places()[1]))

    def say(self, message: tuple[Any, ...]) -> None:
        """What an errand has come to. In any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: this agent has ended
            self._loop.call_soon_threadsafe(self._send, message)

    def heartbeat(self, report: dict[str, Any]) -> None:
        self._send(protocol.node.HEARTBEAT(report))

    def close(self) -> None:
        """Leave, after what was said so far."""
        self._ended = True
        for task in (self._reconnecting, self._telling):
            if task is not None:
                task.cancel()
        if self._connection is not None:
            self._connection.close()

    def _send(self, message: tuple[Any, ...]) -> None:
        if self._connection is not None:
            self._connection.send(message)

    def _on_batch(self, batch: tuple[Any, ...]) -> None:
        for message in batch:
            self._dispatch(message)

    def _revoke(self, worker_address: str, incarnation: int, run_ids: Sequence[int]) -> None:
        if (answer := self._on_revoke(worker_address, incarnation, run_ids)) is not None:
            self._send(protocol.node.REVOKED(worker_address, incarnation, *answer))

    def _kill(self, worker_address: str, incarnation: int, run_ids: Sequence[int], reason: str) -> None:
        if (answer := self._on_kill(worker_address, incarnation, run_ids, reason)) is not None:
            self._send(protocol.node.REVOKED(worker_address, incarnation, *answer))

    def _on_break(self, is_broken: bool) -> None:
        if is_broken:
            self._broke = self._clock.time()
        elif self._connection is not None:  # it goes on
            while self._untold:
                self._connection.send(self._untold.popleft())

    def _on_lost(self, error: Exception | None) -> None:
        self._connection = None
        if self._telling is not None:
            self._telling.cancel()
        if not self._ended:
            if isinstance(error, RestartedError):
                self._pause = 0.0  # the other scheduler answers, and has refused nothing
                reason = "another scheduler goes on where the one before has ended"
            else:
                reason = f"the connection to the scheduler was lost{f' ({error})' if error else ''}"
                if self._restart_seconds and type(error) is ConnectError:
                    self._end(reason)  # it was looked for as long as another one could have come
                    return
            self._reconnecting = asyncio.ensure_future(self._reconnect(reason))

    async def _reconnect(self, reason: str) -> None:
        began = self._clock.time()
        may_restart = self._restart_seconds > 0
        until = self._broke + self._restart_seconds if may_restart else began + RECONNECT_SECONDS
        if began - self._connected > NEW_SECONDS:
            self._pause = 0.0
        while True:
            await asyncio.sleep(self._pause)
            self._pause = min(2 * self._pause + 0.05, MAX_PAUSE_SECONDS)
            try:
                connection = await self._open(ATTEMPT_SECONDS, again=not may_restart)
            except NoAnswerError as failure:
                if self._clock.time() >= until:
                    self._end(f"{reason}, and {failure}")
                    return
            except ConnectError as failure:
                self._end(f"{reason}, and {failure}")
                return
            else:
                break
        if _cluster(connection) != self._cluster:
            connection.abort()
            self._end(f"{reason}, and the scheduler of another cluster answers at {self._address} now")
            return
        logger.warning("%s; it was made anew", reason)
        self._join(connection)

    def _end(self, reason: str | None) -> None:
        if not self._ended:
            self._ended = True
            self._on_end(reason)


def _cluster(connection: Connection) -> str | None:
    """What a scheduler has in common with those that go on in its place, which is only itself without a journal."""
    scheduler = connection.info.get("scheduler") or {}
    return cluster_of(scheduler.get("epoch") or "") or scheduler.get("id")
