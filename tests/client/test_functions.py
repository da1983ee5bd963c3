from __future__ import annotations

import functools
import gc
import operator
import pickle
import sys
import threading
import types

import pytest

from holdfast.client.packing.functions import FunctionCache


class Cache(FunctionCache):
    """One for functions without futures of other clients."""

    def get(self, function):
        return super().get(function, lambda future: future)


@pytest.fixture
def cache():
    return Cache()


def test_a_function_is_pickled_once(cache):
    assert cache.get(operator.add) is cache.get(operator.add)
    assert pickle.loads(cache.get(operator.add).blob) is operator.add
    assert cache.get(operator.add).name == "add"


def test_equal_pickles_have_equal_digests(cache):
    assert cache.get(functools.partial(pow, 2)).digest == cache.get(functools.partial(pow, 2)).digest
    assert cache.get(functools.partial(pow, 2)).digest != cache.get(functools.partial(pow, 3)).digest


def test_an_object_that_can_change_is_pickled_each_time(cache):
    function = functools.partial(pow, 2)
    first = cache.get(function)
    function.__setstate__((pow, (3,), {}, {}))
    assert cache.get(function).digest != first.digest


def defined_in_main(code, **names):
    """The function ``f`` of code that is run as if it was typed in; and its globals."""
    names["__name__"] = "__main__"
    exec(code, names)
    return names["f"], names


@pytest.mark.parametrize(
    "code",
    [
        "def f():\n    return y",
        "def f():\n    return [y for _ in range(1)][0]",
        "def f():\n    return (lambda: y)()",
        "def g():\n    return y\ndef f():\n    return g()",
        "class A:\n    def g(self):\n        return y\ndef f():\n    return A().g()",
    ],
    ids=["in itself", "in a comprehension", "in nested code", "in a function that it calls", "in a method"],
)
def test_a_global_bound_anew_is_noticed_wherever_it_is_used(cache, code):
    function, names = defined_in_main(code, y=1)
    first = cache.get(function)
    names["y"] = 2
    second = cache.get(function)
    assert pickle.loads(first.blob)() == 1
    assert pickle.loads(second.blob)() == 2


def test_a_global_changed_in_place_is_noticed(cache):
    function, names = defined_in_main("def f():\n    return config['n']", config={"n": 1})
    first = cache.get(function)
    names["config"]["n"] = 5
    second = cache.get(function)
    assert first.digest != second.digest
    assert pickle.loads(second.blob)() == 5


def test_a_function_that_did_not_change_has_the_same_digest_each_time(cache):
    function, _ = defined_in_main(
        "class A:\n    x: int = 1\ndef g(n: int = 3):\n    return {'a', 'b', n}, A\n"
        "def f(x, *, y=(1, 'z')):\n    return [g() for _ in range(x)], other['k']",
        other={"k": [1.5, None]},
    )
    digests = set()
    for _ in range(3):
        digests.add(cache.get(function).digest)
        function(1)
    assert len(digests) == 1


@pytest.mark.parametrize(
    "code",
    [
        "def f(x):\n    return x + 1",
        "import math\ndef f(x):\n    return [math.floor(x) for _ in range(2)][0]",
        "def f(x):\n    return x and f(x - 1)",
        "from operator import add\ndef f(x):\n    return (lambda: add(x, 1))()",
    ],
    ids=["alone", "with a module", "recursive", "with a function that can be imported"],
)
def test_a_plain_function_is_pickled_once_wherever_it_is_defined(cache, code):
    function, _ = defined_in_main(code)
    assert cache.get(function) is cache.get(function)


@pytest.mark.parametrize("name", ["math", "floor", "range"])
def test_even_then_a_name_that_means_something_else_now_is_noticed(cache, name):
    function, names = defined_in_main("import math\ndef f(x):\n    return [math.floor(x) for _ in range(2)]")
    first = cache.get(function)
    names[name] = types.SimpleNamespace(floor=lambda x: -1)
    second = cache.get(function)
    assert second is not first
    if name == "math":
        assert pickle.loads(second.blob)(1) == [-1, -1]


def test_code_or_defaults_that_are_others_now_are_noticed(cache):
    function, _ = defined_in_main("def f(x=None):\n    return x")
    function.__defaults__ = None
    first = cache.get(function)
    function.__defaults__ = (5,)
    assert pickle.loads(cache.get(function).blob)() == 5
    function.__defaults__ = None
    function.__code__ = (lambda x: -x).__code__
    assert pickle.loads(cache.get(function).blob)(1) == -1
    assert pickle.loads(first.blob)(1) == 1


def test_a_name_that_means_another_function_now_is_noticed(cache, monkeypatch):
    module = types.ModuleType("holdfast_test_module")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec("def f():\n    return 1", module.__dict__)
    function = module.f
    assert cache.get(function) is cache.get(function)
    exec("def f():\n    return 2", module.__dict__)
    assert pickle.loads(cache.get(function).blob)() == 1


def test_a_variable_of_a_closure_bound_anew_is_noticed(cache):
    def make():
        number = 1

        def function():
            return number

        def set_number(value):
            nonlocal number
            number = value

        return function, set_number

    function, set_number = make()
    first = cache.get(function)
    set_number(2)
    second = cache.get(function)
    assert pickle.loads(first.blob)() == 1
    assert pickle.loads(second.blob)() == 2


def test_a_limited_number_is_remembered_for_as_long_as_they_live(cache, monkeypatch):
    module = types.ModuleType("holdfast_test_module")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for i in range(1100):
        exec(f"def f{i}():\n    pass", module.__dict__)
        cache.get(getattr(module, f"f{i}"))
    cache.get(lambda module=module: 1)
    cache.get([].append)
    assert len(cache._entries) == 1000
    for i in range(1100):
        delattr(module, f"f{i}")
    gc.collect()
    assert not cache._entries


def test_what_cant_be_pickled_is_named(cache):
    lock = threading.Lock()

    def guarded():
        return lock

    with pytest.raises(TypeError, match=r"the function guarded can't be pickled.*lock"):
        cache.get(guarded)


def test_what_cant_be_called_is_refused(cache):
    with pytest.raises(TypeError, match="can be called"):
        cache.get(3)
