"""The first process: read, derive, persist, publish, leave."""

from __future__ import annotations

import sys
import time

import dask.dataframe as dd
from data import READ_OPTIONS, derive

from holdfast import Client, wait
from holdfast.cluster import protocol
from holdfast.objectstore.sizes import format_size


def main(address: str, csv: str) -> None:
    with Client(address) as client:
        begun = time.perf_counter()
        flights = derive(dd.read_csv(csv, blocksize="1MB", **READ_OPTIONS)).persist()
        wait(flights)
        seconds = time.perf_counter() - begun
        rows = len(flights)
        client.publish_dataset(flights=flights)
        nbytes = sum(entry["nbytes"] for entry in partitions_in_memory(client))
        print(
            f"   read and persisted {rows:,} flights in {seconds:.2f} s: {flights.npartitions} partitions, "
            f"{len(flights.columns)} columns, {format_size(nbytes)} in the object store"
        )
        print("   published them as 'flights', and ends")


def partitions_in_memory(client: Client) -> list[dict[str, int]]:
    from holdfast.cluster.deploy.ask import ask

    return [
        entry
        for entry in ask(client.scheduler_address, protocol.requests.MEMORY)["objects"]
        if "dataset" in str(entry["holders"])
    ]


if __name__ == "__main__":
    main(*sys.argv[1:])
