"""Run directories: found while their owners live, swept when they are dead."""

from __future__ import annotations

import os
import signal
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from holdfast.cluster.processes import run_directory
from holdfast.cluster.processes.run_directory import RunDirectory
from holdfast.objectstore.errors import HoldfastError


def dead_directory() -> Path:
    """The directory of a process that was killed."""
    before = set(run_directory.run_root().iterdir())
    pid = os.fork()
    if pid == 0:
        directory = RunDirectory.create("dead")
        (directory.path / "store.sock").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    (path,) = set(run_directory.run_root().iterdir()) - before
    return path


def test_it_is_private_and_goes_with_its_owner() -> None:
    directory = RunDirectory.create("test")
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    assert directory.path.name.startswith(f"test-{os.getpid()}-")
    directory.close()
    assert not directory.path.exists()
    directory.close()


def test_others_read_what_it_says() -> None:
    directory = RunDirectory.create("test")
    try:
        directory.write_info({"address": "tcp://1.2.3.4:5"})
        (entry,) = run_directory.running("test")
        assert (entry["kind"], entry["pid"], entry["address"]) == ("test", os.getpid(), "tcp://1.2.3.4:5")
        assert entry["directory"] == str(directory.path)
        assert run_directory.running("other") == []
    finally:
        directory.close()
    assert run_directory.running("test") == []


def test_a_dead_ones_is_swept_and_a_live_ones_is_not() -> None:
    directory = RunDirectory.create("live")
    try:
        dead = dead_directory()
        assert [entry["kind"] for entry in run_directory.running()] == ["live"]
        assert run_directory.sweep() == [dead]
        assert not dead.exists()
        assert directory.path.exists()
        assert run_directory.sweep() == []
    finally:
        directory.close()


def test_a_fork_neither_removes_it_nor_keeps_it_alive(eventually: Any) -> None:
    release_read, release_write = os.pipe()
    path_read, path_write = os.pipe()
    owner = os.fork()
    if owner == 0:
        directory = RunDirectory.create("forked")
        if os.fork() == 0:
            os.write(path_write, str(directory.path).encode())  # so that it is known to have begun
            os.close(path_write)
            os.close(release_write)
            directory.close()
            os.read(release_read, 1)
            os._exit(0)
        os._exit(0)
    os.waitpid(owner, 0)
    path = Path(os.read(path_read, 1000).decode())
    assert path.exists()
    assert run_directory.sweep() == [path]
    for fd in (release_read, release_write, path_read, path_write):
        os.close(fd)


@pytest.mark.long
def test_sweeping_while_others_come_and_go_harms_nobody() -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def sweep() -> None:
        try:
            while not stop.is_set():
                run_directory.sweep()
                run_directory.running()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=sweep) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            directory = RunDirectory.create("busy")
            assert (directory.path / "info.json").exists()
            directory.write_info({"address": "somewhere"})
            directory.close()
            assert not directory.path.exists()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_a_place_that_others_can_enter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Path(os.environ["XDG_RUNTIME_DIR"], "open")
    place.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    (place / "holdfast").mkdir(mode=0o755)
    with pytest.raises(HoldfastError, match="must be a directory of yours that only you can enter"):
        RunDirectory.create("test")
