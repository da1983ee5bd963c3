"""Queues between clients: who gets which item, and what becomes of an item whose getter has gone.

An item is bytes that only clients read, and keys, whose tasks it holds. Those that wait to get or to put are served in
the order in which they came. What a client gets is *handed out*: it belongs to the client when the client has confirmed
that. Until then the scheduler keeps the item, and the item holds its tasks.

Items have numbers, in the order in which they have come to queues. What is queued is in the order of these numbers, so
an item that comes back takes the place that it had. That is all that can be said of the order in which clients get
items: one that was handed out and comes back is got after later ones that others got meanwhile.

==============  =================================================  ==================================================
an item is …    what happens                                       what comes of it
==============  =================================================  ==================================================
at the door     there is room, or a getter waits                   queued, or collected
at the door     the putter's time is up, it gives up, or it leaves forgotten
queued          it is the first, and a client gets                 collected
collected       its getter has as many as it wants                 handed out
collected       the getter's time is up, it gives up, or it leaves queued, where it was
handed out      the client confirms                                forgotten: the client holds the tasks itself
handed out      the client gives up, or it leaves                  queued, where it was
any of these    its queue is closed                                forgotten
==============  =================================================  ==================================================

So an item is neither lost nor given to two clients, whenever a client stops waiting. (A client that dies between using
an item and confirming it has used an item that another client gets again.) Nor is it when the scheduler dies:

==========================  ==========================================  ==============================================
when the scheduler dies …   the journal has                             and the next one
==========================  ==========================================  ==============================================
a put is on its way         nothing                                     queues the item when it comes again
an item waits for room      nothing                                     has it wait when it is put again
an item is queued           the item, and the reply of the put          has it queued
an item is collected        the item                                    has it queued
an item is handed out       the item, and whose it is by which lease    gives it to the one that asks by that lease
that was heard              the same: the confirmation is on its way    forgets it when the confirmation comes
that was given up           the same: that is on its way                has it queued when it hears that
that was confirmed          nothing                                     does nothing: nobody asks by that lease again
a get has found nothing     nothing                                     is not asked again, if that was heard
==========================  ==========================================  ==============================================

A queue is kept as long as somebody needs it: while it has items, while clients wait, and, if its size is limited, until
it is closed.

Invariants: (1) getters wait only where nothing is queued; (2) putters wait only where there is no room; (3) a getter
that waits has fewer items than it wants; (4) a queue that nobody needs isn't kept; (5) the sums are right; (6) what is
queued is in the order of its numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from holdfast.cluster.journal.tables import Held
from holdfast.cluster.protocol.limits import MAX_QUEUES
from holdfast.cluster.protocol.requests import (
    CLOSE_QUEUE,
    CONFIRM_ITEMS,
    GET,
    GIVE_UP_ITEMS,
    OPEN_QUEUE,
    PUT,
    PUT_QUIETLY,
    QUEUE_SIZE,
)
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.parts.queue_items import Item, Items
from holdfast.cluster.scheduler.parts.queue_waits import GetWait, Handed, PutWait, Queue, QueueWait
from holdfast.cluster.scheduler.parts.waits import NO_END, Refusal, Wait, WaitOwner
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.model import Holder, Task
from holdfast.cluster.scheduler.tasks.names import Key, Payload


class Queues(Part, WaitOwner):
    """Keeps queues.

    Attributes
    ----------
    queues
        All of them, by name.
    handed
        What is handed out, by client and lease, in the order in which it was.
    """

    name = "queues"
    moves_no_task = True

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self.requests = {
            OPEN_QUEUE: self._open,
            PUT: self._put,
            PUT_QUIETLY: self._put_quietly,
            GET: self._get,
            CONFIRM_ITEMS: self._confirm,
            GIVE_UP_ITEMS: self._give_up,
            QUEUE_SIZE: self._size,
            CLOSE_QUEUE: self._close,
        }
        self.queues: dict[Key, Queue] = {}
        self.handed: dict[str, dict[int, Handed]] = {}
        self._limited = 0  # queues with a limit
        self._waits: dict[tuple[str, int], QueueWait] = {}  # by client and lease
        self._items = Items(self)
        self._unserved: dict[Key, None] = {}  # queues to which items came back while waits were ended

    def holders(self) -> Iterable[Holder]:
        return [item.holder for item in self._all_items() if item.holder is not None]

    def _all_items(self) -> Iterator[Item]:
        """All items that there are."""
        for queue in self.queues.values():
            yield from queue.items
        for wait in self._waits.values():
            yield from wait.items
        for of_client in self.handed.values():
            for handed in of_client.values():
                yield from handed.items

    # -- queues

    def _queue(self, name: Key, maxsize: int = 0) -> Queue:
        """A queue, which may be new."""
        queue = self.queues.get(name)
        if queue is not None and (queue.maxsize == maxsize or not maxsize):
            return queue
        if queue is not None and queue.maxsize:
            text = f"the queue {name!r} has maxsize={queue.maxsize}, and can't have maxsize={maxsize} as well"
            raise Refusal("ValueError", text)
        if maxsize:
            if self._limited >= MAX_QUEUES:
                text = f"there are {MAX_QUEUES:,} queues with a maxsize, and no more may be: close some"
                raise Refusal("RuntimeError", text)
            self._limited += 1
        if queue is None:
            queue = self.queues[name] = Queue(name, maxsize)
        queue.maxsize = maxsize
        if maxsize:
            self.note(("queue", name), maxsize)
        return queue

    def _forget_unneeded(self, queue: Queue) -> None:
        if not queue.is_needed and self.queues.get(queue.name) is queue:
            del self.queues[queue.name]

    def _open(self, client: Client, request: int, name: Key, maxsize: int) -> None:
        self._forget_unneeded(self._queue(name, maxsize))
        self.answer(client, request, None)

    def _size(self, client: Client, request: int, name: Key) -> None:
        queue = self.queues.get(name)
        self.answer(client, request, 0 if queue is None else len(queue.items))

    def _close(self, client: Client, request: int, name: Key) -> None:
        for client_id, of_client in self.handed.items():
            for lease, handed in of_client.items():
                if handed.queue == name:
                    handed.queue = None
                    self._note_handed(client_id, lease, handed)
        queue = self.queues.pop(name, None)
        if queue is not None:
            if queue.maxsize:
                self._limited -= 1
                self.note_gone(("queue", name))
            for item in queue.items:
                self._items.forget(item)
            queue.items.clear()
            for wait in (*queue.getters, *queue.putters):
                for item in wait.items:
                    self._items.forget(item)
                wait.items = []
                self.shared.waits.refuse(wait, "RuntimeError", f"the queue {name!r} was closed")
        self.answer(client, request, None)

    # -- putting

    def _put(
        self,
        client: Client,
        request: int,
        name: Key,
        data: Payload,
        keys: Sequence[Key],
        lease: int,
        maxsize: int = 0,
        timeout: float | None = None,
    ) -> None:
        item = Item(data, keys)
        self._items.demand_room(item)
        queue = self._queue(name, maxsize)
        if queue.has_room:
            self._items.admit(item, name)
            self._enqueue(queue, item)
            self.answer(client, request, queue.maxsize)
        elif timeout is not None and timeout <= 0:
            raise Refusal("TimeoutError", f"the queue {name!r} is full: maxsize={queue.maxsize}")
        else:
            self._demand_wait(client.id, lease)
            self._items.admit(item, name)
            wait = PutWait(self, client.id, request, self._due(timeout), queue, lease, [item])
            self._begin(wait)
            queue.putters[wait] = None

    def _put_quietly(self, client: Client, request: int, name: Key, data: Payload, keys: Sequence[Key]) -> None:
        item = Item(data, keys)
        self._items.demand_room(item)
        self._items.admit(item, name)
        self._enqueue(self._queue(name), item)

    def _enqueue(self, queue: Queue, item: Item) -> None:
        """Give an item to the first getter, or queue it."""
        self._items.entered(item, queue.name)
        queue.items.append(item)
        if queue.getters:
            self._serve(queue)

    # -- getting

    def _get(
        self,
        client: Client,
        request: int,
        name: Key,
        lease: int,
        count: int = 1,
        at_once: bool = False,
        maxsize: int = 0,
        timeout: float | None = None,
    ) -> None:
        handed = self.handed.get(client.id, {}).get(lease)
        if handed is not None:
            if not handed.is_recovered:
                raise Refusal("ProtocolError", f"this client was given items as {lease} already")
            at = None if handed.queue is None else self.queues.get(handed.queue)
            self.answer(client, request, _given(handed.items, at))
            return
        waits = not at_once and (timeout is None or timeout > 0)
        if waits:
            self._demand_wait(client.id, lease)
        queue = self._queue(name, maxsize)
        wait = GetWait(self, client.id, request, self._due(timeout), queue, lease, [], count)
        self._collect(queue, wait)
        if wait.is_over or at_once:
            self._hand_out(wait)
            self.answer(client, request, _given(wait.items, queue))
            self._forget_unneeded(queue)
        elif waits:
            self._begin(wait)
            queue.getters[wait] = None
        else:
            self._put_back(queue, wait.items)
            self._forget_unneeded(queue)
            raise Refusal("TimeoutError", f"the queue {name!r} has fewer items than were asked for")

    def _collect(self, queue: Queue, wait: GetWait) -> None:
        """Give a getter what it wants, as far as it is there; let items in for which there is room then."""
        items = queue.items
        while items and not wait.is_over:
            item = items.popleft()
            wait.items.append(item)
            wait.nbytes += item.nbytes
            if queue.putters:
                self._let_in(queue)

    def _let_in(self, queue: Queue) -> None:
        while queue.putters and queue.has_room:
            wait = next(iter(queue.putters))
            for item in wait.items:
                self._items.entered(item, queue.name)
            queue.items.extend(wait.items)
            wait.items = []
            self.shared.waits.answer(wait, queue.maxsize)

    def _serve(self, queue: Queue) -> None:
        """Let those go on that wait for items, as far as there are some."""
        while queue.getters and queue.items:
            wait = next(iter(queue.getters))
            self._collect(queue, wait)
            if not wait.is_over:
                return
            self._hand_out(wait)
            self.shared.waits.answer(wait, _given(wait.items, queue))
        self._forget_unneeded(queue)

    def _hand_out(self, wait: GetWait) -> None:
        if wait.items:
            wait.items.sort(key=_number)  # some may have come back while it waited for more
            handed = self.handed.setdefault(wait.client, {})[wait.lease] = Handed(wait.queue.name, wait.items)
            self._note_handed(wait.client, wait.lease, handed)
            self.shared.replies.leave_out(wait.client, wait.request)

    def _note_handed(self, client: str, lease: int, handed: Handed) -> None:
        self.note(("handed", client, lease), (handed.queue, [item.number for item in handed.items]))

    def _put_back(self, queue: Queue, items: list[Item]) -> None:
        """Items take the places in a queue again that they had."""
        queued, last = queue.items, max((item.number for item in items), default=0)
        before = []
        while queued and queued[0].number < last:  # which came back already
            before.append(queued.popleft())
        queued.extendleft(sorted([*before, *items], key=_number, reverse=True))

    # -- leases

    def _demand_wait(self, client: str, lease: int) -> None:
        self.shared.waits.demand_room(client)
        if (client, lease) in self._waits:
            raise Refusal("ProtocolError", f"this client waits for a queue as {lease} already")

    def _due(self, timeout: float | None) -> float:
        return NO_END if timeout is None else self.shared.now + timeout

    def _begin(self, wait: QueueWait) -> None:
        wait.began = self.shared.now
        self._waits[wait.client, wait.lease] = wait
        self.shared.waits.begin(wait)

    def _take_handed(self, client: str, lease: int) -> Handed | None:
        of_client = self.handed.get(client)
        handed = None if of_client is None else of_client.pop(lease, None)
        if of_client is not None and not of_client:
            del self.handed[client]
        if handed is not None:
            self.note_gone(("handed", client, lease))
        return handed

    def _confirm(self, client: Client, request: int, lease: int) -> None:
        handed = self._take_handed(client.id, lease)
        if handed is not None:
            for item in handed.items:
                self._items.forget(item)

    def _give_up(self, client: Client, request: int, lease: int) -> None:
        wait = self._waits.get((client.id, lease))
        if wait is not None:
            self.expired(wait)  # an answer that nobody reads
        handed = self._take_handed(client.id, lease)
        if handed is not None:
            self._return(handed)

    def _return(self, handed: Handed) -> None:
        """Items that were handed out are given back."""
        if handed.queue is None:
            for item in handed.items:
                self._items.forget(item)
        elif handed.items:
            queue = self._queue(handed.queue)
            self._put_back(queue, handed.items)
            self._serve(queue)

    def client_left(self, client: Client) -> None:
        for lease in reversed(self.handed.get(client.id, {}).copy()):
            handed = self._take_handed(client.id, lease)
            assert handed is not None
            self._return(handed)

    # -- waits

    def expired(self, wait: Wait) -> None:
        assert isinstance(wait, QueueWait)
        queue, seconds = wait.queue, self.shared.now - wait.began
        if isinstance(wait, PutWait):
            text = f"the queue {queue.name!r} has been full for {seconds:.3g} s: maxsize={queue.maxsize}"
        else:
            text = f"the queue {queue.name!r} had fewer items than were asked for, for {seconds:.3g} s"
        self.shared.waits.refuse(wait, "TimeoutError", text)

    def forget(self, wait: Wait) -> None:
        assert isinstance(wait, QueueWait)
        queue = wait.queue
        del self._waits[wait.client, wait.lease]
        items = wait.items
        if isinstance(wait, PutWait):
            del queue.putters[wait]
            for item in items:
                self._items.forget(item)
        else:
            assert isinstance(wait, GetWait)
            del queue.getters[wait]
            handed = self.handed.get(wait.client, {}).get(wait.lease)
            if items and (handed is None or handed.items is not items):
                self._put_back(queue, items)
        wait.items = []
        if queue.items or not queue.is_needed:
            # Not now: others of the same client may be about to end, which are not to be served.
            self._unserved[queue.name] = None
            self.ask_to_follow_up()

    def follow_up(self) -> None:
        while self._unserved:
            queue = self.queues.get(next(iter(self._unserved)))
            if queue is not None:
                self._let_in(queue)
                self._serve(queue)
                self._forget_unneeded(queue)
            del self._unserved[next(iter(self._unserved))]

    # -- the rest

    def recover(self, entries: Mapping[Any, Held], tasks: Mapping[int, Task]) -> None:
        items: dict[int, tuple[Key, Item]] = {}
        for (kind, *key), entry in entries.items():
            if kind == "queue":
                (name,) = key
                self._limited += 1
                self.queues[name] = Queue(name, entry.value)
            elif kind == "item":
                (number,) = key
                queue, data, keys = entry.value
                held = [tasks[serial] for serial in entry.holds]
                items[number] = queue, self._items.recover(number, queue, data, keys, held)
        for (kind, *key), entry in entries.items():
            if kind == "handed":
                client, lease = key
                name, numbers = entry.value
                handed = Handed(name, [items.pop(number)[1] for number in numbers])
                handed.is_recovered = True
                self.handed.setdefault(client, {})[lease] = handed
        for _, (name, item) in sorted(items.items()):
            self._queue(name).items.append(item)

    def check(self) -> None:
        assert not self._unserved
        for name, queue in self.queues.items():
            assert queue.name == name
            assert queue.is_needed, "4"
            numbers = [item.number for item in queue.items]
            assert numbers == sorted(set(numbers)), "6"
            assert not (queue.getters and queue.items), "1"
            assert not (queue.putters and queue.has_room), "2"
            for wait in (*queue.getters, *queue.putters):
                assert wait.queue is queue
                assert self._waits[wait.client, wait.lease] is wait
            assert all(not wait.is_over for wait in queue.getters), "3"
            assert all(len(wait.items) == 1 for wait in queue.putters)
        assert set(self._waits.values()) == {wait for wait in self.shared.waits if wait.part is self}
        assert len(self._waits) == sum(len(each.getters) + len(each.putters) for each in self.queues.values())
        self._items.check(list(self._all_items()))  # 5
        assert self._limited == sum(queue.maxsize > 0 for queue in self.queues.values()), "5"
        for client, of_client in self.handed.items():
            assert of_client
            assert client in self.shared.clients, f"{client} has left, and still has items"


def _number(item: Item) -> int:
    return item.number


def _given(items: Sequence[Item], queue: Queue | None) -> dict[str, Any]:
    return {"items": [(item.data, item.keys) for item in items], "left": 0 if queue is None else len(queue.items)}
