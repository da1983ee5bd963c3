"""The points that a task passes on its way, and the spans between them.

Nothing of this is in the product. A process of a traced cluster is started with functions of the product wrapped from
outside: a wrapper notes which task passed which point when, by ``CLOCK_MONOTONIC``, which all processes of a host
share. Each pair of neighbouring points bounds a span, so the spans of a task add up to its whole round trip: no part of
it is left out, and time that no function can be blamed for (a switch of threads, the kernel, the loop of a process that
is just waking up) is in the span in which it passed.

What a wrapper costs, half a microsecond or so, is in the spans too: a round trip through a traced cluster is compared
with one through a cluster as users have it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.client.core.key_table import KeyTable
from holdfast.client.core.session import Session
from holdfast.client.packing.arguments import Packer
from holdfast.cluster.comm import frames
from holdfast.cluster.comm.frame_reader import FrameReader
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.worker.execution import TaskRunner
from holdfast.cluster.worker.write_behind import WriteBehind

now = time.monotonic_ns


class Span(NamedTuple):
    """What happens between the point before and this one.

    Attributes
    ----------
    point : str
        That ends it.
    where : str
        The process in which it passes; ``"hop"``: between two processes or two threads.
    what : str
        In words.
    """

    point: str
    where: str
    what: str


START = "called"
#: In the order in which a task passes them.
SPANS = (
    Span("packing", "client", "`submit` is called"),
    Span("packed", "client", "encode the arguments"),
    Span("posted", "client", "make the key and the future"),
    Span("submit: packing", "client", "to what sends it: this thread, or the loop's"),
    Span("submit: packed", "client", "pack the message"),
    Span("submit: received", "hop", "write, kernel, wake the scheduler"),
    Span("submit: unpacked", "scheduler", "unpack"),
    Span("submit: deciding", "scheduler", "what came before it in the batch"),
    Span("submit: decided", "scheduler", "decide where it runs"),
    Span("run: packing", "scheduler", "to the end of the loop's turn"),
    Span("run: packed", "scheduler", "pack the message"),
    Span("run: received", "hop", "write, kernel, wake the worker"),
    Span("run: unpacked", "worker", "unpack"),
    Span("running", "worker", "to the thread that runs it"),
    Span("decoded", "worker", "decode the call"),
    Span("computed", "worker", "the task itself"),
    Span("encoded", "worker", "encode the result"),
    Span("stored", "worker", "keep it"),
    Span("ran", "worker", "make the outcome"),
    Span("finished: packing", "worker", "take the outcomes that there are"),
    Span("finished: packed", "worker", "pack the message"),
    Span("finished: received", "hop", "write, kernel, wake the scheduler"),
    Span("finished: unpacked", "scheduler", "unpack"),
    Span("finished: deciding", "scheduler", "what came before it in the batch"),
    Span("finished: decided", "scheduler", "decide what follows from it"),
    Span("memory: packing", "scheduler", "to the end of the loop's turn"),
    Span("memory: packed", "scheduler", "pack the message"),
    Span("memory: received", "hop", "write, kernel, wake the client"),
    Span("memory: unpacked", "client", "unpack"),
    Span("known", "client", "what came before it in the batch"),
    Span("woken", "client", "note the result; the wait is over"),
    Span("returned", "client", "decode the value and return it"),
    Span("released", "client", "let go of the future"),
)
_HOPS = frozenset({"submit", "run", "finished", "memory"})
_DECISIONS: dict[type, str] = {events.TasksSubmitted: "submit", events.TasksFinished: "finished"}


class Recorder:
    """The points that one process has seen.

    Attributes
    ----------
    points : list of (point, key, nanoseconds)
    """

    def __init__(self) -> None:
        self.points: list[tuple[str, Any, int]] = []
        self.running: Any = None  # the key of the task that this worker is running
        self.keys: dict[int, Any] = {}  # by serial, which is what a worker calls a task by when that is done
        self.packing = (0, 0)  # when arguments were packed last: their key is made afterwards

    def mark(self, point: str, key: Any, at: int) -> None:
        self.points.append((point, key, at))

    def write(self, directory: Path) -> None:
        """Leave the points in a file of this process."""
        (directory / f"{os.getpid()}.json").write_text(json.dumps(self.points))


def read_all(directory: Path) -> list[tuple[str, Any, int]]:
    """What all processes have left."""
    return [tuple(point) for path in directory.glob("*.json") for point in json.loads(path.read_text())]


def instrument(recorder: Recorder) -> None:
    """Wrap the product's functions in this process, for as long as it lives."""
    for wrap in (_wrap_messages, _wrap_client, _wrap_scheduler, _wrap_worker):
        wrap(recorder)


def attach() -> Callable[[Path], None]:
    """Have this process note what passes from now on; what writes it down (`probed_process`)."""
    recorder = Recorder()
    instrument(recorder)
    return recorder.write


def _wrap(owner: Any, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put ``around(function)`` in the place of a function of the product."""
    setattr(owner, name, around(getattr(owner, name)))


def _carried(recorder: Recorder, messages: Iterable[Any]) -> list[tuple[str, Any]]:
    """The operation and the key of each task that messages are about."""
    found = []
    for message in messages:
        if message[0] in _HOPS:
            for entry in message[1]:
                if message[0] == "run":
                    recorder.keys[entry[6]] = entry[0]
                found.append((message[0], _key(recorder, message[0], entry)))
    return found


def _key(recorder: Recorder, operation: str, entry: Any) -> Any:
    return recorder.keys.get(entry[0]) if operation == "finished" else entry[0]


def _wrap_messages(recorder: Recorder) -> None:
    """Every message between two processes is packed in one place and unpacked in another."""

    def around_packed(packed: Callable[..., Any]) -> Callable[..., Any]:
        def traced(messages: Iterable[Any]) -> Iterator[Any]:
            messages = list(messages)
            done = 0
            began = now()
            for chunks, count in packed(messages):
                ended = now()
                complete = messages[done:count] if count is not None else []
                for operation, key in _carried(recorder, complete):
                    recorder.mark(f"{operation}: packing", key, began)
                    recorder.mark(f"{operation}: packed", key, ended)
                done += len(complete)
                yield chunks, count
                began = now()

        return traced

    def around_take(take: Callable[..., Any]) -> Callable[..., Any]:
        def traced(self: FrameReader) -> None:
            there = len(self.batches)
            began = now()
            take(self)
            ended = now()
            for batch in self.batches[there:]:
                for operation, key in _carried(recorder, batch):
                    recorder.mark(f"{operation}: received", key, began)
                    recorder.mark(f"{operation}: unpacked", key, ended)

        return traced

    _wrap(frames, "packed", around_packed)
    _wrap(FrameReader, "take", around_take)


def _wrap_client(recorder: Recorder) -> None:
    def around_pack(pack: Callable[..., Any]) -> Callable[..., Any]:
        def traced(self: Packer, *arguments: Any) -> Any:
            began = now()
            call = pack(self, *arguments)
            recorder.packing = (began, now())
            return call

        return traced

    def around_enqueue(enqueue: Callable[..., Any]) -> Callable[..., Any]:
        def traced(self: Session, message: tuple[Any, ...]) -> None:
            if message[0] == "submit":
                at = now()
                began, ended = recorder.packing
                for task in message[1]:
                    recorder.mark("packing", task[0], began)
                    recorder.mark("packed", task[0], ended)
                    recorder.mark("posted", task[0], at)
            enqueue(self, message)

        return traced

    def around_memory(memory: Callable[..., Any]) -> Callable[..., Any]:
        def traced(self: KeyTable, entries: Iterable[tuple[Any, ...]], turn: int) -> None:
            at = now()
            for entry in entries:
                recorder.mark("known", entry[0], at)
            memory(self, entries, turn)

        return traced

    def around_wait(wait: Callable[..., Any]) -> Callable[..., Any]:
        def traced(self: KeyTable, states: Any, *arguments: Any, **options: Any) -> Any:
            over = wait(self, states, *arguments, **options)
            at = now()
            for state in states:
                recorder.mark("woken", state.key, at)
            return over

        return traced

    _wrap(Packer, "pack", around_pack)
    _wrap(Session, "enqueue", around_enqueue)
    _wrap(KeyTable, "memory", around_memory)
    _wrap(KeyTable, "wait", around_wait)


def _wrap_scheduler(recorder: Recorder) -> None:
    def around_handle(handle: Callable[..., Any]) -> Callable[..., Any]:
        def traced(self: SchedulerState, event: Any, at: float) -> Any:
            operation = _DECISIONS.get(type(event))
            if operation is None:
                return handle(self, event, at)
            began = now()
            instructions = handle(self, event, at)
            ended = now()
            for entry in event[1]:  # the tasks are the second part of both
                key = _key(recorder, operation, entry)
                recorder.mark(f"{operation}: deciding", key, began)
                recorder.mark(f"{operation}: decided", key, ended)
            return instructions

        return traced

    _wrap(SchedulerState, "handle", around_handle)


def _wrap_worker(recorder: Recorder) -> None:
    """A worker of a traced cluster has one thread for tasks: what it does belongs to the task that it is running."""

    def around_run(run: Callable[..., Any]) -> Callable[..., Any]:
        def traced(self: TaskRunner, task: Any) -> Any:
            recorder.running = task[0]
            recorder.mark("running", task[0], now())
            outcome = run(self, task)
            recorder.mark("ran", task[0], now())
            return outcome

        return traced

    def marking(point: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """The function, and a mark when it returns."""

        def around(function: Callable[..., Any]) -> Callable[..., Any]:
            def traced(*arguments: Any, **options: Any) -> Any:
                result = function(*arguments, **options)
                recorder.mark(point, recorder.running, now())
                return result

            return traced

        return around

    _wrap(TaskRunner, "run", around_run)
    _wrap(TaskRunner, "_arguments", marking("decoded"))
    _wrap(TaskRunner, "_call", marking("computed"))
    _wrap(TaskRunner, "_result", marking("encoded"))
    _wrap(WriteBehind, "add", marking("stored"))
