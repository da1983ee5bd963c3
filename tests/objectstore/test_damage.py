"""Damaged encodings: an error that says so, or a value; never a crash.

Pickles are left whole: what a damaged one does is pickle's own, and it may run what it happens to name.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import FACTOR, examples
from holdfast.objectstore import DecodeError, decode, encode

ARRAY = encode(np.arange(24.0).reshape(4, 6)).to_bytes()
WITH_BUFFERS = encode([np.arange(10), pa.array(["a", "b"]), memoryview(b"abc"), np.ma.zeros(4)]).to_bytes()
SIZES_END = 16 + 8 * int.from_bytes(WITH_BUFFERS[4:8], "little")


def decoded_or_refused(flat: bytes) -> Any:
    try:
        return decode(flat)
    except DecodeError:
        return None


@given(st.integers(0, len(ARRAY)))
@examples(50)
def test_an_array_cut_short(end: int) -> None:
    if end < len(ARRAY):
        with pytest.raises(DecodeError):
            decode(ARRAY[:end])


@given(st.binary(min_size=4, max_size=4), st.integers(0, 200))
@examples(200)
def test_an_array_with_another_size_of_header(size: bytes, keep: int) -> None:
    decoded_or_refused(ARRAY[:4] + size + ARRAY[8 : 8 + keep])


@pytest.mark.parametrize("dtype", ["|O", ">q", "<M8[q]", "U99999999999", "", "f8,O"])
@pytest.mark.parametrize("shape", [(3,), (-1,), (2**62, 2**62), ("x",), 5])
@pytest.mark.parametrize("order", ["C", "X"])
def test_an_array_of_what_cannot_be(dtype: str, shape: Any, order: str) -> None:
    import pickle

    header = pickle.dumps((shape, dtype, order), 5)
    flat = ARRAY[:4] + len(header).to_bytes(4, "little") + header
    back = decoded_or_refused(flat.ljust(128, b"\xff"))
    assert back is None or not back.dtype.hasobject


@given(st.integers(4, SIZES_END - 1), st.integers(1, 255))
@examples(300)
def test_buffers_of_other_numbers_and_sizes(where: int, change: int) -> None:
    flat = bytearray(WITH_BUFFERS)
    flat[where] ^= change
    decoded_or_refused(bytes(flat))


@given(st.integers(0, len(WITH_BUFFERS) - 1))
@examples(50)
def test_buffers_cut_short(end: int) -> None:
    with pytest.raises(DecodeError):
        decode(WITH_BUFFERS[:end])


@given(st.binary(max_size=300))
@examples(300)
def test_random_bytes(data: bytes) -> None:
    if data[:1] not in (b"\x11", b"\x12", b"\x19"):
        decoded_or_refused(data)


# In a process of its own: that a stream is damaged may be seen by Arrow only as a signal.
_STREAMS = """
import random, sys
import pyarrow as pa
from holdfast.objectstore import DecodeError, decode, encode

views = pa.array(["a text of more than twelve bytes"] * 20, pa.string_view())
table = pa.table({
    "number": range(20), "text": ["x" * i for i in range(20)], "list": [[i] for i in range(20)], "view": views,
    "category": pa.array(list("ab") * 10).dictionary_encode(), "struct": [{"a": 1, "b": None}] * 20,
})
whole = [encode(table).to_bytes(), encode(table.slice(3, 9).to_batches()[0]).to_bytes()]
rng, refused, read, invalid = random.Random(sys.argv[1]), 0, 0, 0
for i in range(int(sys.argv[2])):
    flat = bytearray(rng.choice(whole))
    for _ in range(rng.randint(1, 4)):
        flat[rng.randrange(64, len(flat))] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
    if rng.random() < 0.2:
        del flat[rng.randrange(64, len(flat)):]
    try:
        back = decode(bytes(flat))
    except DecodeError:
        refused += 1
        continue
    try:
        back.validate(full=True)
        read += 1
    except (pa.ArrowInvalid, UnicodeDecodeError):
        invalid += 1
print(refused, read, invalid)
"""


def test_damaged_streams() -> None:
    number = 2000 * FACTOR
    command = [sys.executable, "-c", _STREAMS, "7", str(number)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100 * FACTOR, check=False)
    assert run.returncode == 0, run.stderr
    refused, read, invalid = map(int, run.stdout.split())
    assert refused + read + invalid == number
    assert refused
    assert read
