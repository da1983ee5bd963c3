"""How a worker goes on with a scheduler that has come in the place of another one.

What it had said, and what the journal doesn't have, is sent again by the connection (`comm/resume.py`). The new
scheduler knows tasks, and no runs: those it hears of from here, behind all of that:

==============================  ====================================================================================
what the worker has             what becomes of it
==============================  ====================================================================================
a run that it has begun         goes on, as if nothing had happened. The scheduler is told of it (`runs-kept`)
a run that it has not begun     is forgotten. Its node may have taken it away, and only the scheduler that is gone knew
                                of that and would have said so; another worker may run it. The scheduler sends its
                                task again, or has it run where it runs already
an outcome                      is sent, or has been: before `runs-kept`
a small result that it keeps    is said once more, as an outcome: its store doesn't have it (`write_behind`)
an actor                        lives on, and is said once more. The scheduler has it dropped if nothing needs it
==============================  ====================================================================================

So the order is: which runs there are, all outcomes, and then which of these runs are there still. A run that ends
in between is in both, and the scheduler knows it for ended.

It is done in a thread of its own, since outcomes may have to wait for the store.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from holdfast.cluster import protocol
from holdfast.cluster.protocol.limits import MAX_ITEMS
from holdfast.cluster.worker import stacks
from holdfast.cluster.worker.actors import Actors
from holdfast.cluster.worker.blocking import Blocking
from holdfast.cluster.worker.outcomes import OutcomeSender
from holdfast.cluster.worker.threads import TaskThreads
from holdfast.cluster.worker.waiting_runs import WaitingRuns
from holdfast.cluster.worker.write_behind import WriteBehind

logger = logging.getLogger(__name__)

#: How often it is looked what a thread does with a run that it has just taken.
_LOOK_SECONDS = 0.001
#: Small results are said in messages of about this size.
_MESSAGE_NBYTES = 1 << 20


class Rejoining:
    """Tells another scheduler what a worker has. Used in the loop's thread.

    Parameters
    ----------
    threads, waiting_runs, blocking, outcomes, write_behind, actors
        The worker's.
    forget
        ``forget(run_ids)``: these never begin.
    deliver
        ``deliver(messages)`` sends messages to the scheduler at once, in any thread.
    name
        Of the worker.
    """

    def __init__(
        self,
        threads: TaskThreads,
        waiting_runs: WaitingRuns,
        blocking: Blocking,
        outcomes: OutcomeSender,
        write_behind: WriteBehind,
        actors: Actors,
        *,
        forget: Callable[[Iterable[int]], None],
        deliver: Callable[[list[tuple[Any, ...]]], None],
        name: str,
    ) -> None:
        self._threads = threads
        self._waiting_runs = waiting_runs
        self._blocking = blocking
        self._outcomes = outcomes
        self._write_behind = write_behind
        self._actors = actors
        self._forget = forget
        self._deliver = deliver
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._telling = threading.Lock()

    def joined(self, welcome: Mapping[str, Any]) -> None:
        """This worker is new to a scheduler, which may wait for those that an earlier one had."""
        scheduler = welcome.get("scheduler") or {}
        if scheduler.get("recovering"):
            self._deliver([protocol.worker.RUNS_KEPT(scheduler["epoch"], [])])

    def rejoined(self, welcome: Mapping[str, Any], then: Callable[[], None]) -> None:
        """Another scheduler is there. ``then`` is called when it was told, in the loop's thread."""
        epoch = (welcome.get("scheduler") or {}).get("epoch") or ""
        # Now, before the new scheduler may have sent any.
        runs = self._waiting_runs.runs()
        threading.Thread(
            target=self._tell, args=(epoch, runs, then), name=f"holdfast-rejoin-{self._name}", daemon=True
        ).start()

    def _tell(self, epoch: str, runs: Mapping[int, int], then: Callable[[], None]) -> None:
        with self._telling:  # a scheduler may end while it is told
            self._forgo(runs)
            kept = self._waiting_runs.runs()
            self._outcomes.flush()
            said = [*self._small_results(), *self._actors.said_again()]
            with self._blocking.saying() as (blocked, reclaiming):
                begun = [(run_id, runs[run_id], run_id in blocked) for run_id in kept if run_id in runs]
                said.append(protocol.worker.RUNS_KEPT(epoch, begun))
                if reclaiming:
                    said.append(protocol.worker.RECLAIM(reclaiming))
                self._deliver(said)
        logger.info("%s goes on with another scheduler, and with %d runs", self._name, len(begun))
        try:
            self._loop.call_soon_threadsafe(then)
        except RuntimeError:
            logger.debug("%s has ended meanwhile", self._name)

    def _forgo(self, runs: Mapping[int, int]) -> None:
        """Forget the runs that have not begun."""
        doubted: list[int] = []

        def drop(run_ids: list[int]) -> list[int]:
            dropped, in_doubt = self._threads.forgo(run_ids)
            doubted.extend(in_doubt)
            return dropped

        self._forget(self._waiting_runs.drop(runs, drop))
        forgone = [run_id for run_id in doubted if self._is_forgone(run_id)]
        self._forget(self._waiting_runs.drop(forgone, list))

    def _is_forgone(self, run_id: int) -> bool:
        """Whether a run that a thread has taken is not begun; known when the thread has gone on."""
        threads = self._threads
        while not threads.has_forgone(run_id) and threads.is_taken(run_id):
            under_way = stacks.running_tasks([thread.ident for thread in threads.threads])
            if any(task.run_id == run_id for task in under_way):
                break
            time.sleep(_LOOK_SECONDS)
        return threads.has_forgone(run_id)

    def _small_results(self) -> list[tuple[Any, ...]]:
        """Messages that say the small results again."""
        messages = []
        batch: list[tuple[Any, ...]] = []
        nbytes = 0
        for kept in self._write_behind.kept():
            batch.append((kept.serial, 0, kept.object_id, kept.nbytes, kept.flat, kept.type_name, 0.0))
            nbytes += kept.nbytes
            if len(batch) == MAX_ITEMS or nbytes > _MESSAGE_NBYTES:
                messages.append(protocol.worker.FINISHED(batch))
                batch, nbytes = [], 0
        if batch:
            messages.append(protocol.worker.FINISHED(batch))
        return messages
