"""Places for durable datasets, as plain data: answers the errands that the state machine has hosts do there."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from scheduler_harness import LARGE, Cluster

from holdfast.cluster.protocol import errands
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks import instructions as to_do

_OPERATIONS = {
    errand.operation: errand
    for errand in (
        errands.SEE_PLACE,
        errands.ENTER_WRITER,
        errands.LEAVE_WRITER,
        errands.WRITE_OBJECTS,
        errands.WRITE_TABLE,
        errands.PUBLISH_DURABLY,
        errands.DURABLE_DATASETS,
        errands.LOAD_DATASET,
        errands.LOAD_TABLE,
        errands.SWEEP_PLACE,
    )
}


@dataclass
class PretendedPlace:
    """One place, on a disk that all hosts see which aren't ``blind``."""

    exists: bool = False
    writers: set[str] = field(default_factory=set)
    values: dict[str, bytes] = field(default_factory=dict)  # of objects, by digest
    tables: dict[str, Any] = field(default_factory=dict)
    datasets: dict[Any, Any] = field(default_factory=dict)
    publications: list[str] = field(default_factory=list)
    swept: int = 0
    blind: set[str] = field(default_factory=set)
    broken: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)  # errors, by host and operation


class Places:
    """All places. Several clusters may have the same."""

    def __init__(self) -> None:
        self._places: dict[str, PretendedPlace] = {}
        self._digests = itertools.count()

    def __getitem__(self, url: str) -> PretendedPlace:
        return self._places.setdefault(url, PretendedPlace())

    def answer_all(self, cluster: Cluster) -> None:
        """Answer all errands, and those that follow."""
        while self.open(cluster):
            self.answer(cluster, self.open(cluster)[0])

    def open(self, cluster: Cluster) -> list[to_do.SendErrand]:
        """The errands that have no answer."""
        return [errand for errand in cluster.errands if errand.operation in _OPERATIONS]

    def answer(self, cluster: Cluster, errand: to_do.SendErrand) -> None:
        """Do an errand."""
        cluster.errands.remove(errand)
        if errand.peer not in cluster.state.hosts:
            return
        definition = _OPERATIONS[errand.operation]
        arguments = _as_received(errand.arguments)
        definition.arguments.check(arguments, errand.operation)
        place = self[arguments.pop("place")]
        if (errand.peer, errand.operation) in place.broken:
            cluster.handle(
                events.ErrandDone(errand.peer, errand.number, False, place.broken[errand.peer, errand.operation])
            )
            return
        method: Callable[..., Any] = getattr(self, f"_{errand.operation.replace('-', '_')}")
        value = _as_received(method(cluster, errand.peer, place, **arguments))
        cluster.handle(events.ErrandDone(errand.peer, errand.number, True, value))

    def _see_place(self, cluster: Cluster, host: str, place: PretendedPlace, create: bool = False) -> Any:
        if host in place.blind:
            return None
        place.exists = place.exists or create
        return "its id" if place.exists else None

    def _enter_writer(self, cluster: Cluster, host: str, place: PretendedPlace, publication: str, process: Any) -> None:
        place.writers.add(publication)

    def _leave_writer(self, cluster: Cluster, host: str, place: PretendedPlace, publication: str) -> None:
        place.writers.discard(publication)

    def _write_objects(self, cluster: Cluster, host: str, place: PretendedPlace, objects: Any) -> list[Any]:
        assert host not in place.blind
        stored: list[Any] = []
        for object_id, inline, nodes in objects:
            there = [node for node in (host, *nodes) if object_id in cluster.stores.get(node, ())]
            is_durable = any(node.startswith("durable:") for node in nodes)
            if not there and inline is None and not is_durable:
                stored.append(None)
                continue
            value = cluster.values[object_id]
            digest = sha256(value).hexdigest()
            place.values[digest] = value
            stored.append((digest, cluster.nbytes.get(object_id, LARGE), "0f"))
        return stored

    def _write_table(self, cluster: Cluster, host: str, place: PretendedPlace, entries: Any) -> Any:
        assert place.writers
        digest = f"table-{next(self._digests)}"
        place.tables[digest] = entries
        return digest, 100

    def _publish_durably(
        self, cluster: Cluster, host: str, place: PretendedPlace, publication: str, datasets: Any, removes: Any
    ) -> None:
        place.writers.discard(publication)
        if publication in place.publications:
            return
        place.publications.append(publication)
        for name in removes:
            place.datasets.pop(name, None)
        for name, recipe, about, tables, count, nbytes in datasets:
            place.datasets[name] = (recipe, about, tables, count, nbytes)
            for digest, _ in tables:
                assert all(stored[0] in place.values for _, stored, _, _ in place.tables[digest])

    def _durable_datasets(self, cluster: Cluster, host: str, place: PretendedPlace, names: Any = None) -> list[Any]:
        chosen = place.datasets if names is None else [name for name in names if name in place.datasets]
        return [(name, place.datasets[name][1], *place.datasets[name][3:]) for name in chosen]

    def _load_dataset(self, cluster: Cluster, host: str, place: PretendedPlace, name: Any) -> Any:
        return place.datasets.get(name)

    def _load_table(self, cluster: Cluster, host: str, place: PretendedPlace, table: Any) -> list[Any]:
        rows = []
        for key, stored, type_name, inside in place.tables[table[0]]:
            object_id = cluster.new_object()
            cluster.values[object_id] = place.values[stored[0]]
            cluster.nbytes[object_id] = stored[1]
            rows.append((object_id, key, stored, type_name, inside))
        return rows

    def _sweep_place(self, cluster: Cluster, host: str, place: PretendedPlace) -> bool:
        if not place.writers:
            place.swept += 1
        return not place.writers


def _as_received(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_as_received, value))
    if isinstance(value, dict):
        return {name: _as_received(item) for name, item in value.items()}
    return value
