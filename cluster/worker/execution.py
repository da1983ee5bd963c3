"""One task, from its message to its outcome.

The message says what to call and where the values of its dependencies are; the outcome says where the result is. In
between lies everything that a task costs a worker besides its own work:

==========================  ==================================================================
a function by its digest    a dictionary look-up
a dependency                inline: decode its bytes; else: the store maps it, and it is decoded in place
the arguments               one unpickling; references become values while it runs
a coroutine                 a look at the type of what a call gives; a loop of its own, if it is one (`coroutines`)
a small result              one encoding; it rides along, and is stored later if it's still wanted then (`write_behind`)
another one                 one encoding, one copy into the arena, one seal that leaves with those of its neighbours;
                            what it shows of a dependency isn't copied, which is worth a round trip
==========================  ==================================================================

A view of the store pins its object. So nothing here keeps a value beyond `TaskRunner.run`: not a variable of a
thread that waits for its next task, nor the traceback of a task that failed, nor the frames that called it, which an
exception that some library has caught and kept leads to as well.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Hashable
from types import CoroutineType as Coroutine
from typing import Any

from holdfast.cluster.collecting import process
from holdfast.cluster.comm import frames
from holdfast.cluster.errors import MAKE_ROOM, Reschedule
from holdfast.cluster.failures import dumping
from holdfast.cluster.protocol import payloads
from holdfast.cluster.protocol.limits import ERROR_INLINE_NBYTES
from holdfast.cluster.protocol.message import Message
from holdfast.cluster.protocol.worker import DEPENDENCIES_MISSING, ERRED, FINISHED, RESCHEDULED
from holdfast.cluster.worker import context, coroutines
from holdfast.cluster.worker.contents import Contents
from holdfast.cluster.worker.dependencies import Dependencies, Missing
from holdfast.cluster.worker.display_names import display_name
from holdfast.cluster.worker.forks import Forks
from holdfast.cluster.worker.functions import FunctionTable, function_name, node_name
from holdfast.cluster.worker.getitem import item_taken
from holdfast.cluster.worker.readonly import Writers, is_refused_write
from holdfast.cluster.worker.tracebacks import forget_locals, trim
from holdfast.cluster.worker.write_behind import WriteBehind
from holdfast.objectstore import Encoded, ObjectID, Store, encode
from holdfast.objectstore.errors import StoreClosedError, StoreError, StoreFullError, in_words, way_to_unpickle

#: How long a result waits for room in the store.
STORE_TIMEOUT_SECONDS = 60.0

#: How long a large exception does.
ERROR_STORE_TIMEOUT_SECONDS = 5.0

#: ``(key, run_id, digest or None, payload, dependencies, private, serial)``, as it stands in a ``run`` message.
Task = tuple[Any, int, bytes | None, bytes, tuple[Any, ...], bool, int]
#: The message that reports it, and its entry in that message.
Outcome = tuple[Message, tuple[Any, ...]]


def run_id_of(task: Task) -> int:
    """The number of the run that a task is."""
    _, run_id, _, _, _, _, _ = task
    return run_id


class TaskRunner:
    """Runs tasks in the calling thread; several threads may do so at once.

    Parameters
    ----------
    store:
        Where dependencies are read and results go.
    functions:
        The functions that tasks name.
    write_behind:
        Where small results go first.
    name:
        The worker's name, for messages to people.
    on_writer:
        ``on_writer(key, digest or None)``: it was found out that the function of this task writes into its arguments.
    contents:
        Takes the futures in what tasks give and raise.
    """

    def __init__(
        self,
        store: Store,
        functions: FunctionTable,
        write_behind: WriteBehind,
        name: str,
        on_writer: Callable[[Any, bytes | None], None],
        contents: Contents,
    ) -> None:
        self._store = store
        self._functions = functions
        self._write_behind = write_behind
        self._name = name
        self._on_writer = on_writer
        self._contents = contents
        self._writers = Writers()
        self._forks = Forks()

    def run(self, task: Task) -> Outcome:
        """Run a task; unless its result is a small one, that is in the store, sealed but for a flush, by then.

        Whatever the task raises, `SystemExit` and `KeyboardInterrupt` too, is an outcome. Once that is on its way the
        caller has the store settle what views of objects the task had (`Store.settle_releases`).

        Raises
        ------
        StoreClosedError
            The store is gone, and this worker has no business any more.
        """
        started = time.perf_counter()
        key, run_id, _, _, _, _, serial = task
        try:
            encoded = self._result(task)
            nbytes = encoded.nbytes
            inline = encoded.to_bytes() if nbytes <= payloads.INLINE_LIMIT_NBYTES else None
            inside = self._contents.packed(run_id) if self._contents.of_runs else b""
            object_id = None
            if inline is not None:
                object_id = self._write_behind.add(key, serial, inline, encoded.type_name, inside)
            if object_id is None:
                object_id = self._store_result(key, serial, encoded, inside)
            seconds = time.perf_counter() - started
            return FINISHED, (serial, run_id, object_id, nbytes, inline, encoded.type_name, seconds)
        except Missing as missing:
            return DEPENDENCIES_MISSING, (serial, run_id, missing.key, missing.object_id)
        except Reschedule as error:
            forget_locals(error)
            return RESCHEDULED, (serial, run_id)
        except BaseException as error:  # a task may raise anything, and none of it may end this thread
            if not self._store.is_open and issubclass(type(error), StoreClosedError):
                raise  # of another store it's an error like any other
            trim(error)
            with self._contents.collecting(run_id):
                blob, text = dumping.dump_exception(error, f"Raised by task {key!r:.200} on worker {self._name!r}.")
            forget_locals(error)
            return ERRED, (serial, run_id, self._raised(key, blob, text), text, time.perf_counter() - started)

    def _raised(self, key: Any, blob: bytes, text: str) -> Any:
        """An exception as it is reported: itself, or of a large one its object, which lies in the store."""
        if len(blob) <= ERROR_INLINE_NBYTES:
            return frames.raw(blob)
        encoded = encode(blob)
        try:
            name = display_name(("exception of", key))
            object_id = self._store.put_encoded(encoded, key=name, timeout=ERROR_STORE_TIMEOUT_SECONDS)
        except StoreFullError:
            why = f"the task's exception takes {len(blob):,} bytes, and there was no room for it in the object store"
            return frames.raw(dumping.dump_text(text, why))
        return bytes(object_id), encoded.nbytes

    def _store_result(self, key: Any, serial: int, encoded: Encoded, inside: bytes) -> ObjectID:
        name = display_name(key)
        try:
            return self._store.put_encoded(
                encoded, key=name, label=serial, references=inside, timeout=STORE_TIMEOUT_SECONDS
            )
        except StoreFullError as error:
            raise StoreFullError(f"there is no room for the result of task {key!r}: {error}. {MAKE_ROOM}") from None

    def _result(self, task: Task) -> Encoded:
        key, run_id, _, _, _, private, _ = task
        try:
            result = self._call(task, private)
        except BaseException as error:
            self._forks.end(error)
            raise
        self._forks.end(None)
        try:
            if not process.has_futures:
                return self._store.encode(result)
            with self._contents.collecting(run_id):
                return self._store.encode(result)
        except StoreClosedError:
            raise
        except Exception as error:  # an object's own reducer can raise anything
            kind = f"{type(result).__module__}.{type(result).__qualname__}"
            raise pickle.PicklingError(
                f"the result of task {key!r}, a {kind}, can't be pickled: {in_words(error)}"
            ) from error
        finally:
            result = None

    def _call(self, task: Task, private: bool) -> Any:
        key, _, digest, payload, dependencies, _, _ = task
        if digest is None:
            return self._evaluate(task, private)
        function = self._functions.find(digest)
        values = args = kwargs = None
        private = private or digest in self._writers
        try:
            if dependencies:
                values = self._dependencies(task, private)
            if function is None or (private and self._functions.has_data(digest)):
                function = self._functions.load(digest, values)
            if values is not None:
                values.shares = values.shares or (not private and self._functions.has_data(digest))
                if (item := self._item_taken(function, task)) is not None:
                    ((source, _, _, _),) = dependencies
                    return values.item(source, *item)
            args, kwargs = self._arguments(key, payload, values)
            result = function(*args, **kwargs)
            return coroutines.run(result) if type(result) is Coroutine else result
        except (Missing, StoreError, Reschedule):
            raise
        except Exception as error:
            if not self._is_refused_write(error, values):
                raise
            self._remember_writer(task, digest, function_name(function), error)
            forget_locals(error)
        finally:
            self._store.defer_releases()
            if values is not None:
                values.forget()
            function = values = args = kwargs = result = None
        self._store.settle_releases()
        context.end_held()
        return self._call(task, private=True)

    def _evaluate(self, task: Task, private: bool) -> Any:
        """Evaluate a node of a dask graph."""
        key, _, _, payload, dependencies, _, _ = task
        name: str | None = None
        values = node = None
        try:
            values = self._dependencies(task, private)
            if (item := self._item_taken(None, task)) is not None:
                ((source, _, _, _),) = dependencies
                return values.item(source, *item)
            node = self._arguments(key, payload, values)
            name = node_name(node, key)
            if not private and values and name in self._writers:
                values = self._dependencies(task, private=True)
                node = self._arguments(key, payload, values)
            result = node(values)
            return coroutines.run(result) if type(result) is Coroutine else result
        except (Missing, StoreError, Reschedule):
            raise
        except Exception as error:
            if not self._is_refused_write(error, values):
                raise
            if name is not None:
                self._remember_writer(task, name, name, error)
            forget_locals(error)
        finally:
            self._store.defer_releases()
            if values is not None:
                values.forget()
            values = node = result = None
        self._store.settle_releases()
        context.end_held()
        return self._evaluate(task, private=True)

    def _is_refused_write(self, error: Exception, values: Dependencies | None) -> bool:
        """Whether a task is worth another run, with private views."""
        return values is not None and values.shares and self._forks.is_worker and is_refused_write(error)

    def _remember_writer(self, task: Task, function: Hashable, name: str, error: Exception) -> None:
        if self._writers.add(function, name, error):
            key, _, digest, _, _, _, _ = task
            self._on_writer(key, digest)

    def _item_taken(self, function: Any, task: Task) -> tuple[Any] | None:
        key, _, _, payload, dependencies, _, _ = task
        if len(dependencies) != 1:
            return None
        return item_taken(function, payload, lambda: self._arguments(key, payload, None))

    def _arguments(self, key: Any, payload: Any, dependencies: Dependencies | None) -> Any:
        try:
            return payloads.loads(payload, dependencies, dependencies.item) if dependencies else payloads.loads(payload)
        except Exception as error:  # the constructors of a user's classes run here
            if dependencies is not None and dependencies.failed:
                raise
            raise RuntimeError(
                f"the arguments of task {key!r} can't be unpickled on {self._name}: {in_words(error)}. "
                f"{way_to_unpickle(error)}"
            ) from error

    def _dependencies(self, task: Task, private: bool) -> Dependencies:
        _, _, _, _, dependencies, _, _ = task
        return Dependencies(self._store, dependencies, private=private)
