"""dask's graphs and collections on the cluster. What gives futures never waits in an asynchronous client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from dask.base import get_annotations, is_dask_collection
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph

from holdfast.client.core.core import Core
from holdfast.client.futures.future import Future
from holdfast.client.futures.holding import borrow, elsewhere, own
from holdfast.client.operations.storing import constants, store_as
from holdfast.client.operations.submit import submit
from holdfast.client.operations.write_locks import write_lock
from holdfast.client.packing import options as task_options
from holdfast.client.packing.dask_internals import (
    CompositeExpr,
    Expr,
    ExprSequence,
    FinalizeCompute,
    GraphExpr,
    GraphExprSequence,
    collections_to_expr,
    flatten,
    rebuild_composite_collection,
    unpack_collections,
)
from holdfast.client.packing.graphs import GraphPacker, annotations_of, split
from holdfast.client.packing.large_graphs import warn_if_large
from holdfast.cluster import protocol
from holdfast.cluster.call_sites import call_site
from holdfast.cluster.protocol.limits import MAX_ITEMS

_CONTAINERS = (list, tuple, set, frozenset)
AsActor = Callable[[Callable[..., Any]], Callable[..., Any]]


def submit_graph(
    core: Core,
    graph: Any,
    outputs: Iterable[Any],
    *,
    common: Mapping[str, Any],
    of_outputs: Mapping[Any, Mapping[str, Any]],
    as_actor: AsActor,
) -> dict[Any, Future]:
    """Submit what the outputs of a graph need.

    Parameters
    ----------
    graph : dict, HighLevelGraph or Expr
    common:
        Options of all tasks.
    of_outputs:
        Further ones of some outputs, by output key.
    as_actor:
        Gives a function that makes an actor of what the one that is given makes.

    Returns
    -------
    dict
        A future for each output.
    """
    where = call_site()
    core.session.check_open()
    core.table.settle_all()  # a key of futures that are gone is one to be computed
    if isinstance(graph, Expr):
        _leave_unfused_if_called(graph)
        annotations = graph.__dask_annotations__()
        graph = graph.__dask_graph__()
    else:
        annotations = {}
    per_key = {**task_options.per_key(annotations_of(graph)), **task_options.per_key(annotations)}
    ambient = get_annotations()
    called = task_options.Called(ambient, common)
    common = {**task_options.from_annotations(ambient), **common}
    if (parent := core.driver.parent) is not None:
        common = {**common, "parent": parent}
    packed = GraphPacker(
        core.functions,
        borrow=partial(borrow, core, failed=True),
        own=partial(own, core),
        elsewhere=partial(elsewhere, core),
        constants=constants(core),
        store_as=partial(store_as, core),
        as_actor=as_actor,
        write_lock=write_lock,
    ).pack(graph, outputs, per_key, [key for key, chosen in of_outputs.items() if chosen.get("actor")])
    warn_if_large(packed)
    if called:
        per_key = {**{key: called.of(key) for key, _, _, _ in packed.tasks}, **per_key}
    for output, chosen in of_outputs.items():
        target = packed.targets.get(output, output)
        per_key[target] = {**per_key.get(target, {}), **chosen}

    wants = set(packed.targets.values())
    parts = list(split(packed.tasks, wants, MAX_ITEMS))
    submitted = {key for key, _, _, _ in packed.tasks}
    keeps = tuple(packed.stored)
    table, session = core.table, core.session
    futures: dict[Any, Future] = {}
    messages: list[tuple[Any, ...]] = []
    with table.lock, table.beginning() as begun:
        session.check_open()
        for output, target in packed.targets.items():
            state, new = table.state_of(target)
            if new:
                begun.append(state)
                if target in submitted:
                    state.keeps = keeps  # one tuple for all; a key that was held has its recipe, and what that needs
                else:
                    messages.append(protocol.client.WANT((target,)))
            futures[output] = Future._of(state, core)
        for tasks, wanted, done in parts:
            options = dict(common)
            if per_key:
                options["per_key"] = {key: per_key[key] for key, _, _, _ in tasks if key in per_key}
            messages.append(protocol.client.SUBMIT(tasks, wanted, options, where))
            # What the client holds by itself is not let go.
            released = [key for key in done if key not in table.states]
            if released:
                messages.append(protocol.client.RELEASE(released))
        core.sent.send(packed.functions)
        session.enqueue_all(messages)  # at once: what is wanted for the sake of a later message is released by that
        begun.commit()
        core.sent.forget(packed.functions)
    session.flush_soon()
    return futures


def _leave_unfused_if_called(expr: Any) -> None:
    """Have dask leave the layers of an expression as they are if one has annotations that are functions of the key.

    dask fuses layers by taking the largest priority, the intersection of the workers and so on, which functions have
    none of. What the outputs don't need is culled here anyway.
    """
    if not isinstance(expr, (GraphExpr, GraphExprSequence)):
        return
    parts = expr.operands if isinstance(expr, GraphExprSequence) else [expr]
    graphs = [part.hlg for part in parts]
    annotations = [layer.annotations or {} for graph in graphs for layer in getattr(graph, "layers", {}).values()]
    if any(callable(value) for each in annotations for value in each.values()):
        expr.__dict__["_optimized_dsk"] = HighLevelGraph.merge(*graphs)  # which the expression would cache


def compute(
    core: Core,
    collections: Any,
    *,
    optimize_graph: bool,
    traverse: bool,
    workers: Any,
    allow_other_workers: Any,
    resources: Any,
    actors: Any,
    as_actor: AsActor,
    common: Mapping[str, Any],
) -> Any:
    """Futures of finalized collections; see `Client.compute`."""
    single = not isinstance(collections, (list, tuple, set, frozenset, Iterator))
    given = [collections] if single else list(collections)
    containers: dict[int, _Container] = {}
    for index, item in enumerate(given):
        if traverse and isinstance(item, (*_CONTAINERS, dict, Iterator)):
            given[index] = whole = list(item) if isinstance(item, Iterator) else item
            found, repack = unpack_collections(whole)
            if found:
                containers[id(whole)] = (found, repack)
    wanted = [item for item in given if is_dask_collection(item)]
    wanted += [each for found, _ in containers.values() for each in found]
    futures: dict[int, Future] = {}
    for group in _groups(wanted, optimize_graph):
        expr = FinalizeCompute(collections_to_expr(group, optimize_graph)).optimize()
        outputs = list(flatten(expr.__dask_keys__()))
        of_outputs = _of_outputs(
            [(c, [key]) for c, key in zip(group, outputs, strict=True)], workers, allow_other_workers, resources, actors
        )
        by_output = submit_graph(core, expr, outputs, common=common, of_outputs=of_outputs, as_actor=as_actor)
        futures.update({id(c): by_output[key] for c, key in zip(group, outputs, strict=True)})
    for of, (found, repack) in containers.items():
        (filled,) = repack([futures[id(each)] for each in found])
        futures[of] = submit(core, _itself, (filled,), {}, key=None, pure=True, options=dict(common))
    results = [futures.get(id(item), item) for item in given]
    return results[0] if single else results


#: The collections in a container, and what puts others in their places: ``(repacked,) = repack(others)``.
_Container = tuple[list[Any], Callable[[list[Any]], tuple[Any]]]


def _itself(container: Any) -> Any:
    """A container, once what is in it is there."""
    return container


def persist(
    core: Core,
    collections: Any,
    *,
    optimize_graph: bool,
    workers: Any,
    allow_other_workers: Any,
    resources: Any,
    actors: Any,
    as_actor: AsActor,
    common: Mapping[str, Any],
) -> Any:
    """Collections on futures; see `Client.persist`."""
    single = not isinstance(collections, (*_CONTAINERS, Iterator))
    given = [collections] if single else list(collections)
    inside = [_unpacked(item) for item in given]
    persisted: dict[int, Any] = {}
    for group in _groups([each for found, _ in inside for each in found], optimize_graph):
        results = _persist_group(
            core, group, optimize_graph, workers, allow_other_workers, resources, actors, as_actor, common
        )
        persisted.update({id(c): result for c, result in zip(group, results, strict=True)})
    whole = [repack([persisted[id(each)] for each in found]) for found, repack in inside]
    return whole[0] if single else whole


def _unpacked(item: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The collections that a collection or a container is or has in it, and what puts others in their places."""
    if is_dask_collection(item):
        return [item], lambda persisted: persisted[0]
    found: list[Any] = []
    if isinstance(item, (*_CONTAINERS, dict)):
        found, repack = unpack_collections(item)
    if not found:
        raise TypeError(f"only dask collections can be persisted, not a {type(item).__name__}: {item!r:.100}")
    return found, lambda persisted: repack(persisted)[0]


def _persist_group(
    core: Core,
    given: list[Any],
    optimize_graph: bool,
    workers: Any,
    allow_other_workers: Any,
    resources: Any,
    actors: Any,
    as_actor: AsActor,
    common: Mapping[str, Any],
) -> list[Any]:
    expr = collections_to_expr(given, optimize_graph)
    expressions: list[Any] = list(expr.operands) if isinstance(expr, ExprSequence) else [expr]
    composite = any(isinstance(part, CompositeExpr) for part in expressions)
    expr = expr.optimize()
    if composite:
        expressions = list(expr.operands) if isinstance(expr, ExprSequence) else [expr]
    outputs = [list(flatten(keys)) for keys in expr.__dask_keys__()]
    if not (len(outputs) == len(given) == len(expressions)):
        raise RuntimeError(f"{len(given)} collections were optimized to {len(outputs)}")
    of_outputs = _of_outputs(list(zip(given, outputs, strict=True)), workers, allow_other_workers, resources, actors)
    keys_of_all = [key for keys in outputs for key in keys]
    futures = submit_graph(core, expr, keys_of_all, common=common, of_outputs=of_outputs, as_actor=as_actor)
    results = []
    for collection, part, keys in zip(given, expressions, outputs, strict=True):
        if isinstance(part, CompositeExpr):
            results.append(rebuild_composite_collection(collection, part, futures, cull_to_child_keys=True))
        else:
            rebuild, state = collection.__dask_postpersist__()
            results.append(rebuild({key: futures[key] for key in keys}, *state))
    return results


def _groups(collections: list[Any], optimize_graph: bool) -> list[list[Any]]:
    """Collections that dask optimizes together.

    Of a mixture dask takes frames for opaque graphs, and hands the results of the others back in another order.
    """
    groups: dict[Any, dict[int, Any]] = {}
    for collection in collections:
        kind: Any = "expressions"
        if isinstance(collection, Delayed) or not isinstance(getattr(collection, "expr", None), Expr):
            kind = getattr(collection, "__dask_optimize__", None) if optimize_graph else "graphs"
        groups.setdefault(kind, {})[id(collection)] = collection
    return [list(group.values()) for group in groups.values()]


def _of_outputs(
    collections: list[tuple[Any, list[Any]]], workers: Any, allow_other_workers: Any, resources: Any, actors: Any
) -> dict[Any, Mapping[str, Any]]:
    on = task_options.chosen(workers, collections, nested=False)
    loose = task_options.loose(allow_other_workers, collections)
    needs = task_options.chosen(resources, collections, nested=True)
    stay = task_options.chosen(actors, collections, nested=False)
    found = {
        key: task_options.options_of(
            workers=on.get(key), allow_other_workers=loose.get(key), resources=needs.get(key), actor=stay.get(key)
        )
        for key in {**on, **needs, **stay}
    }
    return {key: options for key, options in found.items() if options}


def get(
    core: Core,
    dsk: Any,
    keys: Any,
    *,
    restrictions: Mapping[Any, Any] | None,
    loose_restrictions: Any,
    resources: Mapping[Any, Any] | None,
    workers: Any,
    allow_other_workers: bool | None,
    actors: Any,
    as_actor: AsActor,
    common: Mapping[str, Any],
) -> Any:
    """Futures, nested like ``keys``; see `Client.get`."""
    outputs = list(_result_keys(keys))
    whole = [(None, outputs)]
    of_outputs: dict[Any, dict[str, Any]] = {}

    def choose(name: str, choices: Mapping[Any, Any]) -> None:
        for key, value in choices.items():
            of_outputs.setdefault(key, {})[name] = value

    if resources and not all(isinstance(value, Mapping) for value in resources.values()):
        common = {**common, **task_options.options_of(resources=resources)}
    else:
        choose("resources", resources or {})
    choose("workers", task_options.chosen(workers, whole, nested=False))
    choose("workers", restrictions or {})
    choose("actor", task_options.chosen(actors, whole, nested=False))
    for key in of_outputs:
        if allow_other_workers or loose_restrictions is True or key in (loose_restrictions or ()):
            of_outputs[key]["allow_other_workers"] = True
    futures = submit_graph(
        core,
        dsk,
        outputs,
        common=common,
        of_outputs={key: task_options.options_of(**chosen) for key, chosen in of_outputs.items()},
        as_actor=as_actor,
    )
    return _repack(keys, futures)


def _result_keys(keys: Any) -> Iterator[Any]:
    """Every key in a nested list of keys."""
    if isinstance(keys, list):
        for key in keys:
            yield from _result_keys(key)
    else:
        yield keys


def _repack(keys: Any, values: Mapping[Any, Any]) -> Any:
    """A nested list of keys with their values instead."""
    if isinstance(keys, list):
        return [_repack(key, values) for key in keys]
    return values[keys]
