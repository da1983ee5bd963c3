"""What the documentation says of files is true: a name that it mentions is the name of a file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("holdfast", "objectstore", "cluster", "client", "benchmarks", "examples", "tests")
_NAME = re.compile(r"[\w/]+\.py\b")


def files(*folders: str) -> list[str]:
    """The Python files of these folders, relative to the repository, each with a slash before it."""
    return ["/" + str(path.relative_to(ROOT)) for folder in folders for path in (ROOT / folder).rglob("*.py")]


def missing(text: str, known: list[str]) -> list[str]:
    """The names in a text that are not the end of any of the paths."""
    return sorted({name for name in _NAME.findall(text) if not any(path.endswith("/" + name) for path in known)})


def docstrings(folder: str) -> Iterator[tuple[str, str]]:
    """Each module of a folder that has a docstring, with that."""
    for path in files(folder):
        if text := ast.get_docstring(ast.parse((ROOT / path[1:]).read_text())):
            yield path, text


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name
)
def test_the_files_that_the_documents_name_are_there(path: Path) -> None:
    assert not missing(path.read_text(), files(*FOLDERS))


def test_the_files_that_the_stores_docstrings_name_are_the_stores() -> None:
    known = files("objectstore", "benchmarks")
    assert not {path: names for path, text in docstrings("objectstore") if (names := missing(text, known))}


@pytest.mark.parametrize("folder", ["holdfast", "cluster", "client", "benchmarks"])
def test_the_files_that_docstrings_name_are_there(folder: str) -> None:
    known = files(*FOLDERS)
    assert not {path: names for path, text in docstrings(folder) if (names := missing(text, known))}


@pytest.mark.parametrize("room", sorted(path.parent.name for path in (ROOT / "objectstore").glob("*/__init__.py")))
def test_the_docstring_of_a_room_of_the_store_lists_its_files(room: str) -> None:
    """No more and no less: a newcomer finds the file that is looked for in the list, or it isn't there."""
    text = dict(docstrings(f"objectstore/{room}"))[f"/objectstore/{room}/__init__.py"]
    listed = re.findall(r"^``(\w+\.py)``", text, re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "objectstore" / room).glob("[a-z]*.py"))
