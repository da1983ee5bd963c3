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
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

_CHECKS = {"RESUME", "CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD"}
_CALLED_BY_C = {"__init__", "__new__"}  # their callers are told when the type's call returns


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
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(before)
            self._last.clear()

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not str(frame.f_globals.get("__name__")).startswith(self._package) or _in_finaliser(frame):
            return None
        if frame.f_back in self._last and frame.f_code.co_name not in _CALLED_BY_C:
            self._last[frame.f_back] = ""  # nobody looks when a function in Python returns
        self._last[frame] = "RESUME"
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "return":
            self._last.pop(frame, None)
        elif event == "opcode":
            done, self._last[frame] = self._last[frame], _operations(frame.f_code)[frame.f_lasti]
            if done in _CHECKS:
                self._left -= 1
                if not self._left:
                    self.where = f"{frame.f_code.co_qualname}, line {frame.f_lineno}"
                    sys.settrace(None)
                    self._handle()
        return self._step


def _in_finaliser(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None
