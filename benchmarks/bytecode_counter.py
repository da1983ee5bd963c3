"""What the interpreter does in one process: the bytecodes and the calls of each function, in all threads.

The interpreter calls a trace function before each bytecode. That makes everything some thirty times slower, and changes
nothing of what is done. What C code does is not seen: a call of it is one bytecode.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import psutil


class Counter:
    """Counts in the process in which it was started, and in those that are forked from it."""

    def __init__(self) -> None:
        #: The name of each thread, and by function its calls and bytecodes. A thread changes nothing but its own.
        self._counted: list[tuple[str, dict[CodeType, list[int]]]] = []
        self._thread = threading.local()

    def start(self) -> None:
        """Count in this thread, and in all that begin from now on."""
        threading.settrace(self._trace)
        sys.settrace(self._trace)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        try:
            counted = self._thread.counted
        except AttributeError:
            counted = self._thread.counted = defaultdict(lambda: [0, 0])
            self._counted.append((threading.current_thread().name, counted))
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        of_function = counted[frame.f_code]
        of_function[0] += 1

        def count(frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
            if event == "opcode":
                of_function[1] += 1
            return count

        return count

    def forget(self) -> None:
        """Begin anew with nothing."""
        for _, counted in list(self._counted):
            for of_function in list(counted.values()):
                of_function[:] = 0, 0

    def write(self, directory: Path) -> None:
        """Leave in a file of this process its command line, and what was counted so far."""
        rows = [
            [thread, function.co_filename, function.co_qualname, calls, bytecodes]
            for thread, counted in list(self._counted)
            for function, (calls, bytecodes) in list(counted.items())
        ]
        (directory / f"{os.getpid()}.json").write_text(json.dumps([psutil.Process().cmdline(), rows]))


def attach() -> Callable[[Path], None]:
    """Count in this process from now on; what writes it down."""
    counter = Counter()
    counter.start()
    return counter.write
