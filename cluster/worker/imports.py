"""What tasks import stays, so that the garbage collector needn't look at it again.

A process that has imported pandas and dask has some seventy thousand objects that the collector looks at each time it
looks at all there is: a tenth of a second, in the middle of some task. They are taken out of its sight once they're
there (``gc.freeze``). What else is there at that moment is never collected if it's garbage in circles later. So that
isn't done while a task runs, whose failure may be such a circle, and hold views of the store.
"""

from __future__ import annotations

import gc
import sys

#: Fewer modules than these aren't worth looking at all objects for.
MODULES_MIN = 100


class ImportsFreezer:
    """Freezes what was imported, between tasks. For a process in which nothing else goes on. Thread-safe."""

    def __init__(self) -> None:
        self._modules = len(sys.modules)
        self._running: set[int] = set()

    def started(self, run_id: int) -> None:
        """A task runs."""
        self._running.add(run_id)

    def ended(self, run_id: int) -> None:
        """A task has ended, and nothing holds its values any more."""
        self._running.discard(run_id)
        modules = len(sys.modules)
        if modules >= self._modules + MODULES_MIN and not self._running:
            self._modules = modules
            gc.collect()
            gc.freeze()
