"""What follows from an event in tasks that the event itself does not touch, a limited number of them at a time.

Freeing is not recursive. Whatever takes away a reason to keep a task puts it on the list of tasks that may be unneeded
(`Holding.unneeded`). When an event has been handled, those of the list that nothing needs are released, and those that
nothing can ask for again are forgotten, which may put more on the list.

What follows may be long: a graph of a million tasks is forgotten with the last hold of its one result, fails with its
first task, becomes ready with it, is cancelled with it, and is let go of by a client that leaves; a host that is lost
has had a million objects. So an event settles the tasks that it touches itself, and of what follows only so much at
once. The rest is left over for later events, and `FollowUp.has_more` is true until it is done. It is on lists of tasks,
or a *chore* (`Chore`), which finds its tasks itself.

What is left over has not happened yet, for the tasks that it is about: it is as if the event had come a moment later to
them. Until then the invariants of `lifecycle` do not hold for these:

=====================  ===============================================================================================
left over              what may be seen until then
=====================  ===============================================================================================
tasks to settle        one that nothing needs may be in any state (8)
tasks to fail          an active one may have a dependency that has erred; it can't run before it errs too (9)
tasks to activate      a dependency of an active one is "released" still (9). Nothing is released or forgotten before
                       that is done: one that nothing seems to need may be such a dependency
tasks to count anew    ``waiting_on`` of one that waits, and what one that is ready has, may be that of before (3).
                       Nothing is sent to a worker without what it reads (`Lifecycle.assign`)
tasks to be sent       workers have room, and are sent the tasks a moment later
departed holders       one that is gone still holds tasks, and hears nothing any more (``Holder.peer``)
a lost host            ``task.where`` still has it (4). It counts as one that leaves (``Host.leaving``), so no other
                       copy is given up for the sake of that one
runs of lost workers   a task is "processing", and has no worker (1)
a look at the workers  a task is "no-worker" or "ready" though the workers have changed
a cancellation         some of the tasks are still held. No message of the client is handled until it is done
                       (`Chore.holds_back`), so what it says afterwards comes afterwards
=====================  ===============================================================================================
"""

from __future__ import annotations

import abc
from collections import deque
from collections.abc import Callable, Collection
from typing import NamedTuple

from holdfast.cluster.scheduler.tasks.holding import Holding
from holdfast.cluster.scheduler.tasks.model import Host, Task

#: While there is something left over, an event that comes in between sees to the n-th part of what a turn sees to.
IN_BETWEEN = 10


class Chore(abc.ABC):
    """Work that is left over, in steps of about one task each.

    Attributes
    ----------
    holds_back : collection of str
        The clients whose messages wait until it is done.
    host : Host or None
        The host that is gone, if it is about what that had.
    """

    holds_back: Collection[str] = ()
    host: Host | None = None

    @abc.abstractmethod
    def step(self) -> bool:
        """Do a step. Whether there may be another one.

        Should it raise, it goes on with what comes after.
        """

    def concerns(self, task: Task) -> bool:
        """Whether a task may be one that it has not come to yet: for validation."""
        return False


class LeftOver(NamedTuple):
    """The tasks that are left over, for validation: see the table above."""

    to_settle: set[Task]
    to_fail: set[Task]
    to_activate: set[Task]
    to_count: set[Task]


class FollowUp:
    """What events have left over.

    Parameters
    ----------
    holding
        Which holder holds which task.
    limit
        How many tasks `run` deals with at once that the event did not touch itself.
    settle
        Releases or forgets a task, if nothing needs it.
    activate
        Begins to work towards the result of a task, if it is needed.
    count
        Counts anew how many results a task waits for.
    fail_for_a_dependency
        Fails a task that depends on one that has erred.
    run_again
        Lets a task run again that has failed, for the loss of a result that is there again or as a client wants it.

    Attributes
    ----------
    to_activate
        The tasks that something active waits for.
    to_count
        The tasks of which a dependency has come to have a result, or has lost it.
    to_fail
        The tasks that depend on something that has erred.
    to_retry
        The tasks that are worth another try, those last that come first.
    chores
        What finds its tasks itself. They are done one after the other.
    is_filling
        Workers have room for more tasks than were sent to them.
    left
        How many tasks are dealt with still in this turn. What takes as long as several counts as several.
    """

    __slots__ = (
        "_activate",
        "_count",
        "_fail_for_a_dependency",
        "_holding",
        "_run_again",
        "_settle",
        "_to_settle",
        "chores",
        "is_filling",
        "left",
        "limit",
        "to_activate",
        "to_count",
        "to_fail",
        "to_retry",
    )

    def __init__(
        self,
        holding: Holding,
        limit: int,
        *,
        settle: Callable[[Task], None],
        activate: Callable[[Task], None],
        count: Callable[[Task], None],
        fail_for_a_dependency: Callable[[Task], None],
        run_again: Callable[[Task], None],
    ) -> None:
        self.limit = self.left = limit
        self._holding = holding
        self._settle = settle
        self._activate = activate
        self._count = count
        self._fail_for_a_dependency = fail_for_a_dependency
        self._run_again = run_again
        self._to_settle: list[Task] = []  # maybe not needed
        self.to_activate: list[Task] = []
        self.to_count: list[Task] = []
        self.to_fail: list[Task] = []
        self.to_retry: list[Task] = []
        self.chores: deque[Chore] = deque()
        self.is_filling = False

    @property
    def has_more(self) -> bool:
        """Whether something is left over."""
        holding = self._holding
        return bool(
            holding.unneeded
            or self._to_settle
            or self.to_fail
            or self.to_retry
            or holding.departed
            or self.chores
            or self.to_activate
            or self.to_count
            or self.is_filling
        )

    @property
    def left_over(self) -> LeftOver:
        """The tasks that are left over: for validation."""
        return LeftOver(set(self._to_settle), set(self.to_fail), set(self.to_activate), set(self.to_count))

    def begin(self, chore: Chore) -> None:
        """Have work done when the event is handled, as much of it as is done at once, and the rest later."""
        self.chores.append(chore)

    def run(self, *, in_between: bool = False) -> None:
        """See to what follows from an event: what it has touched, and a limited number of tasks beyond.

        A task at which this fails is left as it is; the others stay on their lists, and are seen to the next time.

        Parameters
        ----------
        in_between
            Earlier events have left something over, and this one is not the turn of that. So it sees to little of it,
            and does not keep what comes next waiting for longer.
        """
        holding = self._holding
        touched, holding.unneeded = iter(holding.unneeded), self._to_settle
        self.left = self.limit // IN_BETWEEN + 1 if in_between else self.limit
        try:
            if not self.to_activate:  # else something may need them that is not active yet
                for task in touched:
                    self._settle(task)
            while self.left > 0:
                self.left -= 1
                if self.to_activate:
                    self._activate(self.to_activate.pop())
                elif self.to_count:
                    self._count(self.to_count.pop())
                elif self.to_fail:
                    self._fail_for_a_dependency(self.to_fail.pop())
                elif self.to_retry:
                    self._run_again(self.to_retry.pop())
                elif holding.unneeded:
                    self._settle(holding.unneeded.pop())
                elif self.chores:
                    if not self.chores[0].step():
                        self.chores.popleft()
                elif holding.departed:
                    holding.let_go_of_one()
                else:
                    break
        finally:
            holding.unneeded.extend(touched)
            self._to_settle, holding.unneeded = holding.unneeded, []
