"""docs/api.md: every public name, where it is implemented, and which test shows it. Each has an example."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast

REPOSITORY = Path(__file__).parent.parent
TEXT = (REPOSITORY / "docs" / "api.md").read_text()
ROWS = re.findall(r"^\| `([\w.]+)` \| `([\w./]+)` \| `([\w./:]+)` \|$", TEXT, re.MULTILINE)
#: Other names of something, whose docstring says so.
ALIASES = {"Executor"}


def _own(member: Any) -> Any:
    """A function or a class of this package; None for what is inherited from elsewhere, and for plain attributes."""
    if isinstance(member, (staticmethod, classmethod)):
        member = member.__func__
    if isinstance(member, property):
        member = member.fget
    if not callable(member):
        return None
    member = inspect.unwrap(member)
    return member if str(getattr(member, "__module__", "")).startswith("holdfast.") else None


def _is_error(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, BaseException)


def public_names() -> Iterator[tuple[str, Any]]:
    """The names of the package, and those of its classes' methods and properties, each where it comes first."""
    values = {name: getattr(holdfast, name) for name in holdfast.__all__ if not name.startswith("_")}
    values = {name: value for name, value in values.items() if _own(value) is not None}  # not Python's TimeoutError
    classes = {value for value in values.values() if inspect.isclass(value)}
    for name, value in values.items():
        yield name, value
        if inspect.isclass(value) and not _is_error(value) and name not in ALIASES:
            bases = [base for base in value.__mro__[1:] if base in classes]
            for attribute in dir(value):
                member = inspect.getattr_static(value, attribute)
                if attribute.startswith("_") or any(hasattr(base, attribute) for base in bases):
                    continue
                if _own(member) is not None:
                    yield f"{name}.{attribute}", member


PUBLIC = dict(public_names())


def test_the_table_has_every_public_name_once() -> None:
    names = [name for name, _, _ in ROWS]
    assert len(names) == len(set(names))
    assert set(names) == set(PUBLIC)
    assert len(names) == TEXT.count("\n| `")


@pytest.mark.parametrize(("name", "place"), [(name, place) for name, place, _ in ROWS])
def test_a_name_is_where_the_table_says(name: str, place: str) -> None:
    found = PUBLIC[name]
    source = inspect.getsourcefile(found if inspect.isclass(found) else _own(found))
    assert source is not None
    assert Path(source).resolve().relative_to(REPOSITORY.resolve()) == Path(place)


@functools.cache
def _parsed(file: Path) -> tuple[str, Any]:
    source = file.read_text() if file.is_file() else ""
    return source, ast.parse(source)


def test_the_tests_that_it_names_are_there_and_use_the_names() -> None:
    wrong = []
    for name, _, node in ROWS:
        path, *inside = node.split("::")
        source, scope = _parsed(REPOSITORY / "tests" / path)
        for part in inside:
            scope = next((each for each in getattr(scope, "body", ()) if getattr(each, "name", "") == part), None)
        word = name.rpartition(".")[2]
        if scope is None or not re.search(rf"\b{word}\b", source):
            wrong.append((name, node))
    assert not wrong


@pytest.mark.parametrize("name", [name for name, value in PUBLIC.items() if not _is_error(value)])
def test_a_public_name_has_a_docstring_with_an_example(name: str) -> None:
    text = inspect.getdoc(PUBLIC[name])
    assert text, f"{name} has no docstring"
    assert ">>> " in text, f"the docstring of {name} has no example"
