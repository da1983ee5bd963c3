"""One sync of the disk for all that wait for one.

A sync takes milliseconds, in which others come that want one as well: they wait for the next, which is one for all of
them. It runs in a thread, so that nothing else waits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class GroupSync:
    """Syncs for those that ask.

    Parameters
    ----------
    sync
        ``sync()`` syncs all that was written before it was called; it raises `OSError` if it can't.
    name
        For the thread's name.
    """

    def __init__(self, sync: Callable[[], None], name: str = "journal-sync") -> None:
        self._sync = sync
        self._name = name
        self._asked = threading.Condition()
        self._waiting: list[Callable[[OSError | None], None]] = []
        self._thread: threading.Thread | None = None
        self._closed = False

    def ask(self, done: Callable[[OSError | None], None]) -> None:
        """Have ``done(error)`` called, in another thread, when all that is written by now is on the disk; or can't be
        brought there: then with the error."""
        with self._asked:
            if self._closed:
                raise RuntimeError("the journal is closed")
            self._waiting.append(done)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._asked.notify()

    def close(self) -> None:
        """Answer all that have asked, and end."""
        with self._asked:
            self._closed = True
            self._asked.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._asked:
                while not self._waiting:
                    if self._closed:
                        return
                    self._asked.wait()
                waiting, self._waiting = self._waiting, []
            error = None
            try:
                self._sync()
            except OSError as caught:
                error = caught
            for done in waiting:
                try:
                    done(error)
                except Exception:
                    logger.exception("a sync of the journal could not be told of")
