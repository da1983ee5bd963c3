"""Another session: list what is published, get it, explore it, plot it, and compare every number with Iris alone."""

from __future__ import annotations

import sys
import time
from collections import Counter

import dask
from iris.cube import Cube, CubeList
from weather import load, means

from holdfast import Client


def main(address: str, picture: str = "") -> int:
    with Client(address) as client:
        for name, about in client.list_datasets(detail=True).items():
            print(f"   {name}: {about['kind']}, {about['length']} cubes, {about['nbytes']:,} bytes, durable")
        lazy, in_memory = client.get_dataset("models", "models_in_memory")
        parameters = Counter(cube.name() for cube in in_memory)
        print("   parameters:", ", ".join(f"{name} ({count})" for name, count in parameters.items()))
        forecasts = unified(in_memory)
        print(f"   all forecasts in one view: {forecasts.summary(shorten=True)}")
        if picture:
            plot(forecasts[0, 0], picture)
        return compare(lazy, in_memory)


def unified(cubes: CubeList) -> Cube:
    """The forecasts of all members and months as one cube, which is as lazy as its parts."""
    return cubes.extract("surface_temperature").merge_cube()


def plot(cube: Cube, picture: str) -> None:
    """Draw a map into a file."""
    import matplotlib  # here, since this takes seconds

    matplotlib.use("Agg")
    from iris import quickplot
    from matplotlib import pyplot

    quickplot.contourf(cube)
    pyplot.savefig(picture)
    print(f"   drew the first forecast: {picture}")


def compare(*published: CubeList) -> int:
    """Compute every mean on the cluster and in this process; return how many differ."""
    with dask.config.set(scheduler="threads"):
        cubes = load()
        expected = means([*cubes, unified(cubes)])
    different = 0
    for cubes in published:
        begun = time.perf_counter()
        found = means([*cubes, unified(cubes)])
        wrong = sum(ours != theirs for ours, theirs in zip(found, expected, strict=True))
        print(f"   {len(found)} means in {time.perf_counter() - begun:.1f} s, {wrong} of them not as Iris has them")
        different += wrong
    return different


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) != 0)
