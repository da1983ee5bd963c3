"""A statistical profile: which functions threads are in, looked at again and again, and counted.

A thread looks at the stacks of other threads every `interval` seconds. What it sees is counted in a tree of functions
for each name that the caller gives to a stack (for a task: the prefix of its key), and for each *window* of a second.
So a profile can be had of some names, and of a time. There are so many functions in all windows together as
`MAX_NODES` says; the oldest windows go first.

Each look takes some ten microseconds, half a hundredth of a processor's time in all. So it is done from the first time
on that somebody asks, and not before. If there was nothing to see for a while, the thread looks less often, and finds
what begins then a little later.
"""

from __future__ import annotations

import linecache
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import CodeType, FrameType
from typing import Any, NamedTuple, TypeAlias

logger = logging.getLogger(__name__)

WINDOW_SECONDS = 1.0
#: How often it is looked, if nothing else is said.
INTERVAL_SECONDS = 0.02
#: After so many looks at nothing, it looks as often as this.
IDLE_LOOKS = 50
IDLE_SECONDS = 0.1
#: A node is some 300 bytes.
MAX_NODES = 50_000
#: Deeper frames are not counted.
MAX_DEPTH = 100

#: What a profile is, as dask has it: ``identifier``, ``description``, ``count``, and ``children`` by identifier.
State = dict[str, Any]


#: The functions of a stack, and the lines in which they are: the outermost first.
Stack: TypeAlias = list[tuple[CodeType, int]]


def stack_of(frames: Iterable[FrameType]) -> Stack:
    """The functions of frames. It keeps none of them: a frame has what a function works with, and may be its last
    holder."""
    return [(frame.f_code, frame.f_lineno or frame.f_code.co_firstlineno) for frame in islice(frames, MAX_DEPTH)]


class Node:
    """A function that was seen in one place of a stack."""

    __slots__ = ("children", "count", "line")

    def __init__(self) -> None:
        self.count = 0
        self.line = 0  # where it was seen last
        self.children: dict[CodeType, Node] = {}

    def add(self, stack: Stack) -> int:
        """Count a stack; how many functions are new."""
        node, new = self, 0
        node.count += 1
        for code, line in stack:
            child = node.children.get(code)
            if child is None:
                child = node.children[code] = Node()
                new += 1
            child.count += 1
            child.line = line
            node = child
        return new


class Window(NamedTuple):
    """What was seen in a second, by name."""

    begun: float
    trees: dict[str, Node]


class Profiler:
    """Looks at threads, from `start` on.

    Parameters
    ----------
    look
        Gives the stacks that there are now, each with a name.
    interval
        Seconds between two looks.
    name
        Of its thread.
    max_nodes
        How many functions all windows have together.
    """

    def __init__(
        self,
        look: Callable[[], Iterable[tuple[str, Stack]]],
        interval: float,
        name: str,
        max_nodes: int = MAX_NODES,
    ) -> None:
        self._look = look
        self._interval = interval
        self._name = name
        self._max_nodes = max_nodes
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._windows: deque[Window] = deque()
        self._sizes: deque[int] = deque()  # how many functions each of them has
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        return self._thread is not None

    def start(self) -> None:
        """Look from now on. Twice is no error."""
        with self._lock:
            if self._thread is not None or self._stop.is_set():
                return
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # the system has no thread: all else goes on without a profile
            logger.warning("there is no profile: %s", error)
            self._thread = None

    def stop(self) -> None:
        """Look no more. Twice is no error."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(1.0)

    def _run(self) -> None:
        idle = 0
        while not self._stop.wait(self._interval if idle < IDLE_LOOKS else max(IDLE_SECONDS, self._interval)):
            try:
                idle = 0 if self._count() else idle + 1
            except Exception:  # whatever a stack is like, the next one may be seen
                logger.exception("a profile could not be taken")

    def _count(self) -> bool:
        seen = False
        for name, stack in self._look():
            seen = True
            with self._lock:
                trees = self._window().trees
                tree = trees.get(name)
                if tree is None:
                    tree = trees[name] = Node()
                self._sizes[-1] += tree.add(stack)
        return seen

    def _window(self) -> Window:
        now = time.time()
        if not self._windows or now - self._windows[-1].begun >= WINDOW_SECONDS or now < self._windows[-1].begun:
            while self._windows and sum(self._sizes) > self._max_nodes:
                self._windows.popleft()
                self._sizes.popleft()
            self._windows.append(Window(now, {}))
            self._sizes.append(0)
        return self._windows[-1]

    def state(self, name: str | None, start: float | None, stop: float | None) -> State:
        """What was seen.

        Parameters
        ----------
        name
            Of which name; None: of all.
        start, stop
            In the windows that begin within these, in seconds since 1970; None: from the beginning, or up to now.
        """
        with self._lock:
            found = [
                tree
                for window in self._windows
                if (start is None or window.begun > start - WINDOW_SECONDS) and (stop is None or window.begun < stop)
                for each, tree in window.trees.items()
                if name is None or each == name
            ]
            merged = empty()
            for tree in found:
                _merge(merged, tree)
        return merged


def empty() -> State:
    """A profile in which nothing was seen."""
    return {
        "identifier": "root",
        "description": {"filename": "", "name": "", "line_number": 0, "line": ""},
        "count": 0,
        "children": {},
    }


def _merge(state: State, node: Node) -> None:
    state["count"] += node.count
    for code, child in node.children.items():
        identifier = f"{code.co_name};{code.co_filename};{code.co_firstlineno}"
        into = state["children"].get(identifier)
        if into is None:
            into = state["children"][identifier] = {
                "identifier": identifier,
                "description": {
                    "filename": code.co_filename,
                    "name": code.co_name,
                    "line_number": child.line,
                    "line": linecache.getline(code.co_filename, child.line).strip()[:500],
                },
                "count": 0,
                "children": {},
            }
        _merge(into, child)


def merged(states: Iterable[State]) -> State:
    """Several profiles as one.

    Examples
    --------
    >>> merged([empty(), empty()])["count"]
    0
    """
    whole = empty()
    for state in states:
        _add(whole, state)
    return whole


def _add(whole: State, state: State) -> None:
    whole["count"] += state["count"]
    for identifier, child in state["children"].items():
        into = whole["children"].get(identifier)
        if into is None:
            into = whole["children"][identifier] = {**child, "count": 0, "children": {}}
        _add(into, child)


def rows(state: State) -> Iterator[tuple[int, int, State]]:
    """Each function with its depth and the number of looks before it: for what draws it."""
    stack = [(0, 0, state)]
    while stack:
        depth, before, node = stack.pop()
        yield depth, before, node
        for child in sorted(node["children"].values(), key=_count_of, reverse=True):
            stack.append((depth + 1, before, child))
            before += child["count"]


def _count_of(state: State) -> int:
    count: int = state["count"]
    return count
