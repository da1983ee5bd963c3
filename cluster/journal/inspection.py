"""What a state directory is like, for people and programs: whoever has it, and whatever has become of it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from holdfast.cluster.errors import JournalError
from holdfast.cluster.journal import directory as state
from holdfast.cluster.journal.batches import LaterFormatError
from holdfast.cluster.journal.recovery import read


def inspect(path: Path) -> dict[str, Any]:
    """Read all of a state directory, which may be in use or damaged. Nothing in it is changed.

    Returns
    -------
    dict
        ``directory``, ``cluster``, ``epoch``; ``process``: the id of the scheduler that has it, None if none does;
        ``files``: the ``name``, ``nbytes`` and kind of each that counts; what these come to: ``batches``, ``tasks``,
        ``clients``, ``holds``, ``entries`` by table; ``damage``: what could not be read; ``torn``: ends that were not
        written to their end, which cost nothing; ``aside``: the ``name`` and ``nbytes`` of what was set aside.

    Raises
    ------
    JournalError
        It is no state directory, or a later version of Holdfast has made it, or files of two clusters are in it.
    """
    if not (path / "journal").is_dir():
        raise JournalError(f"{path} is no state directory: there is no directory 'journal' in it")
    wrong = []
    cluster = None
    try:
        cluster = state.identity(path)
    except LaterFormatError:
        raise
    except JournalError as error:
        wrong.append(str(error))
    recovered = read(path)
    tables = recovered.tables
    process = state.owner(path)
    torn = [str(each) for each in recovered.torn]
    entries = {table: len(found) for table, found in (*tables.entries.items(), *tables.entries_of_tasks.items())}
    for client in tables.clients.values():
        for table, values in client.entries.items():
            entries[table] = entries.get(table, 0) + len(values)
    return {
        "directory": str(path),
        "cluster": cluster or recovered.cluster,
        "epoch": recovered.epoch,
        "process": process,
        "files": [
            {"name": file.path.name, "nbytes": nbytes, "summary": file.is_summary}
            for file in state.files(path)
            if (nbytes := _nbytes(file.path)) is not None
        ],
        "batches": recovered.batches,
        "tasks": len(tables.tasks),
        "clients": len(tables.clients),
        "holds": sum(len(client.holds) for client in tables.clients.values()),
        "entries": dict(sorted(entries.items())),
        "damage": [*wrong, *map(str, recovered.damage)],
        # What a scheduler writes just now looks like that, too.
        "torn": torn if process is None else torn[:-1],
        "aside": [
            {"name": kept.name, "nbytes": nbytes}
            for kept in sorted((path / "aside").glob("*"))
            if (nbytes := _nbytes(kept)) is not None
        ],
    }


def _nbytes(path: Path) -> int | None:
    with contextlib.suppress(FileNotFoundError):
        return os.stat(path).st_size
    return None
