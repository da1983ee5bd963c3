"""Tracebacks as plain data, and tracebacks made of it.

A traceback can't be pickled: its frames have code and variables. What people and debuggers look at is where each frame
was: the file, the line, the columns, the name of the function and of its module. Frames are made again that say this.
They have no variables, and no caller: a frame keeps all that it was called by, with their variables. So
each is that of a generator that is never begun, whose code has the names and tells the place.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import FunctionType, TracebackType
from typing import Any

#: A traceback of more entries than this, of a recursion without end for instance, is sent without those in the middle.
MAX_FRAMES = 100

#: File, function, module, first line, last line, first column, column after the last; outermost first. The last three
#: may be unknown.
Frames = tuple[tuple[str, str, str, int, int | None, int | None, int | None], ...]


def frames_of(trace: TracebackType | None) -> Frames:
    """What is sent of a traceback: its first and its last entries."""
    entries: list[TracebackType] = []
    while trace is not None:
        entries.append(trace)
        trace = trace.tb_next
    if len(entries) > MAX_FRAMES:
        entries[MAX_FRAMES // 2 : -MAX_FRAMES // 2] = []
    frames = []
    for entry in entries:
        code, variables = entry.tb_frame.f_code, entry.tb_frame.f_globals
        module = variables.get("__name__")
        names = code.co_filename, code.co_name, module if isinstance(module, str) else ""
        positions = itertools.islice(code.co_positions(), entry.tb_lasti // 2, None) if entry.tb_lasti >= 0 else ()
        line, end_line, column, end_column = next(iter(positions), (None, None, None, None))
        if line != entry.tb_lineno or end_line is None or column is None or end_column is None:
            end_line = column = end_column = None
        frames.append((*names, entry.tb_lineno or 0, end_line, column, end_column))
    return tuple(frames)


def traceback_of(frames: Frames) -> TracebackType | None:
    """A traceback that shows these frames; None if there are none."""
    trace: TracebackType | None = None
    for filename, function, module, line, end_line, column, end_column in reversed(frames):
        code = _CODE.replace(
            co_filename=filename,
            co_name=function,
            co_qualname=function,
            co_firstlineno=max(line, 1),
            co_linetable=_line_table(max(line, 1), end_line, column, end_column),
        )
        variables: dict[str, Any] = {"__name__": module, "__file__": filename}
        trace = TracebackType(trace, FunctionType(code, variables)().gi_frame, 0, line)
    return trace


def _generator() -> Iterator[None]:
    yield


_CODE = _generator.__code__
_LENGTH = len(_CODE.co_code) // 2
_MAX_ENTRY_LENGTH = 8
_NO_COLUMNS, _WITH_COLUMNS = 13, 14  # kinds of entries


def _line_table(line: int, end_line: int | None, column: int | None, end_column: int | None) -> bytes:
    """A table of positions, as CPython's ``Objects/locations.md`` describes it: all of the code lies at one place."""
    if end_line is None or column is None or end_column is None or end_line < line:
        kind, place = _NO_COLUMNS, b"\0"
    else:
        kind, place = _WITH_COLUMNS, b"\0" + b"".join(map(_variable, (end_line - line, column + 1, end_column + 1)))
    table = b""
    for begin in range(0, _LENGTH, _MAX_ENTRY_LENGTH):
        length = min(_MAX_ENTRY_LENGTH, _LENGTH - begin)
        table += bytes([0x80 | kind << 3 | length - 1]) + place
    return table


def _variable(number: int) -> bytes:
    """A number in six bits of each byte, the lowest first; the seventh says that there are more."""
    encoded = bytearray()
    while number >= 1 << 6:
        encoded.append(number & 0x3F | 0x40)
        number >>= 6
    encoded.append(number)
    return bytes(encoded)
