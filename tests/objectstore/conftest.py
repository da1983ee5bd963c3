"""Fixtures of the object store's tests: real servers and clients, and waiting for conditions."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.objectstore import Store, StoreServer, connect

CAPACITY = 64 << 20
DEADLINE_SECONDS = 20.0


def wait_until(condition: Callable[[], Any], what: str = "the condition") -> Any:
    """What ``condition`` returns, as soon as it's true; fails after a deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (result := condition()):
        assert time.monotonic() < deadline, f"{what} didn't come true in {DEADLINE_SECONDS:g} s"
        time.sleep(0.002)
    return result


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., Any]:
    return wait_until


@pytest.fixture
def server() -> Iterator[StoreServer]:
    with StoreServer(CAPACITY) as server:
        yield server


@pytest.fixture
def store(server: StoreServer) -> Iterator[Store]:
    with connect(server.socket_path, name="test") as store:
        yield store


@pytest.fixture
def processes() -> Iterator[Callable[..., multiprocessing.Process]]:
    """Starts ``target(*args)`` in a new process that shares nothing with this one; ends what is left."""
    context = multiprocessing.get_context("spawn")
    started: list[Any] = []

    def start(target: Callable[..., None], *args: Any) -> Any:
        process = context.Process(target=target, args=args, daemon=True)
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        if process.is_alive():
            process.kill()
        process.join()
        process.close()


@pytest.fixture
def socket_path(tmp_path: Path) -> str:
    return str(tmp_path / "store.sock")
