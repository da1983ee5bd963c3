"""The object store's workloads: a server with 4 GB, one client, and one figure a line on standard output.

Everything goes through the public API with its default settings. The workloads are those of the peers, in the same
order and with the same pauses, and a few that the peers have no counterpart for.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from benchmarks.figures import Figure
from benchmarks.memory import SETTLING_SECONDS, settled_pss
from holdfast import Client, LocalCluster
from holdfast.objectstore import ObjectID, Store, connect

_READERS = 4


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    capacity: str = "4GB"
    large_length: int = 50_000_000  # float64: 400 MB
    large_repeats: int = 5
    small_count: int = 2000
    small_repeats: int = 5
    idle_seconds: float = 5.0
    pause_seconds: float = 0.3
    settling_seconds: float = SETTLING_SECONDS


QUICK = Sizes(
    "256MB",
    large_length=500_000,
    large_repeats=2,
    small_count=20,
    small_repeats=2,
    idle_seconds=0,
    pause_seconds=0,
    settling_seconds=0,
)
SMALL = (("8kb", 1000), ("200kb", 25_000))


def report(metric: str, value: float, unit: str) -> None:
    """Prints one figure."""
    print(Figure("holdfast", metric, value, unit).to_json(), flush=True)


def timed(call: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """The seconds that a call took, and its result."""
    started = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - started, result


@contextlib.contextmanager
def serving(capacity: str) -> Iterator[str]:
    """A server in a process of its own; its socket's path."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as directory:
        path = os.path.join(directory, "store.sock")
        command = [sys.executable, "-m", "holdfast.objectstore", "--capacity", capacity, "--socket", path]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                if not process.stdout.readline():
                    raise RuntimeError(f"the store's server ended with status {process.wait()}")
                yield path
            finally:
                process.terminate()


# One large object


def large_puts(store: Store, array: np.ndarray[Any, Any], sizes: Sizes) -> None:
    """The first put meets whatever pages the idle store has made ready; the others recycle its pages."""
    time.sleep(sizes.idle_seconds)
    speeds = []
    for _ in range(sizes.large_repeats):
        seconds, object_id = timed(store.put, array)
        speeds.append(array.nbytes / 1e9 / seconds)
        store.delete(object_id)
        time.sleep(sizes.pause_seconds)
    report("put_400mb_first", speeds[0], "GB/s")
    report("put_400mb", statistics.median(speeds), "GB/s")


def large_gets(store: Store, array: np.ndarray[Any, Any], sizes: Sizes) -> None:
    """Each get is the first of its object."""
    times = []
    for _ in range(sizes.large_repeats):
        object_id = store.put(array)
        seconds, value = timed(store.get, object_id)
        if value[-1] != array[-1]:
            raise AssertionError("what was got is not what was put")
        times.append(seconds)
        del value
        store.delete(object_id)
    report("get_400mb_first", times[0] * 1e3, "ms")
    report("get_400mb", statistics.median(times) * 1e3, "ms")


def large_creates(store: Store, sizes: Sizes) -> None:
    """Nothing is written: what is timed is what a producer pays beside making its data."""

    def create_and_seal() -> ObjectID:
        _, pending = store.create((sizes.large_length,), "float64")
        return pending.seal()

    times = []
    for _ in range(sizes.large_repeats):
        seconds, object_id = timed(create_and_seal)
        times.append(seconds)
        store.delete(object_id)
    report("create_seal_400mb", statistics.median(times) * 1e3, "ms")


# Many small ones


def small_objects(store: Store, path: str, sizes: Sizes) -> None:
    """One call each. What was got is kept until all have been, as by the peers."""
    for name, length in SMALL:
        array = np.ones(length)
        put_rates, get_rates = [], []
        for _ in range(sizes.small_repeats):
            seconds, ids = timed(put_all, store, array, sizes.small_count)
            put_rates.append(sizes.small_count / seconds)
            seconds, values = timed(get_all, store, ids)
            get_rates.append(sizes.small_count / seconds)
            del values
            store.delete(ids)
        report(f"put_{name}", statistics.median(put_rates), "objects/s")
        report(f"get_{name}", statistics.median(get_rates), "objects/s")
    others_objects(store, path, sizes)


def others_objects(store: Store, path: str, sizes: Sizes) -> None:
    """Each get is the first that this process hears of its object."""
    rates = []
    with other_process(put_on_request, path) as other:
        for _ in range(sizes.small_repeats):
            other.send(sizes.small_count)
            ids = other.recv()
            seconds, values = timed(get_all, store, ids)
            rates.append(sizes.small_count / seconds)
            del values
            store.delete(ids)
    report("get_8kb_other", statistics.median(rates), "objects/s")


def put_all(store: Store, array: np.ndarray[Any, Any], count: int) -> list[ObjectID]:
    return [store.put(array) for _ in range(count)]


def get_all(store: Store, ids: list[ObjectID]) -> list[Any]:
    return [store.get(object_id) for object_id in ids]


@contextlib.contextmanager
def other_process(function: Callable[[Connection, str], None], path: str) -> Iterator[Connection]:
    """Runs ``function`` in a fresh process until the block ends; the pipe to it."""
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    process = context.Process(target=function, args=(its, path))
    process.start()
    its.close()
    try:
        yield mine
    finally:
        mine.close()
        process.join()


def requests(pipe: Connection) -> Iterator[Any]:
    with contextlib.suppress(EOFError):
        while True:
            yield pipe.recv()


def put_on_request(pipe: Connection, path: str) -> None:
    """Puts as many small objects as it's asked to, and sends their ids."""
    array = np.ones(SMALL[0][1])
    with connect(path, name="other") as store:
        for count in requests(pipe):
            ids = put_all(store, array, count)
            # ``put`` returns when its seal is sent. An answer on the same connection shows that it was read too, so
            # that what is measured are gets of objects that are there, not waits for their seals.
            store.contains(ids[-1])
            pipe.send(ids)


def read_on_request(pipe: Connection, path: str) -> None:
    """Reads every byte of the objects it's asked to, and keeps them."""
    kept = []
    with connect(path, name="reader") as store:
        pipe.send(None)
        for object_id in requests(pipe):
            kept.append(store.get(object_id))
            pipe.send(float(kept[-1].sum()))
        kept.clear()


# Memory


def memory_on_a_store(sizes: Sizes) -> None:
    """One process fills an object in place, four others read all of it."""
    with serving(sizes.capacity) as path, connect(path) as store, contextlib.ExitStack() as stack:
        readers = [stack.enter_context(other_process(read_on_request, path)) for _ in range(_READERS)]
        for reader in readers:
            reader.recv()
        before = settled_pss(sizes.settling_seconds)
        array, pending = store.create((sizes.large_length,), "float64")
        array[:] = 1.0
        nbytes = array.nbytes
        object_id = pending.seal()
        del array
        for reader in readers:
            reader.send(object_id)
        for reader in readers:
            if reader.recv() != sizes.large_length:
                raise AssertionError("a reader read something else")
        report("read_by_4_memory_store", (settled_pss(sizes.settling_seconds) - before) / nbytes, "sizes")


def make(length: int) -> np.ndarray[Any, Any]:
    return np.ones(length)


def read(array: np.ndarray[Any, Any], reader: int) -> float:
    return float(array.sum())


def memory_on_a_cluster(sizes: Sizes) -> None:
    """One task makes an array, a task on each of four workers reads all of it."""
    with LocalCluster(n_workers=_READERS, threads_per_worker=1) as cluster, Client(cluster) as client:
        workers = list(client.scheduler_info()["workers"])

        def read_everywhere(length: int) -> Any:
            future = client.submit(make, length, pure=False)
            sums = [client.submit(read, future, i, workers=[worker]) for i, worker in enumerate(workers)]
            if client.gather(sums) != [length] * _READERS:
                raise AssertionError("a reader read something else")
            return future

        read_everywhere(1000)  # every worker has imported what it needs
        before = settled_pss(sizes.settling_seconds)
        result = read_everywhere(sizes.large_length)
        nbytes = 8 * sizes.large_length
        report("read_by_4_memory", (settled_pss(sizes.settling_seconds) - before) / nbytes, "sizes")
        del result


def main() -> None:
    """Runs all of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store_workloads", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run with tiny sizes; its figures mean nothing")
    sizes = QUICK if parser.parse_args().quick else Sizes()
    with serving(sizes.capacity) as path, connect(path, name="benchmark") as store:
        store.warm()  # as the cluster's clients and workers do when they connect
        array = np.random.default_rng(0).random(sizes.large_length)
        large_puts(store, array, sizes)
        large_gets(store, array, sizes)
        large_creates(store, sizes)
        small_objects(store, path, sizes)
    memory_on_a_cluster(sizes)
    memory_on_a_store(sizes)


if __name__ == "__main__":
    main()
