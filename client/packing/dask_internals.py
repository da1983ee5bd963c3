"""What of dask's insides this package stands on, in one place.

dask offers a scheduler the graph and asks it for results; how collections become one graph, and are put together again
from its parts, it has for itself in `dask.base` and `dask._expr`. dask has no types for these.
"""

from __future__ import annotations

from typing import Any

from dask import _expr, _task_spec, base, core
from dask._task_spec import (
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
from dask.tokenize import tokenize_lock

CompositeExpr: Any = _expr.CompositeExpr
Expr: Any = _expr.Expr
ExprSequence: Any = _expr._ExprSequence
GraphExpr: Any = _expr.HLGExpr
GraphExprSequence: Any = _expr._HLGExprSequence
FinalizeCompute: Any = _expr.FinalizeCompute
collections_to_expr: Any = base.collections_to_expr
rebuild_composite_collection: Any = base._rebuild_composite_collection
unpack_collections: Any = base.unpack_collections
flatten: Any = core.flatten
identity_cast: Any = _task_spec._identity_cast
execute_subgraph: Any = _task_spec._execute_subgraph


def is_tokenizing() -> bool:
    """Whether this thread pickles something for a token of dask's only: nobody will unpickle it for good."""
    return bool(tokenize_lock._is_owned())  # type: ignore[attr-defined]


__all__ = [
    "Alias",
    "CompositeExpr",
    "DataNode",
    "Dict",
    "Expr",
    "ExprSequence",
    "FinalizeCompute",
    "GraphExpr",
    "GraphExprSequence",
    "GraphNode",
    "List",
    "Set",
    "Task",
    "TaskRef",
    "Tuple",
    "collections_to_expr",
    "convert_legacy_graph",
    "execute_subgraph",
    "flatten",
    "identity_cast",
    "is_tokenizing",
    "rebuild_composite_collection",
    "unpack_collections",
]
