"""Frames survive the wire, in pieces of any size, and what is no frame is refused."""

from __future__ import annotations

import array
import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cluster.comm import frames
from holdfast.cluster.comm.frame_reader import FrameReader
from holdfast.cluster.comm.frames import Raw, pack, raw
from holdfast.cluster.errors import ProtocolError

scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner), max_leaves=8
)
messages = st.tuples(st.text(min_size=1), values)


def wire(batch):
    return b"".join(pack(batch))


@given(batch=st.lists(messages, min_size=1, max_size=5), data=st.data())
def test_messages_arrive_as_they_were_sent_however_the_stream_is_cut(batch, data):
    stream = wire(batch) + wire(batch)
    reader = FrameReader()
    received = []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        received += reader.feed(stream[:cut])
        stream = stream[cut:]
    assert received == [tuple(batch), tuple(batch)]


@given(buffers=st.lists(st.binary(max_size=100), max_size=5), cut=st.integers(1, 50))
def test_raw_buffers_travel_behind_the_header(buffers, cut):
    stream = wire([("op", [Raw(buffer) for buffer in buffers], "end")])
    reader = FrameReader()
    (batch,) = [b for i in range(0, len(stream), cut) for b in reader.feed(stream[i : i + cut])]
    ((operation, received, end),) = batch
    assert (operation, end) == ("op", "end")
    assert [bytes(view) for view in received] == buffers


def test_raw_buffers_are_neither_copied_on_the_way_out_nor_on_the_way_in():
    buffer = bytes(100_000)
    chunks = pack([("op", raw(buffer))])
    assert any(chunk is buffer for chunk in chunks)
    ((message,),) = FrameReader().feed(b"".join(chunks))
    assert isinstance(message[1], memoryview)
    assert raw(b"small") == b"small"
    assert raw(None) is None


def test_a_long_batch_becomes_several_frames():
    batch = [("op", i, bytes(1000)) for i in range(10_000)]
    chunks = pack(batch)
    assert len(chunks) > 1
    received = [message for frame in FrameReader().feed(b"".join(chunks)) for message in frame]
    assert received == batch


def test_a_few_messages_that_are_too_much_for_a_frame_become_several():
    batch = [("op", i, bytes(60_000)) for i in range(frames.FEW_MESSAGES)]
    chunks = pack(batch)
    assert len(chunks) == 3
    received = FrameReader().feed(b"".join(chunks))
    assert [len(frame) for frame in received] == [3, 3, 2]
    assert [message for frame in received for message in frame] == batch


def test_what_a_message_that_cannot_be_packed_has_put_behind_travels_with_no_other():
    with pytest.raises(TypeError):
        pack([("op", Raw(b"lost"), object())])
    assert len(pack([("op", 1)])) == 1
    with pytest.raises(TypeError):
        pack([("op", Raw(b"lost"), object())])
    assert pack([("op", Raw(b"sent"))])[1:] == [b"sent"]


def test_a_buffer_of_wider_items_is_sent_as_bytes():
    numbers = array.array("d", range(10))
    ((message,),) = FrameReader().feed(wire([("op", Raw(memoryview(numbers)))]))
    assert bytes(message[1]) == numbers.tobytes()
    assert all(memoryview(chunk).format == "B" for chunk in pack([("op", Raw(memoryview(numbers)))]))


def test_many_large_payloads_become_several_frames():
    batch = [("op", Raw(bytes(40 << 20)))] * 3
    chunks = pack(batch)
    sizes = [frames.prefix(bytes(chunk[:8]))[1] for chunk in chunks if len(chunk) < 1000]
    assert sizes == [2, 1]


def test_a_small_payload_does_not_keep_the_frame_that_it_came_in():
    stream = wire([("op", Raw(bytes(50_000)), Raw(bytes(1_000_000)))])
    ((message,),) = FrameReader().feed(stream)
    small, large = message[1:]
    assert len(small.obj) == 50_000
    assert large.obj is not None
    assert len(large.obj) == len(stream)


def test_text_that_is_no_valid_unicode_arrives():
    assert FrameReader().feed(wire([("op", "\udcff")])) == [(("op", "\udcff"),)]


def test_what_a_message_cannot_hold_is_named():
    with pytest.raises(TypeError, match="object"):
        pack([("op", object())])


@pytest.mark.parametrize(
    "stream",
    [
        struct.pack("<II", 2**31, 0),
        struct.pack("<II", 1, 2**31),
        struct.pack("<IIQ", 1, 1, 2**60) + b"\x90",
        struct.pack("<II", 1, 0) + b"\xc1",
        struct.pack("<II", 1, 0) + b"\x01",
        struct.pack("<II", 2, 0) + b"\x91\x90",
        struct.pack("<II", 3, 0) + b"\x91\x91\x01",
        struct.pack("<II", 4, 0) + b"\x91\x91\xd4\x01"[:4],
        struct.pack("<II", 9, 0) + b"\x91\x92\xa1a\xd6\x01\x00\x00\x00",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_no_frame_is_refused(stream):
    reader = FrameReader(frames.MAX_FRAME_NBYTES)
    with pytest.raises(ProtocolError):
        reader.feed(stream + bytes(64))


def test_a_frame_over_the_readers_limit_is_refused_before_it_is_read():
    reader = FrameReader(max_frame_nbytes=1000)
    with pytest.raises(ProtocolError, match="limit"):
        reader.feed(wire([("op", bytes(2000))])[:8])


@given(st.binary(max_size=200))
def test_garbage_raises_nothing_else(stream):
    reader = FrameReader(max_frame_nbytes=1 << 16)
    with contextlib.suppress(ProtocolError):
        assert all(isinstance(batch, tuple) for batch in reader.feed(stream))
