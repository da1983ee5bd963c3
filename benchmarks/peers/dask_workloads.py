"""The workloads of dask's collections, with whatever scheduler is dask's default."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da


def transpose_sum() -> None:
    """A matrix of random numbers, and the sum of it and its transpose."""
    x = da.random.random((8000, 8000), chunks=(1000, 1000))
    (x + x.T).sum().compute()


def timeseries() -> Any:
    """Thirty days, a row a second, in memory or on the way there."""
    made = dask.datasets.timeseries(  # type: ignore[no-untyped-call]
        start="2000-01-01", end="2000-01-31", freq="1s", partition_freq="1d"
    )
    return made.persist()


def groupby(frame: Any) -> None:
    """The mean of a column by a few names."""
    frame.groupby("name").x.mean().compute()


def shuffle(frame: Any) -> None:
    """Shuffled by a column, then summed."""
    frame.shuffle("id").x.sum().compute()
