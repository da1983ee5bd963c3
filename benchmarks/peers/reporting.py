"""How a peer's figures are taken and printed, as Holdfast's own workloads do it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np

from benchmarks.figures import Figure

_PAUSE_SECONDS = 0.3
_ROUNDTRIPS = 300
#: The sizes of small objects: the end of a metric's name, and the number of float64.
SMALL = (("8kb", 1000), ("200kb", 25_000))
LARGE_LENGTH = 50_000_000  # float64: 400 MB

T = TypeVar("T")


class Report:
    """Prints one system's figures, one JSON line each."""

    def __init__(self, system: str) -> None:
        self._system = system

    def __call__(self, metric: str, value: float, unit: str) -> None:
        print(Figure(self._system, metric, value, unit).to_json(), flush=True)

    def seconds(self, metric: str, call: Callable[[], T]) -> T:
        """How long one call takes; its result."""
        took, result = timed(call)
        self(metric, took, "s")
        return result

    def milliseconds(self, metric: str, call: Callable[[], T]) -> T:
        """How long one call takes; its result."""
        took, result = timed(call)
        self(metric, took * 1e3, "ms")
        return result

    def rate(self, metric: str, count: int, call: Callable[[], T], unit: str = "tasks/s") -> T:
        """How many of the ``count`` things that a call does are done in a second; its result."""
        took, result = timed(call)
        self(metric, count / took, unit)
        return result

    def roundtrips(self, once: Callable[[int], Any]) -> None:
        """The time of one task from its submission to its result: the median, and what 1 % exceed."""
        times = sorted(timed(partial(once, i))[0] for i in range(_ROUNDTRIPS))
        self("roundtrip", statistics.median(times) * 1e3, "ms")
        self("roundtrip_p99", times[int(len(times) * 0.99)] * 1e3, "ms")

    def puts(self, put: Callable[[Any], Any], drop: Callable[[Any], Any], repeats: int = 5) -> Any:
        """How fast a large array gets into the system, the first time and the median; the array."""
        array = np.random.default_rng(0).random(LARGE_LENGTH)
        speeds = []
        for _ in range(repeats):
            took, reference = timed(lambda: put(array))
            speeds.append(array.nbytes / 1e9 / took)
            drop(reference)
            del reference
            time.sleep(_PAUSE_SECONDS)
        self("put_400mb_first", speeds[0], "GB/s")
        self("put_400mb", statistics.median(speeds), "GB/s")
        return array

    def small_objects(
        self,
        put: Callable[[Any], Any],
        get: Callable[[Any], Any],
        count: int,
        sizes: tuple[tuple[str, int], ...] = SMALL,
    ) -> None:
        """How many small objects are put and got in a second, one call each."""

        def put_all(length: int) -> list[Any]:
            array = np.ones(length)
            return [put(array) for _ in range(count)]

        for name, length in sizes:
            references = self.rate(f"put_{name}", count, partial(put_all, length), "objects/s")
            self.rate(f"get_{name}", count, partial(list, map(get, references)), "objects/s")
            del references


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """The seconds that a call took, and its result."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result
