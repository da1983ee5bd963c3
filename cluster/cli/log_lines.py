"""Lines of the logs that a cluster's processes write (`cluster/worker/output.py` has their form)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from holdfast.cluster.processes import log_files

_CHUNK_NBYTES = 64 << 10
#: So much is read at once of what a log has got since it was read last.
_NEWS_NBYTES = 1 << 20
#: The time, the process's id, which isn't shown, and the rest.
_BEGINNING = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) \d+ (.*)")


class Line(NamedTuple):
    """A line, when it was written, and by which process. One without a time of its own has that of the one before."""

    time: str
    name: str
    text: str


class LogFile:
    """A log that is read from its end on.

    Parameters
    ----------
    path
        Of the file; it need not be there yet.

    Attributes
    ----------
    name : str
        Of the process that writes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem
        self._position = 0
        self._begun = b""
        self._time = ""

    def last(self, number: int | None) -> list[Line]:
        """The last lines, or all; `news` goes on after them."""
        data, self._position = _end_of(self.path, number)
        missing = None if number is None else number - data.count(b"\n")
        if missing is None or missing > 0:
            data = _end_of(log_files.older(self.path), missing)[0] + data
        complete, _, self._begun = data.rpartition(b"\n")
        lines = list(self._lines(complete))
        return lines if number is None else lines[-number:]

    def news(self) -> list[Line]:
        """What was written since it was read last, in whole lines."""
        try:
            with open(self.path, "rb") as file:
                if os.fstat(file.fileno()).st_size < self._position:  # it was cut
                    self._position, self._begun = 0, b""
                file.seek(self._position)
                data = file.read(_NEWS_NBYTES)
        except FileNotFoundError:
            return []
        self._position += len(data)
        complete, end, begun = (self._begun + data).rpartition(b"\n")
        self._begun = begun
        return list(self._lines(complete)) if end else []

    def _lines(self, data: bytes) -> Iterator[Line]:
        if not data:
            return
        for text in data.decode(errors="replace").split("\n"):
            begins = _BEGINNING.fullmatch(text)
            if begins:
                self._time = begins[1]
                text = f"{begins[1]} {begins[2]}"
            yield Line(self._time, self.name, text)


def in_order(lines: Iterable[Line]) -> list[Line]:
    """Lines of several logs by their times; those of one log stay as they are among themselves."""
    return sorted(lines, key=lambda line: line.time)


def _end_of(path: Path, number: int | None) -> tuple[bytes, int]:
    """The end of a file, with so many lines at least if it has them, or all of it; and how long the file is."""
    try:
        with open(path, "rb") as file:
            size = position = file.seek(0, os.SEEK_END)
            pieces: list[bytes] = []
            ends = 0
            # One more than asked for: of the first that is found only the end may be there.
            while position and (number is None or ends <= number):
                start = max(0, position - _CHUNK_NBYTES)
                file.seek(start)
                pieces.append(file.read(position - start))
                ends += pieces[-1].count(b"\n")
                position = start
            return b"".join(reversed(pieces)), size
    except FileNotFoundError:
        return b"", 0
