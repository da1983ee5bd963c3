"""Files of another's that a store adopts: objects that are read in place, and whose files stay."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xxhash

from holdfast.objectstore import ObjectID, ObjectNotFoundError, SpillError, Store, StoreServer, connect, encode
from holdfast.objectstore.core.objects import ObjectMeta

MIB = 1 << 20
ARRAY = np.arange(MIB)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoreServer]:
    (tmp_path / "spill").mkdir()
    with StoreServer(8 * MIB, spill_directory=tmp_path / "spill") as server:
        yield server
    assert not list((tmp_path / "spill").iterdir())
    assert not file_was_deleted(tmp_path)


def file_was_deleted(tmp_path: Path) -> bool:
    return not (tmp_path / "object").exists()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "object"
    path.write_bytes(encode(ARRAY).to_bytes())
    return path


def adopt(server: StoreServer, path: Path, number: int = 1) -> ObjectID:
    object_id = ObjectID(number.to_bytes(16, "little"))
    data = path.read_bytes()
    meta = ObjectMeta(key="x", owner="somebody", type_name="numpy.ndarray")
    assert server.adopt(object_id, str(path), len(data), xxhash.xxh3_64_intdigest(data), meta)
    return object_id


def test_it_is_read_in_place(server: StoreServer, store: Store, file: Path) -> None:
    object_id = adopt(server, file)
    value = store.get(object_id)
    assert (value == ARRAY).all()
    assert str(file) in Path("/proc/self/maps").read_text()
    assert server.stats()["used"] == 0
    (item,) = store.list()
    assert (item["state"], item["key"], item["owner"]) == ("spilled", "x", "somebody")


def test_the_file_stays(server: StoreServer, store: Store, file: Path) -> None:
    first, second = adopt(server, file, 1), adopt(server, file, 2)
    values = [store.get(first), store.get(second)]
    server.delete([first])
    with pytest.raises(ObjectNotFoundError):
        store.get(first)
    assert (store.get(second) == values[0]).all()
    del values
    server.delete([second])
    assert not server.contains(second)
    assert (adopted_again(server, file) == ARRAY).all()


def adopted_again(server: StoreServer, file: Path) -> np.ndarray:
    with connect(server.socket_path, name="another") as store:
        return store.get(adopt(server, file, 3), writable=True)


def test_a_copy_to_write_to_leaves_the_file_as_it_is(server: StoreServer, store: Store, file: Path) -> None:
    before = file.read_bytes()
    value = store.get(adopt(server, file), writable=True)
    value[:] = 0
    assert file.read_bytes() == before


def test_who_waits_for_it_gets_it(tmp_path: Path, file: Path) -> None:
    async def fetch(object_id: ObjectID, sources: list[str]) -> None:
        assert sources == ["there"]
        adopt(server, file, 3)

    with (
        StoreServer(8 * MIB, spill_directory=tmp_path, fetch=fetch) as server,
        connect(server.socket_path, name="test") as store,
    ):
        assert (store.get(ObjectID((3).to_bytes(16, "little")), sources=["there"], timeout=10) == ARRAY).all()


def test_a_damaged_file_is_an_error(server: StoreServer, store: Store, file: Path) -> None:
    object_id = adopt(server, file)
    with file.open("r+b") as damaged:
        damaged.seek(5000)
        damaged.write(b"damage")
    with pytest.raises(SpillError, match="damaged"):
        store.get(object_id)
    assert not server.contains(object_id)
    again = adopt(server, file, 2)
    os.truncate(file, 100)
    with pytest.raises(SpillError):
        store.get(again)


def test_one_that_was_deleted_before_stays_deleted(server: StoreServer, file: Path) -> None:
    server.delete([ObjectID((1).to_bytes(16, "little"))])
    assert not server.contains(adopt(server, file))


def test_a_store_without_files_adopts_none(file: Path) -> None:
    with StoreServer(8 * MIB, spill=False) as server:
        assert not server.adopt(ObjectID(bytes(16)), str(file), 5, 7)
        assert not server.contains(ObjectID(bytes(16)))
