"""What a worker's process writes into its log, line by line, each with the task that it is of.

A line of the log has the form ``time pid LEVEL [key] text``; ``[key]`` is there if a task wrote it, and ``LEVEL`` is
``OUT`` or ``ERR`` for what was printed. ``holdfast logs`` reads that. Of a line that is written over, as a progress bar
is, the last state is kept. What a library in C writes to the descriptors itself has no such beginning: then the file
tells of the worker, and nothing of the task.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import time
from typing import Any, TextIO

from holdfast.cluster.worker.context import current_key
from holdfast.cluster.worker.display_names import display_name

FORMAT = "%(asctime)s %(process)d %(levelname)s %(task)s%(name)s: %(message)s"
#: A line that goes on for longer is ended.
LINE_LENGTH_MAX = 64 << 10


def _in_brackets() -> str:
    key = current_key()
    return "" if key is None else f"[{display_name(key)}] ".replace("\n", " ")


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        record.task = _in_brackets()
        return super().format(record)


def _last_state(line: str) -> str:
    """What a terminal shows of a line that is written over again and again, as progress bars are."""
    return line[line.rstrip("\r").rfind("\r") + 1 :]


class _Begun(threading.local):
    """The line that each thread has begun."""

    text = ""


class TaskLines(io.TextIOBase):
    """A standard stream that writes whole lines, each with its beginning, and none of one thread into another's.

    Parameters
    ----------
    stream
        What it takes the place of.
    level
        What its lines are called.
    """

    def __init__(self, stream: TextIO, level: str) -> None:
        self._stream = stream
        self._level = level
        self._begun = _Begun()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors

    @property
    def buffer(self) -> Any:
        """For bytes, which go out as they are."""
        return self._stream.buffer

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        text, nchars = self._begun.text + text, len(text)
        *lines, begun = text.split("\n")
        if "\r" in text:
            lines, begun = [_last_state(line).rstrip("\r") for line in lines], _last_state(begun)
        if len(begun) > LINE_LENGTH_MAX:
            lines.append(begun)
            begun = ""
        self._begun.text = begun
        if lines:
            self._write(lines)
        return nchars

    def flush(self) -> None:
        """Nothing waits here but a line that isn't complete, for its end or that of its task."""
        self._stream.flush()

    def end_line(self) -> None:
        """This thread's task is over: the line that it has begun ends here."""
        if self._begun.text:
            self.write("\n")

    def _write(self, lines: list[str]) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        head = f"{stamp},{int(now % 1 * 1000):03} {os.getpid()} {self._level} {_in_brackets()}"
        data = "".join(f"{head}{line}\n" for line in lines).encode(errors="backslashreplace")
        while data:  # at once, usually: then no other process's lines come in between
            data = data[os.write(self._stream.fileno(), data) :]


def prefix_lines() -> None:
    """From now on what is printed and logged in this process has the form that is described above."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Formatter(FORMAT))
    sys.stdout = TaskLines(sys.stdout, "OUT")
    sys.stderr = TaskLines(sys.stderr, "ERR")


def end_lines() -> None:
    """A task is over: lines that its thread has begun to print end."""
    for stream in (sys.stdout, sys.stderr):
        if type(stream) is TaskLines:
            stream.end_line()
