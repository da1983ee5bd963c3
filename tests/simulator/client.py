"""A client: which keys it holds, what it was told of them, what it asks, and whether that is right."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from holdfast.cluster.naming import id_of_tasks
from holdfast.cluster.protocol.requests import REQUESTS
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks import instructions as to_do
from tests.simulator.clock import stream
from tests.simulator.network import Closed
from tests.simulator.oracle import Recipe, Wrong
from tests.simulator.process import Peer

if TYPE_CHECKING:
    from tests.simulator.host import Host
    from tests.simulator.network import Link
    from tests.simulator.worker import Worker
    from tests.simulator.world import World

FUNCTION = b"f" * 16
QUIET = {request.operation for request in REQUESTS if request.quiet}
#: Of the results that it is told of, a client reads so many at once.
READS_AT_ONCE = 0.2
#: Of the futures inside of results that it reads, a client keeps so many.
UNPICKLES = 0.5
#: How long reading an object from a host takes, and how long one that does not answer is waited for.
READ_SECONDS = 0.002
READ_TIMEOUT_SECONDS = 3.0
#: A client that has lost the scheduler looks for it that often.
RECONNECT_SECONDS = 0.1


class KeyState:
    """What a client knows of a key that it holds.

    Attributes
    ----------
    since
        The turn in which it was begun: what is said of earlier ones is of another life of the key.
    status
        "pending", "finished", "error" or "cancelled".
    is_read
        Its value was read, and was right.
    """

    __slots__ = ("inline", "is_read", "is_reading", "nodes", "object_id", "since", "status", "waiters")

    def __init__(self, since: int) -> None:
        self.since = since
        self.status = "pending"
        self.object_id: bytes | None = None
        self.inline: bytes | None = None
        self.nodes: Sequence[str] = ()
        self.is_read = self.is_reading = False
        self.waiters: list[Callable[[], None]] = []


class Keys(abc.ABC):
    """The keys that a client holds, and what it was told of them. A worker's tasks have such a table, too.

    Attributes
    ----------
    id
        The client's.
    table
        The states, by key.
    turn
        The number in front of what is said from now on.
    """

    def __init__(self, world: World, id: str, where: Host | None) -> None:
        self.world = world
        self.id = id
        self.table: dict[Any, KeyState] = {}
        self.turn = 1
        self._where = where
        self._chance = stream(world.seed, f"reads of {id} {world.count(id)}")

    @abc.abstractmethod
    def post(self, event: Any) -> None:
        """Say something to the scheduler."""

    @abc.abstractmethod
    def later(self, seconds: float, what: Callable[..., None], *arguments: Any) -> None:
        """Have something done after a while, if the process is there then."""

    def hold(self, key: Any) -> KeyState:
        """The state of a key; a new one if it isn't held, or has ended."""
        state = self.table.get(key)
        if state is None or state.status == "cancelled":
            state = self.table[key] = KeyState(self.turn)
        return state

    def submit(self, recipes: Sequence[Recipe], wants: Sequence[Any] | None = None, **options: Any) -> None:
        for key in [recipe.key for recipe in recipes] if wants is None else wants:
            self.hold(key)
        tasks = [(recipe.key, FUNCTION, recipe.payload, recipe.reads) for recipe in recipes]
        self.post(events.TasksSubmitted(self.id, tasks, wants, options))

    def want(self, keys: Iterable[Any]) -> None:
        """Hold keys that others have made."""
        keys = list(keys)
        if keys:
            for key in keys:
                self.hold(key)
            self.post(events.KeysWanted(self.id, keys))

    def release(self, keys: Iterable[Any]) -> None:
        released = [key for key in keys if (state := self.table.pop(key, None)) and state.status != "cancelled"]
        if released:
            self.post(events.KeysReleased(self.id, released))
            self.turn += 1

    def rejoined(self, calls: Sequence[int] = ()) -> None:
        """Say to another scheduler what is held."""
        keys = [key for key, state in self.table.items() if state.status != "cancelled"]
        self.post(events.ClientRejoined(self.id, keys, True, calls))

    # -- what the scheduler says

    def _current(self, key: Any, turn: int) -> KeyState | None:
        state = self.table.get(key)
        return None if state is None or state.status == "cancelled" or state.since > turn else state

    def memory(self, instruction: to_do.ReportMemory, turn: int) -> None:
        for key, object_id, _, inline, nodes in instruction.items:
            state = self._current(key, turn)
            if state is None:
                continue
            state.status = "finished"
            state.object_id, state.inline, state.nodes = object_id, inline, nodes
            state.is_read = False
            if self._chance.random() < READS_AT_ONCE:
                self.read(key)
            self._ready(state)

    def erred(self, instruction: to_do.ReportErred, turn: int) -> None:
        for key, raised, text in instruction.items:
            state = self._current(key, turn)
            if state is None:
                continue
            self.world.oracle.has_failed(key, raised, text)
            state.status = "error"
            self._ready(state)

    def pending(self, instruction: to_do.ReportPending, turn: int) -> None:
        for key in instruction.items:
            state = self._current(key, turn)
            if state is not None:
                state.status = "pending"

    def cancelled(self, instruction: to_do.ReportCancelled, turn: int) -> None:
        for key in instruction.items:
            state = self._current(key, turn)
            if state is None:
                continue
            self.world.oracle.was_cancelled(key, self.id)
            state.status = "cancelled"
            self._ready(state)

    def _ready(self, state: KeyState) -> None:
        waiters, state.waiters = state.waiters, []
        for waiter in waiters:
            waiter()

    def when_ready(self, keys: Sequence[Any], then: Callable[[bool], None]) -> None:
        """Call once none of these is pending; says whether one of them has failed."""
        left = {key: None for key in keys if key in self.table and self.table[key].status == "pending"}
        failed = any(key not in self.table or self.table[key].status in ("error", "cancelled") for key in keys)
        if not left:
            then(failed)
            return

        def ready(key: Any) -> None:
            left.pop(key, None)
            if not left:
                then(any(key not in self.table or self.table[key].status != "finished" for key in keys))

        for key in list(left):
            self.table[key].waiters.append(lambda key=key: ready(key))

    # -- reading

    def read(self, key: Any) -> None:
        """Read a result, and hold it against what is right."""
        state = self.table[key]
        if state.status != "finished" or state.is_reading or state.is_read:
            return
        if state.inline is not None:
            self._has_read(key, state, state.inline)
            return
        state.is_reading = True
        self._try_nodes(key, state, list(state.nodes), "")

    def _try_nodes(self, key: Any, state: KeyState, nodes: list[str], last: str) -> None:
        if self.table.get(key) is not state or state.status != "finished":
            state.is_reading = False
            return
        if not nodes:
            state.is_reading = False
            state.status = "pending"
            assert state.object_id is not None
            self.world.unreadable(key)
            self.post(events.ResultsMissing(self.id, [(key, state.object_id, last)]))
            return
        host = self.world.hosts.get(nodes[0])
        apart = self._where is not None and self._where.is_apart and host is not self._where
        if host is not None and (host.is_stopped or host.is_apart or apart):
            self.later(READ_TIMEOUT_SECONDS, self._try_nodes, key, state, nodes[1:], nodes[0])
            return
        self.later(READ_SECONDS, self._reads, key, state, nodes)

    def _reads(self, key: Any, state: KeyState, nodes: list[str]) -> None:
        host = self.world.hosts.get(nodes[0])
        value = None if host is None or state.object_id is None else host.store.get(state.object_id)
        if value is None or self.table.get(key) is not state or state.status != "finished":
            self._try_nodes(key, state, nodes[1:], nodes[0])
            return
        state.is_reading = False
        self._has_read(key, state, value)

    def _has_read(self, key: Any, state: KeyState, value: bytes) -> None:
        self.world.oracle.check(key, value, self.id)
        self.world.reads += 1
        state.is_read = True
        inside = self.world.oracle.inside(key)
        if inside and self._chance.random() < UNPICKLES:
            self.want([inside[0]])  # the result keeps it until the scheduler hears of this


class Client(Keys, Peer):
    """A client in a process of its own.

    Attributes
    ----------
    where
        The host on which it runs, whose store it writes into; None: a machine without a store.
    asked
        The requests that have no answer yet, with what is to be done with it.
    calls
        The number of its last call to each actor, and the last one that was answered.
    """

    def __init__(self, world: World, id: str, where: Host | None) -> None:
        Peer.__init__(self, world)
        Keys.__init__(self, world, id, where)
        self.where = where
        self.asked: dict[int, Callable[[bool, Any], None]] = {}
        self._asked_for: dict[int, tuple[float, str, dict[str, Any]]] = {}  # of these, since when and what
        self._unanswered: dict[int, events.CallsSent] = {}  # calls, by number
        self.calls: dict[int, list[int]] = {}
        self._read_by: dict[tuple[int, int], list[Any]] = {}  # the keys that each call reads
        self._number = 0
        self._handlers: dict[type, Callable[[Any, int], None]] = {
            to_do.ReportMemory: self.memory,
            to_do.ReportErred: self.erred,
            to_do.ReportPending: self.pending,
            to_do.ReportCancelled: self.cancelled,
            to_do.ReportKept: self._kept,
            to_do.Reply: self._replied,
            to_do.ReportCalled: self._called,
            to_do.TellOutcome: self._outcome,
            to_do.TellEvents: self._events,
        }
        self.link: Link = world.scheduler.client_connects(self)
        self.post(events.FunctionsSent(id, [(FUNCTION, b"pickle")]))

    def post(self, event: Any) -> None:
        self.link.say(event, self.turn)

    def later(self, seconds: float, what: Callable[..., None], *arguments: Any) -> None:
        Peer.later(self, seconds, what, *arguments)

    def told(self, instruction: Any, turn: int) -> None:
        handler = self._handlers.get(type(instruction))
        if handler is not None:
            handler(instruction, turn)

    def parted(self) -> None:
        """The scheduler has parted with it: whatever it holds is lost to it."""
        if self.is_alive:
            self.end()
            self.world.client_ended(self)

    def lost_scheduler(self) -> None:
        self.later(RECONNECT_SECONDS, self._rejoin)

    def _rejoin(self) -> None:
        link = self.link
        if link.is_over or not link.is_lost:
            return
        if link.is_cut:
            self.later(RECONNECT_SECONDS, self._rejoin)
            return
        if not self.world.scheduler.client_rejoins(self):
            link.is_over = True
            self.parted()
            return
        link.rejoin(lambda event: not isinstance(event, events.CallsSent | events.ClientRejoined))
        self.rejoined(list(self._unanswered))
        for number in [number for number in self.asked if number not in self._asked_for]:
            del self.asked[number]  # nobody answers what was given up
            self.world.scheduler.coordination.given_up(self.id, number)
        now = self.world.agenda.now
        for number, (since, operation, arguments) in self._asked_for.items():
            if arguments.get("timeout") is not None:
                arguments = {**arguments, "timeout": max(0.0, arguments["timeout"] - (now - since))}
            self.post(events.Requested(self.id, number, operation, arguments))
        for said in self._unanswered.values():
            self.post(said)

    def release(self, keys: Iterable[Any]) -> None:
        """Let go of keys, but for those that it asks something about: the call that waits for the answer has them."""
        asked_about = {key for _, _, asked in self._asked_for.values() for key in asked.get("keys") or ()}
        super().release(key for key in keys if key not in asked_about)

    def close(self) -> None:
        """Its process ends."""
        self.link.say(Closed("it has ended"), self.turn)
        self.end()
        self.world.client_ended(self)

    def ask(self, asked: tuple[str, dict[str, Any]], then: Callable[[bool, Any], None] | None = None) -> None:
        """Ask the scheduler for something."""
        operation, arguments = asked
        if operation in QUIET:
            self._give_up(arguments)
            self.post(events.Requested(self.id, 0, operation, arguments))
            return
        self._number += 1
        self.asked[self._number] = then or (lambda ok, value: None)
        self._asked_for[self._number] = self.world.agenda.now, operation, arguments
        self.post(events.Requested(self.id, self._number, operation, arguments))

    def _give_up(self, arguments: dict[str, Any]) -> None:
        """What it does not want any more it does not pose to another scheduler."""
        lease = arguments.get("lease")
        for number in [n for n, (_, _, asked) in self._asked_for.items() if lease and asked.get("lease") == lease]:
            del self._asked_for[number]

    def _replied(self, reply: to_do.Reply, turn: int) -> None:
        if not reply.request:
            return  # something that has no answer was refused
        then = self.asked.pop(reply.request, None)
        self._asked_for.pop(reply.request, None)
        if then is None and self.world.scheduler.epoch > 1:
            return  # it was posed to another scheduler again
        if then is None:
            raise Wrong(f"{self.id} has asked nothing that has the number {reply.request}, or was answered before")
        then(reply.ok, reply.value)

    def _kept(self, instruction: to_do.ReportKept, turn: int) -> None:
        for key in instruction.items:
            if key not in self.world.oracle.is_chosen and key not in self.world.oracle.shared:
                raise Wrong(f"{key!r} means something else than what was submitted")

    def _outcome(self, instruction: to_do.TellOutcome, turn: int) -> None:
        if instruction.request not in self.asked and self.world.scheduler.epoch == 1:
            raise Wrong(f"{self.id} is told of an errand that it has not asked for")

    def _events(self, instruction: to_do.TellEvents, turn: int) -> None:
        self.post(events.EventsHeard(self.id, instruction.topic, instruction.number))

    # -- actors

    def call(self, actor: int, keys: Sequence[Any] = ()) -> None:
        """Call a method that says how often this client has called."""
        calls = self.calls.setdefault(actor, [0, 0])
        calls[0] += 1
        self._read_by[actor, calls[0]] = list(keys)
        said = events.CallsSent(self.id, [(actor << 20 | calls[0], actor, str(calls[0]), None, list(keys))])
        self._unanswered[actor << 20 | calls[0]] = said
        self.post(said)

    def _called(self, instruction: to_do.ReportCalled, turn: int) -> None:
        for request, ok, value, _, text, _ in instruction.items:
            if self._unanswered.pop(request, None) is None:
                if self.world.scheduler.epoch > 1:
                    continue  # it was said to another scheduler again
                raise Wrong(f"{self.id} is told twice what the call {request & 0xFFFFF} has given")
            actor, number = request >> 20, request & 0xFFFFF
            calls = self.calls[actor]
            if ok:
                if value != str(number).encode():
                    raise Wrong(f"call {number} of the actor {actor} gives {value!r}")
                if number <= calls[1]:
                    raise Wrong(f"call {number} of the actor {actor} is answered after call {calls[1]}")
                calls[1] = number
            else:
                self.world.oracle.call_has_failed(actor, self._read_by[actor, number], value, text)


class TasksClient(Keys):
    """The client that the tasks of a worker share: it speaks by the connection of the worker, and dies with it.

    Attributes
    ----------
    heard
        The last turn of it that the scheduler has begun to read.
    """

    def __init__(self, world: World, worker: Worker) -> None:
        super().__init__(world, id_of_tasks(worker.address), worker.host)
        self.worker = worker
        self.heard = 0
        self._handlers: dict[type, Callable[[Any, int], None]] = {
            to_do.ReportMemory: self.memory,
            to_do.ReportErred: self.erred,
            to_do.ReportPending: self.pending,
            to_do.ReportCancelled: self.cancelled,
        }
        worker.say(TasksOpened(self))
        self.post(events.FunctionsSent(self.id, [(FUNCTION, b"pickle")]))

    def post(self, event: Any) -> None:
        self.worker.say(TasksSaid(self, event, self.turn))

    def tell(self, instruction: Any) -> None:
        """The scheduler says something to it."""
        if self.worker.link is not None:
            self.worker.link.tell(instruction, self.heard)

    def told(self, instruction: Any, turn: int) -> None:
        handler = self._handlers.get(type(instruction))
        if handler is not None:
            handler(instruction, turn)

    def later(self, seconds: float, what: Callable[..., None], *arguments: Any) -> None:
        self.worker.later(seconds, what, *arguments)

    def submit_children(self, parent: Recipe, run_id: int) -> list[Any]:
        """Submit what a task has to submit; the keys."""
        if not parent.submits:
            parent.submits = [self.world.oracle.child(parent, i) for i in range(parent.children)]
        self.submit(parent.submits, parent=run_id)
        return [recipe.key for recipe in parent.submits]


class TasksOpened(NamedTuple):
    """The tasks of a worker begin to be a client."""

    tasks: TasksClient


class TasksSaid(NamedTuple):
    """What the tasks of a worker say to the scheduler."""

    tasks: TasksClient
    event: Any
    turn: int
