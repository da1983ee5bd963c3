"""Functions of users, called for an errand: how `Client.run` and its like are done where the function runs.

A coroutine function is awaited in a loop that all such functions of the process share, in a thread of its own. It is
not the loop of the process itself, which must not stand still. What a function raises is a *result* of the errand, with
the traceback of the user's frames.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping
from types import FrameType
from typing import Any

from holdfast.cluster.comm.frames import raw
from holdfast.cluster.comm.loops import LoopThread
from holdfast.cluster.errands.threads import Stored
from holdfast.cluster.failures.dumping import MAX_LINKS, dump_exception, dump_text
from holdfast.cluster.protocol import payloads
from holdfast.cluster.protocol.limits import MAX_PAYLOAD_NBYTES
from holdfast.objectstore import Encoded
from holdfast.objectstore.errors import in_words, way_to_unpickle
from holdfast.objectstore.pickling.exceptions import linked, set_trace, trace_of

logger = logging.getLogger(__name__)

Called = dict[str, Any] | Stored

#: How long the loop waits for the functions that it cancels.
CLOSE_SECONDS = 1.0
#: So many of the innermost frames are shown of a function that takes too long.
MAX_FRAMES = 20

_OWN_FOLDER = os.path.dirname(__file__) + os.sep
_OWN_FILES = (payloads.__file__,)


class TooLate(Exception):
    """A function has not ended in time: what it is doing, in words, as the end of a sentence that begins with "it"."""


class Calls:
    """Calls functions in this process.

    Parameters
    ----------
    where
        This process, for messages to people: "worker 'alpha-0'".
    given
        What functions get that have a parameter of this name, ``dask_worker`` say.
    encode
        ``encode(value)``: a result as it is sent or stored.
    store
        ``store(encoded)`` puts a result into a store that is too large to be sent.
    inside
        The thread of the loop runs within ``inside()``, as the threads of errands do.
    name
        For the names of threads.
    inline_nbytes
        How large a result may be that is sent.
    """

    def __init__(
        self,
        where: str,
        given: Mapping[str, Any],
        *,
        encode: Callable[[Any], Encoded],
        store: Callable[[Encoded], Stored],
        inside: Callable[[], contextlib.AbstractContextManager[None]],
        name: str,
        inline_nbytes: int,
    ) -> None:
        self._where = where
        self._given = given
        self._encode = encode
        self._store = store
        self._inside = inside
        self._name = name
        self._inline_nbytes = inline_nbytes
        self._lock = threading.Lock()
        self._loop: LoopThread | None = None
        self._closed = False
        self._in_background: set[Any] = set()
        self._awaited: dict[int, Any] = {}  # what a coroutine function has returned, by the thread that waits for it

    def call(self, call: bytes | memoryview, values: Mapping[Any, Any] | None, *, waits: bool) -> Called:
        """Call what a client has sent, and give what it returns or raises as the answer of an errand.

        Parameters
        ----------
        call
            The pickle of ``(function, args, kwargs)``.
        values
            Those of its references.
        waits
            Whether to wait for it. If not, what it returns is lost, and what it raises is logged.
        """
        try:
            function, args, kwargs = self.load(call, values)
            if not waits:
                self._begin(function, args, kwargs)
                return self.answer(None)
            return self.answer(self.result_of(function, *args, **kwargs))
        except BaseException as error:  # whatever a user's code raises
            return self.failure(error)

    def load(self, call: bytes | memoryview, values: Mapping[Any, Any] | None) -> Any:
        """What a pickle is of. Raises what says that it can't be read here."""
        try:
            return payloads.loads(call, values)
        except Exception as error:  # the constructors of a user's classes run here
            text = f"it can't be unpickled on {self._where}: {in_words(error)}. {way_to_unpickle(error)}"
            raise RuntimeError(text) from error

    def result_of(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """What a function gives that is called with these, and with what it asks for by the names of its parameters.

        What a coroutine function returns is awaited.
        """
        result = function(*args, **{**kwargs, **self._asked_for(function)})
        if not inspect.isawaitable(result):
            return result
        raised: list[BaseException] = []

        async def awaited() -> Any:
            try:
                return await result
            except BaseException as error:  # so that the frames of the loop are none of its traceback
                raised.append(error)
                return None

        ident = threading.get_ident()
        self._awaited[ident] = result
        try:
            value = asyncio.run_coroutine_threadsafe(awaited(), self._own_loop().loop).result()
        finally:
            del self._awaited[ident]
        if raised:
            raise raised[0]
        return value

    def within(
        self,
        seconds: float | None,
        function: Callable[[], Any],
        late: Callable[[BaseException | None], None] | None = None,
    ) -> None:
        """Call a function as `result_of` does, in a thread of its own, and wait for it so long; None: for ever.

        Raises
        ------
        TooLate
            It goes on. When it ends after all, ``late(error)`` is called, with what it has raised.
        Exception
            What it raises.
        """
        deciding = threading.Lock()
        ended: list[BaseException | None] = []
        given_up = False

        def run() -> None:
            error: BaseException | None = None
            with self._inside():
                try:
                    self.result_of(function)
                except BaseException as raised:  # whatever a user's code raises
                    error = raised
                with deciding:
                    ended.append(error)
                    is_late = given_up
                if is_late and late is not None:
                    try:
                        late(error)
                    except BaseException:  # as above
                        logger.exception("a function that has ended late on %s has failed after that", self._where)

        thread = threading.Thread(target=run, name=f"{self._name}-within", daemon=True)
        thread.start()
        thread.join(seconds)
        with deciding:
            given_up = not ended
        if given_up:
            raise TooLate(f"has not ended on {self._where} after {seconds:g} s, and stands at\n{self.where(thread)}")
        if ended[0] is not None:
            raise ended[0]

    def where(self, thread: threading.Thread) -> str:
        """Where a thread stands that calls a function, as the lines of a traceback."""
        ident = thread.ident or 0
        frames = list(_awaiting(self._awaited.get(ident)))
        if not frames:
            frame = sys._current_frames().get(ident)
            while frame is not None and not _is_own(frame.f_code.co_filename):
                frames.insert(0, frame)
                frame = frame.f_back
        lines = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames[-MAX_FRAMES:])
        return "".join(lines.format()).rstrip() or "  (no line of its own)"

    def answer(self, value: Any) -> Called:
        """A result, sent or stored."""
        encoded = self._encode(value)
        if encoded.nbytes <= self._inline_nbytes:
            return {"result": raw(encoded.to_bytes())}
        return self._store(encoded)

    def failure(self, error: BaseException) -> dict[str, Any]:
        """An exception, with the frames of the user's."""
        for link in linked(error, MAX_LINKS):
            trace = trace_of(link)
            while trace is not None and _is_own(trace.tb_frame.f_code.co_filename):
                trace = trace.tb_next
            set_trace(link, trace)
        blob, text = dump_exception(error, f"Raised on {self._where}.")
        if len(blob) > MAX_PAYLOAD_NBYTES:
            blob = dump_text(text, f"the exception takes {len(blob):,} bytes, and {MAX_PAYLOAD_NBYTES:,} are sent")
        return {"raised": raw(blob), "text": text}

    def close(self) -> None:
        """End the loop. Functions that are not over are cancelled."""
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
        if loop is not None:
            with contextlib.suppress(TimeoutError):  # a function blocks it
                loop.close(CLOSE_SECONDS)

    def _asked_for(self, function: Callable[..., Any]) -> dict[str, Any]:
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):  # not every builtin has one
            return {}
        return {name: value for name, value in self._given.items() if name in parameters}

    def _begin(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Call a function that nobody waits for."""

        def run() -> None:
            with self._inside():
                try:
                    self.result_of(function, *args, **kwargs)
                except BaseException:  # there is nobody else to tell
                    logger.exception("a function that nobody waits for has failed on %s", self._where)

        if inspect.iscoroutinefunction(function):
            # It need have no thread of its own.
            coroutine = self._in_words(function(*args, **{**kwargs, **self._asked_for(function)}))
            future = asyncio.run_coroutine_threadsafe(coroutine, self._own_loop().loop)
            self._in_background.add(future)
            future.add_done_callback(self._in_background.discard)
        else:
            threading.Thread(target=run, name=f"{self._name}-background", daemon=True).start()

    async def _in_words(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        try:
            await coroutine
        except asyncio.CancelledError:
            raise
        except BaseException:  # as above
            logger.exception("a coroutine that nobody waits for has failed on %s", self._where)

    def _own_loop(self) -> LoopThread:
        with self._lock:
            if self._closed:
                raise RuntimeError(f"{self._where} is closing")
            if self._loop is None:
                self._loop = LoopThread(f"{self._name}-loop")
                self._loop.call_soon(self._enter)
            return self._loop

    def _enter(self) -> None:
        self._inside().__enter__()  # for as long as the thread lives


def _awaiting(awaited: Any) -> Iterator[FrameType]:
    """The frames of a coroutine, and of those that it awaits."""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)


def _is_own(filename: str) -> bool:
    return filename.startswith(_OWN_FOLDER) or filename in _OWN_FILES
