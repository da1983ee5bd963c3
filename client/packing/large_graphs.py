"""A word about graphs that are large as they are sent to the scheduler.

Large constants are in stores by then. What is left are very many tasks, or data of middling size in many of them: each
has to be packed, sent, kept and sent on, while the cluster waits for the client.
"""

from __future__ import annotations

import warnings
from collections import Counter
from operator import itemgetter
from typing import Any

from dask.utils import key_split

from holdfast.client.packing.graphs import Graph
from holdfast.cluster.call_sites import stacklevel
from holdfast.objectstore.sizes import format_size

LARGE_GRAPH_NBYTES = 10_000_000
#: A task that takes more has data among its arguments.
_BARE_TASK_NBYTES = 4_000
_NAMED_MAX = 3


def warn_if_large(graph: Graph) -> None:
    """Warn where the user's code asks for a graph of more than 10 MB; once for each such place and graph."""
    nbytes = sum(map(len, map(itemgetter(2), graph.tasks))) + sum(len(function.blob) for function in graph.functions)
    if nbytes > LARGE_GRAPH_NBYTES:
        warnings.warn(_text(graph, nbytes), stacklevel=stacklevel())


def _text(graph: Graph, nbytes: int) -> str:
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for key, _, payload, _ in graph.tasks:
        name = f"tasks {_name(key)!r}"
        sizes[name] += len(payload)
        counts[name] += 1
    for function in graph.functions:
        name = f"functions {function.name!r} with data of their own"
        sizes[name] += len(function.blob)
        counts[name] += 1
    largest = sizes.most_common(_NAMED_MAX)
    parts = [f"{format_size(size)} in {counts[name]:,} {name}" for name, size in largest]
    name, size = largest[0]
    if size > _BARE_TASK_NBYTES * counts[name]:
        advice = (
            "Data that tasks have among their arguments is better loaded by the tasks themselves, or given to them as "
            "a future of it (client.scatter(data)) or as one delayed value that they share (dask.delayed(data))"
        )
    else:
        advice = "It has very many tasks: fewer and larger partitions or chunks do the same with less"
    return f"Sending large graph of size {format_size(nbytes)}: {', '.join(parts)}. {advice}."


def _name(key: Any) -> str:
    return str(key_split(key))[:100]
