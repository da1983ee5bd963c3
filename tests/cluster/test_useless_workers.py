"""A worker that a task has made useless is replaced, and what ran there runs elsewhere."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import time

import numpy as np
import pytest
from waiting import DEADLINE_SECONDS, until

from holdfast import Client, LocalCluster


def once(path):
    """Whether this is the first time."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def descriptors(kind):
    found = []
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if fd > 2 and kind in target:
            found.append(fd)
    return found


def close_all():
    os.closerange(3, 200)


def close_sockets():
    for fd in descriptors("socket:"):
        os.close(fd)


def replace_sockets():
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in descriptors("socket:"):
        os.dup2(nothing, fd)


def close_the_stores():
    from holdfast.cluster.worker.context import current_worker

    os.close(current_worker().store.descriptor)


def end_this_thread():
    ctypes.CDLL(None).pthread_exit(None)


def stop_the_loop():
    from holdfast.cluster.worker.context import current_worker

    loop = current_worker()._loop
    loop.call_soon_threadsafe(loop.stop)


def break_it(how, path):
    """The first time, break this worker; then say where this runs."""
    if once(path):
        how()
    return os.getpid()


def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.01)
    return os.getpid()


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(1, 2, object_store_memory="64 MiB", silence_logs=logging.CRITICAL) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster) as client:
        yield client


def deaths(cluster):
    (node,) = cluster.describe()["nodes"].values()
    (place,) = node["places"].values()
    return place["deaths"]


@pytest.mark.parametrize(
    "how", [close_all, close_sockets, replace_sockets, close_the_stores, end_this_thread, stop_the_loop]
)
def test_another_one_is_started_and_does_the_work(cluster, client, tmp_path, how):
    before = deaths(cluster)
    beside = client.submit(wait_for, tmp_path / "go on", pure=False)
    broken = client.submit(break_it, how, tmp_path / "broken", pure=False)
    until(lambda: deaths(cluster) > before, "it ends")
    (tmp_path / "go on").touch()
    assert client.gather([beside, broken])
    assert client.submit(np.ones, 50_000, pure=False).result(DEADLINE_SECONDS).sum() == 50_000


def test_nobody_fails_where_nothing_can_be_reported(cluster, client):
    before = deaths(cluster)
    client.submit(forget_modules, pure=False).result(DEADLINE_SECONDS)
    assert client.submit(np.ones, 50_000, pure=False).result(DEADLINE_SECONDS).sum() == 50_000
    with pytest.raises(LookupError, match="their own"):
        client.submit(fail, pure=False).result(DEADLINE_SECONDS)
    assert deaths(cluster) > before


def forget_modules():
    sys.modules.clear()


def fail():
    raise LookupError("their own")


def keep_the_interpreter(seconds):
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))  # which holds on to it
    return os.getpid()


def test_a_worker_that_hears_nothing_for_a_while_is_not_replaced(cluster, client):
    before = deaths(cluster)
    here = client.submit(os.getpid, pure=False).result(DEADLINE_SECONDS)
    assert client.submit(keep_the_interpreter, 0.9, pure=False).result(DEADLINE_SECONDS) == here
    assert client.submit(os.getpid, pure=False).result(DEADLINE_SECONDS) == here
    assert deaths(cluster) == before
