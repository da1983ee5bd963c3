"""Which failures are about read-only memory."""

from __future__ import annotations

import ctypes
import io
import logging
import os
import random
import re
import socket
import struct

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from holdfast.cluster.worker.readonly import MAX_LINKS, WORDINGS, Writers, is_refused_write
from holdfast.objectstore import decode, encode


def stored(value):
    """As it looks in a store: over memory that can't be written."""
    return decode(bytes(encode(value).to_bytes()))


def numbers():
    return stored(np.arange(16.0))


def integers():
    return stored(np.arange(16))


def octets():
    return stored(np.arange(16, dtype="u1"))


def square():
    return numbers().reshape(4, 4)


def sparse():
    from scipy.sparse import csr_matrix

    return stored(csr_matrix((np.zeros(3), np.array([2, 1, 0], "i4"), np.array([0, 3, 3, 3], "i4")), shape=(3, 3)))


def fft():
    import scipy.fft

    scipy.fft.fft(stored(np.ones(4, complex)), overwrite_x=True)


def gaussian():
    import scipy.ndimage

    scipy.ndimage.gaussian_filter(numbers(), 1, output=numbers())


def distances():
    from scipy.spatial.distance import cdist

    cdist(square(), square(), out=square())


def shortest_paths():
    from scipy.sparse.csgraph import shortest_path

    shortest_path(square(), overwrite=True)


def add_one(array):
    array += 1


def assign(array, item, value):
    array[item] = value


def make_writable(array):
    array.flags.writeable = True


def call_c():
    memset = ctypes.CDLL(None).memset
    memset.argtypes = [np.ctypeslib.ndpointer(flags="W")]
    memset(numbers())


def receive():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.recv_into(octets())


def read(buffering):
    with open("/dev/zero", "rb", buffering=buffering) as file:
        file.readinto(octets())


def read_into_the_page():
    """A system call that nobody has asked whether it may write there."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/dev/zero", "rb", buffering=0) as file:
        address = ctypes.cast(libc.memset, ctypes.c_void_p)  # the code of a function: nobody can write to it
        if libc.read(file.fileno(), address, 1) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def says(text, kind=ValueError):
    def raise_it():
        raise kind(text)

    return raise_it


class TypingError(Exception):
    """numba's."""


class error(Exception):
    """cv2's."""


NUMPY = {
    "item": lambda: assign(numbers(), 0, 1),
    "in place": lambda: add_one(numbers()),
    "sort": lambda: numbers().sort(),
    "partition": lambda: numbers().partition(3),
    "fill": lambda: numbers().fill(0),
    "put": lambda: numbers().put(0, 1),
    "putmask": lambda: np.putmask(numbers(), [True] * 16, 1),
    "place": lambda: np.place(numbers(), numbers() > 3, [1]),
    "copyto": lambda: np.copyto(numbers(), 1),
    "byteswap": lambda: numbers().byteswap(inplace=True),
    "setflags": lambda: numbers().setflags(write=True),
    "flags": lambda: make_writable(numbers()),
    "flat": lambda: assign(numbers().flat, 0, 1),
    "real": lambda: assign(stored(np.ones(3, complex)).real, 0, 1),
    "record": lambda: assign(stored(np.zeros(3, dtype=[("a", "f8")]))[0], "a", 1),
    "masked": lambda: assign(np.ma.MaskedArray(numbers(), mask=False), 0, 1),
    "out": lambda: np.add(1, 2, out=numbers()),
    "take": lambda: np.take(numbers(), [0], out=numbers()[:1]),
    "einsum": lambda: np.einsum("ij->i", square(), out=numbers()[:4]),
    "nditer": lambda: np.nditer(numbers(), op_flags=["readwrite"]),
    "nan_to_num": lambda: np.nan_to_num(numbers(), copy=False),
    "fill_diagonal": lambda: np.fill_diagonal(square(), 0),
    "shuffle": lambda: np.random.default_rng().shuffle(numbers()),
    "permuted": lambda: np.random.default_rng().permuted(numbers(), out=numbers()),
    "random": lambda: np.random.default_rng().random(out=numbers()),
    "ndpointer": call_c,
    "as_ctypes": lambda: np.ctypeslib.as_ctypes(numbers()),
    "dlpack": lambda: numbers().__dlpack__(),
}
PYTHON = {
    "memoryview": lambda: assign(memoryview(octets()), 0, 1),
    "from_buffer": lambda: (ctypes.c_char * 3).from_buffer(octets()),
    "random.shuffle": lambda: random.shuffle(numbers()),
    "BytesIO.readinto": lambda: io.BytesIO(b"abc").readinto(octets()),
    "file.readinto": lambda: read(-1),
    "raw.readinto": lambda: read(0),
    "recv_into": receive,
    "readv": lambda: os.readv(0, [octets()]),
    "pack_into": lambda: struct.pack_into("<d", octets(), 0, 1.0),
    "Struct.pack_into": lambda: struct.Struct("<d").pack_into(octets(), 0, 1.0),
    "EFAULT": read_into_the_page,
}
LIBRARIES = {
    "sparse items": lambda: assign(sparse(), (0, 0), 1),
    "sort_indices": lambda: sparse().sort_indices(),
    "eliminate_zeros": lambda: sparse().eliminate_zeros(),
    "scipy.fft": fft,
    "scipy.ndimage": gaussian,
    "scipy.spatial": distances,
    "csgraph": shortest_paths,
    "pyarrow.readinto": lambda: pa.BufferReader(b"abc").readinto(octets()),
    "pyarrow.Buffer": lambda: assign(memoryview(pa.py_buffer(bytes(3))), 0, 1),
    "pyarrow.to_numpy": lambda: assign(pa.array([1, 2]).to_numpy(), 0, 1),
}
# Of libraries that aren't here: their own words.
LITERALS = {
    "numba": says(
        "Failed in nopython mode pipeline (step: nopython frontend)\n"
        "Cannot modify readonly array of type: readonly array(float64, 1d, C)",
        TypingError,
    ),
    "numba's signatures": says("No matching definition for argument type(s) readonly array(int64, 1d, C)", TypeError),
    "cv2": says(
        "OpenCV(4.10.0) :-1: error: (-5:Bad argument) in function 'line'\n> Overload resolution failed:\n"
        ">  - img marked as output argument, but provided NumPy array marked as readonly\n"
        ">  - Expected Ptr<cv::UMat> for argument 'img'",
        error,
    ),
    "h5py": says("Array must be C-contiguous and writable", TypeError),
    "numexpr": says("operand array with iterator write flag set is read-only"),
    "Cython": says("buffer source array is read-only"),
    "Cython's slices": says("Cannot create writable memory view from read-only memoryview", TypeError),
    "pybind11": says("Writable buffer requested for readonly storage", BufferError),
    "Python's buffers": says("Object is not writable.", BufferError),
    "pandas' own": says("Cannot modify read-only array"),
    "array API": says("Can't update read-only array [1 2 3]"),
}
REFUSALS = {**NUMPY, **PYTHON, **LIBRARIES, **LITERALS}


def raised_by(write):
    with pytest.raises(Exception) as raised:  # noqa: PT011 - of any type
        write()
    return raised.value


@pytest.mark.parametrize("write", REFUSALS.values(), ids=REFUSALS)
def test_refused_writes_are_recognised(write):
    raised = raised_by(write)
    assert is_refused_write(raised), repr(raised)


def test_each_wording_is_said_by_somebody():
    texts = [str(raised_by(write)) for write in REFUSALS.values()]
    for wording in WORDINGS:
        assert any(re.search(wording.pattern, text) for text in texts), wording


SERIES = {
    "datetimes": pd.Series(pd.date_range("2020", periods=2000)),
    "time zones": pd.Series(pd.date_range("2020", periods=2000, tz="Europe/Paris")),
    "timedeltas": pd.Series(pd.to_timedelta(np.arange(2000), "s")),
    "periods": pd.Series(pd.period_range("2020", periods=2000, freq="D")),
    "intervals": pd.Series(pd.interval_range(0, 2000)),
    "categories": pd.Series(pd.Categorical(["a", "b"] * 1000)),
    "floats": pd.Series(np.arange(2000.0)),
    "nullable": pd.Series(np.arange(2000), dtype="Int64"),
    "booleans": pd.Series(np.arange(2000) % 2 == 0),
}


@pytest.mark.filterwarnings("ignore::pandas.errors.ChainedAssignmentError", "ignore::FutureWarning")
@pytest.mark.parametrize("series", SERIES.values(), ids=SERIES)
def test_what_pandas_makes_of_a_refused_write_is_recognised(series):
    writes = {
        "iloc": lambda: assign(stored(series).iloc, 0, series.iloc[1]),
        "mask": lambda: assign(stored(series), series.index < 5, series.iloc[7]),
        "array": lambda: assign(stored(series).array, 0, series.iloc[1]),
        "loc": lambda: assign(stored(series.to_frame("a")).loc, (0, "a"), series.iloc[1]),
        "iat": lambda: assign(stored(series.to_frame("a")).iat, (0, 0), series.iloc[1]),
        "mask in place": lambda: stored(series).mask(series.index < 4, series.iloc[5], inplace=True),
        "replace in place": lambda: stored(series).replace(series.iloc[0], series.iloc[1], inplace=True),
    }
    for name, write in writes.items():
        raised = raised_by(write)
        assert is_refused_write(raised), f"{name}: {raised!r}"


# -- in what leads to an error


def refused():
    return raised_by(NUMPY["item"])


def raised_from(cause):
    try:
        try:
            raise cause
        except Exception as error:
            raise LookupError("a user's own") from error
    except LookupError as error:
        return error


def raised_from_none():
    try:
        try:
            raise refused()
        except ValueError:
            raise LookupError("a user's own") from None
    except LookupError as error:
        return error


def raised_beside(cause):
    try:
        try:
            raise cause
        except Exception:
            {}["a user's own"]
    except KeyError as error:
        return error


def long_chain(length):
    error = refused()
    for number in range(length):
        error, inner = LookupError(number), error
        error.__cause__ = inner
    return error


def circle(error):
    other = LookupError("round")
    error.__context__, other.__context__ = other, error
    return other


CHAINS = {
    "from": lambda: raised_from(refused()),
    "from None": raised_from_none,
    "beside": lambda: raised_beside(refused()),
    "both": lambda: raised_from(raised_beside(refused())),
    "a group": lambda: ExceptionGroup("several", [LookupError(), ExceptionGroup("more", [refused()])]),
    "from a group": lambda: raised_from(ExceptionGroup("several", [LookupError(), refused()])),
    "a long chain": lambda: long_chain(MAX_LINKS - 1),
    "a circle": lambda: circle(refused()),
}


@pytest.mark.parametrize("make", CHAINS.values(), ids=CHAINS)
def test_a_refused_write_is_found_behind_other_errors(make):
    assert is_refused_write(make())


# -- what is none


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def written_file():
    with open("/dev/null") as file:
        file.write("x")


OTHERS = {
    "another": says("wrong value"),
    "a file": written_file,
    "a file, in words": says("the file is read-only"),
    "a file system": says("[Errno 30] Read-only file system", OSError),
    "a user's object": says("value not writable"),
    "a data source": says("the data source is read-only"),
    "a bucket": says("Object is not writable."),
    "an attribute": lambda: setattr(range(3), "start", 1),
    "a string to read into": lambda: io.BytesIO(b"abc").readinto("abc"),
    "bytes to pack into": lambda: struct.pack_into("<d", bytes(8), 0, 1.0),
    "an item of bytes": lambda: assign(b"abc", 0, 1),
    "no permission": says("array is read-only", PermissionError),
    "resize": lambda: numbers().resize(3),
    "no room": lambda: os.stat("/dev/null/x"),
    "none at all": says(""),
    "unspeakable": says("", Unspeakable),
    "a circle": lambda: (_ for _ in ()).throw(circle(ValueError("wrong value"))),
    "an endless chain": lambda: (_ for _ in ()).throw(long_chain(MAX_LINKS)),
}


@pytest.mark.parametrize("fail", OTHERS.values(), ids=OTHERS)
def test_other_errors_are_none(fail):
    raised = raised_by(fail)
    assert not is_refused_write(raised), repr(raised)


def test_each_function_is_logged_once(caplog):
    writers = Writers()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            writers.add(b"digest", "mine.compute", ValueError("array is read-only"))
    assert b"digest" in writers
    assert b"other" not in writers
    assert [record.getMessage().split()[0] for record in caplog.records] == ["mine.compute"]
