"""What is left of the tables of a damaged journal so that all of it hangs together.

Any record may be missing. Then others name what is not there: a task its function or what it reads, an entry what it
keeps. A task that can't be what it was is left out, with all that reads it; its clients hear that they hold it no more.
So is an entry that keeps such a task: a dataset is there as it was published, or not at all.
"""

from __future__ import annotations

import logging

from holdfast.cluster.journal.tables import Held, Tables

logger = logging.getLogger(__name__)


def mend(tables: Tables) -> None:
    """Leave out what names something that is not there."""
    lost = _incomplete(tables)
    for serial in lost:
        del tables.tasks[serial]
    entries = 0
    for table, found in list(tables.entries.items()):
        whole = {key: entry for key, entry in found.items() if _is_whole(entry, tables)}
        entries += len(found) - len(whole)
        tables.entries[table] = whole
    errors = tables.entries.get("errors", {})
    for table, of_tasks in list(tables.entries_of_tasks.items()):
        tables.entries_of_tasks[table] = {
            serial: Held(entry.value, tuple(inner for inner in entry.holds if inner in tables.tasks))
            for serial, entry in of_tasks.items()
            if serial in tables.tasks and (table != "failed" or entry.value in errors)
        }
    functions = tables.entries.get("functions", {})
    for client in tables.clients.values():
        client.holds = {serial: None for serial in client.holds if serial in tables.tasks}
        sent = client.entries.get("functions")
        if sent is not None:
            client.entries["functions"] = {digest: value for digest, value in sent.items() if digest in functions}
    if lost or entries:
        logger.error("of what was in the journal, %s tasks and %s entries name what is lost", len(lost), entries)


def _incomplete(tables: Tables) -> set[int]:
    """The tasks without which all others have their function, and what they read."""
    functions = tables.entries.get("functions", {})
    readers: dict[int, list[int]] = {}
    lost: list[int] = []
    for serial, task in tables.tasks.items():
        if (task.digest is not None and task.digest not in functions) or not tables.tasks.keys() >= set(
            task.dependencies
        ):
            lost.append(serial)
        for dependency in task.dependencies:
            readers.setdefault(dependency, []).append(serial)
    found = set(lost)
    while lost:
        for reader in readers.get(lost.pop(), ()):
            if reader not in found:
                found.add(reader)
                lost.append(reader)
    return found


def _is_whole(entry: Held, tables: Tables) -> bool:
    return all(serial in tables.tasks for serial in entry.holds)
