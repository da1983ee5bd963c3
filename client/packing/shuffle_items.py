"""Results that are taken apart: each item is taken by the task that reads it, where it lies.

A shuffle splits each of N partitions into a dictionary of N items, and dask has a task for every item, which does
nothing but ``dictionary[k]``: N times N tasks, for N results. Each would read an item out of the store only to write it
there again. So such a task isn't sent. The one that reads its result refers to the item of the dictionary instead
(`payloads.Item`), and depends on the task that makes the dictionary.

That is right only where no other task can tell the difference, and good only where nothing is held for longer. An
item is taken so if

* the taking's own result isn't wanted: it's no output, and no worker or the like was chosen for it;
* one task reads it, which is sent as a call: an item that several read would be looked for by each;
* it's one of many. The dictionary is kept until all its readers have run. With a shuffle that makes no difference: its
  last items are taken when all others have been read. Of two or three results of one function, a large one would have
  to wait for the tasks that read a small one.

What fails is the same: a missing item is the reader's `KeyError`, with a note that says of what.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from holdfast.client.packing.dask_internals import Alias, GraphNode, Task, TaskRef

#: From how many items on a result is taken apart by the tasks that read them.
ITEMS_MIN = 8
_PLAIN = frozenset({int, str})


class Taken(NamedTuple):
    """``source[item]``: the key of a result, and what is taken of it."""

    source: Any
    item: Any


def items_taken(
    nodes: Mapping[Any, GraphNode],
    wanted: Collection[Any],
    is_call: Callable[[GraphNode], bool],
    options: Mapping[Any, Any],
) -> dict[Any, Taken]:
    """The tasks that needn't be sent, since the tasks that read their results can take these for themselves.

    Parameters
    ----------
    nodes
        A graph.
    wanted
        The keys of its outputs.
    is_call
        Whether a task's arguments are such that an item can stand among them.
    options
        Of single keys: one that has others than its reader stays a task.
    """
    found = {key: one for key, node in nodes.items() if (one := _taken_by(node)) is not None}
    counts = Counter(one.source for one in found.values())
    taken = {key: one for key, one in found.items() if counts[one.source] >= ITEMS_MIN and key not in wanted}
    if not taken:
        return taken
    readers: dict[Any, list[Any]] = {key: [] for key in taken}
    for key, node in nodes.items():
        for dependency in node.dependencies:
            if dependency in readers:
                readers[dependency].append(key)
    # A reader that takes an item itself may not be sent either.
    suitable = {key: key not in found and is_call(nodes[key]) for key, *others in readers.values() if not others}
    return {
        key: one
        for key, one in taken.items()
        if len(readers[key]) == 1
        and suitable[readers[key][0]]
        and options.get(key) in (None, options.get(readers[key][0]))
    }


def _taken_by(node: GraphNode) -> Taken | None:
    """What a node takes of which result, if that is all it does."""
    if type(node) is not Task or node.func is not operator.getitem or len(node.args) != 2 or node.kwargs:
        return None
    source, item = node.args
    kind = type(item)
    if kind not in _PLAIN and not (kind is tuple and _PLAIN.issuperset(map(type, item))):
        return None
    if type(source) is TaskRef:
        return Taken(source.key, item)
    return Taken(source.target, item) if type(source) is Alias else None
