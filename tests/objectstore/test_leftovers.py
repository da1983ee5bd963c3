"""What killed processes leave is removed by the next process that looks, and nothing else is."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.objectstore import StoreServer
from holdfast.objectstore.system import leftovers
from holdfast.objectstore.system.leftovers import OwnDirectory, sweep
from tests.support.forking import in_fork

HOUR_SECONDS = 3600


@pytest.fixture(autouse=True)
def register(runtime_directory: Path) -> Path:
    """A register of this test's own."""
    sweep()
    return runtime_directory / "holdfast-leftovers"


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    place = tmp_path / "somewhere" / "else"
    place.mkdir(parents=True)
    return place


def make_and_die(parent: Path, then: Callable[[OwnDirectory], object] = lambda _: None) -> Path:
    """The directory of a process that has died."""

    def work() -> str:
        directory = OwnDirectory(str(parent), "spill")
        (Path(directory.path) / "1").write_bytes(bytes(1000))
        then(directory)
        return directory.path

    return Path(in_fork(work))


def make_older(*paths: Path) -> None:
    then = time.time() - HOUR_SECONDS
    for path in paths:
        os.utime(path, (then, then))


def test_it_is_private_noted_and_goes_with_its_owner(parent: Path, register: Path) -> None:
    directory = OwnDirectory(str(parent), "spill")
    assert Path(directory.path).stat().st_mode & 0o777 == 0o700
    (note,) = register.iterdir()
    assert note.read_text() == directory.path
    assert note.stat().st_mode & 0o777 == 0o600
    assert sweep(str(parent)) == []
    directory.close()
    directory.close()
    assert not list(parent.iterdir())
    assert not list(register.iterdir())


def test_a_dead_processs_goes_wherever_it_lies(parent: Path, register: Path, tmp_path: Path) -> None:
    alive = OwnDirectory(str(parent), "spill")
    dead = make_and_die(parent)
    assert sweep(str(tmp_path)) == [str(dead)]
    assert not dead.exists()
    assert os.listdir(parent) == [os.path.basename(alive.path)]
    alive.close()


def test_one_that_is_not_noted_goes_when_somebody_looks_at_its_parent(parent: Path, register: Path) -> None:
    dead = make_and_die(parent)
    for note in register.iterdir():
        note.unlink()
    assert sweep() == []
    assert sweep(str(parent)) == [str(dead)]


@pytest.mark.parametrize("before", ["mkdir", "flock", "write"])
def test_whenever_its_process_was_killed(
    parent: Path, register: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """Between the note and the directory, between that and its lock, and before the lock says anything."""

    def work() -> None:
        def die(*_: object, **__: object) -> None:
            os.kill(os.getpid(), 9)

        monkeypatch.setattr("fcntl.flock" if before == "flock" else f"os.{before}", die)
        OwnDirectory(str(parent), "spill")

    in_fork(work)
    sweep()
    make_older(*register.iterdir())
    sweep()
    assert not list(parent.iterdir())
    assert not list(register.iterdir())


def test_what_a_sweeper_has_begun_to_remove_when_it_was_killed_is_removed(parent: Path) -> None:
    dead = make_and_die(parent)
    (dead / "lock").unlink()
    assert sweep() == [], "its process may be about to make the lock"
    make_older(dead)
    assert sweep() == [str(dead)]


def test_a_fork_does_not_keep_it_alive_nor_remove_it(parent: Path) -> None:
    directory = OwnDirectory(str(parent), "spill")
    assert in_fork(directory.close) == "None"
    assert Path(directory.path).exists()
    go, said = multiprocessing.Pipe()

    def wait() -> None:
        go.close()
        said.poll(20)

    def work() -> str:
        own = OwnDirectory(str(parent), "spill")
        if os.fork() == 0:
            wait()
            os._exit(0)
        return own.path

    dead = in_fork(work)
    said.close()
    assert sweep() == [dead], "its fork is still there"
    go.close()
    directory.close()


def test_what_is_not_surely_a_dead_processs_stays(
    parent: Path, register: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "lock").touch()
    (precious / "file").touch()
    link = parent / "holdfast-spill-link"
    link.symlink_to(precious)
    (parent / "holdfast-spill-file").touch()
    unlocked = parent / "holdfast-spill-without"
    unlocked.mkdir()
    (unlocked / "file").touch()
    locked_by_link = parent / "holdfast-spill-linked"
    locked_by_link.mkdir()
    (locked_by_link / "lock").symlink_to(precious / "lock")
    register.mkdir(exist_ok=True, mode=0o700)
    for name, text in [
        ("holdfast-spill-link", str(link)),
        ("holdfast-spill-precious", str(precious)),
        ("precious", str(precious)),
        ("holdfast-spill-relative", "holdfast-spill-relative"),
        ("holdfast-spill-nothing", ""),
        ("holdfast-spill-bytes", "\0\udcff"),
    ]:
        (register / name).write_bytes(os.fsencode(text))
    before = sorted([*parent.rglob("*"), *precious.rglob("*")])
    assert sweep(str(parent)) == []
    make_older(*register.iterdir())
    assert sweep(str(parent)) == []
    assert sorted([*parent.rglob("*"), *precious.rglob("*")]) == before


def test_of_another_users_nothing_is_removed(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = make_and_die(parent)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(leftovers, "_register", lambda: None)  # that user's, in /tmp
    assert sweep(str(parent)) == []
    monkeypatch.undo()
    assert dead.exists()


def test_of_another_hosts_nothing_is_removed(parent: Path, register: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock of another kernel's is seen only where no other can have the file system."""
    monkeypatch.setattr(leftovers, "_boot", lambda: "another boot")
    dead = make_and_die(parent)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(register.parent))
    monkeypatch.setattr(leftovers, "is_of_one_host", lambda _: False)
    assert sweep(str(parent)) == []
    assert dead.exists()
    monkeypatch.setattr(leftovers, "is_of_one_host", lambda _: True)
    assert sweep(str(parent)) == [str(dead)], "that was an earlier boot of this host"


def test_without_a_register_all_goes_on(parent: Path, register: Path) -> None:
    register.mkdir(exist_ok=True)
    register.chmod(0o755)
    directory = OwnDirectory(str(parent), "spill")
    assert not list(register.iterdir())
    assert sweep(str(parent)) == []
    directory.close()
    assert not list(parent.iterdir())


def test_sweeping_while_others_come_and_go_harms_nobody(parent: Path) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def sweep_all() -> None:
        try:
            while not stop.is_set():
                sweep(str(parent))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=sweep_all) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(200):
            directory = OwnDirectory(str(parent), "spill")
            assert os.path.exists(os.path.join(directory.path, "lock"))
            directory.close()
            assert not os.path.exists(directory.path)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures
    assert not list(parent.iterdir())


def test_a_store_elsewhere_removes_what_a_killed_one_has_left(parent: Path, register: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "holdfast.objectstore", "--capacity", "4MB", "--spill-directory", str(parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    assert len(list(register.iterdir())) == 2, "the socket's directory, and that for spilled objects"
    with StoreServer("4 MB", tmp_path / "store.sock", spill_directory=tmp_path):
        assert not list(parent.iterdir())
        assert not list(register.parent.glob("holdfast-store-*"))
