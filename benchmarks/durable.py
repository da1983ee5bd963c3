"""``make bench-durable``: durable datasets beside the disk that they are written to.

A cluster has so many partitions in its store and publishes them durably; another one loads them and reads all of them
in tasks. The floor is what the disk does with the same bytes in as many files: two threads write them with 4 MiB a
call, past the page cache where that is possible, and sync each, and read them again. Each reads what isn't in the page
cache any more. Meanwhile a client has short tasks run, one after the other: how long each takes while nothing is
published, and while something is.

The disk and Holdfast take turns. What else the machine does takes from both, so the ratio of each round is taken, and
the median of these counts.
"""

from __future__ import annotations

import argparse
import mmap
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure
from benchmarks.table import aligned, number
from holdfast import Client, LocalCluster, wait

CHUNK_NBYTES = 4 << 20
THREADS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit status."""
    parser = argparse.ArgumentParser(prog="make bench-durable", description=__doc__)
    parser.add_argument("--nbytes", type=int, default=1_000_000_000, help="of all partitions (default: %(default)s)")
    parser.add_argument("--partitions", type=int, default=16, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--directory", type=Path, help="where; default: a temporary directory")
    parser.add_argument("--output", metavar="FILE", type=Path, help="write the JSON lines there too")
    options = parser.parse_args(arguments)
    figures = measure(options.nbytes, options.partitions, options.rounds, options.directory)
    if options.output:
        options.output.write_text("".join(f"{figure.to_json()}\n" for figure in figures))
    print(_table(figures))
    return 0


def measure(nbytes: int, partitions: int, rounds: int, directory: Path | None = None) -> list[Figure]:
    """All figures, in bytes a second and seconds: the medians of the rounds."""
    each = nbytes // partitions
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        place = Path(tempfile.mkdtemp(prefix="bench-durable-", dir=directory))
        try:
            wrote, read = _floor(place / "floor", each, partitions)
            found.setdefault(("floor", "durable_write"), []).append(nbytes / wrote)
            found.setdefault(("floor", "durable_read"), []).append(nbytes / read)
            wrote, read, alone, meanwhile = _holdfast(place / "place", each, partitions)
            found.setdefault(("holdfast", "durable_write"), []).append(nbytes / wrote)
            found.setdefault(("holdfast", "durable_read"), []).append(nbytes / read)
            found.setdefault(("holdfast", "task_alone"), []).append(alone)
            found.setdefault(("holdfast", "task_meanwhile"), []).append(meanwhile)
        finally:
            shutil.rmtree(place)
    return [
        Figure(system, metric, statistics.median(values), "s" if metric.startswith("task") else "B/s", tuple(values))
        for (system, metric), values in found.items()
    ]


def _floor(directory: Path, nbytes: int, count: int) -> tuple[float, float]:
    directory.mkdir()
    pages = -(-nbytes // mmap.PAGESIZE)  # direct writes are of whole pages
    data = memoryview(mmap.mmap(-1, pages * mmap.PAGESIZE))
    data[:nbytes] = np.random.default_rng(0).integers(0, 255, nbytes, "u1").data
    paths = [directory / str(n) for n in range(count)]

    def write(path: Path) -> None:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
        except OSError:  # a file system that can't do that
            fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        for at in range(0, len(data), CHUNK_NBYTES):
            os.write(fd, data[at : at + CHUNK_NBYTES])
        os.fsync(fd)
        os.close(fd)

    def read(path: Path) -> None:
        into = memoryview(bytearray(CHUNK_NBYTES))
        fd = os.open(path, os.O_RDONLY)
        while os.readv(fd, [into]):
            pass
        os.close(fd)

    with ThreadPoolExecutor(THREADS) as threads:
        wrote = _seconds(lambda: list(threads.map(write, paths)))
        _drop_from_cache(directory)
        return wrote, _seconds(lambda: list(threads.map(read, paths)))


def _holdfast(place: Path, nbytes: int, count: int) -> tuple[float, float, float, float]:
    capacity = int(1.5 * nbytes * count) + (64 << 20)
    with (
        LocalCluster(1, THREADS, durable=place, object_store_memory=capacity) as cluster,
        Client(cluster) as client,
    ):
        parts = client.map(_partition, range(count), nbytes=nbytes, pure=False)
        wait(parts)
        alone = statistics.median(_task_seconds(client) for _ in range(50))
        tasks: list[float] = []
        done = threading.Event()

        def work() -> None:
            while not done.is_set():
                tasks.append(_task_seconds(client))

        worker = threading.Thread(target=work)
        worker.start()
        wrote = _seconds(lambda: client.publish_dataset(parts=parts, durable=True))
        done.set()
        worker.join()
    _drop_from_cache(place / "objects")
    with (
        LocalCluster(1, THREADS, durable=place, object_store_memory=64 << 20) as cluster,
        Client(cluster) as client,
    ):
        client.submit(_touched, np.zeros(1, "u1")).result()  # imports
        parts = client.get_dataset("parts")
        read = _seconds(lambda: client.gather(client.map(_touched, parts)))
    return wrote, read, alone, statistics.median(tasks)


def _partition(seed: int, nbytes: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, nbytes, "u1")


def _touched(array: np.ndarray) -> int:
    return int(array[::4096].sum())


def _task_seconds(client: Client) -> float:
    return _seconds(client.submit(int, 1, pure=False).result)


def _drop_from_cache(directory: Path) -> None:
    for path in directory.iterdir():
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _table(figures: Sequence[Figure]) -> str:
    by = {(figure.system, figure.metric): figure.value for figure in figures}
    rounds = {(figure.system, figure.metric): figure.rounds for figure in figures}
    rows = [["", "disk", "holdfast", "ratio"]]
    for metric, words in (("durable_write", "written, GB/s"), ("durable_read", "read, GB/s")):
        floor, ours = by["floor", metric], by["holdfast", metric]
        pairs = zip(rounds["holdfast", metric], rounds["floor", metric], strict=True)
        ratio = statistics.median(ours / floor for ours, floor in pairs)
        rows.append([words, number(floor / 1e9), number(ours / 1e9), number(ratio)])
    alone, meanwhile = by["holdfast", "task_alone"], by["holdfast", "task_meanwhile"]
    rows.append(["a task alone, and meanwhile, ms", number(alone * 1e3), number(meanwhile * 1e3), ""])
    return aligned(rows)


if __name__ == "__main__":
    sys.exit(main())
