"""What can happen to the scheduler. The parts of an event have the shapes of the messages in `docs/protocol.md`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from holdfast.cluster.scheduler.tasks.names import Digest, Key, ObjectId, Payload


class HostJoined(NamedTuple):
    address: str
    description: dict[str, Any]


class HostLeft(NamedTuple):
    """A host is gone. ``may_live``: the scheduler does not hear of it, which need not be the fault of its runs."""

    address: str
    reason: str
    may_live: bool = False


class ObjectsReported(NamedTuple):
    """A host that has joined says what it has: a description of each object (`protocol.kinds.OBJECT_DESCRIPTION`)."""

    host: str
    objects: Sequence[Mapping[str, Any]]


class HostReady(NamedTuple):
    """A host that has joined has said all that it has."""

    host: str


class WorkerJoined(NamedTuple):
    address: str
    name: str
    host: str
    nthreads: int
    resources: dict[str, float]
    incarnation: int | None = None  # by which its node may revoke runs of it, and end it


class WorkerParted(NamedTuple):
    """The connection of a worker has ended, and all has been read that the worker had sent."""

    worker: str
    reason: str
    pid: int = 0  # 0: it has not said


class WorkerCutOff(NamedTuple):
    """The connection of a worker has broken, and may be taken up again; or it is."""

    worker: str
    is_cut_off: bool


class WorkerExited(NamedTuple):
    """The process of a worker has ended. What its node knows of how: the runs that its threads had taken last (None:
    it can't tell), the one that has crashed it, if that is known, and whether the fault was one of memory. And which of
    the processes it was that fill the worker's place one after the other; None: the worker has none of its own."""

    host: str
    worker: str
    reason: str
    running: Sequence[int] | None = None
    crashed: int | None = None
    fault: bool = False
    asked: bool = False  # the node has ended it, since it was told to
    incarnation: int | None = None
    log: str = ""  # the end of what it has logged


class PlacesChanged(NamedTuple):
    """A host keeps its workers in these places now: the address, the name, the threads and the resources of each."""

    host: str
    places: Sequence[tuple[str, str, int, Mapping[str, float]]]


class HostReported(NamedTuple):
    """How a host is, with its store and its workers: the report of its heartbeat, and when that came (``time``)."""

    host: str
    report: dict[str, Any]


class ClientJoined(NamedTuple):
    client: str
    name: str
    worker: str | None = None  # the one whose tasks share it
    about: dict[str, Any] | None = None  # what it has said about itself, for people
    rejoins: bool = False  # whether an earlier scheduler had welcomed it: it says what it has, as one that is back


class ClientRejoined(NamedTuple):
    """A client that an earlier scheduler had is back. It holds these keys, as it believes, or a piece of them.

    With the last piece it says which calls have no answer, by number: it says these again, and knows the others.
    """

    client: str
    keys: Sequence[Key]
    is_last: bool = True
    calls: Sequence[int] = ()


class ClientLeft(NamedTuple):
    client: str


class FunctionsSent(NamedTuple):
    client: str
    functions: Sequence[tuple[Digest, Payload]]


class FunctionsForgotten(NamedTuple):
    client: str
    digests: Sequence[Digest]


class TasksSubmitted(NamedTuple):
    client: str
    tasks: Sequence[tuple[Key, Digest | None, Payload, Sequence[Key]]]
    wants: Sequence[Key] | None
    options: dict[str, Any]
    call_site: str = ""


class ObjectsScattered(NamedTuple):
    client: str
    objects: Sequence[tuple[Key, ObjectId, int, str, str, Payload | None]]
    chosen: bool = False  # a user chose the keys; else they are made of the data
    call_site: str = ""


class ReferencesFound(NamedTuple):
    """Objects that a client has put into a store, with the keys of the futures inside each."""

    client: str
    objects: Sequence[tuple[Key, Sequence[Key]]]


class KeysWanted(NamedTuple):
    client: str
    keys: Sequence[Key]


class KeysExpected(NamedTuple):
    """A client wants the results of these keys, as soon as there are tasks of them."""

    client: str
    keys: Sequence[Key]


class FuturesPickled(NamedTuple):
    """A user has pickled futures of these keys: each with the name of a lease, and for how long that is."""

    client: str
    futures: Sequence[tuple[Key, str, float]]
    until: float
    call_site: str = ""


class FuturesUnpickled(NamedTuple):
    """A client holds these keys too: each with a lease, the client that has it, how long it is, and what is left."""

    client: str
    futures: Sequence[tuple[Key, str, str, float, float]]


class KeysRetried(NamedTuple):
    """A client wants these, which have failed, to be computed again."""

    client: str
    keys: Sequence[Key]


class KeysUnattended(NamedTuple):
    """These are to be computed even if no client holds them."""

    client: str
    keys: Sequence[Key]


class KeysReleased(NamedTuple):
    client: str
    keys: Sequence[Key]


class KeysCancelled(NamedTuple):
    client: str
    keys: Sequence[Key]
    force: bool
    kill: int | None = None  # its number, if the processes end that run what is not needed any more by that
    reason: str = ""  # the user's


class EventLogged(NamedTuple):
    """A worker or the assistant adds an event to topics, which clients may be told of."""

    peer: str
    topics: Sequence[str]
    record: tuple[tuple[tuple[Any, ...], Any], ...]


class RestartWanted(NamedTuple):
    """A plugin of a worker wants another process in the place of that one."""

    worker: str
    reason: str


class EventsHeard(NamedTuple):
    """A client has handled the events of a topic up to this number."""

    client: str
    topic: str
    number: int


class ResultsMissing(NamedTuple):
    client: str
    results: Sequence[tuple[Key, ObjectId, str]]


class RunsKept(NamedTuple):
    """A worker that has joined has these from an earlier scheduler: runs, as number and serial, whether each has begun,
    and whether it waits for others; and small results that are in no store yet, as serial, object, bytes, type and
    encoding."""

    worker: str
    runs: Sequence[tuple[int, int, bool, bool]]
    results: Sequence[tuple[int, ObjectId, int, str, Payload]]


class Recovered(NamedTuple):
    """All that come back to this scheduler from an earlier one are back, or have had their time."""


class FuturesInside(NamedTuple):
    """What these runs have given or raised, which the worker says next, contains futures of these keys."""

    worker: str
    runs: Sequence[tuple[int, Sequence[Key]]]


class TasksFinished(NamedTuple):
    """Results of runs; of each first the serial of its task, then the run."""

    worker: str
    results: Sequence[tuple[int, int, ObjectId, int, Payload | None, str, float]]


class TasksErred(NamedTuple):
    worker: str
    errors: Sequence[tuple[int, int, Payload | tuple[ObjectId, int], str, float]]


class FunctionsWrote(NamedTuple):
    """The functions of these tasks, by key and digest, write into what they read."""

    worker: str
    tasks: Sequence[tuple[Key, Digest | None]]


class DependenciesMissing(NamedTuple):
    worker: str
    missing: Sequence[tuple[int, int, Key, ObjectId]]


class RunsRescheduled(NamedTuple):
    """These tasks, by serial and run, want to be run again, on other workers if they can be."""

    worker: str
    runs: Sequence[tuple[int, int]]


class RunsDropped(NamedTuple):
    worker: str
    run_ids: Sequence[int]


class RunsBegun(NamedTuple):
    """These runs, whose time is limited, begin."""

    worker: str
    run_ids: Sequence[int]


class RunsBlocked(NamedTuple):
    """These runs wait for other ones, and lend what they have meanwhile (`placing.lending`)."""

    worker: str
    run_ids: Sequence[int]


class ResourcesReclaimed(NamedTuple):
    """These runs, which are blocked, want their resources back."""

    worker: str
    run_ids: Sequence[int]


class RunsReturned(NamedTuple):
    """These runs, which were blocked, go on."""

    worker: str
    run_ids: Sequence[int]


class RunsRevoked(NamedTuple):
    host: str
    worker: str
    incarnation: int
    number: int
    revoked: Sequence[int]
    begun: Sequence[int]


class RevocationConfirmed(NamedTuple):
    worker: str
    number: int


class ObjectsForgotten(NamedTuple):
    """A store has forgotten these, as it was told (`ForgetObjects`)."""

    host: str
    object_ids: Sequence[ObjectId]


class ObjectsFound(NamedTuple):
    """A store has these: copies that it fetched, or what a client put there that has left since."""

    host: str
    object_ids: Sequence[ObjectId]


class CopiesFailed(NamedTuple):
    """A host could not bring copies that it was told to bring: object and reason of each."""

    host: str
    failures: Sequence[tuple[ObjectId, str]]


class OwnerLeft(NamedTuple):
    """A process does not use a host's store any more, a worker or a client. What it has put there, as descriptions; and
    which of the processes it was that fill a worker's place one after the other (None: none of them)."""

    host: str
    objects: Sequence[Mapping[str, Any]]
    name: str  # a worker's name, or a client's id
    incarnation: int | None = None


class ErrandDone(NamedTuple):
    """What an errand has come to at a worker or node."""

    peer: str
    number: int
    ok: bool
    value: Any


class ErrandStored(NamedTuple):
    """What an errand has given is an object in the store of the host."""

    peer: str
    number: int
    object_id: ObjectId
    nbytes: int
    type: str


class ActorsMade(NamedTuple):
    """These runs have made actors, which stay with the worker: the number of each run, and what its actor is."""

    worker: str
    actors: Sequence[tuple[int, str]]


class CallsSent(NamedTuple):
    """A client calls methods of actors."""

    client: str
    calls: Sequence[tuple[int, int, str, Payload | None, Sequence[Key]]]


class CallsDone(NamedTuple):
    worker: str
    results: Sequence[tuple[int, bool, Payload | None, tuple[ObjectId, int, str] | None, str, Sequence[Key]]]


class CallsMissing(NamedTuple):
    """These calls could not read a dependency, and have not begun."""

    worker: str
    calls: Sequence[tuple[int, Key, ObjectId]]


class AssistantLeft(NamedTuple):
    """The process beside the scheduler is gone."""

    reason: str


class NannyLeft(NamedTuple):
    """The process beside the agent of a host is gone. Its errands have come to an error already."""

    host: str
    reason: str


class Requested(NamedTuple):
    """A client asks for something, by the number that the answer is to have. The arguments have been checked."""

    client: str
    request: int
    operation: str
    arguments: dict[str, Any]


class RepliesHeard(NamedTuple):
    """A client knows what these requests and calls have come to, and will not pose them to another scheduler."""

    client: str
    requests: Sequence[int]
    calls: Sequence[int] = ()


class TimePassed(NamedTuple):
    """Nothing happened but the clock; due when `SchedulerState.next_deadline` is reached."""


Event: TypeAlias = (
    HostJoined
    | HostLeft
    | ObjectsReported
    | HostReady
    | PlacesChanged
    | WorkerJoined
    | WorkerParted
    | WorkerCutOff
    | WorkerExited
    | HostReported
    | ClientJoined
    | ClientRejoined
    | ClientLeft
    | FunctionsSent
    | FunctionsForgotten
    | TasksSubmitted
    | ObjectsScattered
    | ReferencesFound
    | KeysWanted
    | KeysExpected
    | FuturesPickled
    | FuturesUnpickled
    | KeysRetried
    | KeysUnattended
    | KeysReleased
    | KeysCancelled
    | ResultsMissing
    | EventLogged
    | RestartWanted
    | EventsHeard
    | RunsKept
    | Recovered
    | FuturesInside
    | TasksFinished
    | TasksErred
    | FunctionsWrote
    | DependenciesMissing
    | RunsRescheduled
    | RunsDropped
    | RunsBegun
    | RunsBlocked
    | ResourcesReclaimed
    | RunsReturned
    | RunsRevoked
    | RevocationConfirmed
    | ObjectsFound
    | ObjectsForgotten
    | CopiesFailed
    | OwnerLeft
    | ErrandDone
    | ErrandStored
    | AssistantLeft
    | NannyLeft
    | ActorsMade
    | CallsSent
    | CallsDone
    | CallsMissing
    | Requested
    | RepliesHeard
    | TimePassed
)
