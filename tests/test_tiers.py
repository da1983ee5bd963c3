"""The fast tier is chosen by what tests reach, so what starts something has to be found wherever it hides."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator

import command_line
import pytest
import tiers

from holdfast import LocalCluster

PLACES = [tiers.REPOSITORY / name for name in ("client", "cluster", "objectstore", "tests/support")]


def starts() -> None:
    LocalCluster()


@contextlib.contextmanager
def started() -> Iterator[None]:
    starts()
    yield


class Starting:
    @property
    def cluster(self) -> None:
        starts()


class Derived(Starting):
    pass


def in_a_nested_function() -> Callable[[], None]:
    return lambda: starts()


def in_a_context_manager() -> None:
    with started():
        pass


def in_a_base_class() -> Derived:
    return Derived()


def in_a_module() -> str:
    return command_line.holdfast("start")


def nowhere() -> list[str]:
    return sorted(re.findall("LocalCluster", "subprocess"))


@pytest.mark.parametrize("function", [starts, in_a_nested_function, in_a_context_manager, in_a_base_class, in_a_module])
def test_what_starts_something_is_found(function: Callable[[], None]) -> None:
    assert tiers.STARTERS & tiers.reached(function)


def test_a_name_in_a_string_starts_nothing(request: pytest.FixtureRequest) -> None:
    assert not tiers.STARTERS & tiers.reached(nowhere)
    assert request.node.get_closest_marker("fast")


@pytest.mark.parametrize("name", sorted(name for name in tiers.STARTERS if name[0].isupper() and name != "Popen"))
def test_every_starter_of_ours_is_a_class(name: str) -> None:
    texts = [path.read_text() for place in PLACES for path in place.rglob("*.py")]
    assert any(re.search(rf"^class {name}\b", text, re.MULTILINE) for text in texts)
