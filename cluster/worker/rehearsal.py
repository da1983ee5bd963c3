"""Going through the motions of a task once, before there is one.

A worker is a fork of a process that has imported everything and run nothing. Its first task would pay for that: each
page of memory that the interpreter writes to, if only to count references, is copied then, code that has not run is
slow, the store has to be asked for a first piece of memory. That makes a millisecond or two, several times what a task
costs. So a worker's first thread runs a few tasks of its own as soon as it's there: ones that read an array in the
store and one that rode along, and give a small result and a large one. Nobody hears of them, and what they have put
into the store they take out again.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from holdfast.cluster import payload
from holdfast.cluster.worker.execution import TaskRunner
from holdfast.cluster.worker.functions import FunctionTable
from holdfast.cluster.worker.nursery import Nursery
from holdfast.objectstore import ObjectID, Store, encode

logger = logging.getLogger(__name__)

_KEY = "rehearsal"
#: Of the array: with room of its own in the store, and shared when it's put again.
_LENGTH = 1 << 16
#: Pickles of what is imported when they're read, as a task's function may be: of a function, and of an object.
_READ = b"choldfast.cluster.worker.practice\nread\n."
_NODE = b"choldfast.cluster.worker.practice\nNode\n(tR."
_DIGEST = bytes(16)
_ROUNDS = 2  # the first has the pages copied, the second has the interpreter see what repeats


def rehearse(store: Store, functions: FunctionTable, nursery: Nursery, runner: TaskRunner) -> None:
    """Run some tasks for practice, in the calling thread. What goes wrong is left to the first real one."""
    try:
        functions.add([(_DIGEST, _READ)])
        _rehearse(store, nursery, runner)
    except Exception:
        logger.debug("the rehearsal failed", exc_info=True)
    finally:
        functions.forget([_DIGEST])


def _rehearse(store: Store, nursery: Nursery, runner: TaskRunner) -> None:
    call = payload.dumps(((payload.Reference("stored"), payload.Reference("inline")), {}))
    put: list[ObjectID] = []
    try:
        for _ in range(_ROUNDS):
            put.append(store.put(np.zeros(_LENGTH), key=_KEY))
            dependencies = (("stored", put[-1], None, ()), ("inline", store.new_id(), encode(0).to_bytes(), ()))
            nursery.discard(_result(runner.run((_KEY, 0, _DIGEST, call, dependencies, None))))
            put += map(ObjectID, _result(runner.run((_KEY, 0, None, _NODE, dependencies, None))))
    finally:
        if put:
            store.delete(put)


def _result(outcome: tuple[str, tuple[Any, ...]]) -> list[bytes]:
    operation, entry = outcome
    return [entry[2]] if operation == "finished" else []
