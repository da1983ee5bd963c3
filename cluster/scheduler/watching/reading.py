"""The requests that only read the state, and how each is answered.

An answer about tasks is made in steps, which the client's inbox takes one by one (`introspection`); the others are made
at once. What isn't in the state, such as the scheduler's own address, is asked of the `Surroundings`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeAlias

from holdfast.cluster import versions
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.requests import (
    ADAPTIVE_TARGET,
    BEGUN,
    DUMP,
    EXPLAIN,
    GET_EVENTS,
    GET_METADATA,
    HAS_WHAT,
    INFO,
    LIST_CLIENTS,
    LIST_TASKS,
    MEMORY,
    NTHREADS,
    PREFIX_STATES,
    PROCESSING,
    PROGRESS,
    RECIPE,
    SCHEDULER_LOGS,
    SCHEDULER_PROFILE,
    SIZES,
    STATUS,
    STORY,
    VERSIONS,
    WHO_HAS,
    WORKERS_TO_CLOSE,
)
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks.instructions import Reply, ReplyPart
from holdfast.cluster.scheduler.tasks.names import Key
from holdfast.cluster.scheduler.watching import (
    dump,
    explaining,
    futures,
    introspection,
    memory,
    process,
    records,
    scaling,
    tasks,
)
from holdfast.cluster.scheduler.watching.closing import workers_to_close


class Surroundings(NamedTuple):
    """What the server knows, and the state doesn't: functions that tell it."""

    #: The scheduler's description of itself.
    describe: Callable[[], dict[str, Any]]
    #: How many seconds ago each host said something.
    silences: Callable[[], dict[str, float]]
    #: For how long a client has said nothing, and whether its connection is broken.
    silence: Callable[[str], tuple[float | None, bool]]
    #: The hosts that were given up.
    absent: Callable[[], list[dict[str, Any]]]
    #: What a peer has said about itself when it joined, by its name; nothing of one that isn't there.
    joined: Callable[[str], dict[str, Any]]
    #: What the scheduler's process does: ``profile(start, stop)``.
    profile: Callable[[float | None, float | None], dict[str, Any]]
    #: The moves of tasks that are remembered: ``story(keys)``, the steps of an answer.
    story: Callable[[Sequence[Key]], Generator[Any, None, Any]]


#: ``reader(state, surroundings, **arguments)``: the answer, or the steps that make it.
Reader: TypeAlias = Callable[..., Any]

READERS: dict[Request, Reader] = {
    WHO_HAS: lambda state, _, keys=None, workers=False: introspection.who_has(state, keys, workers),
    HAS_WHAT: lambda state, _, nodes=None, workers=False: introspection.has_what(state, nodes, workers),
    NTHREADS: lambda state, _, workers=None: introspection.nthreads(state, workers),
    PROCESSING: lambda state, _, workers=None: tasks.processing(state, workers),
    SIZES: lambda state, _, keys=None, summary=False: tasks.nbytes(state, keys, summary),
    PREFIX_STATES: lambda state, _: tasks.prefix_states(state),
    INFO: lambda state, around, n=None: introspection.info(state, around.describe(), around.joined, n),
    GET_METADATA: lambda state, _, path: records.metadata(state, path),
    GET_EVENTS: lambda state, _, topic=None: records.events(state, topic),
    STATUS: lambda state, around: introspection.status(state, around.describe(), around.silences(), around.absent()),
    LIST_CLIENTS: lambda state, _: {client.id: client.name for client in state.clients.values()},
    LIST_TASKS: lambda state, _: tasks.listed(state),
    VERSIONS: lambda _, __, packages=(): versions.describe(packages),
    MEMORY: lambda state, around, by=(), limit=None: memory.memory(state, around.silence, by, limit),
    BEGUN: lambda state, _, keys: futures.begun(state, keys),
    RECIPE: lambda state, _, key, blamed: futures.recipe(state, key, blamed),
    PROGRESS: lambda state, _, keys: futures.progress(state, keys),
    STORY: lambda _, around, keys: around.story(keys),
    DUMP: lambda state, _, run_spec=False: dump.dump(state, run_spec),
    EXPLAIN: lambda state, around, key: explaining.explain(state, around.silence, key),
    SCHEDULER_LOGS: lambda _, around, n=None: process.logs(n),
    SCHEDULER_PROFILE: lambda _, around, start=None, stop=None: around.profile(start, stop),
    ADAPTIVE_TARGET: lambda state, _, **arguments: scaling.adaptive_target(state, **arguments),
    WORKERS_TO_CLOSE: lambda state, _, n=None, target=None, minimum=None, memory_ratio=None, groups=None: (
        workers_to_close(state, n, target, minimum, memory_ratio, groups)
    ),
}
_READERS = {request.operation: reader for request, reader in READERS.items()}


def answer(
    state: SchedulerState,
    surroundings: Surroundings,
    client: str,
    request: int,
    operation: str,
    arguments: dict[str, Any],
) -> Generator[ReplyPart | None, None, Reply]:
    """Answer a request step by step: yields what is to be sent, or None, once for each step but the last."""
    steps = _READERS[operation](state, surroundings, **arguments)
    if isinstance(steps, Generator):
        while True:
            try:
                fragment = next(steps)
            except StopIteration as end:
                steps = end.value
                break
            yield None if fragment is None else ReplyPart(client, request, fragment)
    return Reply(client, request, True, steps)
