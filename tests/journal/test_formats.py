"""Journals that earlier versions have written are read by this one.

``formats/N`` is a state directory that was written when the format was N, and is never changed. It has a summary and a
log, with a record of each kind. A version that raises `batches.FORMAT` adds a directory: `write` makes it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from holdfast.cluster.journal import batches, compaction, records
from holdfast.cluster.journal.directory import StateDirectory
from holdfast.cluster.journal.recovery import read, recover
from holdfast.cluster.journal.tables import Tables
from holdfast.cluster.journal.writer import Writer

FORMATS = Path(__file__).parent / "formats"
ORIGIN = ("c", "etl", {"user": "u"}, "flow.py:3", None)


def write(path: Path) -> None:
    """Write such a directory."""
    first = [
        [records.joined("c", "etl", {"user": "u"}, None), records.joined("gone", "gone", {}, None)],
        [records.put("functions", b"f" * 16, b"pickle"), records.put_for("functions", "c", b"f" * 16, None)],
        [records.tasks(ORIGIN, 1, [("a", b"f" * 16, b"1", ()), ("b", b"f" * 16, b"2", ("a",))], {"priority": 1})],
        [records.hold("c", [1, 2]), records.data(ORIGIN, [("d", 3, b"o" * 16, 5, "bytes", b"value")])],
        [records.hold("c", [3]), records.put("datasets", "set", [b"data"], [3]), records.left("gone")],
    ]
    second = [
        [records.unhold("c", [1]), records.put_of("contents", 2, None, [3]), records.put_of("failed", 1, 7)],
        [records.tasks(ORIGIN, [0, 4], [("a", None, b"", ()), (("t", 1), None, b"3", ("b", "d"))], {})],
        [records.hold("c", [4]), records.put("queues", "q", 0), records.remove("queues", "q")],
        [records.remove_of("failed", 1), records.put_for("replies", "c", 5, [True, None])],
        [records.put_for("replies", "c", 6, [True, None]), records.remove_for("replies", "c", 6)],
    ]
    for some in (first, second):
        with StateDirectory.open(path) as directory:
            recovered = recover(directory)
            writer = Writer(directory, recovered.next_file, recovered.next_batch, reserve_nbytes=0)
            for batch in some:
                writer.append(batch)
            writer.close()
        if some is first:
            compaction.summarize(path, 1)


def said(tables: Tables) -> dict[str, object]:
    return {
        "tasks": {serial: (task.key, task.payload, task.dependencies) for serial, task in tables.tasks.items()},
        "data": tables.tasks[3].data,
        "options": tables.tasks[2].options,
        "clients": {id: (client.name, list(client.holds), client.entries) for id, client in tables.clients.items()},
        "entries": tables.entries,
        "entries_of_tasks": tables.entries_of_tasks,
        "last_serial": tables.last_serial,
    }


EXPECTED = {
    "tasks": {1: ("a", b"1", ()), 2: ("b", b"2", (1,)), 3: ("d", None, ()), 4: (("t", 1), b"3", (2, 3))},
    "data": (b"o" * 16, 5, "bytes", b"value"),
    "options": {"priority": 1},
    "clients": {"c": ("etl", [2, 3, 4], {"functions": {b"f" * 16: None}, "replies": {5: (True, None)}})},
    "entries": {"functions": {b"f" * 16: (b"pickle", ())}, "datasets": {"set": ((b"data",), (3,))}},
    "entries_of_tasks": {"contents": {2: (None, (3,))}},
    "last_serial": 4,
}


@pytest.mark.parametrize("number", range(1, batches.FORMAT + 1))
def test_a_journal_of_an_earlier_version_is_read(number: int, tmp_path: Path) -> None:
    path = tmp_path / "state"
    shutil.copytree(FORMATS / str(number), path)
    recovered = read(path)
    assert (recovered.damage, recovered.torn) == ([], [])
    assert said(recovered.tables) == EXPECTED
    with StateDirectory.open(path) as directory:
        assert directory.epoch == 3
        assert recover(directory).tables.last_serial == 4


def test_what_this_version_writes_is_the_same(tmp_path: Path) -> None:
    write(tmp_path / "state")
    assert said(read(tmp_path / "state").tables) == EXPECTED
