"""All publications of a place, and which dataset a name means.

The manifests are a log: of two that say something about a name, the later one counts. So publishing, replacing and
removing are each one file that appears, and several datasets of one publication appear together. A manifest of which
nothing counts any more is deleted, the oldest first, which changes nothing that a reader sees.

The name of a manifest's file has the hash of its bytes. A damaged one is an error that names it where one of its
datasets could be meant, and no reason not to read the others. A dataset of an earlier one is used then, with a warning
that names the damaged one, which may have replaced or removed it.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from holdfast.objectstore.durable.manifest import (
    DatasetEntry,
    Manifest,
    Name,
    Part,
    TableEntry,
    dump_manifest,
    load_manifest,
    load_table,
)
from holdfast.objectstore.durable.objects import read
from holdfast.objectstore.durable.place import NewFile, Place
from holdfast.objectstore.errors import DurableError

logger = logging.getLogger(__name__)

DIRECTORY = "datasets"
_FILE = re.compile(r"(\d{12})-([0-9a-f]{32})-([0-9a-f]{16})\.json")


class Found(NamedTuple):
    """A dataset that a name means, and the publication that it is of."""

    publication: str
    dataset: DatasetEntry


class Catalogue:
    """The publications of a place. Thread-safe.

    Parameters
    ----------
    place
        Where they are.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._read: dict[str, Manifest] = {}  # by the name of the file; they never change

    def publish(self, publication: str, datasets: Sequence[DatasetEntry], removes: Sequence[Name] = ()) -> None:
        """Add a publication, whose objects are all safe. Once it is there, a second time changes nothing."""
        manifests, damaged = self._manifests()
        if any(manifest.publication == publication for manifest in manifests):
            return
        numbers = [manifest.number for manifest in manifests] + [int(name[:12]) for name in damaged]
        manifest = Manifest(publication, 1 + max(numbers, default=0), tuple(datasets), tuple(removes))
        data = dump_manifest(manifest)
        name = f"{manifest.number:012d}-{publication}-{hashlib.sha256(data).hexdigest()[:16]}.json"
        self._place.put([NewFile(f"{DIRECTORY}/{name}", [data])])
        self.tidy()

    def datasets(self) -> list[Found]:
        """All datasets, those that were published first first. Warns of manifests that may have others."""
        manifests, damaged = self._manifests()
        self._warn(damaged, "what it has published is not among the datasets, and what it has replaced or removed is")
        return list(_current(manifests).values())

    def find(self, name: Name) -> Found | None:
        """The dataset that a name means, or None. Warns of later manifests that may have replaced or removed it.

        Raises
        ------
        DurableError
            There is none, but a manifest is damaged that may have had it.
        """
        manifests, damaged = self._manifests()
        found = _current(manifests).get(name)
        if found is None and damaged:
            raise DurableError(
                f"the manifest {DIRECTORY}/{next(iter(damaged))} of {self._place.url} is damaged, so it is not known "
                f"what it has published: {next(iter(damaged.values()))}. Bring it back from a copy, or delete it"
            )
        if found is not None:
            number = next(each.number for each in manifests if each.publication == found.publication)
            later = {file: why for file, why in damaged.items() if int(file[:12]) > number}
            self._warn(later, f"the dataset {name!r} is used as publication {number} has it, and this one may be newer")
        return found

    def _warn(self, damaged: dict[str, str], consequence: str) -> None:
        for file, why in damaged.items():
            logger.warning(
                "the manifest %s/%s of %s is damaged (%s): %s. Bring it back from a copy, or delete it",
                *(DIRECTORY, file, self._place.url, why, consequence),
            )

    def damaged(self) -> dict[str, str]:
        """The manifests that can't be read, and why not."""
        return self._manifests()[1]

    def entries(self, dataset: DatasetEntry) -> Iterator[TableEntry]:
        """All keys of a dataset."""
        for part in dataset.tables:
            yield from self.table(part)

    def table(self, part: Part) -> list[TableEntry]:
        """The keys in one table of a dataset."""
        return load_table(read(self._place, part.digest, part.nbytes), f"the table {part.digest} of {self._place.url}")

    def tidy(self) -> None:
        """Delete the manifests of which nothing counts any more."""
        manifests, damaged = self._manifests()
        if damaged:
            return  # nobody knows what these say
        files = {id(manifest): name for name, manifest in self._read.items()}
        current = {found.publication for found in _current(manifests).values()}
        spoken_of: set[Name] = set()  # by those before, that stay
        for manifest in manifests:
            if manifest.publication in current or not spoken_of.isdisjoint(manifest.removes):
                spoken_of.update(manifest.names())
            elif id(manifest) in files:
                self._place.delete(f"{DIRECTORY}/{files[id(manifest)]}")

    def _manifests(self) -> tuple[list[Manifest], dict[str, str]]:
        """Those that can be read, the first one first, and why others can't, by the names of their files."""
        damaged: dict[str, str] = {}
        there = [name for name in self._place.names(DIRECTORY) if _FILE.fullmatch(name)]
        with self._lock:
            self._read = {name: self._read[name] for name in there if name in self._read}
            for name in there:
                if name in self._read:
                    continue
                data = self._place.read(f"{DIRECTORY}/{name}")
                if data is None:
                    continue  # it was superseded meanwhile
                try:
                    if hashlib.sha256(data).hexdigest()[:16] != name[-21:-5]:
                        raise DurableError("its bytes don't match their hash")
                    self._read[name] = load_manifest(data, f"{DIRECTORY}/{name}")
                except DurableError as error:
                    damaged[name] = str(error)
            manifests = sorted(self._read.values(), key=lambda manifest: (manifest.number, manifest.publication))
        return manifests, damaged


def _current(manifests: Iterable[Manifest]) -> dict[Name, Found]:
    current: dict[Name, Found] = {}
    for manifest in manifests:
        for name in manifest.names():
            current.pop(name, None)
        for dataset in manifest.datasets:
            current[dataset.name] = Found(manifest.publication, dataset)
    return current
