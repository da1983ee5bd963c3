"""Graphs that are hard on a scheduler, as dask code that any of its schedulers can run.

Imports neither Holdfast nor distributed, and nothing that only one of them brings: the same module is read by both.

Every case has two halves. What the first makes is in the cluster's memory before anything is measured (`prepare`; most
cases need nothing). The second is a collection, or a list of them, whose `compute` is measured; its result is small, so
that bringing it to the client says nothing of either system.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from dask import datasets
from dask.delayed import delayed


@dataclass(frozen=True)
class Scale:
    """How much of everything; a chunk is square, with sides of ``chunk``."""

    chunk: int = 1_000
    long_side: int = 16
    side: int = 8
    narrow_side: int = 3
    depth: int = 10
    days: int = 60
    seconds: int = 1
    groups: int = 200_000
    leaves: int = 256
    leaf_nbytes: int = 8_000_000
    branch_nbytes: int = 100_000_000
    branches: int = 8
    short_tasks: int = 2_000
    short_seconds: float = 0.001
    long_every: int = 200
    long_seconds: float = 0.3


QUICK = Scale(
    chunk=50, long_side=4, side=3, narrow_side=2, depth=2, days=4, seconds=600, groups=50, leaves=8, leaf_nbytes=80_000,
    branch_nbytes=80_000, branches=4, short_tasks=20, short_seconds=0.0, long_every=10, long_seconds=0.001,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One of them.

    Attributes
    ----------
    words
        What it does, for a table.
    build
        Makes what is computed, of what `prepare` has made.
    prepare
        Makes a collection that is persisted first.
    """

    words: str
    build: Callable[[Scale, Any], Any]
    prepare: Callable[[Scale], Any] | None = None


def _random(scale: Scale, rows: int, columns: int, chunks: Any = None) -> Any:
    shape = (rows * scale.chunk, columns * scale.chunk)
    random = da.random.default_rng(0)  # type: ignore[no-untyped-call]
    return random.random(shape, chunks=chunks or scale.chunk)


def fill(nbytes: int) -> np.ndarray[Any, Any]:
    return np.ones(nbytes // 8)


def added(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    result: np.ndarray[Any, Any] = one + other
    return result


def total(array: np.ndarray[Any, Any]) -> float:
    return float(array.sum())


def summed_in_pairs(level: list[Any]) -> Any:
    """The sum of all elements of all arrays: as wide as its leaves up to the top, where nothing can be fused."""
    while len(level) > 1:
        level = [delayed(added)(*level[n : n + 2]) for n in range(0, len(level), 2)]
    return delayed(total)(level[0])


def tree(scale: Scale, _: Any) -> Any:
    return summed_in_pairs([delayed(fill)(scale.leaf_nbytes) for _ in range(scale.leaves)])


def product(scale: Scale, _: Any) -> Any:
    x = _random(scale, scale.long_side, scale.narrow_side)
    return (x.T @ x).sum()


def rechunk(scale: Scale, _: Any) -> Any:
    length, thin = scale.side * scale.chunk, scale.chunk // 2
    x = _random(scale, scale.side, scale.side, (length, thin))
    return x.rechunk((thin, length)).max(axis=1).sum()


def smooth(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The mean of each element and its four neighbours; the outermost are as they were."""
    result: np.ndarray[Any, Any] = block.copy()
    result[1:-1, 1:-1] += block[:-2, 1:-1] + block[2:, 1:-1] + block[1:-1, :-2] + block[1:-1, 2:]
    result[1:-1, 1:-1] /= 5
    return result


def overlap(scale: Scale, _: Any) -> Any:
    x = _random(scale, scale.side, scale.side)
    return x.map_overlap(smooth, depth=scale.depth, boundary="reflect").sum()


def frame(scale: Scale) -> Any:
    return datasets.timeseries(  # type: ignore[no-untyped-call]
        start="2000-01-01", freq=f"{scale.seconds}s", partition_freq="1d", seed=0,
        end=str(np.datetime64("2000-01-01") + scale.days),
    )  # fmt: skip


def shuffle(_: Scale, frame: Any) -> Any:
    return frame.shuffle("id").x.sum()


def groups(scale: Scale, frame: Any) -> Any:
    keyed = frame.assign(group=((frame.x + 1) * (scale.groups / 2)).astype("int64"))
    return keyed.groupby("group").y.mean(split_out=8).max()


def scaled(array: np.ndarray[Any, Any], factor: int) -> np.ndarray[Any, Any]:
    result: np.ndarray[Any, Any] = array * factor
    return result


def diamond(scale: Scale, _: Any) -> Any:
    source = delayed(fill)(scale.branch_nbytes)
    return summed_in_pairs([delayed(scaled)(source, factor) for factor in range(scale.branches)])


def pause(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def uneven(scale: Scale, _: Any) -> Any:
    lengths = [
        scale.long_seconds if number % scale.long_every == scale.long_every // 2 else scale.short_seconds
        for number in range(scale.short_tasks)
    ]
    return delayed(sum)([delayed(pause)(seconds) for seconds in lengths])


CASES = {
    "tree": Case("a tree reduction: 256 arrays of 8 MB, made as it goes, added up in pairs", tree),
    "product": Case("`x.T @ x`, 48 chunks of 8 MB", product),
    "rechunk": Case("512 MB of tall chunks made into wide ones", rechunk),
    "overlap": Case("`map_overlap`, windows that overlap by 10, over 64 chunks of 8 MB", overlap),
    "shuffle": Case("a dataframe of 60 days, a row a second, shuffled by a column", shuffle, frame),
    "groups": Case("the same, grouped by 200,000 values of a column", groups, frame),
    "diamond": Case("8 results of 100 MB from one of 100 MB, added up in pairs", diamond),
    "uneven": Case("2,000 tasks of 1 ms, every 200th of which takes 300 ms", uneven),
}
