"""Workers that are reserved for a task each: a task that may have killed a worker runs alone (`suspects`).

It waits beside the queues until a worker is reserved for it, which takes nothing else, and has ended what it was sent
before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

from holdfast.cluster.scheduler.placing.eligibility import Eligibility
from holdfast.cluster.scheduler.tasks.model import ISOLATED_ON_HOST, STARVED, Task, Worker


class Reservations:
    """The ready tasks that are to run alone, and their workers.

    Parameters
    ----------
    workers
        The scheduler's table; only read here.
    eligibility
        Which of them may run which tasks.
    update_room
        ``update_room(worker, now)``: a worker takes other tasks from now on, or does so no more.

    Attributes
    ----------
    isolated
        The tasks, in the order in which they came.
    workers
        The workers that are reserved for one of these, or run one.
    """

    def __init__(
        self,
        workers: Mapping[str, Worker],
        eligibility: Eligibility,
        update_room: Callable[[Worker, float], None],
    ) -> None:
        self.isolated: OrderedDict[Task, None] = OrderedDict()
        self.workers: dict[Worker, None] = {}
        self._all_workers = workers
        self._eligibility = eligibility
        self._update_room = update_room

    def fill(self, assign: Callable[[Task, Worker], None], now: float) -> None:
        """Reserve workers for tasks that are to run alone, and give these to the ones that have nothing else to do."""
        reserved_for: dict[Task, Worker] = {}
        for worker in list(self.workers):
            task = worker.reserved_for
            assert task is not None
            if task in self.isolated and task.isolation != STARVED and not worker.barred:
                reserved_for[task] = worker
            elif task.worker is not worker:
                self._reserve_for(worker, None, now)
        if not self.isolated:
            return
        free = [worker for worker in self._all_workers.values() if worker.reserved_for is None and not worker.barred]
        for task in list(self.isolated):
            if task.isolation == STARVED:
                if (found := self._in_company(task)) is not None:
                    del self.isolated[task]
                    assign(task, found)
                continue
            reserved = reserved_for.get(task)
            if reserved is None or not self._is_free_for(reserved, task):
                # One that runs something for ever may not be the only one that could be waited for.
                found = self._emptiest(free, task, reserved)
                if found is None:
                    continue
                if found is not reserved:
                    free.remove(found)
                    if reserved is not None:
                        self._reserve_for(reserved, None, now)
                        free.append(reserved)
                    self._reserve_for(found, task, now)
                    reserved = found
            if self._is_free_for(reserved, task):
                del self.isolated[task]
                task.since = now
                assign(task, reserved)

    def _in_company(self, task: Task) -> Worker | None:
        """A worker that may run a task now, beside others, but not beside one that is to be alone."""
        for worker in self._all_workers.values():
            is_alone = worker.reserved_for is not None and worker.reserved_for.worker is worker
            takes = not is_alone and not worker.barred and worker.nactive < worker.nthreads
            if takes and self._eligibility.may_run_now(worker, task.requirements):
                return worker
        return None

    def _emptiest(self, free: list[Worker], task: Task, reserved: Worker | None) -> Worker | None:
        """A worker that is to run a task alone: ``reserved``, unless another one has nothing to do already.

        If none is reserved yet, it is the one that has least to do; None if none may run the task.
        """
        found = reserved
        for worker in free:
            is_free = self._is_free_for(worker, task)
            is_better = found is None or (is_free if reserved is not None else _work(worker) < _work(found))
            if is_better and self._may_reserve(worker, task):
                found = worker
                if is_free:
                    break
        return found

    def _is_free_for(self, worker: Worker, task: Task) -> bool:
        """Whether a worker runs nothing and has what a task needs: a run that waits for its slot has its resources."""
        return not worker.nactive and self._eligibility.may_run_now(worker, task.requirements)

    def _may_reserve(self, worker: Worker, task: Task) -> bool:
        requirements = task.requirements
        if requirements is not None and not (
            requirements.could_run_on(worker) and self._eligibility.is_named(worker, requirements)
        ):
            return False
        if any(run.task is not None and run.task.isolation for run in worker.active):
            return False  # one that goes on for longer than it could be alone
        others = [w.reserved_for for w in worker.host.workers if w.reserved_for not in (None, task)]
        if task.isolation == ISOLATED_ON_HOST:
            return not others
        return not any(other is not None and other.isolation == ISOLATED_ON_HOST for other in others)

    def open_to_others(self, worker: Worker, now: float) -> None:
        """A worker that runs a task alone may take others again, though that one still runs."""
        self._reserve_for(worker, None, now)

    def _reserve_for(self, worker: Worker, task: Task | None, now: float) -> None:
        worker.reserved_for = task
        if task is None:
            self.workers.pop(worker, None)
        else:
            self.workers[worker] = None
        self._update_room(worker, now)


def _work(worker: Worker) -> tuple[int, float]:
    """What a worker has to do, for comparison."""
    return worker.nactive, worker.expected_seconds
