"""One system's locks, queues, variables and events: a fresh process that prints its figures.

``python -m benchmarks.coordination_run SYSTEM [--quick]``. With ``distributed`` it runs in that peer's environment,
which has no Holdfast: both have the same names.

A *handover* is one ``acquire`` and ``release`` of a lock that others want too.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks.figures import Figure

SYSTEMS = ("holdfast", "distributed")
#: How many contend for a lock.
CONTENDERS = 2
LIMIT_SECONDS = 300


def contend(system: str, name: str, count: int) -> int:
    """Acquire and release a lock again and again, from the moment on that the event of its name is set."""
    library = importlib.import_module(system)
    library.Queue(f"{name}-ready").put(1)
    library.Event(f"{name}-go").wait(timeout=LIMIT_SECONDS)
    lock = library.Lock(name)
    for _ in range(count):
        with lock:
            pass
    library.Queue(f"{name}-done").put(1)
    return count


def answer(system: str, name: str, count: int) -> int:
    """Put back what comes."""
    library = importlib.import_module(system)
    asked, answered = library.Queue(f"{name}-there"), library.Queue(f"{name}-back")
    for _ in range(count):
        answered.put(asked.get())
    return count


class Run:
    """The workloads of one system.

    Parameters
    ----------
    system
        Its name.
    library
        Its module.
    client, address
        A client of a cluster of two workers, and the address of its scheduler.
    scale
        What counts are multiplied with.
    """

    def __init__(self, system: str, library: Any, client: Any, address: str, scale: float) -> None:
        self._system = system
        self._library = library
        self._client = client
        self._address = address
        self._scale = scale

    def _count(self, count: int) -> int:
        return max(2, int(count * self._scale))

    def _report(self, metric: str, value: float, unit: str) -> None:
        print(Figure(self._system, metric, value, unit).to_json(), flush=True)

    def _rate(self, metric: str, count: int, call: Callable[[], object], unit: str) -> None:
        began = time.perf_counter()
        call()
        self._report(metric, count / (time.perf_counter() - began), unit)

    # -- locks

    def lock_alone(self) -> None:
        """A lock that nobody else wants."""
        lock, count = self._library.Lock("alone"), self._count(2_000)

        def call() -> None:
            for _ in range(count):
                with lock:
                    pass

        self._rate("lock_alone", count, call, "locks/s")

    def _handovers(self, metric: str, count: int, start: Callable[[int], Callable[[], object]]) -> None:
        """Have contenders of the lock of this name start, and measure from when all are ready until all are done."""
        ready, done = self._library.Queue(f"{metric}-ready"), self._library.Queue(f"{metric}-done")
        go = self._library.Event(f"{metric}-go")
        ends = [start(count) for _ in range(CONTENDERS)]
        for _ in range(CONTENDERS):
            ready.get(timeout=LIMIT_SECONDS)

        def call() -> None:
            go.set()
            for _ in range(CONTENDERS):
                done.get(timeout=LIMIT_SECONDS)

        self._rate(metric, count * CONTENDERS, call, "handovers/s")
        for end in ends:
            end()

    def lock_threads(self) -> None:
        """Contenders are threads of one client."""

        def start(count: int) -> Callable[[], object]:
            thread = threading.Thread(target=contend, args=(self._system, "lock_threads", count))
            thread.start()
            return thread.join

        self._handovers("lock_threads", self._count(1_000), start)

    def lock_processes(self) -> None:
        """Contenders are processes with a client each."""

        def start(count: int) -> Callable[[], object]:
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.coordination_run", self._system]
            process = subprocess.Popen([*command, "--contend", self._address, "--count", str(count)])
            return process.wait

        self._handovers("lock_processes", self._count(1_000), start)

    def lock_tasks(self) -> None:
        """Contenders are tasks, on a worker each."""

        def start(count: int) -> Callable[[], object]:
            future = self._client.submit(contend, self._system, "lock_tasks", count, pure=False)
            return lambda: future.result()

        self._handovers("lock_tasks", self._count(1_000), start)

    # -- queues

    def queue_items(self) -> None:
        """Items of one client: put, then got one by one, then got together."""
        queue, count = self._library.Queue("items"), self._count(3_000)

        def put() -> None:
            for number in range(count):
                queue.put(number)
            queue.qsize()

        def get() -> None:
            for _ in range(count):
                queue.get()

        self._rate("queue_put", count, put, "items/s")
        self._rate("queue_get", count, get, "items/s")
        put()
        self._rate("queue_get_batch", count, lambda: queue.get(batch=True), "items/s")

    def queue_between(self) -> None:
        """Items on their way from one thread of the client to a task, and back."""
        count = self._count(2_000)
        there, back = self._library.Queue("between-there"), self._library.Queue("between-back")
        future = self._client.submit(answer, self._system, "between", count, pure=False)

        def put() -> None:
            for number in range(count):
                there.put(number)

        def call() -> None:
            thread = threading.Thread(target=put)
            thread.start()
            for _ in range(count):
                back.get(timeout=LIMIT_SECONDS)
            thread.join()

        self._rate("queue_between", 2 * count, call, "items/s")
        future.result()

    def queue_futures(self) -> None:
        """Futures that are put and got."""
        queue, count = self._library.Queue("futures"), self._count(1_000)
        futures = self._client.map(abs, range(count), pure=False)
        self._client.gather(futures)

        def call() -> None:
            for future in futures:
                queue.put(future)
            for _ in futures:
                queue.get()

        self._rate("queue_futures", count, call, "futures/s")

    # -- the rest

    def variables(self) -> None:
        """A variable that is set, and one that is read."""
        variable, count = self._library.Variable("variable"), self._count(1_000)

        def put() -> None:
            for number in range(count):
                variable.set(number)

        def get() -> None:
            for _ in range(count):
                variable.get()

        self._rate("variable_set", count, put, "values/s")
        self._rate("variable_get", count, get, "values/s")

    def events(self) -> None:
        """An event that is set, looked at and cleared."""
        event, count = self._library.Event("event"), self._count(500)

        def call() -> None:
            for _ in range(count):
                event.set()
                event.wait()
                event.clear()

        self._rate("event", count, call, "rounds/s")

    def all(self) -> None:
        """Every workload, in turn."""
        self.lock_alone()
        self.lock_threads()
        self.lock_processes()
        self.lock_tasks()
        self.queue_items()
        self.queue_between()
        self.queue_futures()
        self.variables()
        self.events()


def main() -> None:
    """Runs them, or one contender of a lock in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coordination_run", description=__doc__)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--contend", metavar="ADDRESS", help="be a contender, with a client of this scheduler")
    parser.add_argument("--count", type=int, default=0)
    options = parser.parse_args()
    library = importlib.import_module(options.system)
    if options.contend:
        with library.Client(options.contend):
            contend(options.system, "lock_processes", options.count)
        return
    quiet: dict[str, Any] = {"n_workers": 2, "threads_per_worker": 1}
    if options.system == "distributed":
        quiet |= {"dashboard_address": None, "silence_logs": 50, "memory_limit": 0}
    with library.LocalCluster(**quiet) as cluster, library.Client(cluster) as client:
        client.gather(client.map(abs, range(300), pure=False))
        Run(options.system, library, client, cluster.scheduler_address, 0.01 if options.quick else 1.0).all()


if __name__ == "__main__":
    main()
