"""What records come to: tasks of use, their holders, and entries."""

from __future__ import annotations

import itertools
import random

import pytest

from holdfast.cluster.errors import JournalError
from holdfast.cluster.journal import records
from holdfast.cluster.journal.compaction import records_of
from holdfast.cluster.journal.tables import Tables

INC = b"i" * 16
ME = ("c1", "me", {"user": "ada"}, "script.py:3 in main", None)


def _entry(key, *read):
    return (key, INC, b"payload of " + repr(key).encode(), read)


def _made(first, *entries, held=None, client="c1", options=None):
    """Tasks are submitted under serials from the first one on, and held."""
    serials = [first + number for number, entry in enumerate(entries) if held is None or entry[0] in held]
    return records.tasks(ME, first, entries, options or {}), records.hold(client, serials)


def _tables(*batch):
    tables = Tables()
    tables.apply(batch)
    tables.sweep()
    return tables


def test_a_held_task_and_all_that_it_depends_on_are_of_use():
    entries = [_entry("a"), _entry("b", "a"), _entry("c", "b"), _entry("other")]
    tables = _tables(*_made(10, *entries, held="c", options={"priority": 3}))
    assert list(tables.tasks) == [10, 11, 12]
    assert tables.tasks[12].dependencies == (11,)
    assert tables.tasks[12].options == {"priority": 3}
    assert tables.tasks[12].origin == ME
    assert tables.serial_of("other") is None
    assert tables.last_serial == 13


def test_a_key_that_is_used_again_means_the_later_task():
    tables = _tables(*_made(1, _entry("a"), _entry("b", "a"), held="b"), *_made(3, _entry("a"), _entry("c", "a")))
    assert tables.tasks[2].dependencies == (1,)
    assert tables.tasks[4].dependencies == (3,)
    assert tables.serial_of("a") == 3


def test_one_that_is_as_it_was_has_no_serial_of_its_own():
    other = ("c2", "you", {}, "", None)
    tables = _tables(
        *_made(1, _entry("a")),
        records.tasks(other, [0, 2], [_entry("a"), _entry("b")], {}),
        records.hold("c2", [1, 2]),
    )
    assert tables.tasks[1].origin == ME
    assert tables.tasks[2].origin == other
    assert {id: list(client.holds) for id, client in tables.clients.items()} == {"c1": [1], "c2": [1, 2]}


def test_data_that_is_lost_can_be_specified():
    tables = _tables(
        records.data(ME, [("a", 1, b"o" * 16, 5, "int", None)]),
        records.hold("c1", [1]),
        records.tasks(ME, [1], [_entry("a")], {}),
    )
    assert tables.tasks[1].payload is not None
    assert tables.tasks[1].data is None


def test_what_was_let_go_of_is_forgotten_with_its_entries():
    tables = _tables(
        *_made(1, _entry("a"), _entry("b")),
        records.put_of("errors", 1, "it failed"),
        records.put_of("errors", 2, "it failed too"),
        records.unhold("c1", [1, 77]),
    )
    assert list(tables.tasks) == [2]
    assert list(tables.entries_of_tasks["errors"]) == [2]


def test_a_client_that_left_has_nothing():
    tables = _tables(
        records.joined("c1", "me", {"pid": 3}, None),
        *_made(1, _entry("a")),
        records.put_for("positions", "c1", "frames", 3),
        records.left("c1"),
    )
    assert not tables.tasks
    assert not tables.clients


def test_entries_for_a_client_are_changed_and_removed():
    tables = _tables(
        records.joined("c1", "me", {"pid": 3}, None),
        records.put_for("replies", "c1", 1, "yes"),
        records.put_for("replies", "c1", 2, "no"),
        records.put_for("replies", "c1", 2, "maybe"),
        records.remove_for("replies", "c1", 1),
        records.remove_for("replies", "c1", 99),
    )
    client = tables.clients["c1"]
    assert (client.name, client.about, client.worker) == ("me", {"pid": 3}, None)
    assert client.entries == {"replies": {2: "maybe"}}


def test_an_entry_keeps_tasks_until_it_is_removed():
    made = (*_made(1, _entry("a")), records.put("datasets", "d", b"pickle", [1]))
    assert list(_tables(*made, records.left("c1")).tasks) == [1]
    assert not _tables(*made, records.left("c1"), records.remove("datasets", "d")).tasks


def test_what_is_inside_of_an_object_is_kept_as_long_as_that_is_of_use():
    made = (
        *_made(1, _entry("outer"), _entry("inner"), _entry("innermost"), held=["outer"]),
        records.put_of("contents", 1, None, [2]),
        records.put_of("contents", 2, None, [3]),
    )
    assert list(_tables(*made).tasks) == [1, 2, 3]
    assert not _tables(*made, records.unhold("c1", [1])).tasks
    assert list(_tables(*made, records.remove_of("contents", 2)).tasks) == [1, 2]


def test_objects_inside_of_each_other_do_not_keep_each_other():
    tables = _tables(
        *_made(1, _entry("a"), _entry("b"), held=()),
        records.put_of("contents", 1, None, [2]),
        records.put_of("contents", 2, None, [1]),
    )
    assert not tables.tasks


@pytest.mark.parametrize("record", [(99,), ("x", 1), (records.HOLD,), (records.TASKS, ME, [1], [], {})])
def test_what_is_no_record_is_refused_by_name(record):
    with pytest.raises(JournalError, match="a record of kind"):
        Tables().apply([record])


def _random_batches(seed):
    """Records as a scheduler could write them: what a task reads is known, and a key that is held isn't made again."""
    chance = random.Random(seed)
    serials = itertools.count(1)
    clients = ["c1", "c2"]
    known = Tables()
    for _ in range(200):
        client = chance.choice(clients)
        what = chance.random()
        known.sweep()
        keys = [task.key for serial, task in known.tasks.items() if known.serial_of(task.key) == serial]
        held = set(known.held())
        if what < 0.4 or not keys:
            free = [key for key in map("k{}".format, range(400)) if known.serial_of(key) not in held]
            made = [_entry(key, *chance.sample(keys, min(len(keys), 2))) for key in chance.sample(free, 3)]
            first, *_ = [next(serials) for _ in made]
            batch = _made(first, *made, client=client, options={"retries": chance.randrange(3)})
        elif what < 0.8:
            let_go = chance.sample(list(known.tasks), min(len(known.tasks), 4))
            batch = (records.unhold(client, let_go), records.put_for("positions", client, "frames", what))
        elif what < 0.9:
            batch = (records.put("variables", chance.randrange(5), "value", list(known.tasks)[-1:]),)
        elif what < 0.95:
            batch = (records.remove("variables", chance.randrange(5)),)
        else:
            batch = (records.left(client), records.joined(client, "again", {}, None))
        known.apply(batch)
        yield batch


def _clients(tables):
    return {id: (client.name, client.about, set(client.holds), client.entries) for id, client in tables.clients.items()}


@pytest.mark.parametrize("seed", range(30))
def test_a_summary_makes_the_same_tables_wherever_it_is_made(seed):
    plain, summed = Tables(), Tables()
    for number, batch in enumerate(_random_batches(seed)):
        plain.apply(batch)
        summed.apply(batch)
        if number % 37 == 0:
            summed.sweep()
            again = Tables()
            for each in records_of(summed):
                again.apply(each)
            summed = again
    plain.sweep()
    summed.sweep()
    assert summed.tasks == plain.tasks
    assert _clients(summed) == _clients(plain)
    assert summed.entries == plain.entries
    assert summed.last_serial == plain.last_serial
