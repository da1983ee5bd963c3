"""Graphs packed as a client does, and run as by a worker, without a cluster."""

from __future__ import annotations

import pickle
from types import MappingProxyType

from holdfast.client.packing.constants import Constants
from holdfast.client.packing.functions import FunctionCache
from holdfast.client.packing.graphs import GraphPacker
from holdfast.cluster.protocol import payloads


def pack(graph, outputs, options=MappingProxyType({}), **settings):
    """What a client would send for a graph."""

    def refuse(future):
        raise AssertionError(f"unexpected {future}")

    defaults = {
        "borrow": lambda key: None,
        "own": refuse,
        "elsewhere": lambda key: None,
        "constants": Constants(lambda value: None),
        "store_as": lambda v, k: None,
        "as_actor": refuse,
        "write_lock": lambda lock: lock,
    }
    return GraphPacker(FunctionCache(), **{**defaults, **settings}).pack(graph, outputs, options)


def run(packed, values=None):
    """The outputs, with the tasks run in their order, each as a worker does. Fails where a dependency comes later."""
    values = dict(values or {})
    functions = {function.digest: pickle.loads(function.blob) for function in packed.functions}
    for key, digest, data, dependencies in packed.tasks:
        of_task = {dependency: values[dependency] for dependency in dependencies}
        loaded = payloads.loads(getattr(data, "data", data), of_task)
        if digest is None:
            values[key] = loaded(of_task)
        else:
            args, kwargs = loaded
            values[key] = functions[digest](*args, **kwargs)
    return {output: values[target] for output, target in packed.targets.items()}
