"""Whether a value came back as it was."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import sparse


def is_valid(value: pa.Array | pa.ChunkedArray | pa.Table) -> bool:
    """Whether Arrow made a valid array: some with dictionaries below a null of a fixed-size list are not."""
    try:
        value.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def assert_same(back: Any, value: Any) -> None:
    """Asserts that ``back`` has the type and the contents of ``value``, all the way down."""
    assert type(back) is type(value)
    if isinstance(value, np.ma.MaskedArray):
        assert_same(back.data, value.data)
        assert_same(np.ma.getmaskarray(back), np.ma.getmaskarray(value))
        assert np.asarray(back.fill_value).tobytes() == np.asarray(value.fill_value).tobytes()
        assert (back.mask is np.ma.nomask) == (value.mask is np.ma.nomask)
    elif isinstance(value, np.ndarray):
        assert (back.dtype, back.dtype.metadata, back.shape) == (value.dtype, value.dtype.metadata, value.shape)
        assert back.tobytes() == value.tobytes()
    elif isinstance(value, memoryview):
        assert (back.format, back.shape, back.tobytes()) == (value.format, value.shape, value.tobytes())
    elif isinstance(value, (pa.Array, pa.ChunkedArray, pa.Table, pa.RecordBatch)):
        if is_valid(value):
            back.validate(full=True)
        if isinstance(value, (pa.Table, pa.RecordBatch)):
            assert back.schema.equals(value.schema, check_metadata=True)
        else:
            assert back.type == value.type
        assert repr(back.to_pylist()) == repr(value.to_pylist())  # a NaN isn't equal to itself
    elif isinstance(value, pd.DataFrame):
        pd.testing.assert_frame_equal(back, value)
    elif isinstance(value, pd.Series):
        pd.testing.assert_series_equal(back, value)
    elif isinstance(value, pd.Index):
        pd.testing.assert_index_equal(back, value)
    elif sparse.issparse(value):
        assert np.array_equal(back.toarray(), value.toarray())
    elif dataclasses.is_dataclass(value):
        assert_same(vars(back), vars(value))
    elif isinstance(value, dict):
        assert list(back) == list(value)
        assert_same(list(back.values()), list(value.values()))
    elif isinstance(value, (list, tuple, collections.deque)):
        assert len(back) == len(value)
        for one, other in zip(back, value, strict=True):
            assert_same(one, other)
    elif hasattr(value, "equals"):  # an Arrow tensor, a polars frame
        assert back.equals(value)
    else:
        assert back == value
