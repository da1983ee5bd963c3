"""Garbage collection in a process that must always answer and holds a million things.

Python frees what nothing refers to at once; its collector is only for what refers to itself in a circle. A full
collection looks at every object there is: a second for a million tasks, in which the event loop does nothing else, and
they are no garbage. Little in these processes leaves circles behind (an error with its traceback, a connection that has
closed), and that little can wait until there is not much to look at.

So young objects are collected as ever, which is where most circles end, and all of them only by a timer, and only while
there are few: soon after there were many, which also gives back the memory that Python keeps for more of them, and now
and then; or after an hour in which there were always many.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

#: A collection of young objects looks at so many at most, in a few milliseconds: this many, times `_YOUNG_ROUNDS`.
_YOUNGEST = 2_000
_YOUNG_ROUNDS = 10
_NEVER = 2**31 - 1
#: How often it's looked at whether there were many things, and are few now.
LOOK_SECONDS = 1.0
#: How long all objects are not collected while there are few things, and at most.
PAUSE_SECONDS = 30.0
MAX_WAIT_SECONDS = 3600.0
#: A full collection waits while there are more things than this: they would take it more than some milliseconds.
FEW = 5_000


def collect_young_only() -> None:
    """From here on collect nothing by itself but young objects; what is there now is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNGEST, _YOUNG_ROUNDS, _NEVER)


def stop_collecting() -> None:
    """Many things will be made that stay."""
    gc.disable()


def collect_young_again() -> None:
    """They are made; none of them is ever looked at."""
    gc.freeze()
    gc.enable()


def collect_when_few(count: Callable[[], int]) -> None:
    """Collect all objects now and then, in this thread's event loop, while ``count()`` things are few."""
    loop = asyncio.get_running_loop()
    collected = loop.time()
    were_many = False

    def look() -> None:
        nonlocal collected, were_many
        few = count() <= FEW
        waited = loop.time() - collected
        if (few and (were_many or waited >= PAUSE_SECONDS)) or waited >= MAX_WAIT_SECONDS:
            gc.collect()
            collected = loop.time()
        were_many = not few
        loop.call_later(LOOK_SECONDS, look)

    loop.call_later(LOOK_SECONDS, look)
