"""A worker: it runs what it is sent, in order, in as many slots as it has.

Small results stay with it for a while, and go to the store only if they are still wanted then. What it has begun
is in its ledger, which its agent reads even while it is stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from holdfast.cluster.protocol.errands import VERSIONS
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks import instructions as to_do
from tests.simulator.client import TasksClient, TasksSaid
from tests.simulator.clock import stream
from tests.simulator.network import Closed
from tests.simulator.oracle import Recipe, Value, Wrong
from tests.simulator.process import Peer
from tests.simulator.scheduler import RETRY_SECONDS

if TYPE_CHECKING:
    from tests.simulator.host import Host
    from tests.simulator.world import World

#: A small result goes to the store after this, at the earliest, and after twice as long at the latest.
WRITE_BEHIND_SECONDS = 0.5
#: A process that has lost the scheduler ends after this, at most.
PARTED_SECONDS = 0.5


class Run:
    """A run that has begun.

    Attributes
    ----------
    missing
        How many objects are still on their way here.
    failed
        The key and the object of what could not be read.
    found_no_room
        Something that it reads could not be brought, since the store is full.
    awaits
        The keys of what it has submitted and waits for.
    is_blocked
        It has lent its slot.
    wants_slot
        It has its resources, and goes on as soon as a slot is free.
    reclaims
        It wants its resources back.
    """

    __slots__ = (
        "awaits",
        "began",
        "entry",
        "failed",
        "found_no_room",
        "is_blocked",
        "missing",
        "recipe",
        "reclaims",
        "wants_slot",
    )

    def __init__(self, entry: to_do.RunEntry, recipe: Recipe, began: float) -> None:
        self.entry = entry
        self.recipe = recipe
        self.began = began
        self.missing = 0
        self.failed: tuple[Any, bytes] | None = None
        self.found_no_room = False
        self.awaits: list[Any] = []
        self.is_blocked = False
        self.wants_slot = False
        self.reclaims = False


class Worker(Peer):
    """A worker.

    Attributes
    ----------
    number
        Names its process to its agent, as a pid or an incarnation does.
    young
        Small results that are in no store yet.
    actor_keys
        The keys of the tasks that have made actors here.
    """

    def __init__(
        self, world: World, host: Host, address: str, name: str, nthreads: int, resources: dict[str, float]
    ) -> None:
        super().__init__(world)
        self.host = host
        self.address = address
        self.name = name
        self.nthreads = nthreads
        self.resources = resources
        self.number = world.new_number()
        self.young: dict[bytes, Value] = {}
        self.actor_keys: set[Any] = set()
        self._just_stored: dict[bytes, Value] = {}  # small results, since the scheduler has died
        self._idle = nthreads
        self._queue: dict[int, to_do.RunEntry] = {}
        self._runs: dict[int, Run] = {}
        self._begun: set[int] = set()
        self._results: dict[int, Value] = {}
        self._functions: set[bytes] = set()
        self._timed: set[int] = set()
        self._holding: set[int] = set()
        self._revocations = self._confirmed = 0
        self._actors: dict[int, dict[str, int]] = {}  # the last call of each client, by actor
        self._taken_calls: dict[tuple[int, str], int] = {}  # the highest number, by actor and caller
        self._held_calls: dict[tuple[int, str], list[to_do.CallEntry]] = {}  # behind one that could not be read
        self._tasks: TasksClient | None = None
        self._random = stream(world.seed, f"{address} {world.count(address)}").random
        self._handlers: dict[type, Callable[[Any], None]] = {
            to_do.RunTasks: self._take,
            to_do.DropRuns: self._drop,
            to_do.TellRevoked: self._told_of_revocation,
            to_do.DiscardResults: self._discard,
            to_do.SendFunctions: lambda i: self._functions.update(digest for digest, _ in i.items),
            to_do.ForgetFunctions: lambda i: self._functions.difference_update(i.items),
            to_do.TellTimed: lambda i: self._timed.update(i.items),
            to_do.TellHolding: lambda i: self._holding.update(i.items),
            to_do.GrantResources: self._granted,
            to_do.SendErrand: self._errand,
            to_do.RunCalls: self._calls,
            to_do.DropCalls: self._drop_calls,
            to_do.DropActors: self._drop_actors,
        }
        self.later(0.05 + 0.5 * self._random(), self._connect)
        self.later(WRITE_BEHIND_SECONDS, self._write, [])

    # -- the connection

    def _connect(self) -> None:
        if self.host.link is None or self.host.is_apart:
            self.later(RETRY_SECONDS, self._connect)
            return
        self.link = self.world.scheduler.worker_connects(self)
        if self.link is None:
            self.later(RETRY_SECONDS, self._connect)

    def told(self, instruction: Any, turn: int) -> None:
        handler = self._handlers.get(type(instruction))
        if handler is not None and instruction.peer == self.address:
            handler(instruction)
        elif self._tasks is not None:
            self._tasks.told(instruction, turn)

    def parted(self) -> None:
        """It has lost the scheduler, so it ends."""
        if self.link is not None:
            self.later(PARTED_SECONDS * self._random(), self.die, "it had lost the scheduler")

    def lost_scheduler(self) -> None:
        self.later(RETRY_SECONDS * (1 + self._random()), self._rejoin)

    def _rejoin(self) -> None:
        link = self.link
        if link is None or link.is_over or not link.is_lost:
            return
        if link.is_cut or self.host.is_apart or not self.world.scheduler.worker_rejoins(self):
            self.later(RETRY_SECONDS, self._rejoin)
            return
        link.rejoin(
            lambda event: (
                not isinstance(event, events.RunsKept)
                and not (isinstance(event, TasksSaid) and isinstance(event.event, events.ClientRejoined))
            )
        )
        for run_id in list(self._queue):  # what has not begun runs elsewhere
            if self._queue.pop(run_id, None) is not None:
                self._miss_behind(run_id)
        self._revocations = self._confirmed = 0
        runs = [(run_id, run.entry[6], True, run.is_blocked) for run_id, run in self._runs.items()]
        small = [
            (self.world.labels[object_id], object_id, self.world.nbytes(True), "bytes", value)
            for object_id, value in {**self.young, **self._just_stored}.items()
        ]
        self._just_stored.clear()
        if self._actors:
            self.say(events.ActorsMade(self.address, [(number, "Counter") for number in self._actors]))
        self.say(events.RunsKept(self.address, runs, small))
        if reclaiming := [run_id for run_id, run in self._runs.items() if run.reclaims]:
            self.say(events.ResourcesReclaimed(self.address, reclaiming))
        if self._tasks is not None:
            if self.world.scheduler.tasks_rejoin(self._tasks):
                self._tasks.rejoined()
            else:
                self.die("its tasks are no client any more")

    def die(self, reason: str, *, crashed: int | None = None, asked: bool = False) -> None:
        """The process is gone from one moment to the next."""
        if not self.is_alive:
            return
        running = list(self._runs)
        if self.link is not None and self.link.is_lost:
            self.world.left(self)  # the next scheduler knows it no more
        self.end()
        self.say(Closed(reason))  # by its kernel
        self.host.do(lambda: self.host.worker_died(self, reason, running, crashed, asked=asked))

    @property
    def keys(self) -> list[Any]:
        """The keys of what it was sent, and has not ended."""
        return [entry[0] for entry in self._queue.values()] + [run.recipe.key for run in self._runs.values()]

    @property
    def has_actors(self) -> bool:
        return bool(self._actors)

    # -- what its agent reads in its ledger

    def is_at(self, run_ids: Iterable[int]) -> bool:
        return not self._runs.keys().isdisjoint(run_ids)

    def revoke(self, run_ids: Sequence[int]) -> tuple[int, list[int], list[int]]:
        """Take runs away that have not begun: the number of the revocation, those, and the others."""
        begun = [run_id for run_id in run_ids if run_id in self._begun]
        if len(begun) == len(run_ids):
            return 0, [], begun
        self._revocations += 1
        return self._revocations, [run_id for run_id in run_ids if run_id not in self._begun], begun

    def _told_of_revocation(self, instruction: to_do.TellRevoked) -> None:
        self._confirmed = instruction.number
        for run_id in instruction.run_ids:
            if self._queue.pop(run_id, None) is not None:
                self._miss_behind(run_id)
        self.say(events.RevocationConfirmed(self.address, instruction.number))
        self._begin()

    # -- runs

    def _take(self, instruction: to_do.RunTasks) -> None:
        for entry in instruction.items:
            if entry[2] is not None and entry[2] not in self._functions:
                raise Wrong(f"{self.address} has not been sent the function of {entry[0]!r}")
            self._queue[entry[1]] = entry
        self._begin()

    def _drop(self, instruction: to_do.DropRuns) -> None:
        dropped = [run_id for run_id in instruction.items if self._queue.pop(run_id, None) is not None]
        if dropped:
            self.say(events.RunsDropped(self.address, dropped))
        for run_id in dropped:
            self._miss_behind(run_id)
        self._begin()

    def _miss_behind(self, run_id: int) -> None:
        """A run has no result: those that wait for it here can't read it."""
        for entry in list(self._queue.values()):
            for key, where, _, _ in entry[4]:
                if where == run_id and self._queue.pop(entry[1], None) is not None:
                    self.say(events.DependenciesMissing(self.address, [(entry[6], entry[1], key, b"")]))
                    self._miss_behind(entry[1])

    def _begin(self) -> None:
        """Begin what can be, in the order in which it came."""
        while self._idle > 0 and self._revocations == self._confirmed:
            returning = next((run for run in self._runs.values() if run.wants_slot), None)
            if returning is not None:
                self._return(returning)
                continue
            for entry in self._queue.values():
                if not any(type(d[1]) is int and (d[1] in self._queue or d[1] in self._runs) for d in entry[4]):
                    break
            else:
                return
            del self._queue[entry[1]]
            self._start(entry)

    def _start(self, entry: to_do.RunEntry) -> None:
        run_id = entry[1]
        recipe = self.world.oracle.recipe_of(entry[3])
        if recipe.key != entry[0]:
            raise Wrong(f"the run of {entry[0]!r} is one of {recipe.key!r}")
        if run_id in self._begun:
            raise Wrong(f"run {run_id} of {entry[0]!r} begins twice")
        self._idle -= 1
        self._begun.add(run_id)
        recipe.runs += 1
        run = self._runs[run_id] = Run(entry, recipe, self.world.agenda.now)
        if run_id in self._timed:
            self.say(events.RunsBegun(self.address, [run_id]))
        run.missing = 1
        for key, where, inline, sources in entry[4]:
            if inline is not None or (type(where) is int and where in self._results) or where in self.host.store:
                continue
            if not sources:
                run.failed = (key, where if type(where) is bytes else b"")
                break
            run.missing += 1
            self.host.do(self.host.fetch, where, sources, lambda ok, key=key, i=where: self._came(run, key, i, ok))
        self._came(run, None, b"", True)

    def _came(self, run: Run, key: Any, object_id: bytes, is_there: bool) -> None:
        if not self.is_alive:
            return
        run.missing -= 1
        if not is_there and not self.host.has_room:
            run.found_no_room = True
        elif not is_there and run.failed is None:
            run.failed = (key, object_id)
        if run.missing:
            return
        if run.failed is None and not run.found_no_room:
            seconds = run.recipe.seconds * self.world.pace * (0.5 + self._random())
            self.later(seconds, self._read, run)
        else:
            self._read(run)

    def _read(self, run: Run) -> None:
        """A run has been at it for long enough: it reads what it needs, and ends."""
        entry, recipe = run.entry, run.recipe
        if run.found_no_room:
            self.world.oracle.cause("StoreFullError", entry[0])
            self._fail(run, b"full")
            return
        read: dict[Any, Value] = {}
        for key, where, inline, _ in entry[4]:
            value = inline if inline is not None else self._results.get(where, None)
            if value is None:
                value = self.host.store.get(where)
            if value is None:
                run.failed = run.failed or (key, where if type(where) is bytes else b"")
                break
            read[key] = value
        if run.failed is not None:
            self.world.unreadable(run.failed[0])
            self._end(run, has_result=False)
            self.say(events.DependenciesMissing(self.address, [(entry[6], entry[1], *run.failed)]))
            self._miss_behind(entry[1])
            self._begin()
            return
        behaviour = recipe.behaviour
        if behaviour == "kills":
            self.die("killed by signal 11", crashed=entry[1] if self._random() < 0.5 else None)
        elif behaviour == "fails" or (behaviour == "fails once" and recipe.runs == 1):
            self._fail(run, b"broken")
        elif behaviour == "reschedules" and recipe.runs == 1:
            self._end(run, has_result=False)
            self.say(events.RunsRescheduled(self.address, [(entry[6], entry[1])]))
            self._miss_behind(entry[1])
            self._begin()
        elif behaviour == "parent" and not run.awaits:
            self._submit_children(run, read)
        else:
            self._finish(run, read)

    def _fail(self, run: Run, blob: bytes) -> None:
        run_id = run.entry[1]
        self._end(run, has_result=False)
        self.say(events.TasksErred(self.address, [(run.entry[6], run_id, blob, "it failed", 0.001)]))
        self._miss_behind(run_id)
        self._begin()

    def _end(self, run: Run, *, has_result: bool) -> None:
        del self._runs[run.entry[1]]
        if not run.is_blocked:
            self._idle += 1
        if self._tasks is not None and not has_result:
            self._tasks.release(run.awaits)

    def _finish(self, run: Run, read: dict[Any, Value]) -> None:
        world = self.world
        key, run_id = run.entry[:2]
        value = world.oracle.made(run.recipe, read)
        if not run.recipe.is_small and not self.host.has_room:
            world.oracle.cause("StoreFullError", key)
            self._fail(run, b"full")
            return
        object_id = world.new_object()
        world.labels[object_id] = run.entry[6]
        self._end(run, has_result=True)
        self._results[run_id] = value
        if run.recipe.behaviour == "actor":
            self._actors[run_id] = {}
            self.actor_keys.add(key)
            world.actors[key] = run_id
            self.say(events.ActorsMade(self.address, [(run_id, "Counter")]))
        inline = value if run.recipe.is_small else None
        if inline is None:
            self.host.put(object_id, value, self.name)
        else:
            self.young[object_id] = value
        seconds = world.agenda.now - run.began
        result = (run.entry[6], run_id, object_id, world.nbytes(run.recipe.is_small), inline, "bytes", seconds)
        if run.awaits:  # their futures are inside of the result
            self.say(events.FuturesInside(self.address, [(run_id, run.awaits)]))
        self.say(events.TasksFinished(self.address, [result]))
        if self._tasks is not None:
            self._tasks.release(run.awaits)
        self._begin()

    # -- runs that wait for what they submit

    def _submit_children(self, run: Run, read: dict[Any, Value]) -> None:
        if self._tasks is None:
            self._tasks = TasksClient(self.world, self)
        run.awaits = self._tasks.submit_children(run.recipe, run.entry[1])
        run.is_blocked = True
        self._idle += 1
        self.say(events.RunsBlocked(self.address, [run.entry[1]]))
        self._tasks.when_ready(run.awaits, lambda failed: self.do(self._children_are_ready, run, read, failed))
        self._begin()

    def _children_are_ready(self, run: Run, read: dict[Any, Value], failed: bool) -> None:
        if failed:
            self.world.oracle.cause("Broken", run.recipe.key)
            run.recipe.behaviour = "fails"
        if run.entry[1] in self._holding:
            run.reclaims = True
            self.say(events.ResourcesReclaimed(self.address, [run.entry[1]]))
        else:
            run.wants_slot = True
            self._begin()

    def _granted(self, instruction: to_do.GrantResources) -> None:
        for run_id in instruction.items:
            run = self._runs.get(run_id)
            if run is not None:
                run.wants_slot = True
        self._begin()

    def _return(self, run: Run) -> None:
        self._idle -= 1
        run.is_blocked = run.wants_slot = run.reclaims = False
        self.say(events.RunsReturned(self.address, [run.entry[1]]))
        self._read(run)

    # -- small results

    def _write(self, old: list[bytes]) -> None:
        for object_id in old:
            if object_id in self.young and self.host.has_room:
                value = self.young.pop(object_id)
                self.host.put(object_id, value, self.name)
                if self.link is not None and self.link.is_lost:
                    self._just_stored[object_id] = value
        self.later(WRITE_BEHIND_SECONDS, self._write, list(self.young))

    def _discard(self, instruction: to_do.DiscardResults) -> None:
        for object_id in instruction.items:
            if self.young.pop(object_id, None) is None:
                self.host.forget(object_id)

    # -- the rest

    def _errand(self, instruction: to_do.SendErrand) -> None:
        answer = {"host": {}, "packages": {}} if instruction.operation == VERSIONS.operation else {"failed": ()}
        done = events.ErrandDone(self.address, instruction.number, True, answer)
        if instruction.operation != VERSIONS.operation or instruction.number % 7:  # else it never answers
            self.later(0.01, self.say, done)

    def _calls(self, instruction: to_do.RunCalls) -> None:
        for entry in instruction.items:
            line = entry[1], entry[2]
            held = self._held_calls.get(line)
            if held is not None and held[0][0] == entry[0]:  # it has come once more
                held[0] = entry
                self._call_held(entry[1], entry[2])
            elif entry[0] <= self._taken_calls.get(line, 0):
                continue  # another scheduler has sent it already
            else:
                self._taken_calls[line] = entry[0]
                if held is None:
                    self._call(entry)
                else:
                    held.append(entry)

    def _call_held(self, actor: int, caller: str) -> None:
        held = self._held_calls.pop((actor, caller))
        while held and (actor, caller) not in self._held_calls:
            self._call(held.pop(0))
        if held:
            self._held_calls[actor, caller] += held

    def _call(self, entry: to_do.CallEntry) -> None:
        number, actor, caller, method, _, dependencies = entry
        for key, where, inline, sources in dependencies:
            if inline is None and where not in self.host.store and not sources:
                self.world.unreadable(key)
                self._held_calls[actor, caller] = [entry]
                self.say(events.CallsMissing(self.address, [(number, key, where)]))
                return
        calls = self._actors.get(actor)
        if calls is None:
            raise Wrong(f"a call of the actor {actor}, which is not at {self.address}")
        sequence = int(method)
        if sequence <= calls.get(caller, 0):
            raise Wrong(f"call {sequence} of {caller} comes after call {calls[caller]}")
        calls[caller] = sequence
        done = (number, True, method.encode(), None, "", ())
        self.later(0.001, self.say, events.CallsDone(self.address, [done]))

    def _drop_calls(self, instruction: to_do.DropCalls) -> None:
        for (actor, caller), held in list(self._held_calls.items()):
            for entry in [entry for entry in held if entry[0] in instruction.items]:
                is_first = held[0] is entry
                held.remove(entry)
                if is_first:
                    self._call_held(actor, caller)

    def _drop_actors(self, instruction: to_do.DropActors) -> None:
        for number in instruction.items:
            self._actors.pop(number, None)
