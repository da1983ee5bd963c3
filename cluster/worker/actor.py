"""One actor: an object with a thread of its own, in which all of its code runs.

Rules
-----
1. An object is made, called and dropped in its own thread: what belongs to a thread (a connection of sqlite, an event
   loop, a context) may be part of its state.
2. Calls begin in the order in which they come, which keeps the order of each caller; one begins when the one before has
   returned. So two calls never run at the same time.
3. The coroutine of a method that is ``async def`` runs in an event loop in the actor's thread. While it waits, others
   begin or go on. So calls of such methods are under way at the same time, and what runs at a time is still one. The
   client in there gives awaitables, as in tasks that are coroutines.
4. A call takes no slot: it runs beside the tasks of the worker, however many these are. Nor does it hold anything while
   it waits for others.

The arguments are read when a call begins, in place where they lie in the store. They are the actor's own to change and
to keep: large ones are private views, which keep what they show in the store for as long as they live.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import queue
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from holdfast.cluster.protocol import payloads
from holdfast.cluster.protocol.limits import MAX_CALLS, MAX_NAME_LENGTH
from holdfast.cluster.protocol.worker import CALLS_MISSING
from holdfast.cluster.worker import context
from holdfast.cluster.worker.actor_calls import Call, WaitingCalls
from holdfast.cluster.worker.actor_outcomes import ActorOutcomes
from holdfast.cluster.worker.dependencies import Dependencies, Missing
from holdfast.cluster.worker.forks import Forks
from holdfast.cluster.worker.outcomes import OutcomeSender
from holdfast.cluster.worker.tracebacks import trim
from holdfast.objectstore import Store
from holdfast.objectstore.errors import StoreClosedError, in_words, way_to_unpickle

#: Of the names of an object's attributes, so many are told.
MAX_ATTRIBUTES = 1_000


class Described(NamedTuple):
    """What a handle has to know."""

    key: Any
    number: int
    name: str
    methods: tuple[str, ...]
    attributes: tuple[str, ...]


class Surroundings(NamedTuple):
    """What the actors of a worker share.

    Attributes
    ----------
    store
        Where large arguments are read, and large results go.
    outcomes
        Where outcomes go.
    in_thread
        An actor's thread runs within ``in_thread()``.
    lend
        Within ``lend()`` the task of the calling thread waits for others.
    store_is_gone
        Called when the store is gone.
    end_lines
        Called when a call is over: lines that it has begun to print end.
    worker
        The worker's name, for messages to people.
    forks
        Sees to processes that calls fork.
    """

    store: Store
    outcomes: OutcomeSender
    in_thread: Callable[[], AbstractContextManager[None]]
    lend: Callable[[], AbstractContextManager[None]]
    store_is_gone: Callable[[StoreClosedError], None]
    end_lines: Callable[[], object]
    worker: str
    forks: Forks


class LivingActor:
    """An object, and the thread in which it lives.

    Parameters
    ----------
    around
        What it shares with others.
    key, number
        Of the task that makes it, and of the run of that.
    """

    def __init__(self, around: Surroundings, key: Any, number: int) -> None:
        self._around = around
        self._store = around.store
        self._key = key
        self._number = number
        self._instance: Any = None
        self._name = ""
        self._waiting = WaitingCalls()
        self._outcomes = ActorOutcomes(around.store, around.outcomes, around.worker, key, self._waiting)
        self._ending = False
        self._sleeps = False
        self._wake_ups: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None  # from the first coroutine on
        self._tasks: set[asyncio.Task[Any]] = set()  # of coroutines: a loop holds its tasks weakly
        self._is_starting = False  # the last of these has not run yet
        self._ended: asyncio.Event | None = None  # set in the loop
        self.thread: threading.Thread

    # -- in other threads

    @property
    def name(self) -> str:
        """Of the class of the object."""
        return self._name

    def make(self, construct: Callable[[], Any]) -> Described:
        """Make the object, in its thread. Raises what ``construct`` raises."""
        made: list[BaseException | None] = []
        gate = threading.Lock()
        gate.acquire()
        self.thread = threading.Thread(
            target=self._live, args=(construct, made, gate), name=f"holdfast-actor-{self._number}", daemon=True
        )
        with self._around.lend():
            self.thread.start()
            del construct  # it holds the arguments
            gate.acquire()
        (error,) = made
        if error is not None:
            try:
                raise error
            finally:
                del error, made  # a circle
        return Described(self._key, self._number, self._name, *_names_in(self._instance))

    def add(self, call: Call) -> None:
        """Have a call begun, after those that were added before."""
        self._waiting.add(call)
        self._wake()

    def drop_calls(self, numbers: Iterable[int]) -> None:
        """Begin none of these."""
        self._waiting.drop(numbers)
        self._wake()  # others may have waited for one of them

    def end(self) -> None:
        """Begin nothing any more, and let go of the object."""
        self._ending = True
        self._wake()

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed: the actor has ended
                loop.call_soon_threadsafe(self._begin_in_loop)
        elif self._sleeps:
            self._sleeps = False
            self._wake_ups.put(None)

    # -- in its thread

    def _live(self, construct: Callable[[], Any], made: list[BaseException | None], gate: threading.Lock) -> None:
        try:
            with self._around.in_thread():
                if self._construct(construct, made, gate):
                    del construct
                    self._serve()
        except StoreClosedError as error:
            self._around.store_is_gone(error)
        finally:
            self._instance = None

    def _construct(self, construct: Callable[[], Any], made: list[BaseException | None], gate: threading.Lock) -> bool:
        context.run(self._key, None)
        try:
            try:
                self._instance = construct()
            except BaseException as error:
                self._around.forks.end(error)
                raise
            self._around.forks.end(None)
            self._name = type(self._instance).__qualname__[:MAX_NAME_LENGTH]
            made.append(None)
        except BaseException as error:  # the task raises it
            trim(error)
            made.append(error)
        finally:
            succeeded = made == [None]
            if not succeeded:
                context.end_held()
            gate.release()
            self._around.end_lines()
        return succeeded

    def _serve(self) -> None:
        while not self._ending:
            call = self._waiting.take()
            if call is None:
                self._sleep()
                continue
            coroutine = self._begin(call)
            if coroutine is not None:
                self._serve_in_loop(call, coroutine)
                return

    def _sleep(self) -> None:
        self._sleeps = True
        # Whatever came before this is seen here, and whatever comes later gives a wake-up.
        if self._waiting.ready or self._ending or self._loop is not None:
            self._sleeps = False
        else:
            self._wake_ups.get()

    def _begin(self, call: Call) -> Any:
        """Call a method. Gives the coroutine, if it is one; else the outcome is on its way."""
        _, _, _, method, payload, dependencies = call
        values: Dependencies | None = None
        args: Any = None
        kwargs: Any = None
        value: Any = None
        try:
            try:
                if dependencies:
                    values = Dependencies(self._store, dependencies, private=True)
                if payload is not None:
                    args, kwargs = self._arguments(method, payload, values)
                value = getattr(self._instance, method)
                if payload is not None:
                    value = value(*args, **kwargs)
            except BaseException as error:
                self._around.forks.end(error)
                raise
            self._around.forks.end(None)
            if payload is not None and inspect.iscoroutine(value):
                return value
            self._outcomes.given(self._name, call, value)
        except Missing as missing:
            self._waiting.put_off(call)
            self._around.outcomes.put_now((CALLS_MISSING, (call[0], missing.key, missing.object_id)))
        except BaseException as error:
            self._outcomes.raised(self._name, call, error)
        finally:
            self._around.end_lines()
            if values is not None:
                self._store.defer_releases()
                values.forget()
                values = args = kwargs = value = None
                self._store.settle_releases()
        return None

    def _arguments(self, method: str, payload: Any, values: Dependencies | None) -> Any:
        try:
            return payloads.loads(payload, values, values.item) if values else payloads.loads(payload)
        except Exception as error:  # the constructors of a user's classes run here
            if values is not None and values.failed:
                raise
            raise RuntimeError(
                f"the arguments of {self._name}.{method} can't be unpickled on {self._around.worker}: "
                f"{in_words(error)}. {way_to_unpickle(error)}"
            ) from error

    # -- coroutines

    def _serve_in_loop(self, call: Call, coroutine: Any) -> None:
        """Serve on in an event loop: there is a coroutine."""
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            context.enter_loop(_ActorLoop(self._loop))
            try:
                runner.run(self._until_it_ends(call, coroutine))
            finally:
                context.enter_loop(None)

    async def _until_it_ends(self, call: Call, coroutine: Any) -> None:
        self._ended = asyncio.Event()
        self._go_on(call, coroutine)  # and then with what came before others knew of the loop
        await self._ended.wait()

    def _begin_in_loop(self) -> None:
        if self._ending:
            if self._ended is not None:
                self._ended.set()
            return
        while not self._is_starting and len(self._tasks) < MAX_CALLS and (call := self._waiting.take()) is not None:
            coroutine = self._begin(call)
            if coroutine is not None:
                self._go_on(call, coroutine)

    def _go_on(self, call: Call, coroutine: Any) -> None:
        assert self._loop is not None
        task = self._loop.create_task(self._to_its_end(call, coroutine))
        self._tasks.add(task)
        # The next call begins when this one has got to where it first waits.
        self._is_starting = True
        self._loop.call_soon(self._has_started)
        task.add_done_callback(self._has_ended)

    def _has_started(self) -> None:
        self._is_starting = False
        self._begin_in_loop()

    async def _to_its_end(self, call: Call, coroutine: Any) -> None:
        try:
            self._outcomes.given(self._name, call, await coroutine)
        except BaseException as error:  # whatever it is, the loop goes on
            self._around.forks.end(error)
            if not self._ending:
                self._outcomes.raised(self._name, call, error)

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if len(self._tasks) == MAX_CALLS - 1:
            self._begin_in_loop()


class _ActorLoop:
    """The event loop of an actor, as the client inside its coroutines knows it (`context.TaskLoop`).

    An actor holds no slot, so there is nothing to be lent while a coroutine waits.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.driver: Any = None

    @property
    def is_current(self) -> bool:
        """Whether a coroutine of it runs in this thread. Other methods are called beside these, and may block."""
        return asyncio._get_running_loop() is self._loop and asyncio.current_task() is not None

    def wait(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def _names_in(instance: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of what can be called of an object's class, and those of its other public attributes."""
    cls = type(instance)
    methods: list[str] = []
    attributes: dict[str, None] = {}
    for name in dir(cls):
        if not (name.startswith("__") and name.endswith("__")):
            attribute = inspect.getattr_static(cls, name, None)
            if callable(attribute) or isinstance(attribute, (staticmethod, classmethod)):
                methods.append(name)
            else:
                attributes[name] = None
    own = getattr(instance, "__dict__", None)
    if isinstance(own, dict):
        attributes.update(dict.fromkeys(name for name in list(own) if isinstance(name, str)))
    public = [name for name in attributes if not name.startswith("_") and len(name) <= MAX_NAME_LENGTH]
    return tuple(methods), tuple(public[:MAX_ATTRIBUTES])
