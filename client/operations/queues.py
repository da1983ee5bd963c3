"""Queues of Python in the place of containers: what comes out of one goes, item by item, into another.

A thread takes the items as they come. It refers to the client only while it handles an item, so that a client that is
garbage can end, and it ends with the client.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.raising import hide_own_frames

#: How often a thread that waits for an item looks whether its client is there still.
_LOOK_SECONDS = 0.1

#: Whether it is what `get` gives, or an error that it raises; and that.
_Item = tuple[bool, Any]


class OutputQueue(queue.Queue[Any]):
    """A queue whose `get` gives what became of an item, or raises what went wrong with it."""

    def _get(self) -> Any:
        good, given = super()._get()
        if good:
            return given
        raise given


def is_queue(value: Any) -> bool:
    """Whether it is a queue of Python's."""
    return isinstance(value, (queue.Queue, queue.SimpleQueue))


def fed_by(core: Core, sources: Sequence[Any], call: Callable[[Core, tuple[Any, ...]], Sequence[Any]]) -> OutputQueue:
    """The queue of what ``call`` makes of the items of queues, one of each at a time.

    Parameters
    ----------
    sources
        Queues.
    call
        ``call(core, items)`` gives what is to be put; it may wait. What it raises is raised by ``get``.

    Raises
    ------
    TypeError
        The client is asynchronous: nothing may wait in a thread for it. Or only some of them are queues.
    """
    if not all(map(is_queue, sources)):
        raise TypeError("queues can be mapped over together, but not queues and other iterables")
    core.session.check_open()
    if core.driver.gives_awaitables:
        raise TypeError(
            "an asynchronous client takes no queue of threads: take its items in a coroutine, and make a call for each"
        )
    output = OutputQueue()
    feeding = _Feeding(weakref.ref(core), sources, call, output)
    threading.Thread(target=feeding.run, name="holdfast-queue", daemon=True).start()
    return output


class _Feeding:
    """What the thread does."""

    def __init__(
        self,
        core: weakref.ref[Core],
        sources: Sequence[Any],
        call: Callable[[Core, tuple[Any, ...]], Sequence[Any]],
        output: OutputQueue,
    ) -> None:
        self._core = core
        self._sources = sources
        self._call = call
        self._output = output

    def run(self) -> None:
        while (items := self._take()) is not None:
            core = self._core()
            if core is None:
                return
            try:
                for given in self._call(core, items):
                    self._output.put((True, given))
            except Exception as error:
                hide_own_frames(error)
                self._output.put((False, error))
            del core, items

    def _take(self) -> tuple[Any, ...] | None:
        """An item of each source; None: the client has ended, or a source has."""
        taken: list[Any] = []
        for source in self._sources:
            while True:
                if self._is_over():
                    return None
                try:
                    taken.append(source.get(timeout=_LOOK_SECONDS))
                    break
                except queue.Empty:
                    continue
                except Exception as error:  # of a source that is such an output, or was shut down
                    if type(error).__name__ == "ShutDown":
                        self._shut_down()
                        return None
                    self._output.put((False, error))
        return tuple(taken)

    def _is_over(self) -> bool:
        core = self._core()
        return core is None or core.session.ended is not None

    def _shut_down(self) -> None:
        shutdown = getattr(self._output, "shutdown", None)  # since Python 3.13
        if shutdown is not None:
            shutdown()
