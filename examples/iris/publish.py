"""The first session: load the model output lazily, publish it, and end."""

from __future__ import annotations

import sys
import time

from iris.cube import CubeList
from weather import load

from holdfast import Client


def main(address: str) -> None:
    with Client(address) as client:
        begun = time.perf_counter()
        cubes = load()
        print(f"   loaded {len(cubes)} cubes lazily in {time.perf_counter() - begun:.1f} s")

        # The cubes as they are: who gets them reads the files.
        client.publish_dataset(models=cubes, durable=True)

        # The cubes with their data in the cluster.
        begun = time.perf_counter()
        persisted = client.persist([cube.lazy_data() for cube in cubes])
        in_memory = CubeList(cube.copy(data) for cube, data in zip(cubes, persisted, strict=True))
        client.publish_dataset(models_in_memory=in_memory, durable=True)
        print(f"   persisted and published them in {time.perf_counter() - begun:.1f} s, and ends")


if __name__ == "__main__":
    main(*sys.argv[1:])
