"""Values in queues and variables: what is sent of them, and how they are read.

Both are recipes (`holdfast.client.operations.recipes`). What is small is packed and read at once; what is not may take
a while, so an asynchronous client does it elsewhere.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.drivers.effects import Elsewhere, Operation
from holdfast.client.futures.future import Future
from holdfast.client.futures.holding import hold_all
from holdfast.client.operations.recipes import LARGE_NBYTES, Recipe, load, pack, pack_small

#: What is packed at once, if it has no more characters, bytes or items than this.
SHORT = 1_000
#: The operation of a pickle without which there is no class and no function in it.
_STACK_GLOBAL = pickle.STACK_GLOBAL
_ATOMS = (int, float, bool, type(None), complex)
_TEXTS = (str, bytes)
_CONTAINERS = (list, tuple, dict, set, frozenset)


def packing(core: Core, what: str, value: Any) -> Operation[Recipe]:
    """The recipe of a value."""
    kind = type(value)
    if kind in _ATOMS or (kind in _TEXTS and len(value) <= SHORT):
        return Recipe(pickle.dumps(value, 5), {})
    if isinstance(value, Future) or (kind in _CONTAINERS and len(value) <= SHORT):
        small = pack_small(core, what, value)
        if small is not None:
            return small
    recipe: Recipe = yield Elsewhere(lambda: pack(core, what, value))
    return recipe


def is_plain(data: bytes | memoryview) -> bool:
    """Whether a recipe without keys has nothing but builtin values, so that it needs no more than to be unpickled."""
    return type(data) is bytes and _STACK_GLOBAL not in data


def unpacking(core: Core, what: str, data: bytes | memoryview, keys: Sequence[Any]) -> Operation[Any]:
    """The value of a recipe. The scheduler keeps what it holds until it hears that this client holds the keys."""
    if keys:
        held = hold_all(core, keys)
        return (yield Elsewhere(lambda: load(core, what, data, held)))
    if is_plain(data):
        return pickle.loads(data)
    if len(data) <= LARGE_NBYTES:
        return load(core, what, data, {})
    return (yield Elsewhere(lambda: load(core, what, data, {})))
