"""The contracts of layering see the whole package, and a wrong import breaks the one that forbids it.

Each test checks a copy of the package, so that what `make lint` says of the package itself is said there only.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
ROOMS = ("client", "cluster", "objectstore")
Check = Callable[[], tuple[int, str]]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for room in (*ROOMS, "holdfast"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / room, tmp_path / room, symlinks=True, ignore=ignored)
    shutil.copy(REPOSITORY / ".importlinter", tmp_path)
    return tmp_path


def lint(place: Path) -> tuple[int, str]:
    """The exit status of the check, and what it says on one line."""
    program = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    result = subprocess.run(program, cwd=place, env={"PYTHONPATH": str(place)}, capture_output=True, text=True)
    return result.returncode, " ".join((result.stdout + result.stderr).split())


def test_every_module_is_seen(copied: Path) -> None:
    modules = [path for place in (*ROOMS, "holdfast") for path in (copied / place).rglob("*.py")]
    status, said = lint(copied)
    assert status == 0, said
    assert f"Analyzed {len(set(modules))} files" in said


@pytest.mark.parametrize(
    ("path", "wrong", "contract"),
    [
        ("objectstore/memory/allocator.py", "holdfast.objectstore.core.core", "The rooms of the object store"),
        ("objectstore/client/store.py", "holdfast.objectstore.core.core", "A client of the store knows only"),
        ("objectstore/codecs/raw.py", "holdfast.objectstore.shared.layout", "Codecs know values and bytes"),
        ("objectstore/core/eviction.py", "holdfast.objectstore.core.table", "No circle within a room"),
        ("objectstore/core/core.py", "holdfast.cluster.errors", "The client builds on the cluster"),
        ("cluster/comm/frames.py", "holdfast.cluster.worker.worker", "The rooms of the cluster"),
        ("cluster/worker/worker.py", "holdfast.cluster.transfer.pool", "The rooms of the cluster"),
        ("cluster/scheduler/tasks/events.py", "holdfast.cluster.scheduler.io.server", "The rooms of the scheduler"),
        ("cluster/cli/stop.py", "holdfast.client.client", "The client builds on the cluster"),
    ],
)
@pytest.mark.parametrize("guard", ["", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "])
def test_an_import_from_above_breaks_its_contract(
    copied: Path, path: str, wrong: str, contract: str, guard: str
) -> None:
    # The import names a module that is there, so that nothing but its direction is wrong.
    assert (copied / wrong.removeprefix("holdfast.").replace(".", "/")).with_suffix(".py").exists()
    module = copied / path
    module.write_text(f"{module.read_text()}\n{guard}import {wrong}\n")
    status, said = lint(copied)
    assert status == 1
    assert re.search(rf"{re.escape(contract)}[^.]*? BROKEN", said), said


def test_a_new_room_needs_a_place(copied: Path) -> None:
    (copied / "cluster" / "attic").mkdir()
    (copied / "cluster" / "attic" / "__init__.py").touch()
    status, said = lint(copied)
    assert status == 1
    assert "attic" in said
