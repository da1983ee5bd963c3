"""Reads a journal, damaged or not, and says what is missing.

A journal is read whatever has become of its files. What can be read counts; what can't is set aside and told of:

==================================================  =================================================================
a log ends inside of a batch, and the next goes on  a scheduler ended while it wrote it, and nothing had come of the
with the number that is missing                     batch yet: the *torn end* costs nothing
the last log ends inside of a batch                 the same, or the machine lost power, and with it what had not
                                                    come to the disk
anything else that is no whole batch,               *damage*: others may still have what was in it, so nothing is
and batches that are missing                        deleted that the journal can't account for
==================================================  =================================================================
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from holdfast.cluster.errors import JournalError
from holdfast.cluster.journal import directory as state
from holdfast.cluster.journal.batches import Hole, LaterFormatError, read_heading, scan
from holdfast.cluster.journal.directory import File, StateDirectory
from holdfast.cluster.journal.tables import Tables


class Damage(NamedTuple):
    """Something that is not as it was written.

    Attributes
    ----------
    path
        The file.
    start, end
        Which bytes of it.
    reason
        What is wrong, for people.
    """

    path: Path
    start: int
    end: int
    reason: str

    def __str__(self) -> str:
        where = f", bytes {self.start:,} to {self.end:,}" if self.end > self.start else ""
        return f"{self.path}{where}: {self.reason}"


class Recovered(NamedTuple):
    """What a journal has said.

    Attributes
    ----------
    tables
        What its records come to.
    damage
        What could not be read.
    torn
        The ends of files that were cut off while they were written.
    next_file, next_batch
        The numbers to go on with.
    batches, nbytes
        How many batches there were, and the bytes of the files.
    cluster, epoch
        The id of the cluster that the files name, and the last epoch; None and zero if there are no files.
    """

    tables: Tables
    damage: list[Damage]
    torn: list[Damage]
    next_file: int
    next_batch: int
    batches: int
    nbytes: int
    cluster: str | None
    epoch: int


def recover(directory: StateDirectory) -> Recovered:
    """Read the journal of a directory, and set aside a copy of what can't be read.

    Raises
    ------
    JournalError
        The journal is of another cluster, or a later version of Holdfast has written it.
    """

    def set_aside(file: File, data: memoryview, hole: Damage) -> None:
        directory.set_aside(f"{file.path.name}-{hole.start}", data[hole.start : hole.end])

    recovered = read(directory.path, set_aside)
    if recovered.cluster not in (None, directory.cluster):
        raise JournalError(
            f"the journal in {directory.path} is of the cluster {recovered.cluster}, and cluster.json there says "
            f"{directory.cluster}: files of two clusters were put together"
        )
    return recovered


def read(
    path: Path,
    on_hole: Callable[[File, memoryview, Damage], None] = lambda file, data, hole: None,
    *,
    through: int | None = None,
) -> Recovered:
    """Read the journal in a state directory, which may be in use.

    Parameters
    ----------
    on_hole
        Called with a file, its bytes, and where some of these can't be read.
    through
        The last file to read; None: all.
    """
    while True:
        files = [file for file in state.files(path) if through is None or file.number <= through]
        try:
            return _Reading(on_hole).read(files)
        except FileNotFoundError:  # a summary has taken the place of some of them meanwhile
            continue


class _Reading:
    """One reading of the files of a journal."""

    def __init__(self, on_hole: Callable[[File, memoryview, Damage], None]) -> None:
        self._on_hole = on_hole
        self._tables = Tables()
        self._damage: list[Damage] = []
        self._torn: list[Damage] = []
        self._cluster: str | None = None
        self._epoch = 0
        self._next_batch = 1
        self._cut: Damage | None = None  # the end of the file before this one
        self._batches = self._nbytes = 0

    def read(self, files: list[File]) -> Recovered:
        for file in files:
            data = _mapped(file.path)
            self._nbytes += len(data)
            self._read(file, data)
        if self._cut is not None:
            self._torn.append(self._cut)
        self._tables.sweep()
        next_file = files[-1].number + 1 if files else 1
        return Recovered(
            self._tables,
            self._damage,
            self._torn,
            next_file,
            self._next_batch,
            self._batches,
            self._nbytes,
            self._cluster,
            self._epoch,
        )

    def _read(self, file: File, data: memoryview) -> None:
        try:
            heading, first = read_heading(data)
        except LaterFormatError as error:
            raise JournalError(f"{file.path}: {error}") from error
        except JournalError as error:
            self._damaged(file, Damage(file.path, 0, 0, str(error)), data)
            self._read_batches(file, data, 0, is_log=not file.is_summary)
            return
        if self._cluster not in (None, heading.cluster):
            raise JournalError(f"{file.path} is of another cluster, {heading.cluster}, than the files before it")
        self._cluster, self._epoch = heading.cluster, heading.epoch
        if heading.through is None:
            self._goes_on(file, first.number, data)
            self._next_batch = first.number + 1
        self._read_batches(file, data, first.end, is_log=heading.through is None)
        if heading.through is not None:
            self._next_batch = heading.through + 1

    def _read_batches(self, file: File, data: memoryview, start: int, *, is_log: bool) -> None:
        for found in scan(data, start):
            if isinstance(found, Hole):
                hole = Damage(file.path, found.start, found.end, found.reason)
                if found.torn and is_log:
                    self._cut = hole
                    self._on_hole(file, data, hole)
                else:
                    self._damaged(file, hole, data)
                continue
            if is_log:
                self._goes_on(file, found.number, data)
                self._next_batch = found.number + 1
            self._batches += 1
            try:
                self._tables.apply(found.records)
            except JournalError as error:
                self._damaged(file, Damage(file.path, found.end, found.end, str(error)), data)

    def _goes_on(self, file: File, number: int, data: memoryview) -> None:
        """A batch comes with this number: whether it is the one after the last."""
        cut, self._cut = self._cut, None
        if number == self._next_batch:
            if cut is not None:
                self._torn.append(cut)
            return
        if cut is not None:
            self._damage.append(cut)
        reason = f"batch {self._next_batch:,} should come, and batch {number:,} does"
        if number < self._next_batch:
            reason += ": files were put together that don't belong together"
        self._damaged(file, Damage(file.path, 0, 0, reason), data)

    def _damaged(self, file: File, damage: Damage, data: memoryview) -> None:
        self._damage.append(damage)
        if damage.end > damage.start:
            self._on_hole(file, data, damage)


def _mapped(path: Path) -> memoryview:
    """The bytes of a file, as long as the view is used."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
