"""The second process: get the flights by name, read them in place, compute, and compare with pandas."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from data import READ_OPTIONS, airlines, airports, derive

from holdfast import Client, futures_of
from holdfast.objectstore.sizes import format_size

MINUTES = {"dep_delay": ["mean", "max", "count"], "arr_delay": ["mean", "count"], "gained": "sum", "late": "sum"}


def main(address: str, csv: str) -> int:
    begun = time.perf_counter()
    with Client(address) as client:
        names = client.list_datasets()
        flights = client.get_dataset("flights")
        seconds = time.perf_counter() - begun
        print(f"   datasets: {', '.join(names)}; connected and got 'flights' in {seconds * 1000:.0f} ms")
        faults = read_in_place(client, flights)
        faults += compare(flights, derive(pd.read_csv(csv, **READ_OPTIONS)))
    return 1 if faults else 0


# -- in place


def read_in_place(client: Client, flights: Any) -> int:
    """Read every byte of every partition, and see where the bytes are."""
    futures = futures_of(flights)
    before = private_nbytes()
    begun = time.perf_counter()
    partitions = client.gather(futures)
    gathered = time.perf_counter() - begun
    arena = mapped_arena()
    inside = total = read = 0
    for partition in partitions:
        for address, nbytes in buffers(partition):
            total += 1
            inside += address in arena and address + nbytes <= arena.stop
            read += nbytes
        checksum(partition)
    gc.collect()
    grown = private_nbytes() - before
    print(
        f"   gathered {len(partitions)} partitions in {gathered * 1000:.1f} ms: {inside} of {total} buffers "
        f"({format_size(read)}) lie in the arena mapped at {arena.start:#x}"
    )
    print(f"   read all of them: this process's private memory grew by {format_size(max(0, grown))}")
    fault = inside != total or grown > read / 4
    if fault:
        print("   NOT IN PLACE")
    return int(fault)


def mapped_arena() -> range:
    """Where the object store's shared memory is mapped in this process, as the kernel tells it."""
    with open("/proc/self/maps") as maps:
        mapped = [line.split()[0].split("-") for line in maps if "memfd:holdfast" in line]
    return range(int(mapped[0][0], 16), int(mapped[-1][1], 16)) if mapped else range(0)


def buffers(partition: pd.DataFrame) -> Iterator[tuple[int, int]]:
    """Address and size in bytes of the memory of every column: NumPy's, and Arrow's for text."""
    for name in partition.columns:
        array = partition[name].array
        if hasattr(array, "__arrow_array__"):
            for chunk in array.__arrow_array__().iterchunks():
                yield from ((buffer.address, buffer.size) for buffer in chunk.buffers() if buffer is not None)
        else:
            values = partition[name].to_numpy()
            yield values.__array_interface__["data"][0], values.nbytes


def checksum(partition: pd.DataFrame) -> None:
    for name in partition.columns:
        column = partition[name]
        if column.dtype.kind in "ifb":
            np.nansum(column.to_numpy())
        else:
            column.isna().sum()


def private_nbytes() -> int:
    """Memory that only this process has: what it would cost to run another one like it."""
    with open("/proc/self/smaps_rollup") as rollup:
        return sum(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Private_"))


# -- on the cluster, and with pandas


def by_carrier(flights: Any) -> Any:
    return flat(flights.groupby("carrier").agg(MINUTES))


def by_month(flights: Any) -> Any:
    return flat(flights.groupby("month").agg(MINUTES))


def flat(table: Any) -> Any:
    table.columns = ["_".join(name) for name in table.columns]
    return table


def by_airline(flights: Any) -> Any:
    joined = flights.merge(airlines(), on="carrier", how="left")
    return flat(joined.groupby("airline").agg({"arr_delay": ["mean", "count"], "mph": ["mean", "max"]}))


def by_airport(flights: Any) -> Any:
    joined = flights.merge(airports(), left_on="dest", right_on="faa", how="inner")
    return flat(joined.groupby(["dest", "airport"]).agg({"arr_delay": ["mean", "count"], "distance": ["min", "max"]}))


def by_airline_and_time_zone(flights: Any) -> Any:
    joined = flights.merge(airlines(), on="carrier").merge(airports(), left_on="dest", right_on="faa")
    return flat(joined.groupby(["airline", "tzone"]).agg({"air_time": ["sum", "mean"], "late": "sum"}))


QUESTIONS: dict[str, Callable[[Any], Any]] = {
    "delays by carrier": by_carrier,
    "delays by month": by_month,
    "joined with airlines": by_airline,
    "joined with airports": by_airport,
    "joined with both": by_airline_and_time_zone,
}


def compare(flights: Any, reference: pd.DataFrame) -> int:
    """Answer every question on the cluster and with pandas; return how many answers differ."""
    different = 0
    for question, answer in QUESTIONS.items():
        begun = time.perf_counter()
        ours = answer(flights).compute().sort_index()
        seconds = time.perf_counter() - begun
        theirs = answer(reference).sort_index()
        try:
            # Sums of fractions depend on the order of the summands in their last digits; everything else is exact.
            pd.testing.assert_frame_equal(ours, theirs, check_exact=False, rtol=1e-12, atol=0, check_index_type=False)
            verdict = f"{ours.size} numbers, all as pandas has them"
        except AssertionError as error:
            verdict = f"DIFFERENT from pandas: {error}"
            different += 1
        print(f"   {question:<21} {seconds:5.2f} s  {verdict}")
        if question == "joined with airlines":
            worst = ours["arr_delay_mean"].idxmax()
            highlight = f"{worst} was latest: {ours.loc[worst, 'arr_delay_mean']:.1f} minutes on average"
    print(f"   {highlight}")
    return different


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
