"""Takes errands, does each in a thread, and sends what it has come to.

Each errand has a thread, so that one that blocks keeps no other waiting, and nothing else of its process either: not
the loop, and no task. There are at most `MAX_THREADS` of them at a time. What comes beyond that waits, up to
`MAX_QUEUED`, and what comes beyond that is refused. A thread that has done an errand takes the next one that waits, or
ends. All of them are daemons, for an errand can't be stopped.

An answer is held against the definition of its errand before it is sent: the mistake of a handler is to cost its
client an error, and not this process its connection.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from holdfast.cluster.comm.frames import Raw, raw_values
from holdfast.cluster.protocol.errands import ERRAND_DONE, ERRAND_STORED, Doer, done_by
from holdfast.cluster.protocol.limits import MAX_REASON_LENGTH
from holdfast.cluster.protocol.message import Answering, Request
from holdfast.objectstore.errors import in_words, sendable

logger = logging.getLogger(__name__)

MAX_THREADS = 64
MAX_QUEUED = 1_000


class Stored(NamedTuple):
    """An answer that lies in the store of the host, sealed."""

    object_id: bytes
    nbytes: int
    type: str


#: By errand, ``handler(**arguments)``: the answer, or where it is stored. What it raises is the client's error.
Handlers = Mapping[Request, Callable[..., Any]]


class ErrandThreads:
    """Does errands.

    Parameters
    ----------
    doer
        What this process is.
    handlers
        What is done about each errand of such a process.
    deliver
        ``deliver(message)`` sends a message to the scheduler, in any thread.
    inside
        Each thread does its errands within ``inside()``.
    name
        For the threads' names.

    Raises
    ------
    ValueError
        A handler is missing, or is for an errand that can't come.
    """

    def __init__(
        self,
        doer: Doer,
        handlers: Handlers,
        deliver: Callable[[tuple[Any, ...]], None],
        name: str,
        inside: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        errands = done_by(doer)
        self._answers = {errand.operation: errand.answer for errand in errands}
        self._answering: Answering[Any] = Answering(errands, handlers)
        self._doer = doer
        self._deliver = deliver
        self._inside = inside
        self._name = name
        self._names = itertools.count()
        self._lock = threading.Lock()
        self._queued: deque[tuple[int, str, dict[str, Any]]] = deque()
        self._threads: dict[threading.Thread, None] = {}
        self._begins = True
        self._stopped = False

    def take(self, number: int, operation: str, arguments: dict[str, Any]) -> None:
        """Do an errand, soon. In any thread; never waits."""
        with self._lock:
            if not self._begins:
                return
            refused = len(self._queued) >= MAX_QUEUED
            thread = None
            if not refused:
                self._queued.append((number, operation, arguments))
                if len(self._threads) < MAX_THREADS:
                    thread = threading.Thread(target=self._serve, name=f"{self._name}-{next(self._names)}", daemon=True)
                    self._threads[thread] = None
        if refused:
            self._fail(number, RuntimeError(f"this {self._doer} has {MAX_QUEUED:,} errands to do already"))
        elif thread is not None:
            try:
                thread.start()
            except RuntimeError as error:  # the system has no thread: one that there is takes it, if there is one
                self._lacks_a_thread(thread, error)

    def _lacks_a_thread(self, thread: threading.Thread, error: RuntimeError) -> None:
        with self._lock:
            del self._threads[thread]
            left = [] if self._threads else [number for number, _, _ in self._queued]
            if left:
                self._queued.clear()
        for number in left:
            self._fail(number, error)

    def begin_no_more(self) -> None:
        """Begin no errand any more. Those that have begun are answered still."""
        with self._lock:
            self._begins = False
            self._queued.clear()

    def stop(self) -> None:
        """Begin no errand any more, and answer none."""
        self.begin_no_more()
        self._stopped = True

    def join(self, timeout: float) -> bool:
        """Wait until all have ended that have begun; whether they have. Not for the loop's thread."""
        deadline = time.monotonic() + timeout
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in list(self._threads))

    # -- threads

    def _serve(self) -> None:
        try:
            with self._inside():
                while (errand := self._next()) is not None:
                    self._do(*errand)
                    del errand  # it may hold much
        finally:
            self._threads.pop(threading.current_thread(), None)

    def _next(self) -> tuple[int, str, dict[str, Any]] | None:
        with self._lock:
            if self._queued:
                return self._queued.popleft()
            del self._threads[threading.current_thread()]  # from here on another one is started for what comes
            return None

    def _do(self, number: int, operation: str, arguments: dict[str, Any]) -> None:
        try:
            answer = self._answering(operation, arguments)
            if not isinstance(answer, Stored):
                self._answers[operation].check(_as_received(answer), operation)
        except BaseException as error:  # an errand may raise anything, and none of it may end this thread
            logger.debug("the errand %r has failed", operation, exc_info=True)
            self._fail(number, error)
        else:
            if isinstance(answer, Stored):
                self._say(ERRAND_STORED(number, *answer))
            else:
                self._say(ERRAND_DONE(number, True, raw_values(answer) if type(answer) is dict else answer))

    def _fail(self, number: int, error: BaseException) -> None:
        try:
            text = sendable(str(error))
        except BaseException:  # a method of the user's
            text = in_words(error)
        text = text[:MAX_REASON_LENGTH]
        self._say(ERRAND_DONE(number, False, [type(error).__name__, text]))

    def _say(self, message: tuple[Any, ...]) -> None:
        if not self._stopped:  # else nobody waits for it any more
            self._deliver(message)


def _as_received(value: Any) -> Any:
    """A value as the scheduler gets it."""
    kind = type(value)
    if kind is list or kind is tuple:
        return tuple(map(_as_received, value))
    if kind is dict:
        return {name: _as_received(item) for name, item in value.items()}
    return value.data if kind is Raw else value
