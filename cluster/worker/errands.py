"""What a worker does beside its tasks: the handler of each errand (`cluster/protocol/errands.py`)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

from holdfast.cluster import versions
from holdfast.cluster.errands.calls import Calls
from holdfast.cluster.errands.threads import Handlers, Stored
from holdfast.cluster.protocol.errands import RESULT_NBYTES, RUN, SET_UP_PLUGINS, TAKE_DOWN_PLUGIN, VERSIONS
from holdfast.cluster.worker.dependencies import Dependencies, Missing
from holdfast.cluster.worker.execution import Outcome, Task
from holdfast.cluster.worker.plugins import WorkerPlugins
from holdfast.objectstore import Encoded, ObjectID, Store

#: How long a result waits for room in the store.
STORE_TIMEOUT_SECONDS = 60.0


class WorkerErrands:
    """Does the errands of a worker.

    Parameters
    ----------
    worker
        What functions get that have a parameter ``dask_worker``.
    name
        The worker's, for messages to people.
    store
        Where large results go.
    inside
        The threads that call functions do it within ``inside()``.
    run_by, run
        See `WorkerPlugins`.
    """

    def __init__(
        self,
        worker: Any,
        name: str,
        store: Store,
        inside: Callable[[], contextlib.AbstractContextManager[None]],
        run_by: Callable[[Callable[[Task], None] | None], None],
        run: Callable[[Task], Outcome | None],
    ) -> None:
        self._store = store
        self.calls = Calls(
            f"worker {name!r}",
            {"dask_worker": worker},
            encode=store.encode,
            store=self._put,
            inside=inside,
            name=f"holdfast-errand-{name}",
            inline_nbytes=RESULT_NBYTES,
        )
        self.plugins = WorkerPlugins(
            worker, self.calls, self._values, run_by, run, lambda object_id: store.get(ObjectID(object_id))
        )

    def handlers(self) -> Handlers:
        """What is done about each."""
        return {
            RUN: self._run,
            SET_UP_PLUGINS: self.plugins.set_up,
            TAKE_DOWN_PLUGIN: self.plugins.take_down,
            VERSIONS: _versions,
        }

    async def close(self, seconds: float) -> bool:
        """Take the plugins down, and end what runs, in a thread; whether that is over after so many seconds."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()

        def call() -> None:
            try:
                self.plugins.close()
                self.calls.close()
            finally:
                with contextlib.suppress(RuntimeError):  # the loop is closed, and did not wait that long
                    loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=call, name="holdfast-errand-end", daemon=True).start()
        try:
            async with asyncio.timeout(seconds):
                await ended.wait()
        except TimeoutError:
            return False
        return True

    def _run(self, call: bytes | memoryview, dependencies: Any = (), waits: bool = True) -> dict[str, Any] | Stored:
        return self.calls.call(call, self._values(dependencies), waits=waits)

    def _values(self, dependencies: Any) -> Values | None:
        return Values(self._store, dependencies, private=True) if dependencies else None

    def _put(self, encoded: Encoded) -> Stored:
        return put_result(self._store, encoded)


def put_result(store: Store, encoded: Encoded) -> Stored:
    """Put the result of a function into a store."""
    object_id = store.put_encoded(encoded, key="the result of a run", timeout=STORE_TIMEOUT_SECONDS)
    store.flush()  # the seal is on its way before anybody hears of the object
    return Stored(bytes(object_id), encoded.nbytes, encoded.type_name)


class Values(Dependencies):
    """Large data among the arguments of a function."""

    def __getitem__(self, key: Any) -> Any:
        try:
            return super().__getitem__(key)
        except Missing:
            raise LookupError(f"{key!r:.200}, which is data among the arguments, can't be read from any host") from None


def _versions(packages: Sequence[str] = ()) -> dict[str, Any]:
    return versions.describe(packages)
