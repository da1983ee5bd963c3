"""Who is writing to a place, and how what nothing refers to is deleted.

A writer finds objects that are there already and doesn't write them again. So nothing may be deleted that a writer may
have found, and that isn't in a manifest yet. Writers and sweepers each enter themselves first and look for the others
then, so that at least one of two sees the other:

* A *writer* enters itself under ``writers/``. While a sweeper is entered it waits, for `SWEEP_SECONDS` at most: a
  sweeper that was there before deletes nothing any more after that.
* A *sweeper* enters itself under ``sweeping/``. If a writer is entered, it deletes nothing.

Whatever writes a manifest is a writer, also one that only removes names: a sweeper deletes unfinished files, too. A
writer leaves when its manifest is there, or when it has given up. One that has died stays entered, and nothing is
swept, until it is known to be dead: its process was of this host and is no more, or a person says so.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from holdfast.objectstore.durable.catalogue import Catalogue
from holdfast.objectstore.durable.objects import is_digest, name_of
from holdfast.objectstore.durable.place import NewFile, Place
from holdfast.objectstore.errors import DurableError

WRITERS = "writers"
SWEEPERS = "sweeping"
#: A sweeper deletes nothing any more so long after it has entered itself.
SWEEP_SECONDS = 30.0
_LOOK_SECONDS = 0.2


class Process(NamedTuple):
    """A process on a host, so that one that has its number later is not taken for it.

    Attributes
    ----------
    boot
        Names the run of the host's kernel, and its namespace of processes.
    pid, started
        Its number, and when it has started, by the kernel.
    host, user
        For people.
    """

    boot: str
    pid: int
    started: int
    host: str
    user: str

    @classmethod
    def own(cls) -> Process:
        """This process."""
        user = os.environ.get("USER") or str(os.getuid())
        return cls(_boot(), os.getpid(), _started(os.getpid()) or 0, socket.gethostname(), user)

    @property
    def is_dead(self) -> bool:
        """Whether it is known to have ended."""
        return self.boot == _boot() and _started(self.pid) != self.started


def enter_writer(place: Place, publication: str, process: Process) -> None:
    """A publication begins: what it finds in the place stays there, until it is over.

    Raises
    ------
    DurableError
        It can't be entered.
    """
    data = json.dumps({"process": process, "time": time.time()}).encode()
    place.put([NewFile(f"{WRITERS}/{publication}", [data])])
    before = sweepers = set(place.names(SWEEPERS))
    deadline = time.monotonic() + SWEEP_SECONDS
    while sweepers and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        sweepers = before.intersection(place.names(SWEEPERS))
    for name in sweepers:  # they died, or have stopped deleting
        place.delete(f"{SWEEPERS}/{name}")


def leave_writer(place: Place, publication: str) -> None:
    """A publication is over."""
    place.delete(f"{WRITERS}/{publication}")


def writers(place: Place) -> dict[str, tuple[Process | None, float]]:
    """Those that are entered, by their publications: the process, if that can be told, and since when."""
    found: dict[str, tuple[Process | None, float]] = {}
    for name in place.names(WRITERS):
        data = place.read(f"{WRITERS}/{name}")
        if data is None:
            continue
        try:
            entry: dict[str, Any] = json.loads(data)
            found[name] = Process(*entry["process"]), float(entry["time"])
        except (ValueError, KeyError, TypeError):
            found[name] = None, 0.0
    return found


class Swept(NamedTuple):
    """What a sweep has come to.

    Attributes
    ----------
    nobjects, nbytes
        The objects that it has deleted, and how large they were.
    held_up_by
        The publications that are under way; nothing was deleted then.
    is_over
        Whether there is nothing left to delete.
    """

    nobjects: int
    nbytes: int
    held_up_by: tuple[str, ...]
    is_over: bool


def sweep(place: Place, *, abandon: tuple[str, ...] = (), clock: Callable[[], float] = time.monotonic) -> Swept:
    """Delete what no dataset refers to, and what is left of writers that died.

    Parameters
    ----------
    abandon
        Publications that are over, though nobody could say so.

    Raises
    ------
    DurableError
        It can't be done, or a manifest is damaged, so that it is not known what it refers to.
    """
    me = f"{SWEEPERS}/{secrets.token_hex(16)}"
    place.put([NewFile(me, [json.dumps({"process": Process.own()}).encode()])])
    end = clock() + SWEEP_SECONDS * 0.8
    try:
        alive = []
        for publication, (process, _) in writers(place).items():
            if publication in abandon or (process is not None and process.is_dead):
                leave_writer(place, publication)
            else:
                alive.append(publication)
        if alive:
            return Swept(0, 0, tuple(alive), False)
        catalogue = Catalogue(place)
        catalogue.tidy()
        if damaged := catalogue.damaged():
            raise DurableError(
                f"nothing of {place.url} is swept: a manifest is damaged: {next(iter(damaged.values()))}"
            )
        place.delete_remains("datasets")
        place.delete_remains("objects")
        referred = referred_to(catalogue)
        count = nbytes = 0
        for digest in place.names("objects"):
            if digest in referred or not is_digest(digest):
                continue
            if clock() > end:
                return Swept(count, nbytes, (), False)
            nbytes += place.size(name_of(digest)) or 0
            place.delete(name_of(digest))
            count += 1
        return Swept(count, nbytes, (), True)
    finally:
        place.delete(me)


def referred_to(catalogue: Catalogue) -> set[str]:
    """The digests of all objects that datasets refer to."""
    found: set[str] = set()
    for _, dataset in catalogue.datasets():
        found.add(dataset.recipe.digest)
        found.update(part.digest for part in dataset.tables)
        found.update(entry.digest for entry in catalogue.entries(dataset))
    return found


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> int | None:
    """When a process has started, in the kernel's ticks; None if there is none."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
