"""One large graph on a cluster of its own: submitted, run and released, with the scheduler watched from in and outside.

Two shapes:

* ``map``: one `Client.map` over so many numbers, waited for and gathered;
* ``tree``: a reduction, eight to one, as one dask graph of so many tasks with one output (`Client.get`).
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from dask._task_spec import List, Task, TaskRef

from benchmarks import loop_watch
from benchmarks.bystander import Bystander, Look
from benchmarks.functions import inc
from benchmarks.loop_watch import Beat
from benchmarks.processor_time import ProcessorTime
from holdfast import Client, LocalCluster, wait

FAN_IN = 8
_WARM_UP_TASKS = 300
_SAMPLE_SECONDS = 0.1
#: What the scheduler knows beside the graph: the second client's tasks.
_OTHER_TASKS = 10
#: How long the cluster is left to itself before and after.
_REST_SECONDS = 3.0


class GraphRun(NamedTuple):
    """What a graph took.

    Attributes
    ----------
    tasks : int
    submit_seconds, run_seconds, release_seconds : float
        Until the call returned, from there until the results were with the client, and from letting go of them until
        the scheduler had forgotten every task.
    scheduler_seconds : float
        The scheduler's processor time for all of it.
    peak_nbytes, left_nbytes : int
        What the scheduler's process needed more than before, at most and three seconds after the end.
    turn_seconds, turn_busy_seconds : float
        The longest turn of the scheduler's loop, by the clock, and by the processor time in it.
    looks : list of Look
        Of the second client.
    """

    tasks: int
    submit_seconds: float
    run_seconds: float
    release_seconds: float
    scheduler_seconds: float
    peak_nbytes: int
    left_nbytes: int
    turn_seconds: float
    turn_busy_seconds: float
    looks: list[Look]


def run_graph(shape: str, tasks: int) -> GraphRun:
    """Run a graph of a shape of ``SHAPES`` and about so many tasks."""
    prepare = SHAPES[shape]
    with tempfile.TemporaryDirectory(prefix="holdfast-graphs-") as directory:
        loop_watch.watch_scheduler(Path(directory))
        try:
            with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster) as client:
                client.gather(client.map(inc, range(_WARM_UP_TASKS), pure=False))
                bystander = Bystander(cluster)
                submit, finish, count = prepare(client, tasks)
                time.sleep(_REST_SECONDS)
                memory = _Memory(cluster.scheduler_pid)
                scheduler = {"scheduler": [cluster.scheduler_pid]}
                before = ProcessorTime(scheduler)
                times = [time.monotonic()]
                futures = submit()
                times.append(time.monotonic())
                finish(futures)
                times.append(time.monotonic())
                del futures
                while loop_watch.tasks_now(Path(directory)) > _OTHER_TASKS:
                    time.sleep(_SAMPLE_SECONDS)
                time.sleep(_REST_SECONDS)
                peak, left = memory.end()
                (taken, _) = ProcessorTime(scheduler).since(before)["scheduler"]
                over = time.monotonic()
                looks = bystander.end()
        finally:
            loop_watch.stop_watching()
        beats = [beat for beat in loop_watch.read(Path(directory)) if times[0] < beat.at <= over]
    began, submitted, done = times
    return GraphRun(
        tasks=count,
        submit_seconds=submitted - began,
        run_seconds=done - submitted,
        release_seconds=max(0.0, _forgotten(beats) - done),  # a beat now and then is noted
        scheduler_seconds=taken.nanoseconds / 1e9,
        peak_nbytes=peak,
        left_nbytes=left,
        turn_seconds=max(beat.seconds for beat in beats),
        turn_busy_seconds=max(beat.busy_seconds for beat in beats),
        looks=[look for look in looks if began <= look.at < over],
    )


def _forgotten(beats: list[Beat]) -> float:
    """When the scheduler had forgotten the graph."""
    if beats[-1].tasks > _OTHER_TASKS:
        raise AssertionError(f"the scheduler still knows {beats[-1].tasks:,} tasks")
    return max((beat.at for beat in beats if beat.tasks > _OTHER_TASKS), default=beats[0].at)


class _Memory:
    """How much more memory a process needs than when this was made, watched from a thread."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._before = self._now()
        self._peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def end(self) -> tuple[int, int]:
        """The most, and what it is now."""
        self._over.set()
        self._thread.join()
        return self._peak, self._now() - self._before

    def _watch(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            self._peak = max(self._peak, self._now() - self._before)

    def _now(self) -> int:
        nbytes: int = self._process.memory_info().rss
        return nbytes


_Prepared = tuple[Callable[[], Any], Callable[[Any], None], int]


def _map(client: Client, count: int) -> _Prepared:
    def finish(futures: Any) -> None:
        wait(futures)
        assert client.gather(futures)[-1] == count

    return lambda: client.map(inc, range(count)), finish, count


def _tree(client: Client, count: int) -> _Prepared:
    leaves = max(1, count * (FAN_IN - 1) // FAN_IN)
    level = [("leaf", number) for number in range(leaves)]
    graph: dict[Any, Any] = {key: Task(key, inc, key[1]) for key in level}
    depth = 0
    while len(level) > 1:
        depth += 1
        groups = [level[start : start + FAN_IN] for start in range(0, len(level), FAN_IN)]
        level = [(f"sum-{depth}", number) for number in range(len(groups))]
        for key, group in zip(level, groups, strict=True):
            graph[key] = Task(key, sum, List(*map(TaskRef, group)))

    def finish(future: Any) -> None:
        assert future.result() == leaves * (leaves + 1) // 2

    return lambda: client.get(graph, level[0], sync=False), finish, len(graph)


SHAPES: dict[str, Callable[[Client, int], _Prepared]] = {"map": _map, "tree": _tree}
