"""What of a client must be closed, apart from it: a client that is garbage leaves this to be closed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from holdfast.client.core.session import Session
from holdfast.client.drivers.blocking import BLOCKING
from holdfast.client.drivers.effects import Driver, Effect, Elsewhere, Operation
from holdfast.client.stores.access import StoreAccess

CLOSE_TIMEOUT_SECONDS = 30.0


class Resources:
    """A client's connection, its way to the stores, its threads, and its cluster if it started that.

    Parameters
    ----------
    driver
        The client's, with the thread of its loop. An asynchronous one has none: the loop is the user's.

    Attributes
    ----------
    session : Session or None
    stores : StoreAccess or None
    cluster : LocalCluster or None
        None until there is one.
    others : list of callable
        End what else there is; each is given how many seconds it may take.
    inherited : bool
        Whether they are the parent's, of which this process is a fork.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.session: Session | None = None
        self.stores: StoreAccess | None = None
        self.cluster: Any = None
        self.others: list[Callable[[float], object]] = []
        self.inherited = False
        self._lock = threading.Lock()
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def closing(self, reason: str, timeout: float = CLOSE_TIMEOUT_SECONDS) -> Operation[None]:
        """Close everything. Twice is no error; a second caller does not wait for the first."""
        if self.inherited or not self._begin_to_close():
            return
        ends = self._ends(reason, timeout)
        failure: BaseException | None = None
        try:
            while ends:
                effect = ends.pop(0)
                try:
                    yield effect
                except GeneratorExit:
                    raise
                except BaseException as error:  # whatever one part does, the others are closed too
                    if failure is None and not isinstance(error, TimeoutError):
                        failure = error
        finally:
            if not self._driver.asynchronous:  # else what is left is on the user's loop, which goes on without it
                for effect in ends:
                    with contextlib.suppress(Exception):
                        effect.block()
        if failure is not None:
            raise failure

    def _begin_to_close(self) -> bool:
        with self._lock:
            begins = not self._closed
            self._closed = True
        return begins

    def _ends(self, reason: str, timeout: float) -> list[Effect]:
        ends: list[Effect] = []
        session, thread = self.session, self._driver.thread
        if session is not None:
            ends.append(self._driver.in_loop(lambda: session.close(reason), timeout))
        if self.stores is not None:
            ends.append(Elsewhere(self.stores.close))
        ends.extend(Elsewhere(partial(end, timeout)) for end in self.others)
        if thread is not None:
            ends.append(Elsewhere(lambda: thread.close(timeout)))
        if self.cluster is not None:
            ends.append(Elsewhere(self.cluster.close))
        return ends

    def close_elsewhere(self, reason: str) -> None:
        """Close from where nothing may block: a finalizer, or the event loop itself."""
        if self.inherited or self._closed:
            return
        if self._driver.asynchronous:
            self._close_on_loop(reason)
        else:
            _in_a_thread(lambda: BLOCKING.run(self.closing(reason)))

    def _close_on_loop(self, reason: str) -> None:
        """Close what has no thread, on the user's loop; or here, if that is closed."""
        if not self._begin_to_close():
            return
        session, stores, cluster = self.session, self.stores, self.cluster

        def close() -> None:
            if session is not None:
                session.end(reason)
            if stores is not None:
                stores.close()

        try:
            if session is not None:
                session.transport.call_soon(close)
        except RuntimeError:  # the loop is closed
            close()
        if cluster is not None:
            _in_a_thread(cluster.close)


def _in_a_thread(function: Callable[[], object]) -> None:
    with contextlib.suppress(RuntimeError):  # the interpreter is ending
        threading.Thread(target=function, name="holdfast-client-close", daemon=True).start()
