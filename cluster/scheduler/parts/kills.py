"""Runs that end with the process of their worker: what a client has cancelled with `kill`, and what takes too long.

No thread can be stopped from outside, so to end a run is to end its process. The agent of the host does that, since it
knows what the process is at (`cluster/ledger.py`):

=================================  ====================================================================================
the run …                          … then
=================================  ====================================================================================
is going on, or blocked            its process is killed, and another one takes its place at once. All other runs of
                                   the process are run again, and no task is charged for this death
has not begun                      it is revoked, and never begins there; nothing else happens
has ended                          the same. A process that has begun nothing since may be taken for one that is at it
is in a process with other things  it goes on to its end, and its outcome is not used: workers without a process of
                                   their own, and the worker of the very task that wants it
=================================  ====================================================================================

What is cancelled with `kill` is what nothing needs any more by that: what the client named and what depends on it, as
far as no other holder keeps it; and what these read, if it is needed for nothing else. `await-kills` is answered when
the agents have done their part.

The time of a run is limited if its task has a `run_timeout`. It counts from when its worker says that the run has
begun. While the run is blocked, since it waits for others, it counts no time. When it is over, the run is ended, and
then the task runs again, if it has retries left, or fails with a `TimeoutError`. So two runs of the task are never
under way at a time, and the client that hears of the error no longer meets the process. A process that has not ended
`END_SECONDS` later is not waited for. A result that comes before the process ends is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from holdfast.cluster.journal.tables import Held
from holdfast.cluster.protocol.limits import MAX_ITEMS
from holdfast.cluster.protocol.requests import AWAIT_KILLS
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.parts.waits import Wait, WaitOwner
from holdfast.cluster.scheduler.placing.revocation import Revocation
from holdfast.cluster.scheduler.tasks.cancelling import Running
from holdfast.cluster.scheduler.tasks.deadlines import Timed
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.model import Task, TaskError, Worker
from holdfast.cluster.scheduler.tasks.names import Key
from holdfast.cluster.scheduler.tasks.stored_errors import task_error

#: How long a client waits for processes to end: longer than the connection of an agent may be broken.
KILL_SECONDS = 30.0
#: How long a task whose time is over waits for the end of the process that runs it.
END_SECONDS = 5.0
#: Of the runs that can't be ended, so many are named.
NAMED_MAX = 3


class Kill:
    """A process that is to end, if it is at one of these runs; why, and for whom, as ``client`` and ``number``, if for
    anyone."""

    __slots__ = ("client", "number", "reason", "run_ids", "worker")

    def __init__(
        self, worker: Worker, run_ids: frozenset[int], reason: str, client: str | None, number: int | None
    ) -> None:
        self.worker = worker
        self.reason = reason
        self.run_ids = run_ids
        self.client = client
        self.number = number

    @property
    def noted(self) -> tuple[Any, ...]:
        """What names it in the journal."""
        return self.worker.address, self.worker.incarnation, tuple(sorted(self.run_ids))


class KillsWait(Wait):
    """A client that waits until processes have ended."""

    __slots__ = ("kills", "number")

    kind = "kills"

    def __init__(
        self, part: Kills, client: str, request: int, due: float, number: int, kills: dict[Kill, None]
    ) -> None:
        super().__init__(part, client, request, due)
        self.number = number
        self.kills = kills

    def describe(self) -> str:
        return f"the end of {len(self.kills):,} runs, which are cancelled"


class _Clock:
    """Of one run: when its time is over, or while it is blocked, the seconds that are left of it. When it is over, how
    long the end of the run is waited for."""

    __slots__ = ("end", "is_over", "key", "left", "seconds")

    def __init__(self, key: Key, seconds: float, now: float) -> None:
        self.key = key
        self.seconds = seconds
        self.end: float | None = now + seconds
        self.left = 0.0
        self.is_over = False

    def in_words(self) -> str:
        """What is the matter when it is over."""
        return f"{self.key!r:.200} ran longer than its run_timeout of {self.seconds:g} s"


class RunClocks(Timed):
    """The time of the runs of one worker, as far as it is limited."""

    __slots__ = ("_part", "of_runs", "worker")

    def __init__(self, part: Kills, worker: Worker) -> None:
        super().__init__()
        self._part = part
        self.worker = worker
        self.of_runs: dict[int, _Clock] = {}

    def begin(self, run_id: int, clock: _Clock) -> None:
        """A run begins."""
        runs = self.worker.runs
        self.of_runs = {other: its for other, its in self.of_runs.items() if other in runs}  # the others have ended
        self.of_runs[run_id] = clock

    @property
    def due(self) -> float | None:
        """When the time of a run is over that has not ended, or that for its end."""
        runs = self.worker.runs
        return min((c.end for run_id, c in self.of_runs.items() if c.end is not None and run_id in runs), default=None)

    def expire(self, now: float) -> None:
        """End the runs whose time is over."""
        due = [run_id for run_id, clock in self.of_runs.items() if clock.end is not None and clock.end <= now]
        for run_id in due:
            clock = self.of_runs[run_id]
            if run_id not in self.worker.runs:
                del self.of_runs[run_id]
            elif clock.is_over or self.worker.incarnation is None:
                del self.of_runs[run_id]
                self._part.give_up(self.worker, run_id, clock)
            else:
                clock.is_over, clock.end = True, now + END_SECONDS
                self._part.time_is_over(self.worker, run_id, clock)


class Kills(Part, WaitOwner):
    """Has the processes of workers ended, and answers `await-kills`.

    Parameters
    ----------
    shared
        What all parts work with.
    revocation
        Asks the agents.
    """

    name = "kills"

    def __init__(self, shared: Shared, revocation: Revocation) -> None:
        super().__init__(shared)
        self.requests = {AWAIT_KILLS: self._await_kills}
        #: ``on_spared(worker)`` is called when a process that was to end goes on.
        self.on_spared: Callable[[Worker], None] = _nothing
        self._revocation = revocation
        self._kills: dict[Worker, list[Kill]] = {}
        self._waits: dict[KillsWait, None] = {}
        #: The runs that can't be ended, by client and number: the key, and the worker's name.
        self._out_of_reach: dict[str, dict[int, list[tuple[Key, str]]]] = {}
        self._clocks: dict[Worker, RunClocks] = {}
        self._recovered: Mapping[Any, Held] = {}  # what an earlier scheduler wanted to end

    def is_asked_for(self, worker: Worker) -> bool:
        """Whether the process of a worker is to end, and it is not known that it does not."""
        return worker in self._kills

    # -- what is cancelled

    def cancelled(self, client: Client, running: Iterable[Running], number: int) -> None:
        """A client has given up tasks: end those of these runs whose tasks nothing needs any more."""
        life = self.shared.life
        runs: dict[Worker, list[int]] = {}
        for task, worker, run in running:
            is_needed = task.nwaiters or life.holding.is_held(task)
            if is_needed or worker.runs.get(run.run_id) is not run:
                continue
            if worker.incarnation is not None and worker is not client.worker:
                runs.setdefault(worker, []).append(run.run_id)
            elif run.blocked or run in worker.active[: worker.nthreads]:
                out_of_reach = self._out_of_reach.setdefault(client.id, {}).setdefault(number, [])
                out_of_reach.append((task.key, worker.name))
        for worker, run_ids in runs.items():
            reason = f"was ended, since {client.name} has cancelled what it was running (kill=True)"
            for start in range(0, len(run_ids), MAX_ITEMS):
                self._kill(worker, run_ids[start : start + MAX_ITEMS], reason, client.id, number)

    def _kill(
        self, worker: Worker, run_ids: Sequence[int], reason: str, client: str | None = None, number: int | None = None
    ) -> None:
        kill = Kill(worker, frozenset(run_ids), reason, client, number)
        self._kills.setdefault(worker, []).append(kill)
        self.note(kill.noted, (reason, client, number))
        self._revocation.kill(worker, run_ids, reason)

    def spared(self, worker: Worker, run_ids: Iterable[int]) -> None:
        """The agent of a worker has answered for these runs: if they were to be ended, they were not going on."""
        kills = self._kills.get(worker, ())
        answered = frozenset(run_ids)
        kill = next((kill for kill in kills if kill.run_ids == answered), None)
        if kill is not None:
            self._kills[worker].remove(kill)
            if not self._kills[worker]:
                del self._kills[worker]
            self._done([kill])
            self.on_spared(worker)

    def worker_left(self, worker: Worker) -> None:
        self._done(self._kills.pop(worker, ()))
        if (clocks := self._clocks.pop(worker, None)) is not None:
            clocks.of_runs.clear()
            self.shared.deadlines.forget(clocks)

    def client_left(self, client: Client) -> None:
        self._out_of_reach.pop(client.id, None)

    # -- clients that wait for it

    def _await_kills(self, client: Client, request: int, kill: int) -> None:
        self.shared.waits.demand_room(client.id)
        self._begin(client.id, request, self.shared.now + KILL_SECONDS, kill)

    def _begin(self, client: str, request: int, due: float, number: int) -> KillsWait:
        all_kills = (kill for kills in self._kills.values() for kill in kills)
        mine = {kill: None for kill in all_kills if kill.client == client and kill.number == number}
        wait = KillsWait(self, client, request, due, number, mine)
        self._waits[wait] = None
        self.shared.waits.begin(wait)
        if not mine:
            self._answer(wait)
        return wait

    def _done(self, kills: Iterable[Kill]) -> None:
        for kill in kills:
            self.note_gone(kill.noted)
            for wait in list(self._waits):
                if kill in wait.kills:
                    del wait.kills[kill]
                    if not wait.kills:
                        self._answer(wait)

    def _answer(self, wait: KillsWait) -> None:
        of_client = self._out_of_reach.get(wait.client, {})
        out_of_reach = of_client.pop(wait.number, None)
        if out_of_reach is None:
            self.shared.waits.answer(wait, None)
            return
        if not of_client:
            del self._out_of_reach[wait.client]
        named = ", ".join(f"{key!r:.200} on {name}" for key, name in out_of_reach[:NAMED_MAX])
        more = f" and {len(out_of_reach) - NAMED_MAX:,} more" if len(out_of_reach) > NAMED_MAX else ""
        text = (
            f"cancelled, but not killed: {named}{more}. A worker that shares its process with others (processes=False, "
            "or with the very task that cancels) can't be ended alone: what it runs goes on to its end, and the "
            "result is dropped"
        )
        self.shared.waits.refuse(wait, "RuntimeError", text)

    def expired(self, wait: Wait) -> None:
        assert isinstance(wait, KillsWait)
        names = ", ".join(dict.fromkeys(kill.worker.name for kill in wait.kills))
        text = (
            f"cancelled, but the agent of {names:.1000} has not said for {KILL_SECONDS:g} s that its process has ended"
        )
        self.shared.waits.refuse(wait, "TimeoutError", text)

    def forget(self, wait: Wait) -> None:
        assert isinstance(wait, KillsWait)
        del self._waits[wait]

    # -- the time of runs

    def begun(self, worker: Worker, run_ids: Iterable[int]) -> None:
        """A worker begins runs whose time is limited."""
        clocks = self._clocks.get(worker)
        if clocks is None:
            clocks = self._clocks[worker] = RunClocks(self, worker)
        life = self.shared.life
        for run_id in run_ids:
            run = worker.runs.get(run_id)
            if run is None:
                continue
            run.begun = True
            seconds = None if run.task is None else life.run_timeouts.get(run.task)
            if run.task is not None and seconds is not None:
                clocks.begin(run_id, _Clock(run.task.key, seconds, life.now))
        self.shared.deadlines.watch(clocks)

    def blocked(self, worker: Worker, run_ids: Iterable[int]) -> None:
        """Runs of a worker wait for others."""
        for clock in self._of_runs(worker, run_ids):
            if clock.end is not None and not clock.is_over:
                clock.left, clock.end = clock.end - self.shared.now, None

    def returned(self, worker: Worker, run_ids: Iterable[int]) -> None:
        """Runs of a worker go on that were blocked."""
        for clock in self._of_runs(worker, run_ids):
            if clock.end is None:
                clock.end = self.shared.now + clock.left
        if worker in self._clocks:
            self.shared.deadlines.watch(self._clocks[worker])

    def _of_runs(self, worker: Worker, run_ids: Iterable[int]) -> list[_Clock]:
        clocks = self._clocks.get(worker)
        return [] if clocks is None else [clock for r in run_ids if (clock := clocks.of_runs.get(r)) is not None]

    def time_is_over(self, worker: Worker, run_id: int, clock: _Clock) -> None:
        """A run has taken as long as it may: have it ended."""
        self._kill(worker, [run_id], f"was ended, since {clock.in_words()}")

    def give_up(self, worker: Worker, run_id: int, clock: _Clock) -> None:
        """A run has taken as long as it may, and is not ended: it goes on without its task."""
        task = worker.runs[run_id].task
        if task is not None and task.state == "processing":
            if worker.incarnation is None:
                how = "which can't be ended alone: the run goes on there"
            else:
                how = f"whose process has not ended for {END_SECONDS:g} s since then"
            self.shared.life.give_up_run(task, _run_timeout(task.key, worker, clock, how))

    def overdue(self, worker: Worker) -> dict[int, TaskError]:
        """What the tasks of these runs of a worker fail for, when its process has ended, for their time was over."""
        clocks = self._clocks.get(worker)
        if clocks is None:
            return {}
        how = "whose process was ended"
        over = [(run_id, clock) for run_id, clock in clocks.of_runs.items() if clock.is_over]
        return {run_id: _run_timeout(clock.key, worker, clock, how) for run_id, clock in over}

    # -- the rest

    def recover(self, entries: Mapping[Any, Held], tasks: Mapping[int, Task]) -> None:
        self._recovered = entries

    def recovered(self) -> None:
        for (address, incarnation, run_ids), entry in self._recovered.items():
            worker = self.shared.workers.get(address)
            if worker is None or worker.incarnation != incarnation:
                self.note_gone((address, incarnation, run_ids))  # it has ended
            else:
                self._kill(worker, run_ids, *entry.value)
        self._recovered = {}

    def check(self) -> None:
        workers = self.shared.workers
        known = {kill for kills in self._kills.values() for kill in kills}
        for worker, kills in self._kills.items():
            assert workers.get(worker.address) is worker, f"{worker!r} is gone, and is to end"
            assert kills
            assert worker.asked >= len(kills), f"the agent of {worker!r} has answered"
        assert set(self._waits) == {wait for wait in self.shared.waits if isinstance(wait, KillsWait)}
        for wait in self._waits:
            assert wait.kills, f"{wait!r} has what it waits for"
            assert known.issuperset(wait.kills)
        for worker in self._clocks:
            assert workers.get(worker.address) is worker, f"{worker!r} is gone, and a run of it has time left"
        self.shared.deadlines.check(self._clocks.values())
        assert self._out_of_reach.keys() <= self.shared.clients.keys()


def _nothing(worker: Worker) -> None:
    pass


def _run_timeout(key: Key, worker: Worker, clock: _Clock, how: str) -> TaskError:
    text = f"{clock.in_words()}, on worker {worker.name!r} at {worker.address}, {how}"
    return task_error(key, TimeoutError(text))
