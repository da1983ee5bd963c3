"""Fixtures of the object store's tests: real servers and clients, and waiting for conditions."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from waiting import DEADLINE_SECONDS, until

from holdfast.objectstore import Store, StoreServer, connect

CAPACITY = 64 << 20


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """``wait_until(condition, what)``: waits until it is true, returns its value, fails when late."""
    return until


@pytest.fixture
def server() -> Iterator[StoreServer]:
    with StoreServer(CAPACITY) as server:
        yield server


@pytest.fixture
def store(server: StoreServer) -> Iterator[Store]:
    with connect(server.socket_path, name="test") as store:
        yield store


@pytest.fixture
def check(server: StoreServer) -> Callable[[], None]:
    """The core's own check of all its books, between two events of the server's loop."""

    def check() -> None:
        done: Future[None] = Future()

        def work() -> None:
            try:
                server._core.check()
                done.set_result(None)
            except BaseException as error:
                done.set_exception(error)

        server._executor.loop.call_soon_threadsafe(work)
        done.result(DEADLINE_SECONDS)

    return check


@pytest.fixture
def child() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a function of ``children.py`` in a new process; ends what is left of it."""
    started: list[subprocess.Popen[str]] = []

    def start(function: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, str(Path(__file__).with_name("children.py")), function, *map(str, arguments)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdout.close()


@pytest.fixture
def socket_path(tmp_path: Path) -> str:
    return str(tmp_path / "store.sock")


@pytest.fixture
def taken(server: StoreServer) -> Callable[[], int]:
    """The bytes that objects take up."""

    def taken() -> int:
        stats = server.stats()
        return int(stats["used"] - stats["leased_nbytes"])

    return taken
