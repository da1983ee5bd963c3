from __future__ import annotations

import functools
import gc
import operator
import pickle
import threading

import pytest

from holdfast.client.functions import FunctionCache


@pytest.fixture
def cache():
    return FunctionCache()


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


def test_a_name_bound_anew_is_noticed(cache):
    names = {"__name__": "__main__", "y": 1}
    exec("def f():\n    return y", names)
    function = names["f"]
    first = cache.get(function)
    assert cache.get(function) is first
    names["y"] = 2
    assert cache.get(function).digest != first.digest


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


def test_functions_are_forgotten_when_they_end(cache):
    def function():
        return function.__name__

    plain = eval("lambda: 1")
    cache.get(plain)
    assert len(cache._entries) == 1
    del plain
    gc.collect()
    assert not cache._entries
    # One that refers to itself is kept by its own entry, so the number of entries is limited.
    for _ in range(1100):
        cache.get(eval("lambda: 1"))
    assert len(cache._entries) <= 1000


def test_what_cant_be_pickled_is_named(cache):
    lock = threading.Lock()

    def guarded():
        return lock

    with pytest.raises(TypeError, match=r"the function guarded can't be pickled.*lock"):
        cache.get(guarded)


def test_what_cant_be_called_is_refused(cache):
    with pytest.raises(TypeError, match="can be called"):
        cache.get(3)
