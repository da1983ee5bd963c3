"""Objects on disk: written when the store is full, read by mapping their files, lost one by one if a file is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from waiting import until

from holdfast.objectstore import ObjectID, ObjectNotFoundError, SpillError, Store, StoreFullError, StoreServer, connect
from holdfast.objectstore.shared.layout import Layout, Segment, in_one_piece
from holdfast.objectstore.spill.files import SpillDirectory

MIB = 1 << 20
CAPACITY = 32 * MIB


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoreServer]:
    with StoreServer(CAPACITY, spill_directory=tmp_path) as server:
        yield server
    assert not list(tmp_path.iterdir()), "the store left files behind"


def filled(store: Store, count: int = 12) -> list[ObjectID]:
    """Objects of 4 MiB, each full of its number; more than there is room for. What has to go has gone."""
    ids = [store.put(np.full(4 * MIB, number, "u1")) for number in range(count)]
    settled(store)
    return ids


def settled(store: Store) -> None:
    """Waits until nothing is on its way to disk."""
    until(lambda: not any(item["state"] == "spilling" for item in store.list()), "the store spills no more")


def put_until_full(store: Store) -> tuple[list[ObjectID], str]:
    """Objects like those of ``filled``, as many as fit in memory and on disk, and the error that came then."""
    ids: list[ObjectID] = []
    try:
        while len(ids) < 100:
            ids.append(store.put(np.full(4 * MIB, len(ids), "u1"), timeout=0.5))
    except StoreFullError as error:
        return ids, str(error)
    raise AssertionError("the store took everything")


def files(directory: Path) -> list[Path]:
    """The files of spilled objects, the oldest first."""
    return sorted(directory.glob("*/[0-9]*"), key=lambda path: int(path.name))


def number_in(path: Path) -> int:
    """The number of the object that was spilled to this file."""
    return path.read_bytes()[-1]


def spilled(store: Store) -> set[str]:
    return {item["id"] for item in store.list() if item["state"] == "spilled"}


def mapped_file(address: int) -> str:
    """What the mapping that an address of this process lies in is of."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _, rest = line.partition(" ")
        start, end = (int(part, 16) for part in span.split("-"))
        if start <= address < end:
            return rest.split(maxsplit=4)[-1].strip()
    raise AssertionError("the address is not mapped")


def test_ten_times_the_capacity_from_several_processes(
    server: StoreServer, store: Store, child: Callable[..., subprocess.Popen[str]]
) -> None:
    children = [child("put_and_read_back", server.socket_path, seed, 10 * CAPACITY // 3) for seed in range(3)]
    for process in children:
        assert process.stdout is not None
        assert process.stdout.readline().split() == ["fine"]
    stats = store.stats()
    assert stats["spilled_total_nbytes"] > 5 * CAPACITY
    assert stats["spill_error"] is None


def test_a_spilled_object_is_read_in_its_file_and_survives_its_delete(store: Store, tmp_path: Path) -> None:
    ids = filled(store)
    first = next(object_id for object_id in ids if object_id.hex() in spilled(store))
    view = store.get(first)
    path = mapped_file(view.ctypes.data)
    assert path.startswith(str(tmp_path))
    assert not store.address_in_arena(view.ctypes.data)
    assert not view.flags.writeable
    number = ids.index(first)
    store.delete(first)
    assert os.path.exists(path)
    part = view[5:10]
    del view
    assert part.tolist() == [number] * 5


def test_the_file_goes_with_the_last_view(
    server: StoreServer, store: Store, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    ids = filled(store)
    before = len(files(tmp_path))
    assert before == server.stats()["spilled"] > 0
    views = [store.get(object_id) for object_id in ids]
    store.delete(ids)
    assert len(files(tmp_path)) == before
    del views
    wait_until(lambda: not files(tmp_path))
    stats = server.stats()
    assert (stats["spilled"], stats["spilled_nbytes"], stats["spill_file_nbytes"], stats["used"]) == (0, 0, 0, 0)


def test_writable_gets_of_spilled_objects_are_isolated(store: Store) -> None:
    ids = filled(store)
    first = next(object_id for object_id in ids if object_id.hex() in spilled(store))
    mine, others = store.get(first, writable=True), store.get(first, writable=True)
    mine[:] = 77
    assert (others == ids.index(first)).all()
    assert (store.get(first) == ids.index(first)).all()
    assert (mine == 77).all()


def test_small_objects_share_files(
    server: StoreServer, store: Store, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    tables = [pa.table({"x": np.arange(10_000) + number}) for number in range(400)]
    ids = [store.put(table) for table in tables]
    settled(store)
    assert 0 < len(files(tmp_path)) < server.stats()["spilled"] / 10
    assert all(store.get(object_id).equals(table) for object_id, table in zip(ids, tables, strict=True))
    store.delete(ids)
    wait_until(lambda: not files(tmp_path))


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_file_loses_one_object(
    store: Store, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    ids = filled(store)
    path = files(tmp_path)[0]
    number = number_in(path)
    if damage == "flip":
        with path.open("r+b") as file:
            file.seek(3 * MIB)
            file.write(b"\xff")
    elif damage == "truncate":
        os.truncate(path, 3 * MIB)
    else:
        path.unlink()
    with pytest.raises(SpillError, match=str(ids[number])) as failure:
        store.get(ids[number])
    assert str(path) in str(failure.value)
    assert len([record for record in caplog.records if str(ids[number]) in record.getMessage()]) == 1
    assert not store.contains(ids[number])
    with pytest.raises(ObjectNotFoundError):
        store.get(ids[number])
    for other, object_id in enumerate(ids):
        if other != number:
            assert (store.get(object_id) == other).all()


def test_a_failure_that_passes_loses_nothing(store: Store) -> None:
    ids = filled(store)
    first = next(object_id for object_id in ids if object_id.hex() in spilled(store))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(SpillError, match=r"can't be read now: .* can't be opened: Too many open files"):
            store.get(first)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (store.get(first) == ids.index(first)).all()


def test_a_file_that_changes_after_it_was_read_is_verified_again(store: Store, tmp_path: Path) -> None:
    ids = filled(store)
    path = files(tmp_path)[0]
    number = number_in(path)
    assert store.get(ids[number])[0] == number
    with path.open("r+b") as file:
        file.seek(3 * MIB)
        file.write(b"\xff")
    with pytest.raises(SpillError, match="damaged"):
        store.get(ids[number])


def test_without_its_directory_a_store_goes_on_with_what_it_has_and_makes_another(
    server: StoreServer, store: Store, tmp_path: Path
) -> None:
    ids = filled(store)
    gone = spilled(store)
    assert gone
    (directory,) = tmp_path.glob("holdfast-spill-*")
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    for number, object_id in enumerate(ids):
        if object_id.hex() in gone:
            with pytest.raises(SpillError):
                store.get(object_id)
        else:
            assert (store.get(object_id) == number).all()
    more = filled(store)
    assert not directory.exists()
    assert files(tmp_path), "what came later went to another directory"
    assert all((store.get(object_id) == number).all() for number, object_id in enumerate(more))
    assert server.stats()["spill_error"] is None


def test_what_was_lost_with_its_directory_does_not_count_for_the_limit(tmp_path: Path) -> None:
    directory = SpillDirectory(str(tmp_path), limit=100)
    layouts = [in_one_piece(0, 80)]
    assert directory.write(memoryview(bytes(80)), layouts).error is None
    shutil.rmtree(directory.path)
    extents, error = directory.write(memoryview(bytes(80)), layouts)
    assert error is None
    assert extents[0] is not None
    assert directory.file_nbytes == 80
    directory.close()


def test_a_directory_that_cannot_be_made_anew_is_an_error_for_clients_that_wait(
    server: StoreServer, store: Store, tmp_path: Path
) -> None:
    (directory,) = tmp_path.glob("holdfast-spill-*")
    shutil.rmtree(directory)
    tmp_path.rmdir()
    tmp_path.touch()
    ids, error = put_until_full(store)
    assert "spilling to disk failed" in error
    assert str(tmp_path) in error
    assert str(tmp_path) in server.stats()["spill_error"]
    assert all((store.get(object_id) == number).all() for number, object_id in enumerate(ids))
    tmp_path.unlink()
    tmp_path.mkdir()


def test_the_limit_is_kept(tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    with (
        StoreServer(CAPACITY, spill_directory=tmp_path, spill_limit="10 MB") as server,
        connect(server.socket_path) as store,
    ):
        ids, error = put_until_full(store)
        assert "would exceed the limit of 10.0 MB" in error
        assert len(ids) >= 8
        assert 4 * MIB < server.stats()["spill_file_nbytes"] <= 10_000_000
        assert all((store.get(object_id) == number).all() for number, object_id in enumerate(ids))
        store.delete(ids)
        wait_until(lambda: server.stats()["spill_file_nbytes"] == 0)


def test_a_disk_that_is_full_is_an_error_for_clients_that_wait(
    tmp_path: Path, child: Callable[..., subprocess.Popen[str]]
) -> None:
    # A file may not be larger than this in that process: the kernel's own failure of a write.
    process = child("serve_with_small_files", tmp_path / "store.sock", tmp_path, 3 * MIB)
    assert process.stdout is not None
    assert process.stdout.readline().split() == ["serving"]
    with connect(tmp_path / "store.sock") as store:
        ids, error = put_until_full(store)
        assert "spilling to disk failed" in error
        assert "File too large" in error
        assert all((store.get(object_id) == number).all() for number, object_id in enumerate(ids))
        assert not files(tmp_path), "a file that was written in part stayed"


def test_a_tiny_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting a file system needs root: {mounted.stderr.decode().strip()}")
    try:
        with StoreServer(CAPACITY, spill_directory=disk) as server, connect(server.socket_path) as store:
            ids, error = put_until_full(store)
            assert "would fill its disk beyond 95%" in error
            assert server.stats()["spilled"] == 2
            assert all((store.get(object_id) == number).all() for number, object_id in enumerate(ids))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_what_a_killed_store_leaves_is_removed_by_the_next_and_nothing_else(
    tmp_path: Path, child: Callable[..., subprocess.Popen[str]]
) -> None:
    process = child("serve_with_small_files", tmp_path / "store.sock", tmp_path, resource.RLIM_INFINITY)
    assert process.stdout is not None
    assert process.stdout.readline().split() == ["serving"]
    with connect(tmp_path / "store.sock") as store:
        filled(store)
        (left,) = tmp_path.glob("holdfast-spill-*")
        with StoreServer(CAPACITY, spill_directory=tmp_path):
            assert left.exists(), "the directory of a living store was removed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert files(tmp_path)
    other = tmp_path / "holdfast-spill-file"
    other.touch()
    with StoreServer(CAPACITY, spill_directory=tmp_path):
        assert not left.exists()
    assert other.exists()


def test_a_store_that_may_not_spill_does_not(tmp_path: Path) -> None:
    with (
        StoreServer(CAPACITY, spill=False, spill_directory=tmp_path) as server,
        connect(server.socket_path) as store,
    ):
        ids, error = put_until_full(store)
    assert len(ids) == 7
    assert "spill" not in error
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(SpillError, match="choose another spill directory"),
        StoreServer(CAPACITY, spill_directory=tmp_path / "file" / "below"),
    ):
        pass


def test_a_large_request_is_not_starved(server: StoreServer, store: Store, wait_until: Callable[..., Any]) -> None:
    stop = threading.Event()

    def busy() -> None:
        with connect(server.socket_path) as other:
            while not stop.is_set():
                other.put(np.zeros(2 * MIB, "u1"))

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: server.stats()["spilled"] > 0)
        large = store.put(np.full(24 * MIB, 9, "u1"))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert (store.get(large) == 9).all()


def test_a_transfer_that_is_given_up_leaves_no_open_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verifying, go_on = threading.Event(), threading.Event()

    def verify(*_: object) -> None:
        verifying.set()
        go_on.wait()

    def open_files() -> list[str]:
        links = []
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                links.append(os.readlink(f"/proc/self/fd/{fd}"))
        return [link for link in links if link.startswith(str(tmp_path)) and not link.endswith("lock")]

    async def work() -> None:
        async with StoreServer(CAPACITY, spill_directory=tmp_path) as server:

            def fill() -> list[ObjectID]:
                with connect(server.socket_path) as store:
                    return filled(store)

            ids = await asyncio.to_thread(fill)
            monkeypatch.setattr(SpillDirectory, "_verify", verify)
            pinning = asyncio.ensure_future(server.pin(ids[number_in(files(tmp_path)[0])]))
            await asyncio.to_thread(verifying.wait)
            assert open_files()
            pinning.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pinning
            go_on.set()
            await asyncio.to_thread(until, lambda: not open_files(), "the file is closed")
            assert server.stats()["pins"] == 0

    asyncio.run(work())


def test_a_spilled_object_is_pinned_for_a_transfer(tmp_path: Path) -> None:
    async def work() -> None:
        async with StoreServer(CAPACITY, spill_directory=tmp_path) as server:

            def fill() -> list[ObjectID]:
                with connect(server.socket_path) as store:
                    return filled(store)

            ids = await asyncio.to_thread(fill)
            number = number_in(files(tmp_path)[0])
            pinned = await server.pin(ids[number])
            assert pinned is not None
            assert os.readlink(f"/proc/self/fd/{pinned.fd}") == str(files(tmp_path)[0])
            ((_, offset, nbytes),) = pinned.layout.segments
            server.delete(ids)
            assert set(os.pread(pinned.fd, 4 * MIB, offset + nbytes - 4 * MIB)) == {number}
            server.unpin(pinned)
            assert server.stats()["spilled"] == server.stats()["used"] == 0

            ids = await asyncio.to_thread(fill)
            path = files(tmp_path)[-1]
            number = number_in(path)
            os.truncate(path, 5)
            with pytest.raises(SpillError, match=str(ids[number])):
                await server.pin(ids[number])
            assert await server.pin(ids[number]) is None

    asyncio.run(work())


def test_pieces_of_a_file_are_where_they_say_they_are(tmp_path: Path) -> None:
    directory = SpillDirectory(str(tmp_path))
    try:
        source = memoryview(np.random.default_rng(0).bytes(5 * MIB))
        extents = [(0, 100), (128, 2 * MIB), (3 * MIB, 1), (4 * MIB, 999_999)]
        whole = [source[offset : offset + nbytes].tobytes() for offset, nbytes in extents]
        layouts = [in_one_piece(*extent) for extent in extents]
        # One with a gap, and a segment that isn't written at a stretch.
        long = 4 * MIB + 1
        layouts.append(Layout(192 + long, (Segment(0, 64, 128), Segment(128, 7, 9), Segment(192, 64, long))))
        whole.append(source[64:192].tobytes() + source[7:16].tobytes() + bytes(55) + source[64 : 64 + long].tobytes())
        extents, error = directory.write(source, layouts)
        assert error is None
        assert len(files(tmp_path)) == 3
        for written, extent in zip(whole, extents, strict=True):
            assert extent is not None
            assert extent.offset % 64 == 0
            assert Path(extent.path).read_bytes()[extent.offset : extent.offset + extent.nbytes] == written
            os.close(directory.open_verified(extent))
            directory.drop(extent)
        assert not files(tmp_path)
    finally:
        directory.close()


def test_objects_that_share_their_data_are_spilled_each_for_itself(store: Store, tmp_path: Path) -> None:
    numbers = np.arange(MIB, dtype="f8")
    base = store.put(numbers)
    parts = [store.put({"x": store.get(base)[start:], "n": start}) for start in (0, 1000, 500_000)]
    assert store.stats()["shared_nbytes"] > 16 * MIB
    filled(store, 20)
    until(lambda: {base.hex(), *(part.hex() for part in parts)} <= spilled(store), "they're all on disk")
    assert store.stats()["shared_nbytes"] == 0
    assert (store.get(base) == numbers).all()
    for start, part in zip((0, 1000, 500_000), parts, strict=True):
        got = store.get(part)
        assert got["n"] == start
        assert (got["x"] == numbers[start:]).all()
        assert store.encode(got).to_bytes() == bytes(store.get_buffer(part))
        del got
    store.delete([base, *parts[1:]])
    assert (store.get(parts[0], writable=True)["x"] == numbers).all()


def test_bytes_that_a_view_is_on_stay_when_other_objects_that_share_them_go(store: Store) -> None:
    numbers = np.arange(MIB, dtype="f8")
    base = store.put(numbers)
    part = store.put(store.get(base)[1000:3000].reshape(-1))
    small, large = store.put(store.get(base)[: MIB // 4]), store.put([store.get(base)[MIB // 2 :]])
    view = store.get(large)
    filled(store, 20)
    until(lambda: {base.hex(), small.hex()} <= spilled(store), "nobody looks at them")
    assert large.hex() not in spilled(store)
    assert store.stats()["used"] >= 4 * MIB
    assert (view[0] == numbers[MIB // 2 :]).all()
    # What is put of a view of a file is a copy, what is put of one that is in the arena isn't.
    before = store.stats()["shared_nbytes"]
    again, copy = store.put(view[0][10:]), store.put(store.get(base)[10:200_000])
    assert before < store.stats()["shared_nbytes"] < before + 5 * MIB
    store.delete([base, large])
    del view
    for object_id, expected in [
        (again, numbers[MIB // 2 + 10 :]),
        (copy, numbers[10:200_000]),
        (part, numbers[1000:3000]),
        (small, numbers[: MIB // 4]),
    ]:
        assert (store.get(object_id) == expected).all()
