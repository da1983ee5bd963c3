"""What is put is written once, straight into the arena: nothing of its size is allocated on the way."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from holdfast.objectstore import Store

N = 1_000_000
NUMBERS = np.arange(float(N))
TABLE = pa.table({"x": NUMBERS, "text": pa.array(np.char.mod("%08d", np.arange(N)))})
VALUES: dict[str, Any] = {
    "array": NUMBERS,
    "strided array": np.ones((2000, 1000))[:, ::2],
    "array in Fortran's order": np.asfortranarray(NUMBERS.reshape(1000, 1000)),
    "table": TABLE,
    "slice of a table": TABLE.slice(1000, N // 2),
    "record batch": TABLE.to_batches()[0],
    "frame": pd.DataFrame({"x": NUMBERS, "y": NUMBERS}),
    "frame in Arrow": TABLE.to_pandas(types_mapper=pd.ArrowDtype),
    "containers": {"a": [NUMBERS, TABLE], "b": (NUMBERS[5:], bytes(4 << 20))},
    "dictionary of arrays": {"a": NUMBERS, "b": NUMBERS[::-1]},
    "bytes": bytes(8 << 20),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_put_makes_one_copy(name: str, store: Store) -> None:
    store.put(np.ones(10))  # what is imported and leased for a first one
    before = pa.default_memory_pool()
    arrow = pa.proxy_memory_pool(before)
    pa.set_memory_pool(arrow)
    tracemalloc.start()
    try:
        object_id = store.put(VALUES[name])
        _, python = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
    (listed,) = [item for item in store.list() if item["id"] == object_id.hex()]
    assert listed["nbytes"] > 3_000_000
    assert python + (arrow.max_memory() or 0) < listed["nbytes"] / 4
