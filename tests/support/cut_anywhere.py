"""Clients and schedulers that die: everything that happens between them is a step, and the world may be cut at each.

A client runs a program: a generator that yields what it asks (`Ask`) or tells (`Tell`), and is sent the answers. What a
client says travels in frames of one message each, which it keeps until it knows that they are safe; what the scheduler
says travels in a line of its own. A scheduler is a `CheckedState` whose decisions are written down, with how far each
client was heard, as `holdfast.cluster.scheduler.io.progress` has it.

A `Cut` ends the scheduler at a step. Another one takes its place: it begins with what is written down, those that live
come back to it, and each client sends again what is not safe, says that it is back, and poses again what it waits for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from holdfast.cluster.journal import batches
from holdfast.cluster.journal.tables import Tables
from holdfast.cluster.protocol import requests
from holdfast.cluster.protocol.answers import merged
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.machine.validation import CheckedState
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks import instructions as to_do
from holdfast.cluster.scheduler.tasks.decisions import Decisions

HOST = "tcp://host:1"
QUIET = {request.operation for request in requests.REQUESTS if request.quiet}
LIGHT = {request.operation for request in SchedulerState().light_requests}
#: No program takes so many steps.
MOST_STEPS = 3_000


class Ask(NamedTuple):
    """A request. The program goes on with whether it was granted, and the value or the error."""

    asked: tuple[str, dict[str, Any]]


class Tell(NamedTuple):
    """A request without an answer."""

    asked: tuple[str, dict[str, Any]]


Program: TypeAlias = Generator[Ask | Tell, Any, None]


class Cut(NamedTuple):
    """The scheduler ends.

    Attributes
    ----------
    step
        At this step of the world.
    when
        "before" it; or if the scheduler handles something in that step: "unwritten", when that has changed the
        scheduler and nothing else, or "unsaid", when it is written and nothing that follows has left.
    """

    step: int
    when: str


class World:
    """All of it.

    Parameters
    ----------
    programs
        What the clients do, by name.
    cuts
        When a scheduler ends; in the order of their steps.
    says_what_is_safe
        Whether clients are told at once which of their frames are safe, or never.
    delivers
        Whether what a scheduler has said arrives though it dies.
    workers
        How many workers there are, on one host.

    Attributes
    ----------
    steps
        How many there were.
    handles
        Those in which the scheduler has handled something.
    errands
        What was sent to workers: the operation, whom, and a mark of the arguments.
    """

    def __init__(
        self,
        programs: Mapping[str, Callable[[], Program]],
        cuts: Sequence[Cut] = (),
        *,
        says_what_is_safe: bool = False,
        delivers: bool = False,
        workers: int = 0,
    ) -> None:
        self.now = 0.0
        self._workers = [f"{HOST}/{number}" for number in range(1, workers + 1)]
        self.steps = 0
        self.handles: list[int] = []
        self.deaths = 0
        self.errands: list[to_do.SendErrand] = []
        self._cuts = deque(cuts)
        self.says_what_is_safe = says_what_is_safe
        self._delivers = delivers
        self._tables = Tables()
        self._epoch = 1
        self._undone: deque[to_do.SendErrand] = deque()
        self.state = self._made()
        for event in self._workers_come():
            self._write(self.state.handle(event, 0.0))
        self.clients = {name: _Client(name, program()) for name, program in programs.items()}
        for name in programs:
            self._write(self.state.handle(events.ClientJoined(name, name), 0.0))

    def _made(self) -> CheckedState:
        return CheckedState(decisions=Decisions(True), patience_seconds=0.0)

    def _workers_come(self) -> Iterator[events.Event]:
        if self._workers:
            yield events.HostJoined(HOST, _HOST)
            yield events.HostReady(HOST)
        for number, worker in enumerate(self._workers, 1):
            yield events.WorkerJoined(worker, worker, HOST, 1, {}, number)
            if self._epoch > 1:
                yield events.RunsKept(worker, (), ())

    # -- steps

    def run(self) -> World:
        """Go on until all programs are at their ends, and all that was said is heard."""
        while any(not client.is_done for client in self.clients.values()) or self._has_more():
            before = self.steps
            for client in list(self.clients.values()):
                if client.may_go_on:
                    self._step(client.go_on)
                if client.unheard:
                    self._step(lambda client=client: self._hear(client), handles=True)
                if client.line:
                    self._step(lambda client=client: client.hear(client.line.popleft()))
            if self._undone:
                self._step(self._do_errand, handles=True)
            due = self.state.next_deadline
            if due is not None and (due <= self.now or self.steps == before):
                self.now = max(self.now, due)
                self._step(lambda: self._handle(events.TimePassed()), handles=True)
            assert self.steps != before, f"nothing goes on: {[c for c in self.clients.values() if not c.is_done]}"
            assert self.steps < MOST_STEPS
        return self

    def _has_more(self) -> bool:
        return bool(self._undone or any(client.unheard or client.line for client in self.clients.values()))

    def _step(self, step: Callable[[], None], *, handles: bool = False) -> None:
        self.steps += 1
        self._unfinished = ""
        if self._cuts and self._cuts[0].step == self.steps:
            when = self._cuts.popleft().when
            if when == "before":
                self._die()
                return  # whatever it was, it is done later, or not at all
            assert handles
            self._unfinished = when
        if handles:
            self.handles.append(self.steps)
        step()
        if self._unfinished:
            self._die()

    def _hear(self, client: _Client) -> None:
        event = client.unheard.popleft()
        client.heard += 1
        if isinstance(event, _Rejoined):
            if event.epoch != self._epoch:
                return  # it was said to a scheduler that has died
            event = events.ClientRejoined(client.name, ())
        self.state.decisions.heard = client.name, (b"line", client.heard, 0)
        self._handle(event)
        if self.says_what_is_safe and not self._unfinished:
            client.is_safe(client.heard)

    def _handle(self, event: events.Event) -> None:
        instructions = None
        if isinstance(event, events.Requested) and event.operation in LIGHT:  # as the server does
            instructions = self.state.answer(event, self.now)
            event = events.TimePassed() if instructions is None else event
        if instructions is None:
            instructions = self.state.handle(event, self.now)
        if self._unfinished == "unwritten":
            return
        self._write(instructions)

    def _write(self, instructions: list[to_do.Instruction]) -> None:
        if batch := self.state.decisions.take():
            self._tables.apply(batches.unpack(batches.packer().pack(batch)))
        if getattr(self, "_unfinished", "") == "unsaid":
            return
        for instruction in instructions:
            if isinstance(instruction, to_do.SendErrand):
                self.errands.append(instruction)
                self._undone.append(instruction)
            elif isinstance(instruction, to_do.Answer):
                raise AssertionError("only what changes something is asked here")
            elif instruction.peer in self.clients:
                self.clients[instruction.peer].line.append(instruction)

    def _do_errand(self) -> None:
        errand = self._undone.popleft()
        self._handle(events.ErrandDone(errand.peer, errand.number, True, _DONE))

    # -- the end of a scheduler

    def _die(self) -> None:
        self.deaths += 1
        self._unfinished = ""
        self._epoch += 1
        for client in self.clients.values():
            while self._delivers and client.line:
                client.hear(client.line.popleft())
            client.line.clear()
        self._tables.sweep()
        recorded = {peer: entry.value[1] for peer, entry in self._tables.entries.get("positions", {}).items()}
        self.state = self._made()
        self.state.recover(self._tables, self._epoch)
        for event in (*self._workers_come(), events.Recovered()):
            self._write(self.state.handle(event, self.now))
        self.clients = dict(reversed(self.clients.items()))  # those that were heard first are heard last
        for client in self.clients.values():
            client.rejoin(recorded.get(client.name, 0), self._epoch)


class _Rejoined(NamedTuple):
    """A client says to a scheduler that it is back."""

    epoch: int


class _Client:
    """A client that runs a program."""

    def __init__(self, name: str, program: Program) -> None:
        self.name = name
        self.unheard: deque[Any] = deque()  # what it has sent, and the scheduler that there is has not heard
        self.heard = 0  # how many frames were, by all schedulers
        self.line: deque[to_do.Instruction] = deque()  # what it is told
        self.is_done = False
        self._program = program
        self._kept: deque[Any] = deque()
        self._safe = 0
        self._numbers = 0
        self._asked: dict[int, events.Requested] = {}  # what it waits for
        self._fragments: dict[str, Any] = {}
        self._sends: Any = None

    def __repr__(self) -> str:
        return f"<{self.name}, which waits for {list(self._asked.values())}>"

    @property
    def may_go_on(self) -> bool:
        return not (self.is_done or self._asked)

    def go_on(self) -> None:
        try:
            said = self._program.send(self._sends)
        except StopIteration:
            self.is_done = True
            return
        self._sends = None
        number = 0
        if isinstance(said, Ask):
            self._numbers += 1
            number = self._numbers
        event = events.Requested(self.name, number, *said.asked)
        if number:
            assert event.operation not in QUIET
            self._asked[number] = event
        self._say(event)

    def _say(self, event: Any) -> None:
        self._kept.append(event)
        self.unheard.append(event)

    def is_safe(self, frames: int) -> None:
        while self._safe < frames:
            self._kept.popleft()
            self._safe += 1

    def hear(self, instruction: to_do.Instruction) -> None:
        if isinstance(instruction, to_do.TellOutcome) and instruction.request in self._asked:
            self._fragments.setdefault(instruction.address, instruction.outcome)  # as `client/core/answers.py` does
        elif isinstance(instruction, to_do.Reply) and self._asked.pop(instruction.request, None) is not None:
            value = merged([self._fragments, instruction.value]) if self._fragments else instruction.value
            self._fragments = {}
            self._sends = instruction.ok, value

    def rejoin(self, recorded: int, epoch: int) -> None:
        """Another scheduler is there, to which so many frames are known."""
        self.is_safe(recorded)
        self.heard = self._safe
        self.unheard = deque(self._kept)
        self._say(_Rejoined(epoch))
        for event in self._asked.values():
            self._say(event)


#: Makes the programs of a world, and what checks how it has ended.
Scenario: TypeAlias = Callable[[], tuple[Mapping[str, Callable[[], Program]], Callable[[World], None]]]


def check_every_cut(scenario: Scenario, *, twice: bool = False, **how: Any) -> int:
    """Play a scenario with each cut there is, and check how it ends; with ``twice``, also with a second one after it.

    Returns how many worlds there were.
    """
    count = 0
    for cuts in _every_cut(scenario, twice, how):
        programs, check = scenario()
        try:
            check(World(programs, cuts, **how).run())
        except BaseException as error:
            error.add_note(f"with {cuts}, {how}")
            raise
        count += 1
    return count


def _every_cut(scenario: Scenario, twice: bool, how: Mapping[str, Any]) -> Iterator[tuple[Cut, ...]]:
    yield ()
    for first in _cuts(World(scenario()[0], **how).run(), 0):
        yield (first,)
        if twice:
            for second in _cuts(World(scenario()[0], [first], **how).run(), first.step):
                yield first, second


def _cuts(world: World, after: int) -> Iterator[Cut]:
    for step in range(after + 1, world.steps + 1):
        yield Cut(step, "before")
        if step in world.handles:
            yield Cut(step, "unwritten")
            yield Cut(step, "unsaid")


_HOST = {"address": HOST, "hostname": "host", "capacity": 1 << 30, "incarnation": HOST, "places": []}
_DONE: dict[str, Any] = {"result": b"done"}
