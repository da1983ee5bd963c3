"""Small results that may not live long.

A small result rides along in the message that announces it: the scheduler has its bytes from then on, and so have all
that read it. Most are read at once and then let go of. To put each into the store, and have it deleted there a moment
later, would cost the host more than the task itself did. So it waits here first, for the scheduler's word that no
holder wants it any more, and is put into the store only if that doesn't come: after `AGE_SECONDS`, and before twice as
many.

Until then the scheduler's is the only copy outside of this process. Should the worker die, nothing is lost by that.

Nothing here is on the path of a task but an entry in a dictionary. The rest is done by a thread of its own, a stint at
a time, so that tasks, which share the interpreter with it, don't wait; it sleeps when there's nothing here.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from holdfast.cluster.worker.display_names import display_name
from holdfast.objectstore import Encoded, ObjectID, Store
from holdfast.objectstore.errors import StoreClosedError, StoreError, StoreFullError

logger = logging.getLogger(__name__)

AGE_SECONDS = 0.5
#: What may wait at a time, with what Python takes for each. Others go to the store at once.
MAX_NBYTES = 32 << 20
_OVERHEAD_NBYTES = 256
#: The thread puts results into the store for so long at a stretch, during which no task of this process gets on, and
#: then pauses for several times as long.
_STINT_SECONDS = 0.0003
_PAUSE_FACTOR = 3
#: How long to wait for room in a full store, before others that have died meanwhile are looked for.
_PUT_TIMEOUT_SECONDS = 1.0


class _Result(NamedTuple):
    key: Any
    serial: int
    flat: bytes
    type_name: str
    references: bytes


class _Stored(NamedTuple):
    serial: int
    nbytes: int
    type_name: str


class Kept(NamedTuple):
    """A small result; its encoding is None if it was put into the store just now."""

    serial: int
    object_id: bytes
    nbytes: int
    flat: bytes | None
    type_name: str


class WriteBehind:
    """Keeps small results for a while. Thread-safe.

    Parameters
    ----------
    store
        Where those go that live longer.
    name
        For the thread's name.

    Attributes
    ----------
    thread : threading.Thread
        The one that puts them into the store.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._lock = threading.Lock()
        self._nbytes = 0
        self._young: dict[bytes, _Result] = {}
        self._old: dict[bytes, _Result] = {}  # that have been here for a round
        self._unwanted: list[bytes] = []  # that were put into the store
        #: Those that were put into the store in this round, and in the one before.
        self._stored: tuple[dict[bytes, _Stored], dict[bytes, _Stored]] = ({}, {})
        self._paused = False
        self._tokens: queue.SimpleQueue[bool] = queue.SimpleQueue()  # True: it's time to end
        self._awake = False
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def add(self, key: Any, serial: int, flat: bytes, type_name: str, references: bytes = b"") -> ObjectID | None:
        """Take a result in; its id from now on, or None if there's no room for more. The caller calls `tend` later.

        Parameters
        ----------
        key
            The task's, for people.
        serial
            The task's.
        flat
            Its flat encoding.
        type_name
            For people.
        references
            The keys of futures inside it, as its store keeps them.
        """
        object_id = self._store.new_id()
        with self._lock:
            if self._nbytes >= MAX_NBYTES:
                return None
            self._nbytes += len(flat) + _OVERHEAD_NBYTES
            self._young[object_id] = _Result(key, serial, flat, type_name, references)
        return object_id

    def tend(self) -> None:
        """See to it that what was added doesn't stay for ever. It wakes a thread: for when nothing is urgent."""
        if not self._awake and self._young:
            with self._lock:
                self._wake()

    def discard(self, object_ids: Iterable[bytes]) -> None:
        """These are not wanted any more, wherever they are by now."""
        with self._lock:
            for object_id in object_ids:
                if not self._take(object_id):
                    self._unwanted.append(object_id)
            if self._unwanted:
                self._wake()

    def pause(self, is_paused: bool) -> None:
        """Put nothing into the store until called again: whoever asks the store what it has asks here later."""
        self._paused = is_paused

    def kept(self) -> list[Kept]:
        """All that is here, and what was put into the store a moment ago."""
        with self._lock:
            found = [
                Kept(result.serial, object_id, len(result.flat), result.flat, result.type_name)
                for results in (self._old, self._young)
                for object_id, result in results.items()
            ]
            found += [
                Kept(stored.serial, object_id, stored.nbytes, None, stored.type_name)
                for results in self._stored
                for object_id, stored in results.items()
            ]
            return found

    def close(self) -> None:
        """End the thread. What is here isn't stored: the scheduler has it. Waits for the store if that is asked now."""
        self._tokens.put(True)
        self.thread.join()

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            self._tokens.put(False)

    def _take(self, object_id: bytes) -> _Result | None:
        """Take a result out, if it's here. The caller has the lock."""
        result = self._young.pop(object_id, None) or self._old.pop(object_id, None)
        if result is not None:
            self._nbytes -= len(result.flat) + _OVERHEAD_NBYTES
        return result

    def _run(self) -> None:
        try:
            while not self._tokens.get():
                while self._has_something():
                    if self._nap(AGE_SECONDS) or not self._try_round():
                        return
        except StoreClosedError as error:  # the code that needs the store learns it too, and says so
            logger.debug("%s ends: %s", self._name, error)

    def _has_something(self) -> bool:
        with self._lock:
            self._awake = bool(self._young or self._old or self._unwanted or any(self._stored))
            return self._awake

    def _nap(self, seconds: float) -> bool:
        """Wait. Whether it's time to end."""
        with contextlib.suppress(queue.Empty):
            return self._tokens.get(timeout=seconds)
        return False

    def _try_round(self) -> bool:
        try:
            return self._round()
        except StoreClosedError:
            raise
        except StoreError as error:  # what could not be stored is with the scheduler all the same
            logger.warning("%s: %s", self._name, str(error))  # as text: the error would keep what its frames hold
            return True

    def _round(self) -> bool:
        """Put those into the store that have been here for a round, and let the others have their own.

        False if it's time to end.
        """
        with self._lock:
            gone, self._unwanted = self._unwanted, []
            object_ids = [] if self._paused else list(self._old)
            if not self._paused:
                self._stored = {}, self._stored[0]
        if gone:
            self._store.delete(map(ObjectID, gone))
        began = time.monotonic()
        for object_id in object_ids:
            with self._lock:
                if self._paused:
                    break
                result = self._take(object_id)
                if result is not None:
                    self._stored[0][object_id] = _Stored(result.serial, len(result.flat), result.type_name)
            if result is not None and not self._put(object_id, result):
                break
            worked = time.monotonic() - began
            if worked >= _STINT_SECONDS:
                self._store.flush()
                if self._nap(_PAUSE_FACTOR * worked):
                    return False
                began = time.monotonic()
        self._store.flush()
        with self._lock:
            left, self._old, self._young = self._old, self._young, {}
            self._old.update(left)  # of a store that is full
        return True

    def _put(self, object_id: bytes, result: _Result) -> bool:
        """Put a result into the store; or back, if there's no room."""
        encoded = Encoded(result.flat, type_name=result.type_name)
        try:
            with self._store.batch():
                self._store.put_encoded(
                    encoded,
                    key=display_name(result.key),
                    label=result.serial,
                    references=result.references,
                    object_id=ObjectID(object_id),
                    timeout=_PUT_TIMEOUT_SECONDS,
                )
        except StoreFullError as error:
            logger.warning("small results wait for room in the store: %s", str(error))
            with self._lock:
                self._nbytes += len(result.flat) + _OVERHEAD_NBYTES
                self._young[object_id] = result
                self._stored[0].pop(object_id, None)
            return False
        return True
