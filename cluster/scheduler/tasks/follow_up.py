"""What follows from an event in tasks that the event itself does not touch, a limited number of them at a time.

Freeing is not recursive. Whatever takes away a reason to keep a task puts it on the list of tasks that may be unneeded
(`Holding.unneeded`). When an event has been handled, those of the list that nothing needs are released, and those that
nothing can ask for again are forgotten, which may put more on the list.

What follows may be long: a graph of a million tasks is forgotten with the last hold of its one result, fails with its
first task, and is let go of by a client that leaves. So an event settles the tasks that it touches itself, and of what
follows only so much at once. The rest is left over for later events, and `FollowUp.has_more` is true until it is done.
Until then the invariants 8 and 9 of `lifecycle` do not hold for the tasks that are left over:

* a task that nothing needs may be in any state: it is as if its last holder had let go of it a moment later;
* an active task may have a dependency that has erred: it will err too, and can't run before that;
* a client that has left still holds tasks, and hears nothing any more (``Holder.peer``).
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.cluster.scheduler.tasks.holding import Holding
from holdfast.cluster.scheduler.tasks.model import Task


class FollowUp:
    """The tasks that events have left over.

    Parameters
    ----------
    holding
        Which holder holds which task.
    limit
        How many tasks `run` deals with at once that the event did not touch itself.
    settle
        Releases or forgets a task, if nothing needs it.
    fail_for_a_dependency
        Fails a task that depends on one that has erred.
    run_again
        Lets a task run again that has failed, for the loss of a result that is there again or as a client wants it.

    Attributes
    ----------
    to_fail
        The tasks that depend on something that has erred.
    to_retry
        The tasks that are worth another try, those last that come first.
    """

    __slots__ = (
        "_fail_for_a_dependency",
        "_holding",
        "_limit",
        "_run_again",
        "_settle",
        "_to_settle",
        "to_fail",
        "to_retry",
    )

    def __init__(
        self,
        holding: Holding,
        limit: int,
        *,
        settle: Callable[[Task], None],
        fail_for_a_dependency: Callable[[Task], None],
        run_again: Callable[[Task], None],
    ) -> None:
        self._holding = holding
        self._limit = limit
        self._settle = settle
        self._fail_for_a_dependency = fail_for_a_dependency
        self._run_again = run_again
        self._to_settle: list[Task] = []  # maybe not needed
        self.to_fail: list[Task] = []
        self.to_retry: list[Task] = []

    @property
    def has_more(self) -> bool:
        """Whether `run` has something to see to."""
        holding = self._holding
        return bool(holding.unneeded or self._to_settle or self.to_fail or self.to_retry or holding.departed)

    @property
    def left_over(self) -> tuple[set[Task], set[Task]]:
        """The tasks that may not be needed, and those that depend on something that has erred: for validation."""
        return set(self._to_settle), set(self.to_fail)

    def run(self) -> None:
        """See to what follows from an event: what it has touched, and a limited number of tasks beyond.

        A task at which this fails is left as it is; the others stay on their lists, and are seen to the next time.
        """
        holding = self._holding
        touched, holding.unneeded = iter(holding.unneeded), self._to_settle
        try:
            for task in touched:
                self._settle(task)
            for _ in range(self._limit):
                if self.to_fail:
                    self._fail_for_a_dependency(self.to_fail.pop())
                elif self.to_retry:
                    self._run_again(self.to_retry.pop())
                elif holding.unneeded:
                    self._settle(holding.unneeded.pop())
                elif holding.departed:
                    holding.let_go_of_one()
                else:
                    break
        finally:
            holding.unneeded.extend(touched)
            self._to_settle, holding.unneeded = holding.unneeded, []
