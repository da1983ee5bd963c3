"""Warming a worker up: it runs a few tasks before there is a real one.

A worker is a fork of a process that has imported everything and run nothing. Its first task would pay for that: each
page of memory that the interpreter writes to, if only to count references, is copied then, code that has not run is
slow, the store has to be asked for a first piece of memory. That makes a millisecond or two, several times what a task
costs. So before a worker registers it gets a few tasks from a thread that plays the scheduler, over a connection
like any other: ones that read an array in the store and one that rode along, and give a small result and a large one.
The scheduler never hears of them, and what they have put into the store is taken out again.
"""

from __future__ import annotations

import logging
import socket
from typing import Any

import numpy as np

from holdfast.cluster import protocol
from holdfast.cluster.comm import frames
from holdfast.cluster.comm.frame_reader import FrameReader
from holdfast.cluster.comm.frames import raw
from holdfast.cluster.protocol import payloads
from holdfast.objectstore import ObjectID, Store, encode

logger = logging.getLogger(__name__)

_KEY = "warm-up"
#: Of the array: with room of its own in the store, and shared when it's put again.
_LENGTH = 1 << 16
#: Pickles of what is imported when they're read, as a task's function may be: of a function, and of an object.
_READ = b"choldfast.cluster.worker.warm_up_task\nread\n."
_NODE = b"choldfast.cluster.worker.warm_up_task\nNode\n(tR."
_DIGEST = bytes(16)
_ROUNDS = 2  # the first has the pages copied, the second has the interpreter see what repeats
_PATIENCE_SECONDS = 5.0
_RECEIVE_NBYTES = 64 << 10


def warm_up(worker: socket.socket, store: Store) -> None:
    """Play the scheduler for a worker. What goes wrong is left to its first real task.

    Parameters
    ----------
    worker
        A socket whose other end is the worker's connection; closed afterwards.
    store
        Of the worker's host.
    """
    put: list[ObjectID] = []
    try:
        with worker:
            worker.settimeout(_PATIENCE_SECONDS)
            scheduler = _PretendedScheduler(worker)
            for number in range(_ROUNDS):
                _round(scheduler, number, store, put)
    except Exception:
        logger.debug("warming up failed", exc_info=True)
    finally:
        _take_out(put, store)


def _round(scheduler: _PretendedScheduler, number: int, store: Store, put: list[ObjectID]) -> None:
    put.append(store.put(np.zeros(_LENGTH), key=_KEY))
    call = raw(payloads.dumps(((payloads.Reference("stored"), payloads.Reference("inline")), {})))
    dependencies = (("stored", put[-1], None, ()), ("inline", store.new_id(), encode(0).to_bytes(), ()))
    run_id = -2 * number  # no real one is less than one
    small = scheduler.ask(
        protocol.worker.FUNCTIONS_SENT([(_DIGEST, raw(_READ))]),
        protocol.worker.RUN_TASKS([(_KEY, run_id, _DIGEST, call, dependencies, False, 0)]),
    )
    put.append(
        scheduler.ask(
            protocol.worker.DISCARD([small]),
            protocol.worker.FUNCTIONS_FORGOTTEN([_DIGEST]),
            protocol.worker.RUN_TASKS([(_KEY, run_id - 1, None, raw(_NODE), dependencies, False, 0)]),
        )
    )


def _take_out(put: list[ObjectID], store: Store) -> None:
    try:
        store.delete(put)
    except Exception:
        logger.debug("the objects of the warm-up are left in the store", exc_info=True)


class _PretendedScheduler:
    """The other end of a worker's connection, as the scheduler would be."""

    def __init__(self, worker: socket.socket) -> None:
        self._worker = worker
        self._reader = FrameReader()

    def ask(self, *messages: frames.Message) -> ObjectID:
        """Say something that ends with one task to run; the id of its result."""
        self._worker.sendall(b"".join(frames.pack(messages)))
        batches: list[tuple[Any, ...]] = []
        while not batches:
            received = self._worker.recv(_RECEIVE_NBYTES)
            if not received:
                raise ConnectionResetError("the worker has ended")
            batches = self._reader.feed(received)
        ((message,),) = batches
        finished = protocol.worker.FINISHED.fields_of(message)
        if finished is None:
            raise ValueError(f"a task of the warm-up ended with {message!r}")
        (((_, _, object_id, _, _, _, _),),) = finished
        return ObjectID(object_id)
