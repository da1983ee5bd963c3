"""What users have left with the scheduler, metadata and events, as answers to those that ask for it."""

from __future__ import annotations

from itertools import islice
from typing import Any

from holdfast.cluster.protocol.records import Path, leaf_nbytes
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.watching.introspection import STEP_ITEMS, Steps

#: A fragment takes so much, or has one thing in it.
FRAGMENT_NBYTES = 256 << 10


def metadata(state: SchedulerState, path: Path) -> Steps:
    """What is kept at a path, as its leaves below the path."""
    leaves = state.metadata.below(path)
    found = False
    while step := list(islice(leaves, STEP_ITEMS)):
        found = True
        start = nbytes = 0
        for index, (where, leaf) in enumerate(step):
            nbytes += leaf_nbytes((where, leaf))
            if nbytes > FRAGMENT_NBYTES and index > start:
                yield {"record": [(where[len(path) :], leaf) for where, leaf in step[start:index]]}
                start, nbytes = index, leaf_nbytes((where, leaf))
        yield {"record": [(where[len(path) :], leaf) for where, leaf in step[start:]]}
    return {"found": found, "record": []}


def events(state: SchedulerState, topic: str | None) -> Steps:
    """The events of a topic, or of all."""
    names = list(state.topics.topics) if topic is None else [topic]
    for name in names:
        for part in state.topics.kept_of(name):
            yield {name: [(event.at, event.record) for event in part]}
    empty: dict[str, Any] = {} if topic is None else {topic: []}
    return empty
