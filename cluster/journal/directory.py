"""The state directory of a cluster: which cluster it is of, which scheduler has it, and which files are in it.

=========================  ==================================================================================
``cluster.json``           the id of the cluster, and the format of the directory
``lock``                   locked by the scheduler that has the directory, which writes its process id into it
``epoch``                  how many schedulers have had it
``journal/00000017.log``   records, in the order of these numbers
``journal/00000016.sum``   a summary: it stands for all files with its number and lower ones
``forgotten/``             the journal of a cluster that has ended in order, while it is being removed
``aside/``                 what could not be read, or accounted for: nobody but a user removes it
=========================  ==================================================================================

A file is written beside its place first (``.new``) and renamed when it is on the disk, all but those that grow: the
``.log`` files. A scheduler never appends to one that was there before; it begins another.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from holdfast.cluster.errors import JournalError
from holdfast.cluster.journal.batches import HEADING_NBYTES, Heading, LaterFormatError, read_heading

logger = logging.getLogger(__name__)

#: Of the directory. Of the records in files it is `batches.FORMAT`.
FORMAT = 1

_FILE = re.compile(r"(\d{8,})\.(log|sum)")
_NEW = ".new"
#: What was the journal of a cluster that has ended in order.
_FORGOTTEN = "forgotten"


class File(NamedTuple):
    """A file of the journal."""

    number: int
    is_summary: bool
    path: Path


class StateDirectory:
    """A state directory that this process has for itself, until it is closed.

    Use `StateDirectory.open`. What only looks into one uses `files` and `identity`, which ask for no lock.

    Attributes
    ----------
    path
        Where it is.
    cluster
        The id of the cluster.
    epoch
        How many have had it, with this one: no two schedulers of a cluster have the same.
    is_temporary
        Whether it need not survive the machine: then nothing is synced.
    """

    def __init__(self, path: Path, cluster: str, epoch: int, lock: int, *, is_temporary: bool) -> None:
        self.path = path
        self.cluster = cluster
        self.epoch = epoch
        self.is_temporary = is_temporary
        self._lock = lock

    @classmethod
    def open(cls, path: Path, *, is_temporary: bool = False) -> StateDirectory:
        """Take a directory for this process; make it if there is none.

        Raises
        ------
        JournalError
            Another process has it, a later version of Holdfast has made it or written in it, it has files of two
            clusters, or it can't be used: the text says why. Nothing in it has changed then.
        """
        try:
            for each in (path, path / "journal", path / "aside"):
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
                if each.stat().st_uid != os.geteuid():
                    raise JournalError(f"{each} belongs to another user: use another state directory")
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalError(f"{path} can't be a state directory: {error.strerror or error}") from error
        try:
            _take(path, lock)
            _refuse(path)
            _forget_to_the_end(path)
            cluster = _identity_anyhow(path) or _found(path, sync=not is_temporary)
            epoch = _next_epoch(path, sync=not is_temporary)
            for left in (path / "journal").glob(f"*{_NEW}"):
                left.unlink()
        except OSError as error:
            os.close(lock)
            raise JournalError(f"the state directory {path} can't be used: {error.strerror or error}") from error
        except BaseException:
            os.close(lock)
            raise
        return cls(path, cluster, epoch, lock, is_temporary=is_temporary)

    def __enter__(self) -> StateDirectory:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the directory to others."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def forget(self) -> None:
        """The cluster has ended in order: remove its journal, so that the next scheduler begins another cluster.

        What lies in ``aside`` stays, and epochs are counted on.
        """
        (self.path / "journal").rename(self.path / _FORGOTTEN)
        _forget_to_the_end(self.path)

    def path_of(self, number: int, *, summary: bool = False) -> Path:
        """Where a file of the journal lies."""
        return self.path / "journal" / f"{number:08d}.{'sum' if summary else 'log'}"

    def set_all_aside(self, *, before: int) -> Path:
        """Move the files of the journal with lower numbers to where only a user removes them. Returns where."""
        place = self.path / "aside" / f"{time.strftime('%Y%m%d-%H%M%S')}-{self.epoch}-journal"
        place.mkdir(mode=0o700)
        for file in files(self.path):
            if file.number < before:
                file.path.rename(place / file.path.name)
        return place

    def set_aside(self, name: str, data: memoryview | None = None, *, path: Path | None = None) -> Path:
        """Keep bytes, or move a file, where only a user removes it. Returns where."""
        place = self.path / "aside" / f"{time.strftime('%Y%m%d-%H%M%S')}-{self.epoch}-{name}"
        if path is not None:
            path.rename(place)
        else:
            assert data is not None
            with open(place, "wb", opener=private) as file:
                file.write(data)
        return place


def forget(path: Path) -> None:
    """A cluster has ended in order, and its scheduler could not do this: see `StateDirectory.forget`.

    If it can't be done, that is logged: the next scheduler goes on with what is there.
    """
    try:
        if (path / "journal").exists():
            with StateDirectory.open(path) as directory:
                directory.forget()
    except (OSError, JournalError) as error:
        logger.warning("the state in %s stays: %s", path, error)


def files(path: Path) -> list[File]:
    """The files of a journal, in the order in which they are read: the last summary, and what came after it."""
    found = sorted(_all_files(path), key=lambda file: (file.number, not file.is_summary))
    summaries = [file for file in found if file.is_summary]
    if not summaries:
        return found
    last = summaries[-1]
    return [last, *(file for file in found if file.number > last.number)]


def owner(path: Path) -> int | None:
    """The id of the process that has a state directory; None if none does. Asks for no lock, which another one may want
    in this moment."""
    try:
        status = os.stat(path / "lock")
        with open("/proc/locks") as locks:
            place = f":{status.st_ino}"
            if not any(" FLOCK " in line and line.split()[5].endswith(place) for line in locks):
                return None
        return int((path / "lock").read_bytes() or 0)
    except (OSError, ValueError):
        return None


def superseded(path: Path) -> list[File]:
    """The files of a journal that a summary stands for."""
    in_use = {file.path for file in files(path)}
    return [file for file in _all_files(path) if file.path not in in_use]


def _all_files(path: Path) -> Iterator[File]:
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(path / "journal"):
            match = _FILE.fullmatch(entry.name)
            if match:
                yield File(int(match[1]), match[2] == "sum", Path(entry.path))


def identity(path: Path) -> str | None:
    """The id of the cluster to which a state directory belongs; None if that is not written there yet.

    Raises
    ------
    JournalError
        A later version of Holdfast has made it, or the file that says it is damaged.
    """
    place = path / "cluster.json"
    try:
        said = json.loads(place.read_bytes())
        cluster, found = str(said["id"]), int(said["format"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise JournalError(f"{place}, which has the id of the cluster, is damaged ({error})") from error
    if found > FORMAT:
        raise LaterFormatError(
            f"a later version of Holdfast has made {path}: it has format {found}, and this version uses those up to "
            f"{FORMAT}. Use that version, or another directory"
        )
    return cluster


def _refuse(path: Path) -> None:
    """Raise `JournalError` if this version can't go on with what is in a directory. Changes nothing."""
    if (path / _FORGOTTEN).exists():  # the identity goes with it, and no file of the journal is left
        return
    try:
        cluster = identity(path)
    except LaterFormatError:
        raise
    except JournalError:  # it is damaged, and the files have it as well
        cluster = None
    said_by = "cluster.json there"
    for file in files(path):
        try:
            with file.path.open("rb") as opened:
                heading, _ = read_heading(memoryview(opened.read(HEADING_NBYTES)))
        except LaterFormatError as error:
            raise LaterFormatError(f"{file.path}: {error}") from error
        except JournalError:  # it is damaged, and what can be read of it is
            continue
        if cluster not in (None, heading.cluster):
            raise JournalError(
                f"{file.path} is of the cluster {heading.cluster}, and {said_by} says {cluster}: files of two clusters "
                "were put together"
            )
        if cluster is None:
            cluster, said_by = heading.cluster, file.path.name


def _identity_anyhow(path: Path) -> str | None:
    """`identity`, which the files of the journal have as well."""
    try:
        found = identity(path)
    except LaterFormatError:
        raise
    except JournalError as error:
        place = path / "aside" / f"{time.strftime('%Y%m%d-%H%M%S')}-cluster.json"
        logger.error("%s; it was moved to %s", error, place)
        (path / "cluster.json").rename(place)
        found = None
    if found is None and (headings := list(_headings(path))):
        found = headings[-1].cluster
        _write_identity(path, found, sync=True)
    return found


def _found(path: Path, *, sync: bool) -> str:
    """A new cluster."""
    cluster = secrets.token_hex(8)
    _write_identity(path, cluster, sync=sync)
    return cluster


def _write_identity(path: Path, cluster: str, *, sync: bool) -> None:
    replace(path / "cluster.json", json.dumps({"format": FORMAT, "id": cluster}).encode() + b"\n", sync=sync)


def _headings(path: Path) -> Iterator[Heading]:
    """What the files of the journal say about themselves, as far as that can be read."""
    for file in files(path):
        with contextlib.suppress(OSError, JournalError), file.path.open("rb") as opened:
            heading, _ = read_heading(memoryview(opened.read(HEADING_NBYTES)))
            yield heading


def _forget_to_the_end(path: Path) -> None:
    """Go on with what `StateDirectory.forget` has begun."""
    forgotten = path / _FORGOTTEN
    if forgotten.exists():
        (path / "cluster.json").unlink(missing_ok=True)
        shutil.rmtree(forgotten)


def _take(path: Path, lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(lock, 32, 0).decode(errors="replace").strip()
        raise JournalError(
            f"the state directory {path} belongs to a scheduler that runs{f' (process {owner})' if owner else ''}: "
            "'holdfast stop' ends it, or use another directory"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"%d\n" % os.getpid(), 0)


def _next_epoch(path: Path, *, sync: bool) -> int:
    place = path / "epoch"
    try:
        epoch = int(place.read_bytes())
    except (FileNotFoundError, ValueError):
        epoch = 0
    # A scheduler begins a file before anybody hears of its epoch, so the files know when the other one is damaged.
    epoch = max([epoch, *(heading.epoch for heading in _headings(path))])
    replace(place, b"%d\n" % (epoch + 1), sync=sync)
    return epoch + 1


def replace(place: Path, data: bytes, *, sync: bool) -> None:
    """Write a small file such that it is the old one or the new one, whatever happens.

    Only if it is synced that holds for what happens to the machine, too.
    """
    beside = place.with_name(place.name + _NEW)
    with open(beside, "wb", opener=private) as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    beside.rename(place)
    if sync:
        sync_directory(place.parent)


def beside(place: Path) -> Path:
    """Where a file is written before it takes its place."""
    return place.with_name(place.name + _NEW)


def rename(source: Path, place: Path) -> None:
    """Let a file that is on the disk take its place, and see that this is on the disk, too."""
    source.rename(place)
    sync_directory(place.parent)


def sync_directory(path: Path) -> None:
    """See that the names in a directory are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def backup(path: Path, target: Path) -> int:
    """Copy a state directory, which may be in use. Returns the bytes.

    What is copied of a file that grows is whole batches and maybe a part of one, which the reader takes for torn.

    Raises
    ------
    JournalError
        There is something at the target already, or the copy could not be made.
    """
    if target.exists():
        raise JournalError(f"{target} is there already: name a directory that is not")
    partial = beside(target)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700, parents=True)
        (partial / "journal").mkdir(mode=0o700)
        (partial / "aside").mkdir(mode=0o700)
        nbytes = 0
        while True:
            chosen = files(path)
            try:
                for file in chosen:
                    nbytes += _copy(file.path, partial / "journal" / file.path.name)
            except FileNotFoundError:  # a summary has taken its place meanwhile
                shutil.rmtree(partial / "journal")
                (partial / "journal").mkdir(mode=0o700)
                nbytes = 0
                continue
            break
        for name in ("cluster.json", "epoch"):
            nbytes += _copy(path / name, partial / name)
        rename(partial, target)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise JournalError(f"{path} can't be copied to {target}: {error.strerror or error}") from error
    return nbytes


def _copy(source: Path, target: Path) -> int:
    with source.open("rb") as read, open(target, "wb", opener=private) as file:
        shutil.copyfileobj(read, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def private(path: str, flags: int) -> int:
    """An opener of files that are this user's alone."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
