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
    found = PUBLIC[name] if inspect.isclass(PUBLIC[name]) else _own(PUBLIC[name])
    source = inspect.getsourcefile(found)
    assert source is not None
    assert Path(source).resolve().relative_to(REPOSITORY.resolve()) == Path(place)
    # An attribute that was put there from elsewhere would have a source too.
    assert found.__qualname__ in _defined_in(REPOSITORY / place)


@functools.cache
def _defined_in(file: Path) -> set[str]:
    """The functions and classes that a file defines, with the class that each is in."""
    found = set()

    def walk(scope: Any, prefix: str) -> None:
        for node in ast.iter_child_nodes(scope):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(prefix + node.name)
                walk(node, f"{prefix}{node.name}.")
            else:
                walk(node, prefix)

    walk(ast.parse(file.read_text()), "")
    return found


class _Tests:
    """The tests of a file, and what each of them says with what it calls there."""

    def __init__(self, file: Path) -> None:
        source = file.read_text() if file.is_file() else ""
        self._lines = source.splitlines()
        self._module = ast.parse(source)
        self._defined = {name: node for node in self._module.body for name in _names(node)}

    def find(self, inside: list[str]) -> Any:
        """A function, or a class and a function of it; None if there is none of this name."""
        scope: Any = self._module
        for part in inside:
            scope = next((each for each in getattr(scope, "body", ()) if getattr(each, "name", "") == part), None)
        return scope

    def words(self, test: Any) -> set[str]:
        """The words in a test, and in all that it uses of what the file defines."""
        found: set[str] = set()
        work = [test]
        seen = set()
        while work:
            node = work.pop()
            if node not in seen:
                seen.add(node)
                first = min(each.lineno for each in (node, *getattr(node, "decorator_list", ())))
                words = set(re.findall(r"\w+", "\n".join(self._lines[first - 1 : node.end_lineno])))
                found |= words
                work += [self._defined[word] for word in words & self._defined.keys()]
        return found


def _names(node: ast.AST) -> set[str]:
    """What a statement of a module defines; not what it imports."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


@functools.cache
def _tests(file: Path) -> _Tests:
    return _Tests(file)


@pytest.mark.parametrize(("name", "node"), [(name, node) for name, _, node in ROWS])
def test_the_test_that_it_names_is_there_and_uses_the_name(name: str, node: str) -> None:
    path, *inside = node.split("::")
    tests = _tests(REPOSITORY / "tests" / path)
    test = tests.find(inside)
    assert inside, f"{node} is a file, and no test"
    assert inside[-1].startswith("test_"), f"{node} is no test"
    assert test is not None, f"there is no {node}"
    assert name.rpartition(".")[2] in tests.words(test), f"{node} does not use {name}"


@pytest.mark.parametrize("name", [name for name, value in PUBLIC.items() if not _is_error(value)])
def test_a_public_name_has_a_docstring_with_an_example(name: str) -> None:
    text = inspect.getdoc(PUBLIC[name])
    assert text, f"{name} has no docstring"
    assert ">>> " in text, f"the docstring of {name} has no example"
