"""The contracts of layering see the whole package, and a wrong import breaks the one that forbids it.

Each test checks a copy of the package, so that what `make lint` says of the package itself is said there only.
"""

from __future__ import annotations

import ast
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
        ("client/packing/keys.py", "holdfast.client.futures.future", "The rooms of the client"),
        ("client/futures/future.py", "holdfast.client.client", "The rooms of the client"),
        ("cluster/cli/stop.py", "holdfast.client.client", "The client builds on the cluster"),
        ("client/core/session.py", "holdfast.client.futures.future", "The rooms of the client"),
        ("client/packing/keys.py", "holdfast.client.packing.graphs", "No circle of imports within a room"),
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


def test_no_text_names_a_module_of_a_house_above() -> None:
    """What is imported by its name in a text is an import that no contract sees."""
    found = set()
    for room, above in (("objectstore", ("client", "cluster")), ("cluster", ("client",))):
        modules = re.compile(rf"holdfast\.({'|'.join(above)})(\.\w+)*")
        for path in (REPOSITORY / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and modules.fullmatch(node.value):
                    found.add(f"{path.relative_to(REPOSITORY)}: {node.value}")
    assert not found


def test_a_new_room_needs_a_place(copied: Path) -> None:
    (copied / "cluster" / "attic").mkdir()
    (copied / "cluster" / "attic" / "__init__.py").touch()
    status, said = lint(copied)
    assert status == 1
    assert "attic" in said


def test_dasks_insides_are_used_in_one_file() -> None:
    found = set()
    for path in [path for room in ROOMS for path in (REPOSITORY / room).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "dask":
                names = [f"{node.module}.{each.name}" for each in node.names]
            elif isinstance(node, ast.Import):
                names = [each.name for each in node.names if each.name.partition(".")[0] == "dask"]
            elif isinstance(node, ast.Attribute):
                names = [ast.unparse(node)] if ast.unparse(node).startswith("dask.") else []
            else:
                continue
            if any(part.startswith("_") and not part.startswith("__") for name in names for part in name.split(".")):
                found.add(str(path.relative_to(REPOSITORY)))
    assert found == {"client/packing/dask_internals.py"}
