"""What a worker tells of itself when a client looks: stacks, logs, profiles, and records of its tasks."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from holdfast.cluster.call_sites import line_of
from holdfast.cluster.errands.threads import Handlers, Stored
from holdfast.cluster.key_prefixes import prefix_of
from holdfast.cluster.processes import kept_logs, profiling
from holdfast.cluster.processes.profiling import Profiler, Stack, stack_of
from holdfast.cluster.protocol.errands import (
    CALL_STACKS,
    FORWARD_LOGS,
    PROFILE,
    RECORD_TASKS,
    TASK_HERE,
    TASK_STREAM,
    WORKER_LOGS,
)
from holdfast.cluster.worker import stacks
from holdfast.cluster.worker.execution import TaskRunner
from holdfast.cluster.worker.log_forwarding import LogForwarding
from holdfast.cluster.worker.recording import Record, Recorder
from holdfast.objectstore import Store, encode

#: An answer that takes more lies in the store.
INLINE_NBYTES = 32 << 10
#: How long it waits for room there.
STORE_TIMEOUT_SECONDS = 20.0
#: Where it is set, profiles are taken from the beginning on, and so often.
INTERVAL_VARIABLE = "HOLDFAST_PROFILE_INTERVAL"


class Looking:
    """Sees what the threads of a worker do.

    Parameters
    ----------
    threads
        Gives those that run tasks.
    store
        Where large answers go.
    runner
        What runs the tasks.
    run_with
        Has tasks run by something else, from the next one on.
    log_event
        ``log_event(topic, message)``: adds an event to a topic.
    name
        The worker's.
    """

    def __init__(
        self,
        threads: Callable[[], list[threading.Thread]],
        store: Store,
        runner: TaskRunner,
        run_with: Callable[[TaskRunner], None],
        log_event: Callable[[str, Any], None],
        name: str,
    ) -> None:
        self._threads = threads
        self._store = store
        self._runner = runner
        self._run_with = run_with
        self._loop_thread = threading.get_ident()
        self._recorder: Recorder | None = None
        self._recorded_for: set[str] = set()  # the ids of clients
        self._logs = LogForwarding(log_event)
        self._lock = threading.Lock()
        self._interval = profile_interval()
        interval = self._interval or profiling.INTERVAL_SECONDS
        self._profiler = Profiler(self._look_at_tasks, interval, f"holdfast-profile-{name}")
        self._loop_profiler = Profiler(self._look_at_loop, interval, f"holdfast-loop-profile-{name}")

    def start(self) -> None:
        """Look at what tasks do from now on, if this process was told to. Else that begins when a client asks."""
        if self._interval is not None:
            self._profiler.start()

    def handlers(self) -> Handlers:
        """What is done about each errand that looks."""
        return {
            CALL_STACKS: self._call_stacks,
            TASK_HERE: self._task,
            WORKER_LOGS: _logs,
            PROFILE: self._profile,
            TASK_STREAM: self._task_stream,
            RECORD_TASKS: self._record,
            FORWARD_LOGS: self._logs.forward,
        }

    def close(self) -> None:
        """Look no more. Not for the loop's thread."""
        self._profiler.stop()
        self._loop_profiler.stop()
        self._logs.close()

    # -- stacks

    def _tasks(self) -> Iterator[stacks.RunningTask]:
        return stacks.running_tasks([thread.ident for thread in self._threads()])

    def _call_stacks(self) -> list[tuple[Any, list[str]]]:
        return [(task.key, stacks.described(task.frames)) for task in self._tasks()]

    def _task(self, key: Any) -> dict[str, Any] | None:
        for task in self._tasks():
            if task.key == key:
                seconds = 0.0 if task.started is None else time.perf_counter() - task.started
                return {"seconds": seconds, "line": line_of(task.frames)}
        return None

    # -- profiles

    def _look_at_tasks(self) -> Iterator[tuple[str, Stack]]:
        return ((prefix_of(task.key), stack_of(task.frames)) for task in self._tasks())

    def _look_at_loop(self) -> Iterator[tuple[str, Stack]]:
        frame = sys._current_frames().get(self._loop_thread)
        frames = []
        while frame is not None:
            frames.append(frame)
            frame = frame.f_back
        if frames:
            yield "", stack_of(reversed(frames))

    def _profile(
        self, key: str | None = None, start: float | None = None, stop: float | None = None, server: bool = False
    ) -> bytes | Stored:
        profiler = self._loop_profiler if server else self._profiler
        profiler.start()
        return self._answer(profiler.state(key, start, stop))

    # -- records

    def _record(self, client: str, on: bool) -> None:
        """Record tasks for a client, or for it no longer."""
        with self._lock:
            if on:
                self._recorded_for.add(client)
            else:
                self._recorded_for.discard(client)
            if self._recorded_for and self._recorder is None:
                self._recorder = Recorder(self._runner)
                self._run_with(self._recorder)
            elif not self._recorded_for and self._recorder is not None:
                self._recorder = None
                self._run_with(self._runner)

    def _task_stream(
        self, client: str, start: float | None = None, stop: float | None = None, count: int | None = None
    ) -> bytes | Stored:
        self._record(client, True)
        recorder = self._recorder
        records = [] if recorder is None else list(recorder.records)
        found = [
            record
            for record in records
            if (start is None or record.stop >= start) and (stop is None or record.start <= stop)
        ]
        if count is not None:
            found = found[len(found) - count :] if count else []
        return self._answer(list(map(_as_dictionary, found)))

    def _answer(self, value: Any) -> bytes | Stored:
        data = pickle.dumps(value, protocol=5)
        if len(data) <= INLINE_NBYTES:
            return data
        encoded = encode(data)
        object_id = self._store.put_encoded(encoded, key="what a client looks at", timeout=STORE_TIMEOUT_SECONDS)
        self._store.flush()  # the seal is on its way before anybody hears of the object
        return Stored(bytes(object_id), encoded.nbytes, encoded.type_name)


def _logs(n: int | None = None) -> list[tuple[str, str]]:
    return kept_logs.newest(n, "holdfast.cluster.worker")


def _as_dictionary(record: Record) -> dict[str, Any]:
    read = record.start if record.read is None else record.read
    steps = [("deserialize", record.start, read), ("compute", read, record.ended), ("store", record.ended, record.stop)]
    return {
        "key": record.key,
        "thread": record.thread,
        "status": record.status,
        "nbytes": record.nbytes,
        "type": record.type,
        "startstops": [
            {"action": action, "start": start, "stop": stop}
            for action, start, stop in steps
            if stop > start or action == "compute"
        ],
    }


def profile_interval() -> float | None:
    """How often threads are looked at, in seconds, as ``HOLDFAST_PROFILE_INTERVAL`` says; None: it says nothing."""
    try:
        interval = float(os.environ.get(INTERVAL_VARIABLE, ""))
    except ValueError:
        return None
    return max(interval, 0.001) if interval > 0 else None
