"""Ctrl-C at every point where Python may take it, one after the other.

CPython looks for signals when a function begins, when one that is written in C has returned, and when a loop jumps
back. ``Interrupt`` raises ``KeyboardInterrupt`` at the ``at``-th such point within a package, without a signal, or does
there what a handler of a signal would. It leaves out finalisers: what is raised there is printed and lost, wherever it
comes from.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import operator
import sys
import threading
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

_CHECKS = {"RESUME", "CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD"}
_CALLED_BY_C = {"__init__", "__new__"}  # their callers are told when the type's call returns
_HANDLERS_BEGIN = {"PUSH_EXC_INFO", "CLEANUP_THROW"}  # after a call that raised, nobody looks


@functools.cache
def _operations(code: CodeType) -> dict[int, str]:
    return {instruction.offset: instruction.opname for instruction in dis.get_instructions(code)}


def _raise() -> None:
    raise KeyboardInterrupt


class Interrupt:
    """One interrupt, at a point to be counted to.

    Parameters
    ----------
    package : str
        Whose code is interrupted: a module's name or the beginning of one.
    at : int
        At which point, from 1 on.
    handle : callable, optional
        What is done there. Default: raise ``KeyboardInterrupt``.

    Attributes
    ----------
    where : str or None
        Where it was, once it has come.
    """

    def __init__(self, package: str, at: int, handle: Callable[[], object] = _raise) -> None:
        self.where: str | None = None
        self._handle = handle
        self._package = package
        self._left = at
        self._last: dict[FrameType, str] = {}  # what each frame did last

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        """Within the block it comes, if there are so many points."""
        watch = _watched_by_monitoring if sys.version_info >= (3, 12) else _watched_by_tracing
        self._thread = threading.get_ident()
        try:
            with watch(self):
                yield
        finally:
            self._last.clear()

    def concerns(self, frame: FrameType) -> bool:
        """Whether an interrupt may come in this frame."""
        return str(frame.f_globals.get("__name__")).startswith(self._package) and not _in_finaliser(frame)

    def begun(self, frame: FrameType) -> None:
        """A function begins, or a generator goes on."""
        if threading.get_ident() == self._thread and self.concerns(frame):
            if frame.f_back in self._last and frame.f_code.co_name not in _CALLED_BY_C:
                self._last[frame.f_back] = ""  # nobody looks when a function in Python returns
            self._last[frame] = "RESUME"

    def next_operation(self, frame: FrameType, offset: int, stop: Callable[[], object]) -> None:
        """An operation of the frame is about to run: if the one before it looked for signals, this is a point."""
        done = self._last.get(frame)
        if done is None:
            return
        operation = self._last[frame] = _operations(frame.f_code)[offset]
        if done in _CHECKS and operation not in _HANDLERS_BEGIN:
            self._left -= 1
            if not self._left:
                self.where = f"{frame.f_code.co_qualname}, line {frame.f_lineno}"
                stop()
                self._handle()

    def ended(self, frame: FrameType) -> None:
        """The frame has returned, raised or yielded."""
        self._last.pop(frame, None)


@contextlib.contextmanager
def _watched_by_tracing(interrupt: Interrupt) -> Iterator[None]:
    """Python 3.11: each operation is an event of the trace function."""

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        if not interrupt.concerns(frame):
            return None
        interrupt.begun(frame)
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return step

    def step(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "return":
            interrupt.ended(frame)
        elif event == "opcode":
            interrupt.next_operation(frame, frame.f_lasti, lambda: sys.settrace(None))
        return step

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(before)


@contextlib.contextmanager
def _watched_by_monitoring(interrupt: Interrupt) -> Iterator[None]:
    """Python 3.12 and newer, whose trace functions miss operations of code that was already running."""
    monitoring = sys.monitoring
    tool, events = monitoring.PROFILER_ID, monitoring.events
    callbacks: dict[int, Callable[..., None]] = {
        events.PY_START: lambda code, offset: interrupt.begun(sys._getframe(1)),
        events.PY_RESUME: lambda code, offset: interrupt.begun(sys._getframe(1)),
        events.INSTRUCTION: lambda code, offset: interrupt.next_operation(
            sys._getframe(1), offset, lambda: monitoring.set_events(tool, 0)
        ),
        events.PY_YIELD: lambda code, offset, value: interrupt.ended(sys._getframe(1)),
        events.PY_RETURN: lambda code, offset, value: interrupt.ended(sys._getframe(1)),
        events.PY_UNWIND: lambda code, offset, error: interrupt.ended(sys._getframe(1)),
    }
    monitoring.use_tool_id(tool, "interrupts")
    for event, callback in callbacks.items():
        monitoring.register_callback(tool, event, callback)
    monitoring.set_events(tool, functools.reduce(operator.or_, callbacks))
    try:
        yield
    finally:
        monitoring.set_events(tool, 0)
        for event in callbacks:
            monitoring.register_callback(tool, event, None)
        monitoring.free_tool_id(tool)


def _in_finaliser(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None
