"""What is published: the output of several weather and climate models, from the package iris-sample-data."""

from __future__ import annotations

from collections.abc import Iterable

import dask
import iris
import iris_sample_data
import numpy as np
from iris.coords import AuxCoord
from iris.cube import Cube, CubeList

#: Thirteen forecasts of one season, and two scenarios of the climate until 2099.
FILES = ["GloSea4/*.pp", "A1B_north_america.nc", "E1_north_america.nc"]


def load() -> CubeList:
    """Every field as a cube. Iris reads what describes them, and leaves their data in the files."""
    return iris.load_raw([f"{iris_sample_data.path}/{name}" for name in FILES], callback=_number)


def _number(cube: Cube, field: object, path: str) -> None:
    """Some forecasts don't say which of the thirteen they are; the names of their files do."""
    if "GloSea4" in path and not cube.coords("realization"):
        cube.add_aux_coord(AuxCoord(np.int32(path.removesuffix(".pp")[-3:]), "realization", units="1"))


def means(cubes: Iterable[Cube]) -> list[float]:
    """The mean of each cube, all of them computed together, by the scheduler that dask is to use."""
    return [float(mean) for mean in dask.compute(*(cube.lazy_data().mean() for cube in cubes))]
