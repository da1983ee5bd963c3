"""Locks that dask puts into tasks which write hold across the processes of a cluster."""

from __future__ import annotations

import os
import threading
import time

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask.utils import SerializableLock

from holdfast import Client, LocalCluster, Lock
from holdfast.client.operations.write_locks import WriteLock, write_lock
from holdfast.client.packing.dask_internals import convert_legacy_graph
from holdfast.client.packing.write_tasks import with_locks
from tests.support.waiting import DEADLINE_SECONDS, until

N, CHUNK = 2_000, 50
#: The race is lost about every time without a lock, in some of so many.
REPETITIONS = 4


@pytest.fixture(scope="module")
def cluster():
    """Three workers, of two threads each."""
    with LocalCluster(n_workers=3, threads_per_worker=2, object_store_memory="64 MiB") as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster) as client:
        yield client


class Slow:
    """One chunk in a file, which is read, changed and written again; for long enough that others come in between."""

    def __init__(self, path, shape=(N,), dtype="i8"):
        self.path, self.shape, self.dtype = str(path), shape, np.dtype(dtype)
        np.save(self.path, np.zeros(shape, dtype))

    def __setitem__(self, index, value):
        whole = np.load(self.path)
        time.sleep(0.002)
        whole[index] = value
        written = f"{self.path}.{os.getpid()}.{threading.get_ident()}.npy"
        np.save(written, whole)
        os.replace(written, self.path)

    def __getitem__(self, index):
        return np.load(self.path)[index]

    @property
    def ndim(self):
        return len(self.shape)


@pytest.fixture
def target(tmp_path):
    return Slow(tmp_path / "target.npy")


@pytest.fixture
def source():
    return da.arange(N, chunks=CHUNK)


def counts(path):
    """The target has all values."""
    return np.load(path).tolist() == list(range(N))


class Wrapped:
    """What a user has made of a lock."""

    def __init__(self, lock):
        self.lock = lock
        self.times = 0

    def acquire(self):
        self.times += 1
        return self.lock.acquire()

    def release(self):
        self.lock.release()


class Derived(SerializableLock):
    pass


LOCKS = {
    "True": lambda: True,
    "own": lambda: SerializableLock("a lock of the user's"),
    "wrapped": lambda: Wrapped(SerializableLock()),
    "derived": Derived,
    "of the cluster": Lock,
}


@pytest.mark.parametrize("kind", LOCKS)
def test_nothing_is_lost_in_a_chunk_that_many_processes_write_into(client, source, target, kind):
    for _ in range(REPETITIONS):
        np.save(target.path, np.zeros(N, "i8"))
        da.store(source, target, lock=LOCKS[kind]())
        assert counts(target.path)


def test_without_a_lock_values_are_lost_here(client, source, target):
    da.store(source, target, lock=False)
    assert not counts(target.path), "else these tests show nothing"


def test_two_stores_with_one_lock_of_the_users_lose_nothing(client, target):
    lock = SerializableLock()
    low, high = da.arange(0, N // 2, chunks=CHUNK), da.arange(N // 2, N, chunks=CHUNK)
    stores = [
        client.compute(da.store(low, target, lock=lock, regions=(slice(0, N // 2),), compute=False)),
        client.compute(da.store(high, target, lock=lock, regions=(slice(N // 2, N),), compute=False)),
    ]
    client.gather(stores)
    assert counts(target.path)


def test_what_is_stored_later_has_the_lock_too(client, source, target):
    stored = da.store(source, target, compute=False)
    assert not np.load(target.path).any()
    stored.compute()
    assert counts(target.path)


def test_what_is_stored_can_be_read_back(client, source, target):
    stored = da.store(source, target, return_stored=True)
    assert stored.compute().tolist() == list(range(N))
    assert counts(target.path)


def test_what_is_stored_is_loaded_with_it(client, source, target):
    stored = da.store(source, target, return_stored=True, load_stored=True, compute=False)
    assert stored.compute().tolist() == list(range(N))
    assert counts(target.path)


def test_regions_of_one_target_lose_nothing(client, target):
    parts = [da.arange(start, start + N // 4, chunks=CHUNK) for start in range(0, N, N // 4)]
    regions = [(slice(start, start + N // 4),) for start in range(0, N, N // 4)]
    da.store(parts, [target] * 4, regions=regions)
    assert counts(target.path)


def test_a_target_that_is_delayed_loses_nothing(client, source, target):
    da.store(source, dask.delayed(target))
    assert counts(target.path)


def test_collections_that_are_computed_together_lose_nothing(client, source, target, tmp_path):
    other = Slow(tmp_path / "other.npy")
    dask.compute(da.store(source, target, compute=False), da.store(source + 0, other, compute=False))
    assert counts(target.path)
    assert counts(other.path)


def test_a_store_inside_a_task_loses_nothing(client, target):
    client.submit(_store, target, pure=False).result(DEADLINE_SECONDS)
    assert counts(target.path)


def _store(target):
    da.store(da.arange(N, chunks=CHUNK), target)


def test_a_chunk_of_zarr_loses_nothing(client, tmp_path):
    zarr = pytest.importorskip("zarr")
    for number in range(REPETITIONS):
        array = zarr.create_array(tmp_path / f"{number}.zarr", shape=(10_000,), chunks=(10_000,), dtype="i8")
        da.store(da.arange(10_000, chunks=250), array)
        assert (array[:] == np.arange(10_000)).all()


def test_to_zarr_into_an_array_with_larger_chunks_loses_nothing(client, tmp_path):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(tmp_path / "x.zarr", shape=(10_000,), chunks=(10_000,), dtype="i8")
    da.arange(10_000, chunks=250).to_zarr(array)
    assert (array[:] == np.arange(10_000)).all()
    da.arange(10_000, chunks=250).to_zarr(str(tmp_path / "y.zarr"))
    assert (da.from_zarr(str(tmp_path / "y.zarr")).compute() == np.arange(10_000)).all()


class Hdf5:
    """A dataset of a file, which is opened for each write."""

    def __init__(self, path):
        self.path, self.shape, self.dtype, self.ndim = str(path), (N,), np.dtype("i8"), 1

    def __setitem__(self, index, value):
        import h5py

        with h5py.File(self.path, "r+") as file:
            file["x"][index] = value


def test_a_dataset_of_hdf5_is_written_by_one_process_at_a_time(client, source, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", (N,), "i8")
    da.store(source, Hdf5(tmp_path / "x.h5"))
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["x"][:].tolist() == list(range(N))


@pytest.mark.parametrize("pattern", ["one.h5, many keys", "many.h5, one key", "one.h5, one key"])
def test_frames_in_files_of_hdf5_lose_nothing(client, tmp_path, pattern):
    pytest.importorskip("tables")
    frame = pd.DataFrame({"a": range(100)})
    path, key = {
        "one.h5, many keys": (tmp_path / "x.h5", "/x*"),
        "many.h5, one key": (tmp_path / "x*.h5", "/x"),
        "one.h5, one key": (tmp_path / "x.h5", "/x"),
    }[pattern]
    dd.from_pandas(frame, npartitions=8).to_hdf(str(path), key, lock=True)
    read = dd.read_hdf(str(path), key).compute().sort_values("a")
    assert read["a"].tolist() == list(range(100))


def test_frames_that_are_written_later_lose_nothing(client, tmp_path):
    pytest.importorskip("tables")
    frame = pd.DataFrame({"a": range(100)})
    later = dd.from_pandas(frame, npartitions=8).to_hdf(str(tmp_path / "x.h5"), "/x*", compute=False, lock=True)
    later.compute()
    assert dd.read_hdf(str(tmp_path / "x.h5"), "/x*").compute()["a"].sort_values().tolist() == list(range(100))


# -- the lock itself


def hold_and_hang(lock, begun):
    lock.acquire()
    open(begun, "w").close()
    time.sleep(600)


def hold_and_forget(lock):
    lock.acquire()


def take(lock):
    with lock:
        return "taken"


def lock_named(name):
    return write_lock(SerializableLock(name))


def test_a_run_that_ends_without_releasing_it_holds_it_no_longer(client):
    client.submit(hold_and_forget, lock_named("forgotten"), pure=False).result()
    for _ in range(6):
        assert client.submit(take, lock_named("forgotten"), pure=False).result(DEADLINE_SECONDS) == "taken"


@pytest.mark.parametrize("end", ["killed", "too late"])
def test_a_run_that_is_ended_holds_it_no_longer(client, tmp_path, end):
    options = {"run_timeout": 5} if end == "too late" else {}
    future = client.submit(hold_and_hang, lock_named("hung"), tmp_path / "begun", pure=False, **options)
    until((tmp_path / "begun").exists, "it has the lock")
    waits = client.submit(take, lock_named("hung"), pure=False)
    if end == "killed":
        future.cancel(kill=True)
    assert waits.result(DEADLINE_SECONDS) == "taken"


def hold(lock, log, number):
    with lock:
        with open(log, "a") as file:
            file.write(f"{number} begins\n")
        time.sleep(0.01)
        with open(log, "a") as file:
            file.write(f"{number} ends\n")


def test_one_run_at_a_time_has_it(client, tmp_path):
    lock = lock_named("one")
    client.gather([client.submit(hold, lock, tmp_path / "log", n, pure=False) for n in range(30)])
    lines = (tmp_path / "log").read_text().split("\n")[:-1]
    assert [begins.split()[0] for begins in lines[::2]] == [ends.split()[0] for ends in lines[1::2]]
    assert len(lines) == 60


def test_a_task_that_waits_for_it_keeps_its_slot(client):
    with Lock(("write-lock", "slots")):
        waiting = [client.submit(take, lock_named("slots"), pure=False) for _ in range(6)]
        other = client.submit(take, lock_named("another"), pure=False)
        with pytest.raises(TimeoutError):
            other.result(1)
    assert client.gather([*waiting, other]) == ["taken"] * 7


def test_outside_of_a_cluster_it_is_a_lock_of_the_process():
    lock = write_lock(SerializableLock("here"))
    assert lock.acquire()
    assert lock.locked()
    assert not write_lock(SerializableLock("here")).acquire(blocking=False)
    lock.release()
    assert not lock.locked()
    with pytest.raises(RuntimeError):
        lock.release()


def test_others_are_left_as_they_are(client):
    for lock in (None, False, True, Lock("x"), Wrapped(Lock("y"))):
        assert write_lock(lock) is lock
    kept = write_lock(Wrapped(SerializableLock()))
    assert isinstance(kept, Wrapped)
    assert isinstance(kept.lock, WriteLock)


def test_only_tasks_that_write_get_other_locks(tmp_path):
    array = np.arange(10)
    lock = SerializableLock()
    read = da.from_array(array, chunks=5, lock=lock, inline_array=True) + 1
    nodes = convert_legacy_graph(dict(read.__dask_graph__()))
    assert with_locks(nodes, lambda lock: pytest.fail("a lock of a task that reads")) is nodes
    stored = da.store(read, Slow(tmp_path / "x.npy", (10,)), lock=SerializableLock(), compute=False)
    for graph in (stored.__dask_graph__(), dask.optimize(stored)[0].__dask_graph__()):
        nodes = convert_legacy_graph(dict(graph))
        replaced = []
        changed = with_locks(nodes, lambda lock, seen=replaced: seen.append(lock) or "another")
        assert len(replaced) == 1, "each lock once"
        assert replaced[0] is not lock
        assert changed.keys() == nodes.keys()
        assert all(changed[key].dependencies == nodes[key].dependencies for key in nodes)
        assert "another" not in repr([list(node.kwargs.values()) for node in nodes.values() if hasattr(node, "kwargs")])
