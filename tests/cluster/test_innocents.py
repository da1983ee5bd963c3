"""A task that runs beside one that kills workers isn't charged for it."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import threading
import time

import pytest
from waiting import DEADLINE_SECONDS

from holdfast import Client, KilledWorker, LocalCluster, wait


def inc(x):
    return x + 1


def wait_for(path):
    """Return when the file is there."""
    while not os.path.exists(path):
        time.sleep(0.01)
    return os.getpid()


def read_nothing(*_):
    ctypes.string_at(0)


def in_another_thread(*_):
    """It crashes in a thread of its own, of which nobody knows whose it is."""
    thread = threading.Thread(target=read_nothing)
    thread.start()
    thread.join()


def be_killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(1, 4, object_store_memory="64 MiB", silence_logs=logging.CRITICAL) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster) as client:
        yield client


def test_nobody_is_charged_beside_a_known_crash(client, tmp_path):
    """These run on all of the workers that die, and end when the last one has died."""
    innocents = client.map(wait_for, [tmp_path / "go on"] * 2, pure=False)
    guilty = client.map(read_nothing, range(2), pure=False)
    for future in guilty:
        with pytest.raises(KilledWorker, match=r"3 workers that died.*SIGSEGV in read_nothing \(test_innocents"):
            future.result(4 * DEADLINE_SECONDS)
    assert [future.status for future in innocents] == ["pending"] * 2
    (tmp_path / "go on").touch()
    assert len(client.gather(innocents)) == 2


@pytest.mark.parametrize("kill", [os._exit, in_another_thread, be_killed])
def test_nobody_is_charged_beside_what_nobody_can_know(client, kill):
    guilty = client.map(kill, range(2), pure=False)
    innocents = client.map(inc, range(40), pure=False)
    wait(guilty)
    for future in guilty:
        with pytest.raises(KilledWorker, match="3 workers that died"):
            future.result(4 * DEADLINE_SECONDS)
    assert client.gather(innocents) == list(range(1, 41))
