"""What a thread does with one task: all that is around its execution (`execution`)."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Callable, Iterable

from holdfast.cluster.errors import RemoteError
from holdfast.cluster.failures import dumping
from holdfast.cluster.protocol.worker import ERRED, FINISHED
from holdfast.cluster.worker import context, output
from holdfast.cluster.worker.blocking import Blocking
from holdfast.cluster.worker.execution import Outcome, Task, TaskRunner
from holdfast.cluster.worker.imports import ImportsFreezer
from holdfast.cluster.worker.outcomes import OutcomeSender
from holdfast.cluster.worker.waiting_runs import WaitingRuns
from holdfast.cluster.worker.write_behind import WriteBehind
from holdfast.objectstore import Store
from holdfast.objectstore.errors import StoreClosedError

logger = logging.getLogger(__name__)

#: What is said of a task when nothing can be said about its failure.
UNSPEAKABLE = dumping.dump_exception(RemoteError("the task failed, and so did reporting how: see the worker's log"))


class Running:
    """Runs tasks in the calling thread, and hands on what they come to.

    Parameters
    ----------
    runner, outcomes, waiting_runs, blocking, write_behind, store
        The worker's.
    imports
        Is told which tasks run; None in a process in which other things go on as well.
    prefixes_lines
        Whether lines that tasks print are kept until they are whole.
    is_idle
        Whether no other task waits to be run.
    tell_begun
        ``tell_begun(run_id)`` is called when a run begins whose time is limited.
    cannot_report
        Called when it is found out that failures can't be reported at all any more.
    store_is_gone
        Called when the store is gone.
    """

    def __init__(
        self,
        runner: TaskRunner,
        outcomes: OutcomeSender,
        waiting_runs: WaitingRuns,
        blocking: Blocking,
        write_behind: WriteBehind,
        store: Store,
        *,
        imports: ImportsFreezer | None,
        prefixes_lines: bool,
        is_idle: Callable[[], bool],
        tell_begun: Callable[[int], None],
        cannot_report: Callable[[], None],
        store_is_gone: Callable[[StoreClosedError], None],
    ) -> None:
        self._runner = runner
        self._outcomes = outcomes
        self._waiting_runs = waiting_runs
        self._blocking = blocking
        self._write_behind = write_behind
        self._store = store
        self._imports = imports
        self._prefixes_lines = prefixes_lines
        self._is_idle = is_idle
        self._limited: set[int] = set()  # runs whose time is limited, and that have not begun
        self._tell_begun = tell_begun
        self._cannot_report = cannot_report
        self._store_is_gone = store_is_gone

    def run_with(self, runner: TaskRunner) -> None:
        """From the next task on, another runner runs them."""
        self._runner = runner

    def limit(self, run_ids: Iterable[int]) -> None:
        """The time of these runs, which are about to come, is limited."""
        self._limited.update(run_ids)

    def forget(self, run_ids: Iterable[int]) -> None:
        """These runs never begin."""
        self._limited.difference_update(run_ids)

    def run(self, task: Task) -> Outcome | None:
        """Run a task; lets no error out. Returns the outcome, None if that could not even be reported."""
        key, run_id, _, _, _, _, serial = task
        context.run(key, run_id)
        if self._limited and run_id in self._limited:
            self._limited.discard(run_id)
            self._tell_begun(run_id)
        if self._imports is not None:
            self._imports.started(run_id)
        outcome: Outcome | None = None
        try:
            outcome = self._runner.run(task)
            context.end_held()  # before others hear of the end
            if self._is_idle() and not self._waiting_runs.is_waited_for(run_id):
                self._outcomes.put_now(outcome)
            else:
                self._outcomes.put(outcome)
        except StoreClosedError as error:
            self._store_is_gone(error)
        except BaseException:  # no memory, perhaps: whatever it is, this thread goes on, and the task has an end
            if not _can_report():
                self._cannot_report()
            blob, text = UNSPEAKABLE
            context.end_held()
            self._outcomes.put((ERRED, (serial, run_id, blob, text, 0.0)))
            with contextlib.suppress(BaseException):
                # As text: a record with the error itself would keep what the task had in its hands.
                logger.error("task %r failed, and so did reporting how:\n%s", key, traceback.format_exc())
        finally:
            if self._prefixes_lines:
                output.end_lines()
            context.run(None, None)
        self._store.settle_releases()
        self._write_behind.tend()
        result = None
        if outcome is not None:
            kind, entry = outcome
            if kind is FINISHED:
                _, _, object_id, _, inline, _, _ = entry
                result = (object_id, inline)
        self._blocking.ended((run_id,))
        self._waiting_runs.ended(run_id, result)
        if self._imports is not None:
            self._imports.ended(run_id)
        return outcome


def _can_report() -> bool:
    """Whether failures can be reported at all: if not, no task is to blame but one that ran here before."""
    try:
        dumping.dump_exception(RemoteError("a trial"))
    except BaseException:
        return False
    return True
