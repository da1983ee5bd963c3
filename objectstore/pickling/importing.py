"""Unpickling by several threads, of which one imports at a time.

Python has a lock for each module. Two threads that begin to import modules which need each other, at different ends,
would wait for each other for ever. Python sees that, and lets one of them have a module that isn't complete: what it
imports fails then, with ``cannot import name``, ``partially initialized module`` or ``deadlock detected``. The first
tasks of a worker, and threads of a client that read their first frames, do just that. Here the name of each module
comes by before it is imported. A module that is there is taken as ever. Any other one is imported under a lock that all
threads of the process have in common.

An ``import`` statement inside of a task's function doesn't come by here. Two of them in two threads can fail, as in any
program with threads. Where one of them and a thread in here are in each other's way, this thread tries again.

What is imported may wait for a thread that comes here as well. So no thread waits for the lock longer than
`WAIT_SECONDS`, and goes on without it then.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pickle
import re
import sys
import threading
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from holdfast.objectstore.pickling import own_classes
from holdfast.objectstore.pickling.exceptions import cause_of, context_of, trace_of

#: How long one thread waits for another that imports.
WAIT_SECONDS = 30.0
#: How often an import is tried that others had been in the middle of.
MAX_ATTEMPTS = 5
#: A pickle that is no longer is looked through for names of modules before it is read.
_SHORT_NBYTES = 4096
#: From this length on a pickle isn't copied to be read.
_LONG_NBYTES = 64 << 10
#: The operation that looks a name up in a module. It is in each pickle that has one, and seldom in others.
_LOOK_UP = pickle.STACK_GLOBAL

#: How many errors are looked at that an error was raised from.
_MAX_CAUSES = 10
_INCOMPLETE = re.compile(r"(?:partially initialized module|deadlock detected by _ModuleLock\()\s*'([^']+)'")

_lock = threading.RLock()
_find_class = pickle.Unpickler.find_class


def loads(data: bytes | memoryview, buffers: Iterable[Any] | None = None) -> Any:
    """Unpickle a value, as `pickle.loads` does. Raises what that raises."""
    if len(data) <= _SHORT_NBYTES and _LOOK_UP not in (data if type(data) is bytes else bytes(data)):
        return pickle.loads(data, buffers=buffers) if buffers else pickle.loads(data)
    unpickler = Unpickler(source_of(data), buffers=buffers)
    try:
        return unpickler.load()
    finally:
        # An error that an imported module keeps, as of an optional import, keeps the frames down to here, and these
        # the unpickler with all that it has made.
        if unpickler.has_imported:
            unpickler.memo = {}


def source_of(data: bytes | memoryview) -> Any:
    """A file to unpickle these bytes from."""
    return _Source(data) if type(data) is memoryview and len(data) > _LONG_NBYTES else io.BytesIO(data)


class Unpickler(pickle.Unpickler):
    """pickle's unpickler, which imports alone."""

    has_imported = False

    def find_class(self, module: str, name: str) -> Any:
        try:
            is_there = not sys.modules[module].__spec__._initializing  # type: ignore[union-attr]
        except (KeyError, AttributeError):
            is_there = False
        if not is_there:
            self.has_imported = True
            see_to(module)
        if module in _IMPORTERS and name in _IMPORTERS[module]:
            return _IMPORTERS[module][name]
        return _find_class(self, module, name)


def see_to(name: str) -> None:
    """Import a module alone, unless it is there."""
    found = sys.modules.get(name)
    if found is None or getattr(getattr(found, "__spec__", None), "_initializing", False):
        import_alone(name)


def import_alone(name: str, package: str | None = None) -> ModuleType:
    """`importlib.import_module`, by one thread at a time. Raises what that raises."""
    attempt = 1
    while True:
        has_lock = _lock.acquire(timeout=WAIT_SECONDS)
        try:
            return importlib.import_module(name, package)
        except Exception as error:
            incomplete = _left_by_another_thread(error)
            if incomplete is None or attempt == MAX_ATTEMPTS:
                raise
        finally:
            if has_lock:
                _lock.release()
        with contextlib.suppress(Exception):  # it has failed there, or is complete now
            importlib.import_module(incomplete)
        attempt += 1


def _subimport(name: str) -> ModuleType:
    """What cloudpickle writes for a module."""
    see_to(name)
    return sys.modules[name]


#: What a pickle may call to import modules, by the names that it has for that.
_IMPORTERS: dict[str, dict[str, Any]] = {
    "cloudpickle.cloudpickle": {"subimport": _subimport, **own_classes.INSTEAD},
    "importlib": {"import_module": import_alone},
}


def _left_by_another_thread(error: BaseException) -> str | None:
    """The module that another thread was in the middle of, if an import has failed for that."""
    at: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if at is None:
            break
        if isinstance(at, (ImportError, AttributeError, RuntimeError)):
            found = _INCOMPLETE.search(str(at))
            if found is not None:
                return found[1]
        elif isinstance(at, KeyError) and at.args and _is_raised_by_import(at):
            return str(at.args[0])  # it has failed there
        at = cause_of(at) or context_of(at)
    return None


def _is_raised_by_import(error: BaseException) -> bool:
    trace = trace_of(error)
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename.startswith("<frozen importlib")


class _Source:
    """Bytes of another owner, as a file. Pickles are read from it frame by frame."""

    def __init__(self, data: memoryview) -> None:
        self._data = data.cast("B")
        self._at = 0

    def read(self, size: int) -> bytes:
        part = self._data[self._at : self._at + size]
        self._at += len(part)
        return bytes(part)

    def readinto(self, buffer: Any) -> int:
        with memoryview(buffer) as target:
            part = self._data[self._at : self._at + target.nbytes]
            target.cast("B")[: len(part)] = part
        self._at += len(part)
        return len(part)

    def readline(self) -> bytes:
        line = bytearray()
        while not line.endswith(b"\n") and (part := self.read(1)):
            line += part
        return bytes(line)


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # the thread that had it isn't in this process


os.register_at_fork(after_in_child=_after_fork)
