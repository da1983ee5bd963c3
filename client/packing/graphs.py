"""dask's graphs as tasks to submit.

Theory of operation. A graph goes through six steps:

1. *Convert* it into `dask._task_spec` nodes, whatever it was: a dictionary, a high level graph, an expression.
2. *Resolve aliases* here, so that none costs a task. A key may then stand for another one, of the graph or of a
   future; references to it are written as references to that one, and an output that is an alias is a future of it.
3. *Cull* what the outputs don't need, and what this client holds already. What failed is held as well: what depends on
   it fails with the same error. dask keeps one expression for each name in a process, so a graph may stand on futures
   of another client, or on some that were cancelled. If it says how to make them, they are made; if not, this client
   holds the keys too, or says why it can't.
4. *Order* the rest with `dask.order`: the scheduler prefers what comes first, so this is where memory is saved.
5. *Leave out* the tasks that only take one item of a result: the task that reads the item takes it
   (`shuffle_items.py`).
6. *Pack* each node. A task whose arguments are values and references, also in lists, tuples, sets and dictionaries,
   becomes a call of a function that is sent once. Whatever is more involved is pickled as the node that it is. Data
   that is large is put into a store.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from dask.order import order

from holdfast.client.packing import dask_internals
from holdfast.client.packing.arguments import Packer
from holdfast.client.packing.awaited_parts import with_awaited_parts
from holdfast.client.packing.constants import REFUSALS, Constants
from holdfast.client.packing.dask_internals import (
    Alias,
    DataNode,
    Dict,
    GraphNode,
    List,
    Set,
    Task,
    TaskRef,
    Tuple,
    convert_legacy_graph,
)
from holdfast.client.packing.foreign import check_targets
from holdfast.client.packing.functions import Function, FunctionCache
from holdfast.client.packing.futures import FutureLike, Own, is_future
from holdfast.client.packing.keys import check_together, wire_key
from holdfast.client.packing.shuffle_items import Taken, items_taken
from holdfast.client.packing.structures import futures_in_fields
from holdfast.client.packing.write_tasks import with_locks
from holdfast.cluster.comm.frames import raw
from holdfast.cluster.protocol.payloads import Item, Reference
from holdfast.cluster.protocol.shapes import key_weight

#: The keys in one message of a graph, each as often as it may be named there, take no more than about this.
MAX_KEYS_NBYTES = 16 << 20

_CONTAINERS: dict[type, Callable[[Any], Any]] = {List: list, Tuple: tuple, Set: set}
_PLAIN_CONTAINERS = (list, tuple, set, frozenset)
_TOO_INVOLVED = object()


class Graph(NamedTuple):
    """A graph ready to be submitted.

    Attributes
    ----------
    tasks : list
        As in a ``submit`` message: each dependency before its dependents, in order of priority.
    functions : list of Function
        What the tasks name.
    targets : dict
        For each output the key that has its value.
    stored : list of Future
        Of data that was put into a store, and of what another client holds. To be held as long as the outputs may have
        to be made again.
    borrowed : list of Future
        Of keys that the graph refers to and the client held already. To be held until the tasks are submitted.
    """

    tasks: list[tuple[Any, bytes | None, Any, list[Any]]]
    functions: list[Function]
    targets: dict[Any, Any]
    stored: list[FutureLike]
    borrowed: list[FutureLike]


def nodes_of(graph: Mapping[Any, Any]) -> dict[Any, GraphNode]:
    """A graph as ``{key: node}``; a key that only says that it is a future of the same key is left out."""
    nodes: dict[Any, GraphNode] = convert_legacy_graph(dict(graph))
    return nodes


class GraphPacker:
    """Packs one graph.

    Parameters
    ----------
    functions:
        Where functions are pickled.
    borrow:
        A future of a key that the client holds already and that is, will be or would be in memory; else None.
    own:
        The client's own future of the key of one among the arguments. Raises if there can't be one.
    elsewhere:
        A future of a key that the client does not hold, but another client of this process does; else None.
    constants:
        Where large data in the graph goes.
    store_as:
        Puts a value into a store under a key. Returns its future, None without a store.
    as_actor:
        ``as_actor(function)``: a function that makes an actor of what that one gives.
    write_lock:
        What a task that writes gets in the place of its lock.
    """

    def __init__(
        self,
        functions: FunctionCache,
        *,
        borrow: Callable[[Any], FutureLike | None],
        own: Own,
        elsewhere: Callable[[Any], FutureLike | None],
        constants: Constants,
        store_as: Callable[[Any, Any], FutureLike | None],
        as_actor: Callable[[Callable[..., Any]], Callable[..., Any]],
        write_lock: Callable[[Any], Any],
    ) -> None:
        self._functions = functions
        self._borrow = borrow
        self._own = own
        self._elsewhere = elsewhere
        self._constants = constants
        self._store_as = store_as
        self._as_actor = as_actor
        self._write_lock = write_lock
        self._packed_functions: dict[int, tuple[Any, Function]] = {}
        self._sent_functions: dict[bytes, Function] = {}
        self._packers: dict[int, Packer] = {}
        self._targets: dict[Any, Any] = {}
        self._taken: dict[Any, Taken] = {}
        self._stored: dict[Any, FutureLike] = {}
        self._borrowed: dict[Any, FutureLike] = {}
        self._given: dict[Any, FutureLike] = {}  # by the graph

    def pack(
        self,
        graph: Mapping[Any, Any],
        outputs: Iterable[Any],
        options: Mapping[Any, Any] = MappingProxyType({}),
        actors: Collection[Any] = (),
    ) -> Graph:
        """Pack what the outputs need.

        Parameters
        ----------
        graph, outputs:
            The graph, and which of its keys are to be computed.
        options:
            Those that single keys have.
        actors:
            Keys whose results are to stay on their workers as actors.

        Raises
        ------
        ValueError
            An output is not in the graph, or a task needs a key that is neither in it nor that of a future, or of one
            of another cluster.
        CancelledError, ConnectError
            A task needs a key whose future was cancelled, or is of a client that has lost its connection.
        TypeError
            A task can't be pickled; names it.
        RuntimeError
            `dask.array.store` would write into memory of this process.
        """
        self._given = {value.key: value for value in graph.values() if is_future(value)}
        nodes = nodes_of(graph)
        targets = {output: self._target(nodes, output) for output in outputs}
        needed = self._cull(nodes, targets)
        for key in actors:
            self._make_actor(needed, self._target(nodes, key) if key in nodes else key)
        check_targets(needed)
        needed = with_locks(needed, self._write_lock)
        ranks = order(needed)
        self._taken = items_taken(needed, set(targets.values()), self._is_call, options)
        tasks = []
        for key in sorted(needed, key=ranks.__getitem__):
            task = self._pack_node(key, needed[key]) if key not in self._taken else None
            if task is not None:
                tasks.append(task)
        functions = list(self._sent_functions.values())
        return Graph(tasks, functions, targets, list(self._stored.values()), list(self._borrowed.values()))

    # -- aliases and culling

    def _target(self, nodes: Mapping[Any, GraphNode], key: Any) -> Any:
        """The key that has the value of ``key``: itself, or what it is an alias of in the end."""
        known = self._targets.get(key)
        if known is not None:
            return known
        chain = []
        at = key
        while True:
            node = nodes.get(at)
            if type(node) is not Alias or node.target == at:
                break
            chain.append(at)
            if len(chain) > len(nodes):
                raise ValueError(f"{key!r} is an alias of itself")
            at = node.target
        if at not in nodes and not self._is_held(at):
            self._take(at, f" ({key!r} is an alias of it)" if chain else "")
        at = wire_key(at)
        for link in chain:
            self._targets[link] = at
        self._targets[key] = at
        return at

    def _is_held(self, key: Any) -> bool:
        if key in self._borrowed:
            return True
        future = self._borrow(key)
        if future is not None:
            self._borrowed[key] = future
        return future is not None

    def _take(self, key: Any, remark: str) -> None:
        """Take a key from where else there is a future of it."""
        future = self._given.get(key) or self._elsewhere(key)
        if future is None:
            raise ValueError(
                f"the graph needs {key!r}, which is neither in it nor held by a future{remark}: keep the futures that "
                "it stands on, or the persisted collection, until then"
            )
        self._borrowed[key] = own = self._own(future)
        if own is not future:
            self._keep((own,))

    def _cull(self, nodes: Mapping[Any, GraphNode], targets: Mapping[Any, Any]) -> dict[Any, GraphNode]:
        """What has to be computed, with references to what aliases stand for in the place of references to them."""
        needed: dict[Any, GraphNode] = {}
        work = list(dict.fromkeys(targets.values()))
        while work:
            key = work.pop()
            if key in needed or key not in nodes or self._is_held(key):
                continue
            node = nodes[key]
            renamed = {d: target for d in node.dependencies if (target := self._target(nodes, d)) != d}
            if renamed:
                node = node.substitute(renamed)
            needed[key] = node
            work.extend(node.dependencies)
        return needed

    def _make_actor(self, needed: dict[Any, GraphNode], key: Any) -> None:
        node = needed.get(key)
        if node is None:
            return  # it isn't computed, or held already
        if type(node) is not Task:
            raise ValueError(f"{key!r:.200} can't be an actor: it is data, and not what a call makes")
        needed[key] = Task(node.key, self._as_actor(node.func), *node.args, **node.kwargs)

    # -- packing

    def _pack_node(self, key: Any, node: GraphNode) -> tuple[Any, bytes | None, Any, list[Any]] | None:
        key = wire_key(key)
        if type(node) is Task:
            is_fused = node.func is dask_internals.execute_subgraph
            task = self._pack_call(key, with_awaited_parts(node) if is_fused else node)
            if task is not None:
                return task
        node = with_awaited_parts(node)
        try:
            packed = self._constants.pack_small(node)
            if packed is None and type(node) is DataNode and (stored := self._store_as(node.value, key)) is not None:
                self._keep((stored,))
                return None  # there is nothing to send
            packed = packed or self._constants.pack_large(node)
            if packed.inside and (values := futures_in_fields(_literals(node))):
                packed = self._constants.pack(node, values)
        except REFUSALS:
            raise
        except Exception as error:  # pickling runs a user's code, which may raise anything
            raise TypeError(f"the task {key!r} can't be pickled: {error}") from error
        self._keep(packed.stored)
        dependencies = [wire_key(d) for d in node.dependencies]
        if packed.inside or packed.stored:
            found = [future.key for future in (*packed.inside, *packed.stored)]
            dependencies = list(dict.fromkeys((*dependencies, *found)))
            self._keep(own for future in packed.inside if (own := self._own(future)) is not future)
        check_together(f"the task {key!r:.80}", dependencies)
        return key, None, raw(packed.data), dependencies

    def _keep(self, stored: Iterable[FutureLike]) -> None:
        self._stored.update((future.key, future) for future in stored)

    def _pack_call(self, key: Any, task: Task) -> tuple[Any, bytes, Any, list[Any]] | None:
        """A task as a call with references; None if it is too involved for that."""
        referred: dict[Any, None] = {}
        args = []
        for value in task.args:
            value = self._argument(value, referred)
            if value is _TOO_INVOLVED:
                return None
            args.append(value)
        kwargs = {}
        for name, value in task.kwargs.items():
            value = self._argument(value, referred)
            if value is _TOO_INVOLVED:
                return None
            kwargs[name] = value
        try:
            function = self._function(task.func)
            packer = self._packers.get(id(task.func))
            if packer is None:
                # The packed functions keep the function, so its identity is not given to another one meanwhile.
                packer = self._packers[id(task.func)] = Packer(function.name, task.func, self._own, self._constants)
            call = packer.pack(tuple(args), kwargs)
        except TypeError as error:
            raise TypeError(f"the task {key!r} can't be sent: {error}") from error
        self._keep(call.stored)
        dependencies = dict.fromkeys((*referred, *call.dependencies, *function.dependencies))
        check_together(f"the task {key!r:.80}", dependencies)
        return key, function.digest, raw(call.payload), list(dependencies)

    def _is_call(self, node: GraphNode) -> bool:
        return type(node) is Task and not any(
            self._argument(value, {}) is _TOO_INVOLVED for value in (*node.args, *node.kwargs.values())
        )

    def _argument(self, value: Any, referred: dict[Any, None]) -> Any:
        kind: type = type(value)
        if kind is TaskRef or kind is Alias:
            key = value.key if kind is TaskRef else value.target
            taken = self._taken.get(key)
            target = wire_key(key if taken is None else taken.source)
            referred[target] = None
            return Reference(target) if taken is None else Item(target, taken.item)
        if not issubclass(kind, GraphNode):
            return value
        container = _CONTAINERS.get(kind)
        if kind is Task and value.func is dask_internals.identity_cast and value.kwargs.get("typ") in _PLAIN_CONTAINERS:
            container = value.kwargs["typ"]  # a list or the like of a legacy graph
        if container is not None or kind is Dict:
            items = [self._argument(item, referred) for item in value.args]
            if any(item is _TOO_INVOLVED for item in items):
                return _TOO_INVOLVED
            if container is not None:
                return container(items)
            return dict(zip(items[::2], items[1::2], strict=True))
        if kind is DataNode:
            return value.value
        return _TOO_INVOLVED

    def _function(self, function: Any) -> Function:
        """Many tasks of a graph share one function object; it is pickled once for all of them."""
        entry = self._packed_functions.get(id(function))
        if entry is None:
            packed = self._functions.get(function, self._own, self._constants)
            self._keep(packed.stored)
            self._packed_functions[id(function)] = (function, packed)
            self._sent_functions.setdefault(packed.digest, packed)
            return packed
        return entry[1]


def _literals(node: Any) -> Iterator[Any]:
    """What stands in a node for itself."""
    if not isinstance(node, GraphNode):
        yield node
    elif isinstance(node, DataNode):
        yield node.value
    else:
        for value in (*getattr(node, "args", ()), *getattr(node, "kwargs", {}).values()):
            yield from _literals(value)


def annotations_of(graph: Any) -> dict[str, dict[Any, Any]]:
    """What `dask.annotate` said about the tasks of a high level graph: ``{annotation: {key: value}}``."""
    found: dict[str, dict[Any, Any]] = {}
    for layer in getattr(graph, "layers", {}).values():
        for name, value in (layer.annotations or {}).items():
            of_keys = found.setdefault(name, {})
            of_keys.update({key: value(key) if callable(value) else value for key in layer})
    return found


def split(
    tasks: list[tuple[Any, ...]], wants: Collection[Any], max_tasks: int
) -> Iterator[tuple[list[Any], list[Any], list[Any]]]:
    """Cut the tasks of a graph into messages: ``(tasks, wants, done)`` each.

    What a later message depends on is wanted too until that is sent, or the scheduler would forget it in between. It is
    in the ``wants`` of its message and not in ``wants`` here, and in the ``done`` of the last one that depends on it;
    the sender releases it after that one.
    """
    cuts = _cuts(tasks, max_tasks)
    message_of = {key: number for number, (start, end) in enumerate(cuts) for key, _, _, _ in tasks[start:end]}
    last_use: dict[Any, int] = {}
    for key, _, _, dependencies in tasks:
        number = message_of[key]
        for dependency in dependencies:
            if message_of.get(dependency, number) != number and dependency not in wants:
                last_use[dependency] = number
    done: dict[int, list[Any]] = {}
    for key, number in last_use.items():
        done.setdefault(number, []).append(key)
    for number, (start, end) in enumerate(cuts):
        part = tasks[start:end]
        yield part, [key for key, _, _, _ in part if key in wants or key in last_use], done.get(number, [])


def _cuts(tasks: list[tuple[Any, ...]], max_tasks: int) -> list[tuple[int, int]]:
    """Where each message begins and ends: after so many tasks, or when their keys have become much."""
    cuts = []
    start = nbytes = 0
    for index, (key, _, _, dependencies) in enumerate(tasks):
        # A key may be wanted, and have options, beside being the task's.
        size = 3 * key_weight(key) + sum(map(key_weight, dependencies))
        if index - start == max_tasks or (nbytes and nbytes + size > MAX_KEYS_NBYTES):
            cuts.append((start, index))
            start, nbytes = index, 0
        nbytes += size
    return [*cuts, (start, len(tasks))] if tasks else cuts
