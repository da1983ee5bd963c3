"""dask's expressions out of a pickle, on the futures that this pickle has.

In a process dask keeps one living expression for each name, and a pickled one takes its name along. So of a frame that
another client has here, or had before it was closed, that one's expression would come back, on that one's futures. An
expression on futures is made anew instead: its name is made from them, and so are the names of those that stand on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from holdfast.client.packing.dask_internals import Expr
from holdfast.client.packing.futures import is_future
from holdfast.cluster.protocol import payloads
from holdfast.objectstore.pickling import importing

_RECONSTRUCT = Expr._reconstruct


def loads(data: bytes | memoryview, values: Mapping[Any, Any]) -> Any:
    """Unpickle a value. Expressions in it that stand on futures have names of their own.

    ``values`` stand in the place of the references to them.
    """
    with payloads.resolving(values, load=_load):
        return _load(data)


def _load(data: bytes | memoryview) -> Any:
    return _Unpickler(importing.source_of(data)).load()


class _Unpickler(importing.Unpickler):
    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self._renamed: dict[int, Any] = {}  # by identity, which no other object has as long as they are in here

    def find_class(self, module: str, name: str) -> Any:
        if name == _RECONSTRUCT.__qualname__ and module == _RECONSTRUCT.__module__:
            return self._reconstruct
        return super().find_class(module, name)

    def _reconstruct(self, kind: Any, *state: Any) -> Any:
        *operands, _, _ = state  # its token, and what it had computed under that name
        if not any(map(self._is_new, operands)):
            return _RECONSTRUCT(kind, *state)
        expression = kind(*operands)
        self._renamed[id(expression)] = expression
        return expression

    def _is_new(self, operand: Any) -> bool:
        """Whether it is a future, or stands on one."""
        if is_future(operand) or id(operand) in self._renamed:
            return True
        if isinstance(operand, Mapping):
            operand = operand.values()
        elif not isinstance(operand, (list, tuple, set, frozenset)):
            return False
        items: Iterable[Any] = operand
        return any(map(self._is_new, items))
