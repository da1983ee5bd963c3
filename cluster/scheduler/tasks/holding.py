"""What keeps results: holders take and give up tasks here.

A task that lost its last holder may be needed no more. It is put on a list, which `FollowUp.run` sees to. A
holder that is gone gives up its holds one by one, a limited number of them after each event. The numbers are those of
the invariants in `lifecycle`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from holdfast.cluster.journal import records
from holdfast.cluster.scheduler.tasks.decisions import Decisions
from holdfast.cluster.scheduler.tasks.holders import Client, Contents
from holdfast.cluster.scheduler.tasks.instructions import Instructions, Log
from holdfast.cluster.scheduler.tasks.model import Holder, Task

#: So many objects are looked at, to see whether they contain each other.
MAX_SEARCHED = 10_000


class Holding:
    """Which holder holds which task.

    Parameters
    ----------
    instructions
        Where instructions go.
    decisions
        Takes what is to be in the journal.

    Attributes
    ----------
    contents
        Of the objects that have futures in them, the holders of these.
    unneeded
        The tasks that this event has touched, and that may not be needed any more.
    departed
        The holders that are gone, and still hold something: whoever gives up the last hold of one takes it out.
    """

    __slots__ = ("_decisions", "_instructions", "contents", "departed", "unneeded")

    def __init__(self, instructions: Instructions, decisions: Decisions) -> None:
        self._instructions = instructions
        self._decisions = decisions
        self.contents: dict[Task, Contents] = {}
        self.unneeded: list[Task] = []
        self.departed: list[Holder] = []

    def hold(self, holder: Holder, task: Task) -> None:
        """Keep a task for a holder (6); no error if it is kept already."""
        if holder not in task.holders:
            holder.holds.add(task)
            task.holders += (holder,)
            if self._decisions.is_kept and type(holder) is Client:
                self._decisions.hold(holder.id, task.serial)

    def unhold(self, holder: Holder, task: Task) -> None:
        """Give up a hold (6, 8); no error if there is none."""
        if holder in task.holders:
            holder.holds.remove(task)
            if self._decisions.is_kept:
                if type(holder) is Client:
                    self._decisions.unhold(holder.id, task.serial)
                else:
                    holder.unheld(task)
            if self.departed and not holder.holds and holder in self.departed:
                self.departed.remove(holder)
            self._lose_holder(task, holder)

    def _lose_holder(self, task: Task, holder: Holder) -> None:
        holders = task.holders
        task.holders = () if len(holders) == 1 else tuple([other for other in holders if other is not holder])
        if not task.holders and not task.nwaiters:
            self.unneeded.append(task)

    def let_go(self, holder: Holder) -> None:
        """Give up all holds of a holder that is gone, soon."""
        if holder.holds:
            self.departed.append(holder)

    def let_go_of_one(self) -> None:
        """Give up one hold of a holder that is gone. There must be one."""
        holder = self.departed[-1]
        task = holder.holds.pop()
        if not holder.holds:
            self.departed.pop()
        self._lose_holder(task, holder)

    def is_departed(self, holder: Holder) -> bool:
        """Whether a holder is gone, and its holds are being given up."""
        return holder in self.departed

    def is_held(self, task: Task) -> bool:
        """Whether a holder that isn't gone holds a task."""
        return any(not self.is_departed(holder) for holder in task.holders)

    def contain(self, task: Task, others: Iterable[Task]) -> None:
        """The object of a task contains futures of others: these are kept as long as that one is needed."""
        contents = self.contents.get(task)
        if contents is None:
            contents = self.contents[task] = Contents(task)
        for other in others:
            if other is not task:
                self.hold(contents, other)
        self._note_contents(contents)
        self._warn_of_cycle(task, contents)

    def contain_now(self, task: Task, others: Collection[Task]) -> None:
        """A run of a task has made its object, which contains futures of these, and not what an earlier one did."""
        contents = self.contents.get(task)
        before = [] if contents is None or type(contents) is not Contents else list(contents.holds)
        if others:
            self.contain(task, others)
        elif before:
            self.forget_contents(task)
            return
        if before and contents is not None:
            kept = set(others)
            for other in before:
                if other not in kept:
                    self.unhold(contents, other)
            self._note_contents(contents)

    def forget_contents(self, task: Task) -> None:
        """A task is not needed: what its object contains isn't kept for it any more."""
        contents = self.contents.pop(task, None)
        if contents is not None:
            contents.forgotten()
            self.let_go(contents)
            if type(contents) is Contents:
                self._decisions.note(records.remove_of("contents", task.serial))

    def _warn_of_cycle(self, task: Task, contents: Contents) -> None:
        """Say so in the log if an object contains itself, by way of others. Nothing but a client can free these."""
        seen = dict.fromkeys(contents.holds)
        stack = list(seen)
        while stack and len(seen) <= MAX_SEARCHED:
            other = stack.pop()
            if other is task:
                text = (
                    f"{task.key!r:.200} contains a future of itself, by way of others, so these keep each other when "
                    "nothing else does. Client.memory() shows them then, and Client.cancel of a future of one of "
                    "them, with force=True, frees them"
                )
                self._instructions.put(Log(text))
                return
            inside = self.contents.get(other)
            for each in () if inside is None else inside.holds:
                if each not in seen:
                    seen[each] = None
                    stack.append(each)

    def _is_reached(self, task: Task) -> bool:
        """Whether something keeps a task, or what keeps it, that isn't an object which only objects keep."""
        seen = {task: None}
        stack = [task]
        while stack:
            one = stack.pop()
            if one.nwaiters or len(seen) > MAX_SEARCHED:
                return True
            for holder in one.holders:
                if not isinstance(holder, Contents):
                    if not self.is_departed(holder):
                        return True
                elif holder.task not in seen:
                    seen[holder.task] = None
                    stack.append(holder.task)
        return False

    def _note_contents(self, contents: Contents) -> None:
        if self._decisions.is_kept and type(contents) is Contents:
            inside = [other.serial for other in contents.holds]
            self._decisions.note(records.put_of("contents", contents.task.serial, None, inside))

    def give_up(self, holder: Holder, task: Task, reason: str) -> None:
        """Give up a hold, and tell the holder why, if it hears; nothing happens if there is none."""
        if holder in task.holders and not self.is_departed(holder):
            self.unhold(holder, task)
            if holder.peer:
                self._instructions.cancelled(holder.peer, task.key, reason)

    def free_from_objects(self, task: Task) -> None:
        """Free a task that only objects keep which only keep each other."""
        if task.holders and not self._is_reached(task):
            for holder in task.holders:
                self.unhold(holder, task)
                if isinstance(holder, Contents):
                    self._note_contents(holder)
