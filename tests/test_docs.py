"""What the documentation names is there: files, and the classes, functions and methods of the code."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from names_of_code import Names

ROOT = Path(__file__).parent.parent
FOLDERS = ("holdfast", "objectstore", "cluster", "client", "benchmarks", "examples", "tests")
DOCUMENTS = [
    *map(ROOT.joinpath, ["README.md", "CONTRIBUTING.md", "SECURITY.md"]),
    *sorted((ROOT / "docs").glob("*.md")),
]
#: Whose names are not ours, though a document has them.
OTHERS = {"dask", "np", "threading", "memory.high", "cluster.json"}
_NAME = re.compile(r"[\w/]+\.py\b")
#: Words of a document that stand for code, and the ones right behind the name of a file.
_CODE = re.compile(r"(?<!`)`([\w.]+(?:\(\))?)`(?!`)")
_IN_SOURCE = re.compile(r"`(\w+(?:\.\w+)+(?:\(\))?)`")
_IN_FILE = re.compile(r"`([\w/]+\.py)`\s+`([\w.]+)`")


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


@pytest.fixture(scope="module")
def names() -> Names:
    return Names(ROOT, [ROOT / path[1:] for path in files("objectstore", "cluster", "client", "benchmarks")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_files_that_the_documents_name_are_there(path: Path) -> None:
    assert not missing(path.read_text(), files(*FOLDERS))


@pytest.mark.parametrize(
    ("word", "known"),
    [
        ("Client", True),
        ("Klient", False),
        ("Client.submit", True),  # a method
        ("WorkerPeer.connection", True),  # an attribute of a base
        ("Client.shout", False),
        ("client.submit", True),  # an object that is called like its class
        ("holdfast.cluster.comm.listening.bound_socket", True),
        ("listening.unbound_socket", False),
        ("comm.listening", True),  # a module
        ("BLOCKED_MAX", True),
        ("HOLDFAST_TOKEN", True),
        ("HOLDFAST_HOPE", False),
        ("nothing()", False),
        ("a", True),  # a word, which needs not be a name
    ],
)
def test_a_name_is_known_if_the_code_has_it(word: str, known: bool, names: Names) -> None:
    assert names.knows(word) is known


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_names_that_the_documents_have_are_names_of_the_code(path: Path, names: Names) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    words = {word for word in _CODE.findall(text) if not word.endswith((".py", ".md"))}
    others = {word for word in words if word.partition(".")[0] in OTHERS or hasattr(builtins, word)}
    assert not {word for word in words - others if not names.knows(word) and not (ROOT / word).exists()}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_names_beside_a_file_is_in_that_file(path: Path, names: Names) -> None:
    assert not [pair for pair in _IN_FILE.findall(path.read_text()) if not names.has_in(*pair)]


@pytest.mark.parametrize("folder", ["holdfast", "objectstore", "cluster", "client", "benchmarks"])
def test_what_docstrings_and_comments_name_of_classes_and_modules_is_there(folder: str, names: Names) -> None:
    wrong = {}
    for path in files(folder):
        text = (ROOT / path[1:]).read_text()
        dotted = {word.removesuffix("()") for word in _IN_SOURCE.findall(text) if not word.endswith(".py")}
        ours = {word for word in dotted - OTHERS if names.is_owner(word.split(".")[-2])}
        if missed := {word for word in ours if not names.knows(word)}:
            wrong[path] = missed
    assert not wrong


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


def test_every_variable_of_the_environment_is_in_the_settings() -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    files = [path for folder in ("client", "cluster", "objectstore") for path in (ROOT / folder).rglob("*.py")]
    read = {name for path in files for name in re.findall(r"HOLDFAST_[A-Z]+(?:_[A-Z]+)*", path.read_text())}
    inner = {"HOLDFAST_CLUSTER_ID"}  # by which a cluster knows its processes
    assert set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE)) == read - inner
