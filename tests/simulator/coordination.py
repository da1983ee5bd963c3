"""What the scheduler answers, held against what was asked: locks exclude, queues deliver, answers come once, in time.

It looks at events as the scheduler handles them, and at answers as they leave. The scheduler handles one after the
other, so what is right is known exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from holdfast.cluster.protocol.requests import REQUESTS
from holdfast.cluster.scheduler.parts.inquiries import REPORT_SECONDS
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.instructions import Reply
from tests.simulator.oracle import Wrong

if TYPE_CHECKING:
    from tests.simulator.world import World

#: How many may have a lease of a semaphore at a time, of those that the simulator uses.
MAX_LEASES = 2
#: How late an answer may be, beside what its request says: turns of the loop, and steps of an answer.
SLACK_SECONDS = 0.1
#: How long an answer may take whose request has no limit of its own.
LIMITS = {"status": REPORT_SECONDS, "memory": REPORT_SECONDS, "publish": 5.0}
#: What is done once, and answered alike as often as its client asks.
_DONE_ONCE = {"put", "get", "acquire-locks", "acquire-semaphore", "set-variable", "set-event", "clear-event", "publish"}
_QUIET = {request.operation for request in REQUESTS if request.quiet}
_WAITING = {request.operation for request in REQUESTS if request.waits}


class _Asked(NamedTuple):
    time: float
    operation: str
    arguments: dict[str, Any]


class _Item:
    """An item of a queue: the how-manieth of all it is, and where it is (``state``)."""

    __slots__ = ("delivered", "number", "queue", "state")

    def __init__(self, number: int, queue: str) -> None:
        self.number = number
        self.queue = queue
        self.state = "put"  # then "queued", "handed", "consumed", "gone"
        self.delivered = False


class Coordination:
    """Knows what the scheduler should answer.

    Attributes
    ----------
    open
        The requests that were not answered yet, by client and number.
    answered
        How many were, by operation.
    """

    def __init__(self, world: World) -> None:
        self.open: dict[tuple[str, int], _Asked] = {}
        self.answered: Counter[str] = Counter()
        self._world = world
        self._since = float("-inf")  # when the scheduler has died last
        self._given: dict[tuple[str, int], tuple[_Asked, Reply]] = {}  # successes, by client and number
        self._locks: dict[str, tuple[str, int]] = {}  # the lease that has each
        self._granted: dict[tuple[str, int], list[str]] = {}  # names, by lease
        self._semaphores: Counter[str] = Counter()
        self._semaphore_leases: dict[tuple[str, int], str] = {}
        self._items: dict[int, _Item] = {}
        self._handed: dict[tuple[str, int], list[_Item]] = {}
        self._last: Counter[str] = Counter()  # the highest number that was delivered, by queue
        self._variables: dict[str, bytes | None] = {}
        self._perhaps_deleted: set[Any] = set()  # only asked for membership
        self._set: set[str] = set()
        #: What a name may stand for; True: it does, None: it was unpublished before its publisher had an answer.
        self._published: dict[str, dict[bytes, bool | None]] = {}
        self._before: dict[str, Callable[[str, int, dict[str, Any]], None]] = {
            "release-locks": self._release_locks,
            "release-semaphore": self._release_semaphore,
            "put": self._put,
            "confirm-items": self._confirm,
            "give-up-items": self._give_up,
            "close-queue": self._close_queue,
            "set-variable": self._set_variable,
            "delete-variable": self._delete_variable,
            "set-event": lambda client, number, a: self._set.add(a["name"]),
            "clear-event": lambda client, number, a: self._set.discard(a["name"]),
            "publish": self._publish,
            "unpublish": self._unpublish,
        }
        self._after: dict[str, Callable[[str, _Asked, bool, Any], None]] = {
            "acquire-locks": self._locks_acquired,
            "acquire-semaphore": self._semaphore_acquired,
            "put": self._has_put,
            "get": self._got,
            "get-variable": self._got_variable,
            "wait-for-event": self._waited_for_event,
            "publish": self._has_published,
            "get-dataset": self._got_dataset,
        }

    # -- what the scheduler handles, and answers

    def before(self, event: events.Event) -> None:
        """The scheduler is about to handle an event."""
        if type(event) is events.Requested:
            client, number, operation, arguments = event
            if number and self._world.scheduler.state.is_awaited(client):
                return  # an earlier scheduler was asked this: nothing is done about it until it is posed again
            if (client, number) in self.open:
                return  # it is posed to another scheduler once more
            if (client, number) in self._given:
                self._may_be_done_again(operation, arguments)
                return
            if operation not in _QUIET:
                self.open[client, number] = _Asked(self._world.agenda.now, operation, arguments)
            if before := self._before.get(operation):
                before(client, number, arguments)
        elif type(event) is events.ClientLeft:
            self._client_left(event.client)

    def replied(self, reply: Reply) -> None:
        """An answer leaves the scheduler."""
        if not reply.request:
            return
        asked = self.open.pop((reply.peer, reply.request), None)
        if asked is None and (given := self._given.get((reply.peer, reply.request))) is not None:
            self._is_given_again(*given, reply)
            return
        if asked is None and self._world.scheduler.epoch > 1:
            return  # it was given up meanwhile
        if asked is None:
            raise Wrong(f"request {reply.request} of {reply.peer} is answered twice, or was not asked")
        self.answered[asked.operation] += 1
        took = self._world.agenda.now - asked.time
        limit = asked.arguments.get("timeout")
        if limit is None:
            limit = LIMITS.get(asked.operation, float("inf") if asked.operation in _WAITING else 0.0)
        if asked.time > self._since and took > limit + SLACK_SECONDS:
            raise Wrong(f"the answer to {asked.operation!r} has taken {took:.3f} s instead of {limit:g}")
        if after := self._after.get(asked.operation):
            after(reply.peer, asked, reply.ok, reply.value)
        if self._world.scheduler.dies and reply.ok and reply.value is not False:
            self._given[reply.peer, reply.request] = asked, reply

    def restarted(self) -> None:
        """The scheduler has died."""
        self._since = self._world.agenda.now + 60.0

    def given_up(self, client: str, number: int) -> None:
        """A client does not want an answer any more, and none comes."""
        asked = self.open.pop((client, number), None)
        if asked is not None and asked.operation == "put":
            self._items[int(asked.arguments["data"])].state = "gone"

    def _may_be_done_again(self, operation: str, arguments: dict[str, Any]) -> None:
        """What has changed nothing when it was done first is done once more, and may change something then."""
        name = arguments.get("name")
        if operation == "unpublish":
            known = self._published.get(name, {})
            known.update(dict.fromkeys(known))
        elif operation == "delete-variable":
            self._perhaps_deleted.add(name)
        elif operation == "set-event":
            self._set.add(name)

    def _is_given_again(self, asked: _Asked, first: Reply, reply: Reply) -> None:
        """A reply that was lost is given by another scheduler."""
        before, now = first.value, reply.value
        if asked.operation == "get" and reply.ok:
            before, now = ([(data, tuple(keys)) for data, keys in each["items"]] for each in (before, now))
        if asked.operation in _DONE_ONCE and (not reply.ok or before != now):
            raise Wrong(f"{asked.operation!r} of {reply.peer} was answered {first.value!r}, and then {reply.value!r}")

    def _client_left(self, client: str) -> None:
        for key in [key for key in self._given if key[0] == client]:
            del self._given[key]
        for key in [key for key in self.open if key[0] == client]:
            asked = self.open.pop(key)
            if asked.operation == "put":
                self._items[int(asked.arguments["data"])].state = "gone"
        for lease in [lease for lease in self._granted if lease[0] == client]:
            self._free(lease)
        for lease in [lease for lease in self._semaphore_leases if lease[0] == client]:
            self._semaphores[self._semaphore_leases.pop(lease)] -= 1
        for lease in [lease for lease in self._handed if lease[0] == client]:
            self._return(lease)

    # -- locks and semaphores

    def _locks_acquired(self, client: str, asked: _Asked, ok: bool, value: Any) -> None:
        if not (ok and value):
            return
        lease = client, asked.arguments["lease"]
        names = self._granted[lease] = list(asked.arguments["names"])
        for name in names:
            if name in self._locks:
                raise Wrong(f"{client} gets the lock {name!r}, which {self._locks[name][0]} has")
            self._locks[name] = lease

    def _release_locks(self, client: str, number: int, arguments: dict[str, Any]) -> None:
        self._free((client, arguments["lease"]))

    def _free(self, lease: tuple[str, int]) -> None:
        for name in self._granted.pop(lease, ()):
            del self._locks[name]

    def _semaphore_acquired(self, client: str, asked: _Asked, ok: bool, value: Any) -> None:
        if ok and value:
            name = asked.arguments["name"]
            self._semaphores[name] += 1
            self._semaphore_leases[client, asked.arguments["lease"]] = name
            if self._semaphores[name] > MAX_LEASES:
                raise Wrong(f"there are {self._semaphores[name]} leases of the semaphore {name!r}")

    def _release_semaphore(self, client: str, number: int, arguments: dict[str, Any]) -> None:
        name = self._semaphore_leases.pop((client, arguments["lease"]), None)
        if name is not None:
            self._semaphores[name] -= 1

    # -- queues

    def _put(self, client: str, number: int, arguments: dict[str, Any]) -> None:
        self._items[int(arguments["data"])] = _Item(len(self._items) + 1, arguments["name"])

    def _has_put(self, client: str, asked: _Asked, ok: bool, value: Any) -> None:
        item = self._items[int(asked.arguments["data"])]
        if item.state == "put":
            item.state = "queued" if ok else "gone"
        elif not ok:
            raise Wrong(f"item {item.number} was given to somebody, and its putter is told that there is no room")

    def _got(self, client: str, asked: _Asked, ok: bool, value: Any) -> None:
        if not ok:
            return
        handed = []
        for data, _ in value["items"]:
            item = self._items[int(data)]
            if item.state not in ("put", "queued"):
                raise Wrong(f"item {item.number} of {item.queue!r} is delivered, and is {item.state}")
            if item.queue != asked.arguments["name"]:
                raise Wrong(f"item {item.number} was put into {item.queue!r}")
            if not item.delivered:
                if item.number < self._last[item.queue]:
                    raise Wrong(f"item {item.number} of {item.queue!r} comes after {self._last[item.queue]}")
                self._last[item.queue] = item.number
                item.delivered = True
            item.state = "handed"
            handed.append(item)
        if handed:
            self._handed[client, asked.arguments["lease"]] = handed

    def _confirm(self, client: str, number: int, arguments: dict[str, Any]) -> None:
        for item in self._handed.pop((client, arguments["lease"]), ()):
            item.state = "consumed"

    def _give_up(self, client: str, number: int, arguments: dict[str, Any]) -> None:
        self._return((client, arguments["lease"]))

    def _return(self, lease: tuple[str, int]) -> None:
        for item in self._handed.pop(lease, ()):
            if item.state == "handed":
                item.state = "queued"

    def _close_queue(self, client: str, number: int, arguments: dict[str, Any]) -> None:
        for item in self._items.values():
            if item.queue == arguments["name"] and item.state in ("put", "queued", "handed"):
                item.state = "gone"

    def queued(self, name: str) -> int:
        """How many items are in a queue that nobody waits for."""
        return sum(item.queue == name and item.state == "queued" for item in self._items.values())

    def waits_without_end(self, operation: str, name: str) -> bool:
        """Whether a client waits for something of this name, as long as it takes."""
        return any(
            asked.operation == operation and asked.arguments["name"] == name and asked.arguments["timeout"] is None
            for asked in self.open.values()
        )

    # -- variables and events

    def _set_variable(self, client: str, number: int, arguments: dict[str, Any]) -> None:
        self._variables[arguments["name"]] = bytes(arguments["data"])
        self._perhaps_deleted.discard(arguments["name"])

    def _delete_variable(self, client: str, number: int, arguments: dict[str, Any]) -> None:
        self._variables[arguments["name"]] = None

    def _got_variable(self, client: str, asked: _Asked, ok: bool, value: Any) -> None:
        name = asked.arguments["name"]
        if ok and bytes(value["data"]) != self._variables.get(name):
            raise Wrong(f"the variable {name!r} is {value['data']!r} instead of {self._variables.get(name)!r}")
        if not ok and self._variables.get(name) is not None and name not in self._perhaps_deleted:
            raise Wrong(f"the variable {name!r} has a value, and {client} did not get it: {value}")

    def _waited_for_event(self, client: str, asked: _Asked, ok: bool, value: Any) -> None:
        if ok and value and asked.arguments["name"] not in self._set:
            raise Wrong(f"the event {asked.arguments['name']!r} is not set, and {client} was told that it is")

    # -- datasets

    def _publish(self, client: str, number: int, arguments: dict[str, Any]) -> None:
        for name, data, *_ in arguments["datasets"]:
            self._published.setdefault(name, {})[bytes(data)] = False

    def _has_published(self, client: str, asked: _Asked, ok: bool, value: Any) -> None:
        for name, data, *_ in asked.arguments["datasets"]:
            known = self._published.get(name, {})
            data = bytes(data)
            if not ok:
                known.pop(data, None)
            elif known.get(data) is False:
                known[data] = True
                for earlier in list(known)[: list(known).index(data)]:
                    if known[earlier]:
                        del known[earlier]

    def _unpublish(self, client: str, number: int, arguments: dict[str, Any]) -> None:
        known = self._published.get(arguments["name"], {})
        for data, is_answered in list(known.items()):
            if is_answered:
                del known[data]
            else:
                known[data] = None

    def _got_dataset(self, client: str, asked: _Asked, ok: bool, value: Any) -> None:
        name = asked.arguments["name"]
        known = self._published.get(name, {})
        if ok and bytes(value["data"]) not in known:
            raise Wrong(f"the dataset {name!r} is one that was not published, or was unpublished")
        if not ok and known and all(known.values()):
            raise Wrong(f"the dataset {name!r} is gone: {value}")
