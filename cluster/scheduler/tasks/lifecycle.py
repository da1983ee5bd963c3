"""The life of a task: what each of its moves brings about.

Terms
-----
A task is *active* while it needs the results of its dependencies (`states.ACTIVE`). A task *waits for* its dependencies
while it is active; these count it as a waiter. A task is *needed* while a holder holds it or a task waits for it. A
task that is not needed, but that others depend on, is *lineage*: they can be made again from it.

Invariants
----------
`validation` checks all of these after every event, in tests. The methods here and in `holding`, `results`, `sending`
and `stored_errors` name those that they keep, by number, where it isn't plain.

1. A task is in the one place of its state: "ready" in a queue or among those that are to run alone, "no-worker" in
   `Lifecycle.unrunnable`, "lost" in `Lifecycle.awaited`, "processing" in the runs of ``task.worker``.
2. ``dependency.nwaiters`` counts a task exactly while that task is active.
3. ``task.waiting_on`` of a task in state "waiting" is the number of its dependencies that have no result, and above
   zero. All dependencies of a task in state "ready" or "no-worker" have results.
4. A task has an object exactly in state "memory", and `Results.table` has it then. There is a copy of it, in a
   store or as a file (`Results.durable`), or its bytes are here. ``host.objects`` has a task exactly when
   ``task.where`` has the host.
5. A task has an error exactly in state "erred", and ``error.tasks`` counts it.
6. ``holder.holds`` has a task exactly when ``task.holders`` has the holder. What is held has its key (`generations`).
7. ``task.dependents`` has a task exactly when that one has this one in its ``dependencies``. What a known task depends
   on is known.
8. A task that is not needed is "released". If nothing depends on it either, it is forgotten.
9. No active task depends on one that has erred.

What follows from an event in tasks that the event does not touch itself is done a piece at a time. Until it is done,
8 and 9 do not hold for the tasks that are left over (`follow_up`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from holdfast.cluster.errors import ActorLostError, CancelledError, InternalError, ObjectLostError
from holdfast.cluster.journal import records
from holdfast.cluster.scheduler.tasks.decisions import Decisions
from holdfast.cluster.scheduler.tasks.follow_up import FollowUp
from holdfast.cluster.scheduler.tasks.functions import Functions
from holdfast.cluster.scheduler.tasks.generations import Generations
from holdfast.cluster.scheduler.tasks.groups import Groups
from holdfast.cluster.scheduler.tasks.holding import Holding
from holdfast.cluster.scheduler.tasks.instructions import DropRuns, Instructions
from holdfast.cluster.scheduler.tasks.lost import Lost
from holdfast.cluster.scheduler.tasks.model import Holder, Host, Run, Task, TaskError, Worker
from holdfast.cluster.scheduler.tasks.moves import Moves
from holdfast.cluster.scheduler.tasks.names import Digest, Key, ObjectId, Payload
from holdfast.cluster.scheduler.tasks.origins import Origin
from holdfast.cluster.scheduler.tasks.placer import Placer
from holdfast.cluster.scheduler.tasks.reports import Reports
from holdfast.cluster.scheduler.tasks.results import Results
from holdfast.cluster.scheduler.tasks.retrying import failed_below
from holdfast.cluster.scheduler.tasks.run_accounts import end_run
from holdfast.cluster.scheduler.tasks.sending import Sender
from holdfast.cluster.scheduler.tasks.states import ACTIVE
from holdfast.cluster.scheduler.tasks.stored_errors import StoredErrors, task_error

#: So many tasks are sent to workers in one event.
SENT_AT_ONCE = 1_000


class Lifecycle:
    """The tasks and their moves.

    Parameters
    ----------
    instructions
        Where instructions go.
    placement
        Where ready tasks go.
    functions
        The functions of tasks.
    follow_up_limit
        How many tasks are dealt with at once that an event did not touch itself.
    awaits_lost
        Whether data that is lost with its host is awaited, or given up at once.
    moves
        Changes the states of tasks; another one than the usual looks whether each move is a legal one.
    decisions
        Takes what is to be in the journal.

    Attributes
    ----------
    last_serial
        That of the task that was made last.
    """

    def __init__(
        self,
        instructions: Instructions,
        placement: Placer,
        functions: Functions,
        *,
        follow_up_limit: int,
        awaits_lost: bool = True,
        moves: Moves | None = None,
        decisions: Decisions | None = None,
    ) -> None:
        self.decisions = decisions or Decisions()
        self.last_serial = 0
        self.generations = Generations()
        self.results = Results(instructions, self.decisions)
        self.holding = Holding(instructions, self.decisions)
        self.errors = StoredErrors(instructions, self.results.table, self.decisions, self.holding)
        self.unrunnable: OrderedDict[Task, None] = OrderedDict()  # those in state "no-worker"
        #: Of what tasks have submitted: the run that has.
        self.parents: dict[Task, int] = {}
        #: The seconds that a run of a task may take, of those for which that is limited.
        self.run_timeouts: dict[Task, float] = {}
        #: Of the tasks that depend on something which was unknown when they came, the key of that: they never run.
        self.incomplete: dict[Task, Key] = {}
        self.lost = Lost()
        self._retried: dict[Task, None] = {}  # those that clients want to run again, and that have yet to begin
        self.awaited: OrderedDict[Task, None] = OrderedDict()  # those in state "lost"
        self.functions = functions
        self.groups = Groups()
        self.reports = Reports(instructions, self.results.durable)
        self.now = 0.0
        self._instructions = instructions
        self._placement = placement
        self._eligibility = placement.eligibility
        self._awaits_lost = awaits_lost
        self._moves = moves or Moves()
        self._sender = Sender(instructions, placement, functions, self._moves, self.run_timeouts, self.results.durable)
        self._freed: dict[Worker, None] = {}  # that have ended runs in this event
        #: A task that has more neighbours than this has them dealt with later.
        self._at_once = follow_up_limit
        self.follow_up = FollowUp(
            self.holding,
            follow_up_limit,
            settle=self._settle,
            activate=self._activate_if_needed,
            count=self._count_anew,
            fail_for_a_dependency=self._fail_for_a_dependency,
            run_again=self._run_again,
        )

    # -- coming to be

    def create(self, key: Key, digest: Digest | None, origin: Origin) -> Task:
        """Make a task under a key that has none."""
        self.last_serial = serial = self.last_serial + 1
        task = self.generations.tasks[key] = Task(key, serial, self.groups.join(key, digest), origin)
        self._moves.appear(task)
        return task

    def specify(self, task: Task, digest: Digest | None, payload: Payload, dependencies: Sequence[Task]) -> None:
        """Tell how a task is computed (7)."""
        if self.incomplete and self.incomplete.pop(task, None) is not None:
            self.decisions.note(records.remove_of("incomplete", task.serial))
        task.digest = digest
        task.payload = payload
        if digest is not None:
            self.functions.table[digest].tasks += 1
        if dependencies:
            task.dependencies = tuple(dict.fromkeys(dependencies))
            for dependency in task.dependencies:
                dependency.add_dependent(task)

    # -- towards a result

    def activate(self, task: Task) -> None:
        """Begin to work towards a result of a task in state "released", and of all that it needs (1, 2, 3)."""
        if task.payload is not None and not task.dependencies and task not in self.incomplete:  # as most are
            self.enqueue(task)
            return
        stack = [task]
        for _ in range(self._at_once):
            self._activate(stack.pop(), stack)
            if not stack:
                return
        self.follow_up.to_activate.extend(stack)

    def _activate_if_needed(self, task: Task) -> None:
        if task.is_needed:
            self.follow_up.left -= len(task.dependencies)
            self._activate(task, self.follow_up.to_activate)

    def _activate(self, task: Task, others: list[Task]) -> None:
        """Begin to work towards a task's result, and put those of which the same is to be done to ``others``."""
        if task.state != "released":
            return
        if task in self.incomplete:
            self.fail_unknown_dependency(task, self.incomplete[task])
            return
        if not task.can_be_computed:
            self.await_or_fail(task, f"{task.key!r} {_LOST if task in self.lost.objects else _LET_GO}")
            return
        if not task.dependencies:
            self.enqueue(task)
            return
        self._moves.move(task, "waiting")
        waiting_on = 0
        waited_for: Task | None = None
        error: TaskError | None = None
        for dependency in task.dependencies:
            self.renew(dependency)
            dependency.nwaiters += 1
            state = dependency.state
            if state == "erred":
                error = dependency.error
            elif state != "memory":
                waiting_on += 1
                waited_for = dependency
                if state == "released":
                    others.append(dependency)
        task.waiting_on = waiting_on
        if error is not None:
            self.fail(task, error)
        elif waited_for is None:
            self.enqueue(task)
        elif waited_for.state == "processing":
            self._line_up(waited_for)

    def await_or_fail(self, task: Task, text: str) -> None:
        """A task in state "released" has no result and can't be computed: await a host that has one, if it may come."""
        if self._awaits_lost and task in self.lost.objects:
            self._moves.move(task, "lost")
            task.since = self.now
            self.awaited[task] = None
        else:
            self._fail_for_loss(task, text)

    def await_no_longer(self, task: Task) -> None:
        """A task in state "lost" has waited for its host for long enough."""
        if task.can_be_computed:  # a client has told how meanwhile
            self.withdraw(task)
            self._moves.move(task, "released")
            self.activate(task)
        else:
            self._fail_for_loss(task, f"{task.key!r} {_LOST}")

    def _fail_for_loss(self, task: Task, text: str) -> None:
        self.fail(task, task_error(task.key, ObjectLostError(text), is_loss=True))

    def renew(self, task: Task) -> None:
        """A task has a new need: the error that its earlier holders saw is not for the new one."""
        if task.state == "erred" and not task.is_needed:
            self._release(task)

    def enqueue(self, task: Task) -> None:
        """A task in a state before "memory" has all that it needs: let it run as soon as a worker has room (1)."""
        if self._eligibility.can_run(task.requirements):
            self._moves.move(task, "ready")
            task.since = self.now
            self._placement.push(task)
        else:
            self._moves.move(task, "no-worker")
            task.since = self.now
            self.unrunnable[task] = None

    def requeue(self, task: Task) -> None:
        """A task in state "processing" that no worker has any more: let it run again (1, 3)."""
        if not self._waits(task):
            self.enqueue(task)

    def _waits(self, task: Task) -> bool:
        """Whether dependencies of a task, which is in no place, lack their results: then it waits for these (3)."""
        waiting_on = sum([dependency.state != "memory" for dependency in task.dependencies])
        if waiting_on:
            if task.state != "waiting":
                self._moves.move(task, "waiting")
            task.waiting_on = waiting_on
        return bool(waiting_on)

    def _count_anew(self, task: Task) -> None:
        """Dependencies of a task have come to have results, or have lost them (3)."""
        if task.state == "waiting":
            if not self._waits(task):
                self.enqueue(task)
        elif task.state in ("ready", "no-worker") and any(d.state != "memory" for d in task.dependencies):
            self.withdraw(task)
            self._waits(task)

    def assign(self, task: Task, worker: Worker) -> None:
        """Send a ready task, already out of its queue, to a worker, and what can be lined up behind it."""
        if self.follow_up.to_count and self._waits(task):  # it was not said to it yet
            self._placement.update_room(worker, self.now)
            return
        try:
            self._sender.send(task, worker, self.now)
        except Exception:  # which costs this task
            self._sender.take_back_unsent(task, worker, self.now)
            text = f"{task.key!r:.200} could not be sent to a worker: the scheduler failed at it, and its log says how"
            self.fail(task, task_error(task.key, InternalError(text)))
            raise
        if task.nwaiters == 1:
            self._line_up(task)

    def _line_up(self, task: Task) -> None:
        if not self.follow_up.to_count:  # else it isn't known which tasks wait for this one only
            self._sender.line_up(task, self.now)

    def number_runs_from(self, number: int) -> None:
        """Runs have higher numbers than this from now on."""
        self._sender.number_runs_from(number)

    def take_up(self, task: Task, worker: Worker, run_id: int) -> None:
        """A worker has a run of a task that is ready or waits, which an earlier scheduler has sent (1)."""
        self.withdraw(task)
        self._sender.take_up(task, worker, run_id, self.now)

    def line_up_more(self, worker: Worker) -> None:
        """The worker is done with something: tasks may wait there for the result of its last run."""
        if not self.follow_up.to_count:
            self._sender.line_up_more(worker, self.now)

    def fill(self) -> None:
        """Give ready tasks to workers with room, a limited number of them at once."""
        if self._freed:
            for worker in self._freed:
                self._placement.update_room(worker, self.now)
            self._freed.clear()
        self.follow_up.is_filling = False
        if self._placement.has_work:
            self.follow_up.is_filling = self._placement.fill(self.assign, self.now, SENT_AT_ONCE)

    def end_run(self, worker: Worker, run_id: int, *, has_result: bool = False) -> Task | None:
        """A worker is done with a run. Returns its task, or None if the task has no use for it any more."""
        run = worker.runs.get(run_id)
        if run is None:
            return None
        end_run(worker, run)
        self._freed[worker] = None
        task = run.task
        if task is not None:
            task.worker = None
        elif has_result and run.late is not None and run.late.state in ACTIVE:
            task = run.late  # a late result is as good as another, while there is no other
            self.withdraw(task)
        return task

    def run_elsewhere(self, run: Run) -> None:
        """Don't wait for a run any longer: let its task run again."""
        task = run.task
        assert task is not None
        run.task, run.late = None, task
        task.worker = None
        self.requeue(task)

    def give_up_run(self, task: Task, error: TaskError) -> None:
        """A task in state "processing" doesn't wait for its run any longer: it runs again if it has retries left, and
        fails if not."""
        if task.retries:
            self.retry_run(task)
            self.withdraw(task)
            self.requeue(task)
        else:
            self.fail(task, error)

    def retry_run(self, task: Task) -> None:
        """A run of a task has failed, and the task has one retry less. The caller has it run again."""
        task.retries -= 1
        self.charged(task)

    def charged(self, task: Task) -> None:
        """A task is charged for a failure of a run, or suspected of one."""
        self.decisions.note(
            records.put_of("charges", task.serial, (task.retries, task.failures, task.isolation, task.suspected))
        )

    def brought(self, task: Task, object_id: ObjectId, nbytes: int, type_name: str, inline: Payload | None) -> None:
        """A task has data that its client has brought; ``inline`` if it lies in no store."""
        if self.decisions.is_kept:
            data = (task.key, task.serial, object_id, nbytes, type_name, inline)
            self.decisions.note(records.data(task.origin.as_plain(), [data]))

    def withdraw(self, task: Task) -> None:
        """Take a task out of the queue, table or worker where it is (1); its state is for the caller to change."""
        if task.state == "ready":
            self._placement.remove(task)
        elif task.state == "no-worker":
            del self.unrunnable[task]
        elif task.state == "lost":
            del self.awaited[task]
        elif task.state == "processing" and task.worker is not None:
            # The worker is busy with it until it says that it dropped or finished the run.
            task.worker.runs[task.run_id].task = None
            self._instructions.add(DropRuns, task.worker.address, task.run_id)
            task.worker = None

    # -- results

    def complete(
        self, task: Task, host: Host | None, object_id: ObjectId, nbytes: int, inline: Payload | None, type_name: str
    ) -> bool:
        """A task's result is there, in ``host``'s store (None: only in ``inline``). Its dependents go on (2, 3, 4).

        False, and nothing has changed, if the object is another task's: no two have the same.
        """
        if not self.results.put(task, host, object_id, nbytes, inline, type_name):
            return False
        active = task.state in ACTIVE
        if self.lost.count:
            self.lost.supersede(task)
        task.since = self.now
        task.missing = task.failures = task.isolation = task.suspected = 0
        self._moves.move(task, "memory")
        if task.holders:
            self.reports.finished(task)
        if active and task.dependencies:
            self._leave_dependencies(task)
        if task.nwaiters:
            self._wait_no_longer(task)
        elif not task.holders:
            self.holding.unneeded.append(task)
        return True

    def _wait_no_longer(self, task: Task) -> None:
        """A task has a result: those that wait for it have one less to wait for (3)."""
        to_count = self.follow_up.to_count
        if len(task.dependents) > self._at_once:
            to_count.extend(task.dependents)
            return
        for waiter in task.dependents:
            if waiter.state == "waiting":
                waiter.waiting_on -= 1
                if waiter.waiting_on <= 0:
                    if to_count:
                        self._count_anew(waiter)  # the number may be that of before
                    else:
                        self.enqueue(waiter)

    def drop_copy(self, task: Task, host: Host) -> None:
        """A host no longer has the task's object; `lose` the task if it was the last copy."""
        if not self.results.remove_copy(task, host):
            self.lose(task)

    def lose_next_copy(self, host: Host) -> Task:
        """A host is gone: so is its copy of the object of one more task, unless it comes back. There must be one."""
        task = self.results.take_copy(host)
        assert task.object_id is not None
        is_there = self.results.is_there(task)
        if not is_there:
            self.lost.add(task, task.object_id)
        elif task.payload is None:  # else its owner is a worker, which is gone as well
            self.lost.remember(task.object_id)
        if not is_there:
            self.lose(task)
        return task

    def restore(
        self, task: Task, host: Host | None, object_id: ObjectId, nbytes: int, inline: Payload | None, type_name: str
    ) -> None:
        """A task that is needed, and has no result or has failed for its loss, has one: no run is wanted for it."""
        if task.state == "erred":
            self.errors.take_from(task)
            self._moves.move(task, "released")
        else:
            self.withdraw(task)
        self.complete(task, host, object_id, nbytes, inline, type_name)

    def run_again(self, restored: Sequence[Task]) -> None:
        """These have their results again: what failed because they were lost is worth another try, soon."""
        for task in restored:
            if task.state == "memory":
                self.follow_up.to_retry.extend(task.dependents)

    def retry(self, tasks: Sequence[Task]) -> None:
        """Let tasks that have failed run again, soon; before them what failed below them (1, 5)."""
        failed = [task for task in failed_below(tasks) if task.error is not None and not task.error.is_lasting]
        for task in failed:
            assert task.error is not None
            task.error.is_retried = True
            self._retried[task] = None
        self.follow_up.to_retry.extend(reversed(failed))

    def _run_again(self, task: Task) -> None:
        if self._retried:
            if any(dependency in self._retried for dependency in task.dependencies):
                return  # it comes after these
            self._retried.pop(task, None)
        error = task.error
        if error is None or not (error.is_loss or error.is_retried):
            return
        if not error.is_retried and any(dependency.error is not None for dependency in task.dependencies):
            return  # it comes after these
        self.errors.take_from(task)
        self._moves.move(task, "released")
        task.failures = 0
        self.follow_up.to_retry.extend(task.dependents)
        if task.is_needed:
            self.reports.pending(task)
            self.activate(task)
        else:
            self.holding.unneeded.append(task)

    def lose(self, task: Task) -> None:
        """A task in state "memory" has no result any more: compute it again if it is needed (3, 4)."""
        self.results.forget(task)
        self._moves.move(task, "released")
        contents = self.holding.contents.get(task)
        if contents is not None and contents.loss:
            self._give_up(task, task_error(task.key, ActorLostError(contents.loss)))
            return
        self._wait_again(task)
        if task.is_needed:
            self.reports.pending(task)
            self.activate(task)
        else:
            self.holding.unneeded.append(task)

    def give_up_result(self, task: Task, error: TaskError) -> None:
        """The result of a task in state "memory" is no use any more, and none is to be made in its place."""
        self.results.delete(task)
        self._moves.move(task, "released")
        self._give_up(task, error)

    def _give_up(self, task: Task, error: TaskError) -> None:
        self._wait_again(task)
        self.fail(task, error)

    def _wait_again(self, task: Task) -> None:
        """A task has no result any more: those that wait for it have one less (3)."""
        if len(task.dependents) > self._at_once:
            self.follow_up.to_count.extend(task.dependents)
            return
        for waiter in task.waiters:
            if waiter.state == "waiting":
                waiter.waiting_on += 1
            elif waiter.state in ("ready", "no-worker"):
                self.withdraw(waiter)
                self._moves.move(waiter, "waiting")
                waiter.waiting_on = 1
            # One that is processing may have read it already; if not, it will say so.

    def fail(self, task: Task, error: TaskError) -> None:
        """A task has failed (1, 2, 5), and soon all that wait for it have (9)."""
        if task.state == "erred":
            return
        active = task.state in ACTIVE
        self.withdraw(task)
        self._moves.move(task, "erred")
        self.errors.give_to(task, error)
        self.reports.failed(task)
        if active:
            self._leave_dependencies(task)
        if task.nwaiters:
            self.follow_up.to_fail.extend(task.dependents)
        if not task.is_needed:
            self.holding.unneeded.append(task)

    def _fail_for_a_dependency(self, task: Task) -> None:
        if task.state in ACTIVE:
            error = next((d.error for d in task.dependencies if d.error is not None), None)
            if error is not None:  # else what erred is being made again
                self.fail(task, error)

    def fail_unknown_dependency(self, task: Task, key: Key) -> None:
        text = (
            f"{task.key!r} depends on {key!r}, which was cancelled or released: make that again, and keep a future "
            "of it, or publish it"
        )
        error = task_error(task.key, CancelledError(text))
        error.is_lasting = True
        self.fail(task, error)

    def _leave_dependencies(self, task: Task) -> None:
        """A task is active no longer (2), so what it depends on may be unneeded (8)."""
        for dependency in task.dependencies:
            dependency.nwaiters -= 1
            if not dependency.nwaiters and not dependency.holders:
                self.holding.unneeded.append(dependency)

    # -- holders

    def want(self, holder: Holder, keys: Iterable[Key]) -> None:
        """A holder that hears wants the results of these keys, and is told of those that are unknown."""
        for key in keys:
            task = self.generations.tasks.get(key)
            if task is None:
                self._instructions.cancelled(holder.peer, key, "it was cancelled or released before")
            else:
                self.begin(holder, task)

    def begin(self, holder: Holder, task: Task) -> None:
        """A holder that hears wants a task's result."""
        if task.state == "erred":
            self.renew(task)
        self.holding.hold(holder, task)
        if task.state == "released":
            self.activate(task)
        else:
            self.reports.tell(holder, task)

    # -- ceasing to be

    def settle(self, tasks: Iterable[Task]) -> None:
        """Look at those of the tasks that nothing needs now, once the event is handled."""
        self.holding.unneeded += [task for task in tasks if not task.holders and not task.nwaiters]

    def _settle(self, task: Task) -> None:
        """Release a task if nothing needs it, forget it if nothing can ask for it again (8)."""
        if task.holders or task.nwaiters or task.state == "forgotten":
            return
        if task.state != "released":
            self._release(task)
        if self.holding.contents:
            self.holding.forget_contents(task)
        if not task.dependents:
            self._forget(task)

    def _release(self, task: Task) -> None:
        """Give up what a task has, whatever state it is in (1, 2, 4, 5)."""
        active = task.state in ACTIVE
        if task.state == "memory":
            self.results.delete(task)
        elif task.state == "erred":
            self.errors.take_from(task)
        else:
            self.withdraw(task)
        self._moves.move(task, "released")
        if active:
            self._leave_dependencies(task)

    def _forget(self, task: Task) -> None:
        """Know a task no more (7)."""
        self._moves.move(task, "forgotten")
        if self.lost.count:
            self.lost.supersede(task)
        if self.lost.labels:
            self.lost.labels.pop(task.serial, None)
        if self.incomplete:
            self.incomplete.pop(task, None)
        if self.parents:
            self.parents.pop(task, None)
        if self.run_timeouts:
            self.run_timeouts.pop(task, None)
        self.generations.forget(task)
        group = task.group
        group.tasks -= 1
        if not group.tasks:
            self.groups.emptied(group)
        if task.digest is not None:
            function = self.functions.table[task.digest]
            function.tasks -= 1
            if not function.tasks:
                self.functions.drop_unused(task.digest, function)
        for dependency in task.dependencies:
            del dependency.dependents[task]
            self.holding.unneeded.append(dependency)
        task.dependencies = ()


_LOST = (
    "is lost: the hosts that held it are gone, and it was scattered by a client, so that it can't be computed again. "
    "Scatter it once more, or keep copies of it on several hosts (broadcast=True)"
)
_LET_GO = (
    "was released, and it was scattered by a client, so that it can't be computed again. Scatter it once more, and "
    "keep a future of it, or publish it"
)
