"""What is too large is refused in the client, at the call; what isn't is cut so that it can be sent."""

from __future__ import annotations

import dask
import numpy as np
import pytest

from holdfast import Client, LocalCluster, StoreFullError
from holdfast.client.packing.graphs import split
from holdfast.client.packing.keys import wire_key
from holdfast.cluster.comm import frames
from holdfast.cluster.comm.frame_reader import FrameReader
from holdfast.cluster.protocol import limits

MB = 1_000_000
COUNT = frames.MAX_HEADER_NBYTES // MB + 20


def inc(x):
    return x + 1


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(n_workers=1, threads_per_worker=1, object_store_memory="64 MB") as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster, set_as_default=False) as client:
        yield client
        assert client.submit(inc, 1, pure=False).result(30) == 2  # its connection was not lost


def test_more_keys_of_a_megabyte_than_fit_into_a_frame(client):
    keys = [f"{number:03}" + "k" * MB for number in range(COUNT)]
    futures = client.map(inc, range(COUNT), key=keys)
    assert client.gather(futures) == list(range(1, COUNT + 1))
    assert len(client.who_has(futures[:50])) == 50
    total = client.submit(sum, futures[:30])
    assert total.result(60) == sum(range(1, 31))


@pytest.mark.parametrize(
    "key", ["k" * (limits.MAX_KEY_NBYTES + 1), ("a", "\u20ac" * MB), ("k" * MB, 1, ("k" * MB, "k" * MB))]
)
def test_a_key_that_is_too_large_is_refused_at_the_call_with_its_size_and_the_limit(client, key):
    for call in (
        lambda: client.submit(inc, 1, key=key),
        lambda: client.map(inc, [1], key=[key]),
        lambda: client.scatter({key: 1}),
        lambda: client.get({key: (inc, 1)}, key),
    ):
        with pytest.raises(
            ValueError, match=r"it takes [23],\d{3},\d{3} bytes, and a key may take 2,097,152"
        ) as caught:
            call()
        assert len(str(caught.value)) < 500
    assert wire_key("k" * limits.MAX_KEY_NBYTES)


def test_the_keys_of_a_map_are_longer_than_their_beginning(client):
    with pytest.raises(ValueError, match="a key may take"):
        client.map(inc, [1], key="k" * limits.MAX_KEY_NBYTES)


def test_a_task_whose_dependencies_have_too_long_names_is_refused_at_the_call(client):
    futures = client.map(inc, range(70), key=[f"{number}" + "k" * 2 * MB for number in range(70)])
    with pytest.raises(ValueError, match=r"70 keys of 14\d,\d{3},\d{3} bytes together, and they may take 134,217,728"):
        client.submit(sum, futures)
    with pytest.raises(ValueError, match=r"keys of .* bytes together"):
        client.publish_dataset(futures, name="too-long")


def test_names_that_are_too_long(client, cluster):
    long = "n" * 2000
    for call in (
        lambda: client.publish_dataset(1, name=long),
        lambda: client.get_dataset(long),
        lambda: client.submit(inc, 1, workers=[long]),
        lambda: client.submit(inc, 1, resources={long: 1}),
        lambda: Client(cluster, name=long, set_as_default=False),
    ):
        with pytest.raises(ValueError, match=r"has a name of 2,000 characters, and one of 1,024 can be sent"):
            call()
    with pytest.raises(ValueError, match="nan"):
        client.wait_for_workers(1, timeout=float("nan"))
    client.wait_for_workers(1, timeout=float("inf"))


def test_data_that_is_larger_than_the_store_says_what_to_do(client):
    large = np.zeros(10 * MB)
    for call in (
        lambda: client.publish_dataset(large, name="large"),
        lambda: client.submit(len, large),
        lambda: client.submit(lambda: len(large)),
        lambda: client.compute(dask.delayed(len)(large)),
        lambda: client.scatter(large),
    ):
        with pytest.raises(StoreFullError, match=r"no room for data of this client: .* more than the 64\.0 MB"):
            call()


def test_a_type_with_a_long_name_costs_no_worker_its_place(client):
    def odd():
        return type("T" * 5000, (), {"__reduce__": lambda self: (int, ())})()

    assert client.submit(odd, pure=False).result(30) == 0
    assert len(client.nthreads()) == 1


def test_the_messages_of_a_graph_are_cut_where_their_keys_take_much():
    tasks = [(f"{number}" + "k" * MB, None, b"", ()) for number in range(40)]
    parts = list(split(tasks, [tasks[-1][0]], 500))
    assert [task for part, _, _ in parts for task in part] == tasks
    assert max(len(part) for part, _, _ in parts) == 5
    assert [len(part) for part, _, _ in split([(n, None, b"", ()) for n in range(1200)], [], 500)] == [500, 500, 200]


class TestFrames:
    def test_a_list_is_cut_by_bytes(self):
        keys = [f"{number:03}" + "k" * MB for number in range(10)]
        batches = FrameReader().feed(b"".join(frames.pack([("first",), ("release", keys), ("last",)])))
        messages = [message for batch in batches for message in batch]
        assert messages[0] == ("first",)
        assert messages[-1] == ("last",)
        small = [message for message in messages if message[0] == "release"]
        assert [key for _, part in small for key in part] == keys

    def test_many_things_with_buffers_are_cut_between_these(self, monkeypatch):
        monkeypatch.setattr(frames, "BUFFERS_TARGET_NBYTES", 3 << 20)
        monkeypatch.setattr(frames, "MESSAGE_TARGET_NBYTES", 4000)
        payload = bytes(range(256)) * 4096
        functions = [(bytes([n]) * 16, frames.raw(payload) if n % 3 == 0 else b"x" * 100) for n in range(200)]
        reader = FrameReader()
        batches = reader.feed(b"".join(map(bytes, frames.pack([("functions", functions), ("forget", [])]))))
        assert len(batches) > 10
        found = [entry for batch in batches for message in batch if message[0] == "functions" for entry in message[1]]
        assert [(digest, bytes(blob)) for digest, blob in found] == [
            (digest, bytes(getattr(blob, "data", blob))) for digest, blob in functions
        ]
        assert batches[-1][-1] == ("forget", ())

    @pytest.mark.parametrize("count", [1, 15, 16, 63, 64, 65, 79, 80, 128, 129, 500])
    def test_what_is_small_stays_one_message(self, count):
        message = ("cancelled", tuple(range(count)), "reason", 7)
        assert FrameReader().feed(b"".join(frames.pack([message]))) == [(message,)]

    def test_what_cannot_be_cut_and_is_too_large_is_an_error(self, monkeypatch):
        monkeypatch.setattr(frames, "MAX_HEADER_NBYTES", 2 << 20)
        with pytest.raises(ValueError, match="more than a frame may have"):
            frames.pack([("request", 1, "who-has", {"keys": ["k" * (3 << 20)]})])
