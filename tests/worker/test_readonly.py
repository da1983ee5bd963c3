"""Which failures are about read-only memory."""

from __future__ import annotations

import io
import logging

import numpy as np
import pandas as pd
import pytest

from holdfast.cluster.worker.readonly import Writers, is_read_only_failure


def frozen():
    array = np.arange(10.0)
    array.flags.writeable = False
    return array


def write_item():
    frozen()[0] = 1


def write_in_place():
    array = frozen()
    array += 1


def sort():
    frozen().sort()


def out():
    np.add(1, 2, out=frozen())


def resize_flag():
    np.frombuffer(bytes(8)).flags.writeable = True


def memory():
    memoryview(bytes(3))[0] = 1


def from_buffer():
    import ctypes

    (ctypes.c_char * 3).from_buffer(bytes(3))


def pandas():
    pd.Series(frozen(), copy=False).array[0] = 1


def cython():
    raise ValueError("buffer source array is read-only")


@pytest.mark.parametrize(
    "write", [write_item, write_in_place, sort, out, resize_flag, memory, from_buffer, pandas, cython]
)
def test_what_is_about_memory(write):
    with pytest.raises((ValueError, TypeError)) as raised:
        write()
    assert is_read_only_failure(raised.value), raised.value


def test_what_is_not():
    with pytest.raises(io.UnsupportedOperation) as raised, open("/dev/null") as file:
        file.write("x")
    assert not is_read_only_failure(raised.value)
    assert not is_read_only_failure(ValueError("wrong value"))
    assert not is_read_only_failure(KeyError("array is read-only"))
    assert not is_read_only_failure(OSError(30, "Read-only file system"))


def test_each_function_is_logged_once(caplog):
    writers = Writers()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            writers.add(b"digest", "mine.compute", ValueError("array is read-only"))
    assert b"digest" in writers
    assert b"other" not in writers
    assert [record.getMessage().split()[0] for record in caplog.records] == ["mine.compute"]
