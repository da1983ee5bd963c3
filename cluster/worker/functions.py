"""Functions by the digest of their pickle: sent once, unpickled once, at their first use.

Large data of a function is an object in the store, which is a dependency of each task that names the function. The
thread that unpickles it first has read that data in place, and the function keeps its views as long as it is known
here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from holdfast.cluster.protocol import payloads
from holdfast.cluster.worker.dependencies import Dependencies
from holdfast.objectstore.errors import in_words, way_to_unpickle
from holdfast.objectstore.pickling.outline import name_in

#: A pickle of this size stays, so that it can be unpickled again; one by name is much smaller.
KEPT_NBYTES = 4 << 10


class FunctionTable:
    """The functions that the scheduler has sent.

    `add` is called in the loop's thread and only stores bytes; `load` is called in the tasks' threads, because
    unpickling imports modules.
    """

    def __init__(self) -> None:
        self._blobs: dict[bytes, bytes | memoryview] = {}
        self._functions: dict[bytes, Callable[..., Any]] = {}
        self._with_data: set[bytes] = set()

    def add(self, functions: Iterable[tuple[bytes, bytes | memoryview]]) -> None:
        self._blobs.update(functions)

    def forget(self, digests: Iterable[bytes]) -> None:
        """No task will name these again, unless they are sent again before."""
        for digest in digests:
            self._blobs.pop(digest, None)
            self._functions.pop(digest, None)
            self._with_data.discard(digest)

    def unload(self) -> None:
        """Functions are unpickled anew at their next use: what they are imported from may have changed."""
        for digest in list(self._functions):
            if self._blobs.get(digest):
                self._functions.pop(digest, None)

    def known(self) -> dict[bytes, Callable[..., Any]]:
        """The functions that have been unpickled, the latest last."""
        return self._functions.copy()

    def find(self, digest: bytes) -> Callable[..., Any] | None:
        """The function of ``digest``, if it was unpickled before."""
        return self._functions.get(digest)

    def has_data(self, digest: bytes) -> bool:
        """Whether a function that was unpickled has data in the store."""
        return digest in self._with_data

    def load(self, digest: bytes, dependencies: Dependencies | None) -> Callable[..., Any]:
        """Unpickle the function of ``digest``. It is kept for the next tasks, unless it has private views of data.

        Parameters
        ----------
        digest
            The function's.
        dependencies
            Those of the task that it is for, where its data is; None if that has none.

        Raises
        ------
        RuntimeError
            It can't be unpickled here; names it and says why.
        Exception
            What reading a dependency raises.
        """
        blob = self._blobs.get(digest)
        if blob is None:
            raise RuntimeError(f"the function {digest.hex()} was never sent to this worker")
        if not blob:  # another thread was quicker
            return self._functions[digest]
        try:
            function: Callable[..., Any] = payloads.loads(blob, dependencies)
        except Exception as error:  # importing the user's modules can raise anything
            if dependencies is not None and dependencies.failed:
                raise
            raise RuntimeError(
                f"the function {name_in(blob)!r} can't be unpickled on the worker: {in_words(error)}. "
                f"{way_to_unpickle(error)}"
            ) from error
        has_data = dependencies is not None and dependencies.count_read > 0
        if has_data:
            self._with_data.add(digest)
        if dependencies is not None and has_data and dependencies.private:
            return function
        # Two threads may get here at once: both have the same function, and one of the copies stays.
        function = self._functions.setdefault(digest, function)
        if not has_data and len(blob) > KEPT_NBYTES:
            self._blobs[digest] = b""  # has done its work; the empty blob still says that it was sent
        return function


def function_name(function: Any) -> str:
    """What to call a function in messages to people."""
    function = getattr(function, "func", function)  # functools.partial
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{getattr(function, '__module__', None) or '?'}.{name}"


def node_name(node: Any, key: Any) -> str:
    """What to call the function of a node of a dask graph; its layer, if dask has made one node of several."""
    name = function_name(node)
    if not name.endswith("._execute_subgraph"):
        return name
    layer = str(key[0] if type(key) is tuple and key else key)
    return layer.rpartition("-")[0] or layer
