"""The futures in what tasks and actors give: what they are in holds them, from when the scheduler hears of it.

Until then something else has to. The futures are kept here, and so their client holds them, until the outcome has left
that they are in. And they are futures of the tasks' own client: what that says leaves before the outcome does, in the
same connection, so the scheduler knows each of them when it hears where it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, TypeAlias

from holdfast.cluster.collecting import collecting
from holdfast.cluster.protocol import references
from holdfast.cluster.protocol.limits import MAX_ITEMS

#: A run, keys of futures in what it has given or raised, and what keeps these.
Inside: TypeAlias = tuple[int, list[Any], list[Any]]


class Contents:
    """The futures in the outcomes of runs that have not left yet. Any thread may use it.

    Attributes
    ----------
    of_runs : dict
        The futures, by run.
    """

    def __init__(self) -> None:
        self.of_runs: dict[int, list[Any]] = {}

    @contextlib.contextmanager
    def collecting(self, run_id: int) -> Iterator[None]:
        """Within it is pickled what the run of this thread has given, or raised."""
        self.of_runs.pop(run_id, None)
        with collected() as futures:
            yield
        if futures:
            self.of_runs[run_id] = futures

    def packed(self, run_id: int) -> bytes:
        """The keys of the futures in what a run has given, for the store that keeps it."""
        return references.pack(_keys_of(self.of_runs.get(run_id, [])))

    def take(self, run_id: int) -> list[Inside]:
        """The futures in the outcome of a run, which is about to leave; of very many, in several pieces."""
        futures = self.of_runs.pop(run_id, [])
        keys = _keys_of(futures)
        return [(run_id, keys[start : start + MAX_ITEMS], futures) for start in range(0, len(keys), MAX_ITEMS)]


@contextlib.contextmanager
def collected() -> Iterator[list[Any]]:
    """Within it is pickled what a task or an actor gives. The futures in it, afterwards those of the tasks' client."""
    with collecting() as futures:
        yield futures
    if futures:
        # The client builds on the cluster, and where there is a future it is imported already.
        from holdfast.client import in_task

        futures[:] = in_task.handed_over(futures)


def _keys_of(futures: list[Any]) -> list[Any]:
    return list(dict.fromkeys([future.key for future in futures]))
