"""Whose fault it is that a worker or a host has died.

A task that kills workers has to be given up some day, and none that merely ran beside it. What is known of a death:

* which runs were *going on*: those that a thread of the worker had taken last and that have no outcome, as its node
  found in the ledger (`cluster/ledger.py`). If the node could not look, those that were sent first, one for each
  thread;
* sometimes, which run has *crashed* it: a signal such as SIGSEGV comes in one thread (`cluster/node/deaths.py`). It
  can't be known which run has called ``os._exit``, or took the memory for which the kernel has killed the process.

============================================  =======================================================================
of a worker that has died it is known that …  … so
============================================  =======================================================================
this run has crashed it                       this one is charged
only one run was going on                     this one is charged
several were, and which one is not known      none is charged, and all of these are *suspects*: they run again, each
                                              alone on its worker. So the next death is one of the two above
none was                                      none is charged
============================================  =======================================================================

If the fault was one of memory that can't be written, and the run shared memory of the store, then it may be a function
that writes into what it reads, in native code that does not ask. Its task runs once more with private views before it
is charged, and its function is remembered (`writers`). A task that is charged for `max_failures` deaths fails.

What becomes of a suspect, by ``task.isolation``:

==================  =================================================================================================
`ISOLATED`          it waits for a worker that it has for itself: nothing new is sent to the one that was chosen for it,
                    until that has nothing to do, nor while it runs; but for `ISOLATED_SECONDS` only, then others may
                    come
`ISOLATED_ON_HOST`  the same, and no other suspect has a worker of that host meanwhile: it was there when a host died
`STARVED`           no worker fell idle for `PATIENCE_SECONDS`, perhaps since one of those that run waits for this very
                    task. It takes any thread that is idle. If it is there again when a worker dies, and no other
                    suspect is, it is charged
==================  =================================================================================================

Most that kill a worker do so soon. A suspect that goes on for long would keep a worker from all others for as long, and
may wait for one of them. If it is in company again when a worker dies, it is a suspect as before, and has twice as much
time alone. So one that kills late is found as well.

A host's death is judged like that of a worker with all threads of its workers. There will often be other runs beside a
suspect that has its worker for itself; so only one that is `ISOLATED_ON_HOST`, or `STARVED`, is charged among others.

A task that has had a result is no suspect any more, and not charged with anything.

Blocked runs (`lending`) do nothing, and are neither charged nor suspects as long as any other run was going on. But
what they have submitted may have killed their worker, and is gone with it, since only they held it: they would submit
it again, as another task that is charged with nothing, for ever. So

* a run that is charged is charged together with those that have submitted it, one in the other, as far as these were
  blocked on the worker that has died;
* those that have submitted a suspect, and were blocked there, are no suspects, but when that has happened to one
  `SUSPECTED_BY_CHILDREN` times, all that it submits from then on are suspects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from holdfast.cluster.scheduler.placing.placement import Placement
from holdfast.cluster.scheduler.tasks.deadlines import Timed
from holdfast.cluster.scheduler.tasks.lifecycle import Lifecycle
from holdfast.cluster.scheduler.tasks.model import ISOLATED, ISOLATED_ON_HOST, STARVED, Isolation, Run, Task, Worker

#: A suspect waits for so long for a worker of its own.
PATIENCE_SECONDS = 30.0
#: And has it for so long at first.
ISOLATED_SECONDS = 10.0
#: What a task submits are suspects when so many workers have died that it was blocked on.
SUSPECTED_BY_CHILDREN = 2
#: By so much at most that time grows.
MAX_GROWTH = 1 << 20


class Suspects(Timed):
    """Charges tasks, and looks after those that may have to be charged.

    Parameters
    ----------
    placement
        Where suspects wait for a worker.
    life
        Remembers functions that write, and which run has submitted a task.
    workers
        All that there are, by address.
    patience_seconds
        For how long they wait.
    """

    def __init__(
        self,
        placement: Placement,
        life: Lifecycle,
        workers: Mapping[str, Worker],
        *,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        super().__init__()
        self._placement = placement
        self._workers = workers
        self._life = life
        self._patience_seconds = patience_seconds

    def worker_died(
        self, worker: Worker, running: Sequence[int] | None, crashed: int | None, *, fault: bool
    ) -> list[Task]:
        """A worker has died, and has its runs still. Returns the tasks that are charged for it.

        Parameters
        ----------
        running
            The runs that its threads took last; None if that is not known.
        crashed
            The one that has crashed it, if that is known.
        fault
            Whether it was killed as a process is that writes where it can't.
        """
        if crashed is not None:
            run = worker.runs.get(crashed)
            going_on = [] if run is None else [run]
        else:
            going_on = _going_on(worker, running)
        if fault and len(going_on) == 1 and self._tries_private_views(going_on[0]):
            return []
        return self._charge(going_on, ISOLATED, [worker])

    def host_died(self, workers: Iterable[Worker]) -> list[Task]:
        """The same for a host and all its workers."""
        died = list(workers)
        return self._charge([run for worker in died for run in _going_on(worker, None)], ISOLATED_ON_HOST, died)

    def _charge(self, going_on: Sequence[Run], isolation: Isolation, died: Sequence[Worker]) -> list[Task]:
        tasks = [run.task for run in going_on if run.task is not None]
        if len(going_on) == 1:
            charged = tasks
        else:
            suspects = [task for task in tasks if task.isolation >= isolation]
            at_least = STARVED if isolation == ISOLATED else ISOLATED_ON_HOST
            charged = [task for task in suspects if len(suspects) == 1 and task.isolation >= at_least]
            for task in tasks:
                task.isolation = isolation if task.isolation == STARVED else max(task.isolation, isolation)
                task.suspected += 1
            for task in self._submitters(tasks, died):
                task.suspected += 1
        charged = list(dict.fromkeys([*charged, *self._submitters(charged, died)]))
        for task in charged:
            task.failures += 1
        for task in {**dict.fromkeys(tasks), **dict.fromkeys(charged)}:
            self._life.charged(task)
        return charged

    def _submitters(self, tasks: Iterable[Task], died: Sequence[Worker]) -> list[Task]:
        """The tasks that have submitted one of these, directly or by others, and were blocked on one of the workers."""
        parents = self._life.parents
        found: dict[Task, None] = {}
        for task in tasks if parents else ():
            run_id = parents.get(task)
            while run_id is not None:  # each was sent before the one that it has submitted, so this ends
                run = next((w.runs[run_id] for w in self._workers.values() if run_id in w.runs), None)
                if run is None or run.task is None:
                    break
                if run.blocked and run.task.worker in died:
                    found[run.task] = None
                run_id = parents.get(run.task)
        return list(found)

    def _tries_private_views(self, run: Run) -> bool:
        task = run.task
        if task is None or run.private or all(d.inline is not None for d in task.dependencies):
            return False
        task.private = True
        self._life.groups.remember_writer(task.key, task.digest)
        return True

    @property
    def due(self) -> float | None:
        """When one has waited, or been alone, for long enough; None if no suspect waits, and none runs alone."""
        ends = [task.since + _isolated_seconds(task) for _, task in self._alone()]
        first = next(iter(self._placement.reservations.isolated), None)
        if first is not None and first.isolation != STARVED:
            ends.append(first.since + self._patience_seconds)
        return min(ends, default=None)

    def expire(self, now: float) -> None:
        """Let others come to those that had a worker for themselves for long enough, and look after those that wait.

        The one that has waited for too long is to run in company; the others wait on, to be no company for it.
        """
        for worker, task in list(self._alone()):
            if task.since + _isolated_seconds(task) <= now:
                self._placement.reservations.open_to_others(worker, now)
        isolated = self._placement.reservations.isolated
        first = next(iter(isolated), None)
        if first is None or first.isolation == STARVED or first.since + self._patience_seconds > now:
            return
        first.isolation = STARVED
        for task in isolated:
            task.since = now

    def _alone(self) -> Iterator[tuple[Worker, Task]]:
        """The suspects that run alone, and where."""
        for worker in self._placement.reservations.workers:
            task = worker.reserved_for
            if task is not None and task.worker is worker:
                yield worker, task


def _isolated_seconds(task: Task) -> float:
    return ISOLATED_SECONDS * min(MAX_GROWTH, 1 << max(0, task.suspected - 1))


def _going_on(worker: Worker, running: Sequence[int] | None) -> list[Run]:
    if running is None:
        going_on = worker.active[: worker.nthreads]  # they start in the order in which they were sent
    else:
        going_on = [worker.runs[run_id] for run_id in dict.fromkeys(running) if run_id in worker.runs]
    return going_on or [run for run in worker.runs.values() if run.blocked]
