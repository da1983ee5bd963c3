"""What the scheduler's state machine wants done: messages to workers, nodes and clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from holdfast.cluster.scheduler.tasks.names import Digest, Key, ObjectId, Payload

#: A number in the place of the object's id is that of a run that was sent to the same worker before.
DependencyEntry: TypeAlias = tuple[Key, ObjectId | int | None, Payload | None, Sequence[str]]
#: The last ones say whether the run gets private views of what it reads, and the serial of the task.
RunEntry: TypeAlias = tuple[Key, int, Digest | None, Payload, Sequence[DependencyEntry], bool, int]
MemoryEntry: TypeAlias = tuple[Key, ObjectId | None, int, Payload | None, Sequence[str]]
#: A large exception's object, its size, and the nodes that have it.
StoredError: TypeAlias = tuple[ObjectId, int, Sequence[str]]
ErredEntry: TypeAlias = tuple[Key, Payload | str | StoredError, str]


#: Call, actor, caller, method, arguments, and what they depend on.
CallEntry: TypeAlias = tuple[int, int, str, str, Payload | None, Sequence[DependencyEntry]]
#: A call by its client's number, whether it has a result, that or the exception, where it lies, a text, and keys in it.
CalledEntry: TypeAlias = tuple[
    int, bool, Payload | None, tuple[Key | None, ObjectId, int, Sequence[str]] | None, str, Sequence[Key]
]


class SendFunctions(NamedTuple):
    peer: str
    items: list[tuple[Digest, Payload]]


class ForgetFunctions(NamedTuple):
    peer: str
    items: list[Digest]


class RunTasks(NamedTuple):
    peer: str
    items: list[RunEntry]


class TellHolding(NamedTuple):
    """Of the runs that follow these hold resources: they don't go on after a wait before these are granted again."""

    peer: str
    items: list[int]


class TellTimed(NamedTuple):
    """Of the runs that follow these have a limited time: their worker is to say when each begins."""

    peer: str
    items: list[int]


class GrantResources(NamedTuple):
    """These runs, which are blocked, have their resources again."""

    peer: str
    items: list[int]


class DropRuns(NamedTuple):
    peer: str
    items: list[int]


class RunCalls(NamedTuple):
    peer: str
    items: list[CallEntry]


class DropCalls(NamedTuple):
    peer: str
    items: list[int]


class DropActors(NamedTuple):
    peer: str
    items: list[int]


class ReportCalled(NamedTuple):
    peer: str
    items: list[CalledEntry]


class RevokeRuns(NamedTuple):
    peer: str  # the node
    worker: str
    incarnation: int
    run_ids: Sequence[int]


class KillRuns(NamedTuple):
    """The process of a worker is to end if it is at one of these runs, and never to begin the others."""

    peer: str  # the node
    worker: str
    incarnation: int
    run_ids: Sequence[int]
    reason: str


class TellRevoked(NamedTuple):
    peer: str  # the worker
    number: int
    run_ids: Sequence[int]


class DeleteObjects(NamedTuple):
    peer: str
    items: list[ObjectId]


class ForgetObjects(NamedTuple):
    """As `DeleteObjects`, of what has copies elsewhere. The node says when it has done so."""

    peer: str
    items: list[ObjectId]


class CopyObjects(NamedTuple):
    peer: str  # the node that is to bring them
    items: list[tuple[ObjectId, Sequence[str]]]  # and the nodes that have each


class DiscardResults(NamedTuple):
    peer: str
    items: list[ObjectId]


class ReportMemory(NamedTuple):
    peer: str
    items: list[MemoryEntry]


class ReportErred(NamedTuple):
    peer: str
    items: list[ErredEntry]


class ReportPending(NamedTuple):
    peer: str
    items: list[Key]


class ReportCancelled(NamedTuple):
    peer: str
    items: list[Key]
    reason: str


class ReportKept(NamedTuple):
    peer: str
    items: list[Key]


class Warn(NamedTuple):
    peer: str
    text: str


class TellEvents(NamedTuple):
    """Events of a topic, up to the one of this number; so many before these were missed."""

    peer: str
    topic: str
    number: int
    missed: int
    events: list[tuple[float, Any]]


class Log(NamedTuple):
    """Something for the scheduler's log, since no peer is there to be told."""

    text: str
    peer: str = ""


class Reply(NamedTuple):
    peer: str
    request: int
    ok: bool
    value: Any


class ReplyPart(NamedTuple):
    """A fragment of an answer that is made in steps; its `Reply` has the last one."""

    peer: str
    request: int
    fragment: Any


class TellOutcome(NamedTuple):
    """What an errand of a client's has come to at an address: a fragment of the answer to the request."""

    peer: str
    request: int
    address: str
    outcome: dict[str, Any]


class Answer(NamedTuple):
    """It is time to answer a request that only reads the state (`watching`), step by step."""

    peer: str
    request: int
    operation: str
    arguments: dict[str, Any]


class AskForReport(NamedTuple):
    peer: str  # the node that is to say how it is


class AskForExit(NamedTuple):
    peer: str  # the node that is to say how the process of a worker has ended
    worker: str
    pid: int  # 0: it is not known


class AddWorkers(NamedTuple):
    peer: str  # the node that is to keep workers of these numbers, too
    items: Sequence[int]


class RemoveWorkers(NamedTuple):
    peer: str  # the node that is to close these workers for good
    items: Sequence[str]


class SendErrand(NamedTuple):
    """Something that a worker or node is to do beside all tasks."""

    peer: str
    number: int
    operation: str
    arguments: Mapping[str, Any]


class RestartWorkers(NamedTuple):
    peer: str  # the node that is to have new processes in the places of these workers
    items: Sequence[str]


class CloseNode(NamedTuple):
    peer: str  # the node that is to leave


class TellNodes(NamedTuple):
    """Which nodes a client may use the stores of, beyond those that it knows of, and which not any more."""

    peer: str
    more: Sequence[dict[str, Any]]  # their descriptions
    fewer: Sequence[str]


class Disconnect(NamedTuple):
    peer: str  # whose connection is to be closed


Instruction: TypeAlias = (
    SendFunctions
    | ForgetFunctions
    | RunTasks
    | TellHolding
    | TellTimed
    | GrantResources
    | DropRuns
    | RunCalls
    | DropCalls
    | DropActors
    | ReportCalled
    | RevokeRuns
    | KillRuns
    | TellRevoked
    | DeleteObjects
    | ForgetObjects
    | CopyObjects
    | DiscardResults
    | ReportMemory
    | ReportErred
    | ReportPending
    | ReportCancelled
    | ReportKept
    | Warn
    | Log
    | TellEvents
    | Reply
    | ReplyPart
    | TellOutcome
    | Answer
    | AskForReport
    | AskForExit
    | AddWorkers
    | RemoveWorkers
    | SendErrand
    | RestartWorkers
    | CloseNode
    | TellNodes
    | Disconnect
)


class Instructions:
    """Collects instructions; neighbours of one kind for one peer become one. The order for each peer is kept."""

    def __init__(self) -> None:
        self._instructions: list[Instruction] = []
        self._last: dict[str, Instruction] = {}

    def add(self, kind: type[Any], peer: str, item: Any) -> None:
        """Add ``item`` to an instruction of ``kind`` (one with just ``peer`` and ``items``)."""
        last: Any = self._last.get(peer)
        if type(last) is kind:
            last.items.append(item)
            return
        self._last[peer] = instruction = kind(peer, [item])
        self._instructions.append(instruction)

    def cancelled(self, peer: str, key: Key, reason: str) -> None:
        last = self._last.get(peer)
        if type(last) is ReportCancelled and last.reason == reason:
            last.items.append(key)
            return
        self._last[peer] = instruction = ReportCancelled(peer, [key], reason)
        self._instructions.append(instruction)

    def reply(self, peer: str, request: int, ok: bool, value: Any) -> None:
        self.put(Reply(peer, request, ok, value))

    def put(self, instruction: Instruction) -> None:
        """Add an instruction that stands by itself."""
        self._last[instruction.peer] = instruction
        self._instructions.append(instruction)

    def take(self) -> list[Instruction]:
        taken, self._instructions = self._instructions, []
        self._last.clear()
        return taken
