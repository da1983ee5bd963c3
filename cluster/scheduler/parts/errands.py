"""Errands: what clients, and other parts, have workers, nodes and the assistant do beside all else.

Each errand that is under way has a number, under which it was sent to one worker or node. Its outcome goes to its
*commission*, which is a client's request (`ErrandWait`) or something of another part. It is one of these:

====================================  ================================================================================
`errand-done`                         the value, or the error
`errand-stored`                       a key of the client's that stands for the object: the client holds it from then on
its worker or node leaves             an error
its worker makes room for another     one that was not sent yet is *held* until the other one has come (`successors`),
                                      and goes to that. One about plugins is sent, and done if its worker leaves: the
                                      other one gets the plugins that there are (`plugins`)
the commission is not kept up         none: what comes is dropped, and an object deleted
====================================  ================================================================================

A user's function (`RUN`) is held as well while its worker sets up its plugins, which the function may use.

A client hears of each outcome as soon as it is there, in a fragment of the reply. So nothing that somebody answers is
kept here, however many answer.

When another scheduler takes the place of this one, a client asks again, and keeps what it has heard. What only looks is
done once more. A user's function is not called again: of each call of which the client has not heard, nobody knows
whether it has begun, and the client gets an error that says so.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.protocol.errands import (
    ASSISTANT,
    ERRANDS,
    RUN,
    RUN_ON_NANNY,
    RUN_ON_SCHEDULER,
    SET_UP_NANNY_PLUGINS,
    SET_UP_PLUGINS,
    TAKE_DOWN_NANNY_PLUGIN,
    TAKE_DOWN_PLUGIN,
    Errand,
)
from holdfast.cluster.protocol.limits import MAX_REASON_LENGTH
from holdfast.cluster.protocol.requests import ERRAND
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.parts.successors import Successors
from holdfast.cluster.scheduler.parts.waits import Refusal, Wait, WaitOwner
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.instructions import DeleteObjects, SendErrand, TellOutcome
from holdfast.cluster.scheduler.tasks.model import Host, Worker
from holdfast.cluster.scheduler.tasks.names import ObjectId
from holdfast.cluster.scheduler.tasks.wording import some

#: So many errands may be under way to one worker or node; its arguments are kept until it has read them.
MAX_OF_ONE = 1_000
#: And so many in all.
MAX_UNDER_WAY = 100_000
#: Longer is for ever.
LONGEST_SECONDS = 1e8

#: What calls a function of a user, which is not to be called twice.
CALLS = (RUN, RUN_ON_SCHEDULER, RUN_ON_NANNY)

#: What workers and hosts need not do that were told to end, or workers that make room for others, which do it at their
#: start.
INHERITED = (SET_UP_PLUGINS, TAKE_DOWN_PLUGIN, SET_UP_NANNY_PLUGINS, TAKE_DOWN_NANNY_PLUGIN)

_BY_NAME = {errand.operation: errand for errand in ERRANDS}
#: ``{"value": …}``, ``{"key": …}`` or ``{"error": [name, text]}``: see `requests.ERRAND`.
Outcome = dict[str, Any]


class Commission(abc.ABC):
    """What has errands done: it hears of each outcome.

    Attributes
    ----------
    under_way
        The errands that have no outcome yet: where each was sent, by number.
    """

    __slots__ = ()

    under_way: dict[int, str]

    @property
    @abc.abstractmethod
    def holder(self) -> Client | None:
        """The client that is to hold an outcome that is an object; None: no outcome may be one."""

    @abc.abstractmethod
    def came(self, address: str, outcome: Outcome) -> None:
        """One errand has come to this. It is no longer under way."""


class Reporting(Commission):
    """Errands of a part, none of which may come to an object.

    Parameters
    ----------
    came
        ``came(address, outcome)`` is called when one of them has come to something.
    """

    __slots__ = ("_came", "under_way")

    holder = None

    def __init__(self, came: Callable[[str, Outcome], None]) -> None:
        self._came = came
        self.under_way: dict[int, str] = {}

    def came(self, address: str, outcome: Outcome) -> None:
        self._came(address, outcome)


class _Sent(NamedTuple):
    """An errand under way."""

    address: str
    errand: Errand
    commission: Commission


class ErrandWait(Wait, Commission):
    """A client that waits for errands."""

    __slots__ = ("_errands", "operation", "seconds", "under_way")

    kind: ClassVar[str] = "errand"

    def __init__(
        self, part: Errands, client: str, request: int, due: float, operation: str, seconds: float | None
    ) -> None:
        super().__init__(part, client, request, due)
        self._errands = part
        self.operation = operation
        self.seconds = seconds
        self.under_way: dict[int, str] = {}

    @property
    def holder(self) -> Client | None:
        return self._errands.shared.clients[self.client]

    def came(self, address: str, outcome: Outcome) -> None:
        self._errands.came(self, address, outcome)

    def describe(self) -> str:
        return f"'{self.operation}', from {some(self.under_way.values())}"


class Errands(Part, WaitOwner):
    """Sends errands, and passes on what they come to.

    Parameters
    ----------
    shared
        What all parts work with.
    successors
        Knows which workers make room for others.
    """

    name = "errands"

    def __init__(self, shared: Shared, successors: Successors) -> None:
        super().__init__(shared)
        self.requests = {ERRAND: self._asked}
        self._successors = successors
        successors.on_settled = self._settled
        self.events = {
            events.ErrandDone: self._done,
            events.ErrandStored: self._stored,
            events.AssistantLeft: self._assistant_left,
        }
        #: Called when the process beside the scheduler is gone, after its errands have come to an error.
        self.on_assistant_left: Callable[[], None] = _nothing
        self._numbers = itertools.count(1)
        self._sent: dict[int, _Sent] = {}
        self._of: dict[str, dict[int, None]] = {}  # the numbers by address
        self._held: dict[str, dict[int, Mapping[str, Any]]] = {}  # of those that are not sent yet, the arguments
        self._waits: dict[ErrandWait, None] = {}

    def number_from(self, number: int) -> None:
        """Errands have higher numbers than this from now on."""
        self._numbers = itertools.count(number + 1)

    # -- for clients

    def _asked(
        self,
        client: Client,
        request: int,
        operation: str,
        arguments: Mapping[str, Any],
        names: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> None:
        errand = _BY_NAME.get(operation)
        if errand is None:
            raise Refusal("ValueError", f"nobody does an errand {operation!r:.80}; there are {some(_BY_NAME, 20)}")
        try:
            errand.arguments.check(arguments, operation)
        except ProtocolError as error:
            raise Refusal("ProtocolError", str(error)) from None
        if self.shared.replies.has_begun(client.id, request):
            for address in self.shared.replies.begun_about(client.id, request):
                self.shared.instructions.put(TellOutcome(client.id, request, address, _unknown(address)))
            self.shared.replies.leave_out(client.id, request)  # the outcomes went before it
            self.answer(client, request, {})
            return
        addresses = self.addresses(errand, names)
        self.demand_room_for(client, len(addresses))
        if errand in CALLS:
            self.shared.replies.begin(client.id, request, addresses)
        self.begin(client, request, errand, arguments, addresses, timeout)

    def begin(
        self,
        client: Client,
        request: int,
        errand: Errand,
        arguments: Mapping[str, Any],
        addresses: Iterable[str],
        timeout: float | None = None,
    ) -> None:
        """Have an errand done for a client, for which there is room; what comes back is the answer to its request."""
        seconds = LONGEST_SECONDS if timeout is None else min(float(timeout), LONGEST_SECONDS)
        wait = ErrandWait(self, client.id, request, self.shared.now + seconds, errand.operation, timeout)
        self._waits[wait] = None
        self.shared.waits.begin(wait)
        for address, outcome in self.send(wait, errand, arguments, addresses).items():
            self._tell(wait, address, outcome)
        self._conclude_if_over(wait)

    def addresses(self, errand: Errand, names: Sequence[str] | None) -> list[str]:
        """The workers or nodes that are to do an errand. A nanny has the address of its node.

        Parameters
        ----------
        errand
            What they are to do.
        names
            Of workers, nodes or hosts (`naming`). None: all, but no worker that is being closed. Of those that make
            room for others, a user's function means the others too, and what looks at workers means none.

        Raises
        ------
        Refusal
            A name is none of these.
        """
        if errand.by == "assistant":
            return [ASSISTANT]  # which is started when there is something to do
        if errand.by == "worker" and names is None:
            return self._all_workers(errand)
        there = self._named_workers() if errand.by == "worker" else self._named_hosts()
        if names is None:
            return list(there)
        wanted = set(names)
        if unknown := [name for name in names if not any(name in known for known in there.values())]:
            known = some(there, 20) if there else "none"
            raise Refusal("ValueError", f"no {errand.by} is called {some(map(repr, unknown))}; there are: {known}")
        return [address for address, known in there.items() if not wanted.isdisjoint(known)]

    def _all_workers(self, errand: Errand) -> list[str]:
        if errand is RUN:
            return [worker.address for worker in self._successors.there if worker.ending != "closed"]
        workers = [worker for worker in self.shared.workers.values() if worker.ending != "closed"]
        if errand in INHERITED:
            return [worker.address for worker in workers]
        return [worker.address for worker in workers if not self._successors.is_awaited(worker.address)]

    def _named_workers(self) -> dict[str, frozenset[str]]:
        return {worker.address: worker.names for worker in self._successors.there}

    def _named_hosts(self) -> dict[str, frozenset[str]]:
        return {host.address: host.names_with_workers for host in self.shared.hosts.values()}

    def came(self, wait: ErrandWait, address: str, outcome: Outcome) -> None:
        """One outcome of what a client waits for is there."""
        self._tell(wait, address, outcome)
        self._conclude_if_over(wait)

    def _tell(self, wait: ErrandWait, address: str, outcome: Outcome) -> None:
        self.shared.instructions.put(TellOutcome(wait.client, wait.request, address, outcome))

    def _conclude_if_over(self, wait: ErrandWait) -> None:
        if not wait.under_way:
            self._answer(wait)

    def _answer(self, wait: ErrandWait) -> None:
        self.shared.replies.leave_out(wait.client, wait.request)  # the outcomes went before it
        self.shared.waits.answer(wait, {})

    def expired(self, wait: Wait) -> None:
        assert isinstance(wait, ErrandWait)
        seconds = LONGEST_SECONDS if wait.seconds is None else wait.seconds
        self._fail(wait, "TimeoutError", f"{wait.operation!r} has not ended after {seconds:g} s")

    def _fail(self, wait: ErrandWait, error: str, text: str) -> None:
        """What a client still waits for has come to this."""
        late = list(wait.under_way.values())
        self.drop(wait)
        for address in late:
            self._tell(wait, address, _error(error, f"{address}: {text}"))
        self._answer(wait)

    def forget(self, wait: Wait) -> None:
        assert isinstance(wait, ErrandWait)
        del self._waits[wait]
        self.drop(wait)

    # -- for other parts as well

    def demand_room_for(self, client: Client, count: int) -> None:
        """To be called before anything is done for a client.

        Raises
        ------
        Refusal
            So many errands more would be too many.
        """
        self.shared.waits.demand_room(client.id)
        if len(self._sent) + count > MAX_UNDER_WAY:
            text = f"{len(self._sent):,} errands are under way, and there may be {MAX_UNDER_WAY:,}: ask again later"
            raise Refusal("RuntimeError", text)

    def send(
        self, commission: Commission, errand: Errand, arguments: Mapping[str, Any], addresses: Iterable[str]
    ) -> dict[str, Outcome]:
        """Send an errand to each of these. Returns what it has come to at those that have too much to do already."""
        refused = {}
        for address in addresses:
            numbers = self._of.setdefault(address, {})
            if len(numbers) >= MAX_OF_ONE:
                refused[address] = _error("RuntimeError", f"{address} has {MAX_OF_ONE:,} errands to do already")
                continue
            number = next(self._numbers)
            numbers[number] = None
            self._sent[number] = _Sent(address, errand, commission)
            commission.under_way[number] = address
            if self._is_held_up(address, errand):
                self._held.setdefault(address, {})[number] = arguments
            else:
                self.shared.instructions.put(SendErrand(address, number, errand.operation, arguments))
        return refused

    def _is_held_up(self, address: str, errand: Errand) -> bool:
        if errand in INHERITED:
            return False
        if self._successors.is_awaited(address):
            self._successors.wait_for(address)
            return True
        worker = self.shared.workers.get(address)
        return errand is RUN and worker is not None and worker.preparing

    def release(self, address: str) -> None:
        """Send what was held for a worker, as far as nothing holds it up any more."""
        for number, arguments in list(self._held.get(address, {}).items()):
            errand = self._sent[number].errand
            if not self._is_held_up(address, errand):
                self._release(address, number)
                self.shared.instructions.put(SendErrand(address, number, errand.operation, arguments))

    def _release(self, address: str, number: int) -> None:
        held = self._held.get(address, {})
        if held.pop(number, None) is not None and not held:
            del self._held[address]

    def _settled(self, address: str, reason: str | None) -> None:
        """No successor is awaited at an address any more."""
        if reason is None:
            self.ask_to_follow_up()  # parts that are told later may have a worker prepare itself
        else:
            for number in list(self._held.get(address, ())):
                if number in self._sent:
                    self._take(number).commission.came(address, _error("ConnectError", reason))

    def follow_up(self) -> None:
        for address in list(self._held):
            self.release(address)

    def drop(self, commission: Commission) -> None:
        """A commission is not kept up: it hears of no outcome any more."""
        for number in list(commission.under_way):
            if number in self._sent:
                self._take(number)
        commission.under_way.clear()

    def _take(self, number: int) -> _Sent:
        """An errand is no longer under way."""
        sent = self._sent.pop(number)
        del sent.commission.under_way[number]
        self._release(sent.address, number)
        numbers = self._of[sent.address]
        del numbers[number]
        if not numbers:
            del self._of[sent.address]
        return sent

    def _expected(self, peer: str, number: int) -> _Sent | None:
        """The errand that a peer answers; None if the answer comes too late."""
        sent = self._sent.get(number)
        return None if sent is None or sent.address != peer else sent

    # -- what comes back

    def _done(self, event: events.ErrandDone) -> None:
        sent = self._expected(event.peer, event.number)
        if sent is None:
            return
        if event.ok:
            sent.errand.answer.check(event.value, sent.errand.operation)
            outcome: Outcome = {"value": event.value}
        else:
            outcome = _error(*_error_said(event.value))
        self._take(event.number)
        sent.commission.came(sent.address, outcome)

    def _stored(self, event: events.ErrandStored) -> None:
        sent = self._expected(event.peer, event.number)
        worker = self.shared.workers.get(event.peer)
        host = self.shared.hosts.get(event.peer) if worker is None else worker.host
        if host is None:
            return
        holder = None if sent is None else sent.commission.holder
        if sent is None or holder is None:
            self.shared.instructions.add(DeleteObjects, host.address, event.object_id)
            return
        key = self._hold(holder, host, event.object_id, event.nbytes, event.type)
        self._take(event.number)
        sent.commission.came(sent.address, {"key": key})

    def _hold(self, client: Client, host: Host, object_id: ObjectId, nbytes: int, type_name: str) -> str:
        """Have a client hold an object, as if it had brought that itself; the key of it."""
        life = self.shared.life
        key = f"{type_name}-errand-{object_id.hex()}"
        if life.results.get(object_id) is not None or key in life.generations.tasks:
            raise ProtocolError("errand-stored.object_id is that of a key already")
        task = life.create(key, None, client.origin())
        life.holding.hold(client, task)
        life.restore(task, host, object_id, nbytes, None, type_name)
        life.brought(task, object_id, nbytes, type_name, None)
        return key

    # -- who leaves

    def worker_left(self, worker: Worker) -> None:
        text = f"the worker {worker.name} at {worker.address} left before it had answered"
        self._left(worker.address, text, was_told=worker.ending is not None)

    def host_left(self, host: Host) -> None:
        name = host.description.get("hostname") or host.address
        text = f"the host {name} at {host.address} left before it had answered"
        self._left(host.address, text, was_told=host.leaving)

    def _assistant_left(self, event: events.AssistantLeft) -> None:
        self._left(ASSISTANT, event.reason)
        self.on_assistant_left()

    def _left(self, address: str, text: str, was_told: bool = False) -> None:
        is_awaited = self._successors.is_awaited(address)
        held = self._held.get(address, ())
        for number in [number for number in self._of.get(address, ()) if not (is_awaited and number in held)]:
            if number in self._sent:
                sent = self._take(number)
                need_not = (is_awaited or was_told) and sent.errand in INHERITED
                sent.commission.came(address, _DONE if need_not else _error("ConnectError", text))

    def check(self) -> None:
        assert set(self._waits) == {wait for wait in self.shared.waits if isinstance(wait, ErrandWait)}
        for wait in self._waits:
            assert wait.under_way, f"{wait!r} waits for nothing"
        assert sum(map(len, self._of.values())) == len(self._sent) <= MAX_UNDER_WAY
        for number, sent in self._sent.items():
            assert number in self._of[sent.address]
            assert sent.commission.under_way[number] == sent.address
            there = {ASSISTANT, *self.shared.workers, *self.shared.hosts, *self._successors.left}
            assert sent.address in there, f"an errand is under way to {sent.address}, which has left"
        for address, held in self._held.items():
            assert held
            for number in held:
                sent = self._sent[number]
                assert sent.address == address
                assert self._is_held_up(address, sent.errand), f"{sent.errand.operation!r} would never be sent"


#: What an errand comes to about plugins that need not be done.
_DONE: Outcome = {"value": {"failed": ()}}


def _nothing() -> None:
    pass


def _error(name: str, text: str) -> Outcome:
    return {"error": [name, text[:MAX_REASON_LENGTH]]}


def _unknown(address: str) -> Outcome:
    """What an errand has come to that an earlier scheduler has sent, or was about to send."""
    return _error(
        "ConnectError",
        f"{address}: the scheduler was started again before it had passed on what the function has come to there. "
        "The function may have been called, so it is not called again. If it may be called twice, call it once more",
    )


def _error_said(value: Any) -> tuple[str, str]:
    """The name and the text of an error that a peer has said."""
    if type(value) is not tuple or [type(word) for word in value] != [str, str]:
        raise ProtocolError("errand-done.value: the name and the text of an error expected")
    return value[0][:MAX_REASON_LENGTH], value[1]
