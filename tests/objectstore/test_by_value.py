"""What can only be named is pickled by value, and what can be imported by its name."""

from __future__ import annotations

import enum
import functools
import importlib
import io
import pickle
import sys
import typing

import cloudpickle
import pytest

from holdfast.objectstore import decode, encode
from holdfast.objectstore.pickling.by_value import ByValuePickler


def dumps(value):
    file = io.BytesIO()
    ByValuePickler(file, protocol=5).dump(value)
    return file.getvalue()


def copy(value):
    return pickle.loads(dumps(value))


SOURCE = """
import functools, typing
@functools.lru_cache
def cached(x): return x + 1
@functools.singledispatch
def generic(x): return x
UserId = typing.NewType("UserId", int)
P = typing.ParamSpec("P")
Ts = typing.TypeVarTuple("Ts")
"""
NAMES = ("cached", "generic", "UserId", "P", "Ts")


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "some_module.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("some_module")
    sys.modules.pop("some_module", None)


@pytest.mark.parametrize("name", NAMES)
def test_what_can_be_imported_is_pickled_by_its_name(module, name):
    value = getattr(module, name)
    assert copy([value, lambda: value])[0] is value


@pytest.mark.parametrize("name", NAMES)
def test_a_module_can_be_pickled_by_value(module, name):
    value = getattr(module, name)
    cloudpickle.register_pickle_by_value(module)
    try:
        data = dumps(value)
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    del sys.modules["some_module"]
    made = pickle.loads(data)
    assert made is not value
    assert made.__name__ == name
    assert "some_module" not in sys.modules


def test_a_function_with_a_cache_is_an_empty_one_of_the_same_kind():
    calls = []

    @functools.lru_cache(maxsize=2, typed=True)
    def cached(x):
        """Words."""
        calls.append(x)
        return x

    cached.note = "of mine"
    cached(1)
    made = copy(cached)
    assert (made(1), made(1), made.cache_info().hits, made.cache_info().misses) == (1, 1, 1, 1)
    assert made.cache_parameters() == {"maxsize": 2, "typed": True}
    assert (made.__doc__, made.__name__, made.note) == ("Words.", "cached", "of mine")
    assert made.__wrapped__(2) == 2
    assert dumps(cached) == dumps(cached)


def test_functions_that_refer_to_themselves():
    @functools.cache
    def even(n):
        return n == 0 or odd(n - 1)

    @functools.singledispatch
    def odd(n):
        return n != 0 and even(n - 1)

    made = copy(even)
    assert made(10)
    assert not made(7)
    assert copy(odd)(7)


def test_a_class_s_cached_property_and_method():
    class Square:
        def __init__(self, side):
            self.side = side

        @functools.cached_property
        def name(self):
            """Words."""
            return f"square of {self.side}"

        @functools.cache  # noqa: B019
        def area(self):
            return self.side**2

        @functools.singledispatchmethod
        def scaled(self, by):
            return "?"

        @scaled.register
        def _(self, by: int):
            return self.side * by

    made = decode(encode(Square(3)).to_bytes())
    assert (made.name, made.name, made.area(), made.scaled(2), made.scaled("x")) == ("square of 3",) * 2 + (9, 6, "?")
    assert copy(Square.name).__doc__ == "Words."


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there is no type statement")
def test_aliases_of_types():
    alias = typing.TypeAliasType("Numbers", list[int])
    assert copy(alias).__value__ == list[int]
    assert copy(lambda: alias)().__name__ == "Numbers"


def test_a_class_that_comes_back_changes_nothing_where_it_was_defined():
    class Settings:
        level = 1
        seen: typing.ClassVar[list[int]] = []

    class Color(enum.Enum):
        RED = 1

    data = encode([Settings(), Color.RED]).to_bytes()
    seen = Settings.seen
    Settings.level = 2
    Color.note = "mine"
    settings, color = decode(data)
    assert type(settings) is Settings
    assert color is Color.RED
    assert (Settings.level, Settings.seen is seen, Color.note) == (2, True, "mine")
