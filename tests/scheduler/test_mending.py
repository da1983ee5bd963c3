"""Tables of a journal of which any record may be missing: a machine begins with what is left."""

from __future__ import annotations

import random
from typing import Any

import pytest

from holdfast.cluster.journal.batches import packer, unpack
from holdfast.cluster.journal.compaction import records_of
from holdfast.cluster.journal.tables import Tables
from holdfast.cluster.scheduler.machine.validation import CheckedState
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.decisions import Decisions
from tests.support.scheduler_harness import Cluster


class Noting(Cluster):
    """A cluster that keeps what its scheduler notes."""

    def __init__(self) -> None:
        self.batches: list[Any] = []
        super().__init__(hosts=1, workers=1, decisions=Decisions(True))

    def handle(self, event: events.Event) -> list[Any]:
        try:
            return super().handle(event)
        finally:
            if batch := self.state.decisions.take():
                self.batches.append(unpack(packer().pack(batch)))


def history() -> list[Any]:
    """The records of a cluster's life."""
    cluster = Noting()
    for client in ("c", "d"):
        cluster.add_client(client)
    for number in range(6):
        a, b, c = (f"{name}{number}" for name in "abc")
        cluster.submit("c", {a: [], b: [a], c: [a, b]}, [b, c])
        cluster.finish(a)
        if number % 2:
            cluster.err(b)
    cluster.submit("d", {"z": ["c0"]})
    return cluster.batches


@pytest.mark.parametrize("summed_up", [False, True])
@pytest.mark.parametrize("seed", range(25))
def test_a_machine_begins_with_what_is_left(seed: int, summed_up: bool) -> None:
    chance = random.Random(seed)
    batches = history()
    if summed_up:
        tables = Tables()
        for batch in batches:
            tables.apply(batch)
        tables.sweep()
        batches = [[record] for batch in records_of(tables) for record in batch]
    tables = Tables()
    for batch in batches:
        if chance.random() > 0.3:
            tables.apply(batch)
    tables.sweep()
    state = CheckedState(patience_seconds=0.0, decisions=Decisions(True))
    state.recover(tables, 2, is_damaged=True)
    state.handle(events.Recovered(), 0.0)
    for task in state.tasks.values():
        assert task.digest is None or task.digest in state.life.functions.table
