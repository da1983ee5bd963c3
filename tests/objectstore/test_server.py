"""The server's own side: what the node agent does with it, in an event loop."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop
from waiting import until

from holdfast.objectstore import (
    ObjectID,
    ObjectMeta,
    ObjectNotFoundError,
    StoreClosedError,
    StoreError,
    StoreFullError,
    StoreProtocolError,
    StoreServer,
    connect,
    encode,
)
from holdfast.objectstore.shared.ids import IDMinter
from holdfast.objectstore.shared.layout import Layout
from holdfast.objectstore.spill.files import SpillDirectory, Written

MIB = 1 << 20
mint = IDMinter()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine in a loop of either kind, with a limit."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(asyncio.wait_for(work, 30))

    return run


async def bring_in(server: StoreServer, object_id: ObjectID, value: Any, **names: Any) -> None:
    encoded = encode(value)
    extent = await server.allocate(encoded.nbytes)
    encoded.write_into(server.writable_view(extent))
    server.seal(extent, object_id, ObjectMeta(type_name=encoded.type_name, **names))


def test_an_object_comes_in_and_goes_out(run: Callable[..., Any]) -> None:
    async def work() -> None:
        async with StoreServer("16 MB") as server:
            object_id = mint()
            await bring_in(server, object_id, np.arange(1000), key="k", owner="o")
            assert server.contains(object_id)
            meta = server.meta(object_id)
            assert (meta.key, meta.owner, meta.type_name) == ("k", "o", "numpy.ndarray")
            assert [m.object_id for m in server.inventory()] == [object_id]
            pinned = await server.pin(object_id)
            assert pinned is not None
            ((start, offset, nbytes),) = pinned.layout.segments
            assert (start, nbytes) == (0, pinned.layout.nbytes)
            assert os.pread(pinned.fd, nbytes, offset) == encode(np.arange(1000)).to_bytes()
            server.delete([object_id])
            assert not server.contains(object_id)
            assert server.stats()["used"] > 0
            server.unpin(pinned)
            assert server.stats()["used"] == 0
            assert await server.pin(object_id) is None
            with pytest.raises(ObjectNotFoundError):
                server.meta(object_id)
            with pytest.raises(StoreProtocolError):
                server.unpin(pinned)

    run(work())


def test_what_it_allocates_waits_in_line_and_fails_like_a_client(run: Callable[..., Any]) -> None:
    async def work() -> None:
        async with StoreServer("8 MiB") as server:
            first = await server.allocate(6 * MIB)
            with pytest.raises(StoreFullError, match="not yet sealed"):
                await server.allocate(4 * MIB, timeout=0.05)
            with pytest.raises(StoreFullError, match="more than"):
                await server.allocate(9 * MIB)
            waiting = asyncio.ensure_future(server.allocate(4 * MIB))
            cancelled = asyncio.ensure_future(server.allocate(4 * MIB))
            await asyncio.sleep(0)
            cancelled.cancel()
            server.abort(first)
            second = await waiting
            server.abort(second)
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            third = await server.allocate(6 * MIB)
            granted_then_cancelled = asyncio.ensure_future(server.allocate(4 * MIB))
            await asyncio.sleep(0)
            server.abort(third)
            granted_then_cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await granted_then_cancelled
            assert server.stats()["used"] == 0
            with pytest.raises(StoreProtocolError):
                server.abort(second)

    run(work())


def test_a_missing_object_is_fetched_once_for_all(run: Callable[..., Any]) -> None:
    async def work() -> None:
        asked: list[tuple[ObjectID, list[str]]] = []
        go = asyncio.Event()

        async def fetch(object_id: ObjectID, sources: list[str]) -> None:
            asked.append((object_id, sources))
            await go.wait()
            if "broken" in sources:
                raise ConnectionError("the peer hung up")
            if "empty" not in sources:
                await bring_in(server, object_id, "fetched")

        async with StoreServer("8 MB", fetch=fetch) as server:
            loop = asyncio.get_running_loop()
            store = await loop.run_in_executor(None, connect, server.socket_path)
            object_id = mint()

            def get(object_id: ObjectID, *sources: str) -> Any:
                return loop.run_in_executor(None, lambda: store.get(object_id, sources=sources))

            gets = [get(object_id, "peer-1", "peer-2") for _ in range(3)]
            while server.stats()["waiting_gets"] < 3:
                await asyncio.sleep(0.001)
            go.set()
            assert await asyncio.gather(*gets) == ["fetched"] * 3
            assert asked == [(object_id, ["peer-1", "peer-2"])]
            assert await get(object_id, "peer-1") == "fetched"
            with pytest.raises(StoreError, match="the peer hung up"):
                await get(mint(), "broken")
            with pytest.raises(StoreError, match="isn't here"):
                await get(mint(), "empty")
            assert len(asked) == 3
            await loop.run_in_executor(None, store.close)

    run(work())


def test_a_seal_after_its_delete_vanishes(run: Callable[..., Any]) -> None:
    async def work() -> None:
        async with StoreServer("8 MB") as server:
            object_id = mint()
            server.delete([object_id])
            await bring_in(server, object_id, 1)
            assert not server.contains(object_id)
            assert server.stats()["used"] == 0

    run(work())


def test_it_starts_once_and_ends_for_good(run: Callable[..., Any]) -> None:
    async def work() -> None:
        server = await StoreServer("8 MB").start()
        directory = os.path.dirname(server.socket_path)
        assert repr(server) == f"<StoreServer of 8.0 MB, at {server.socket_path}>"
        with pytest.raises(StoreError, match="once"):
            await server.start()
        waiting = asyncio.ensure_future(server.allocate(MIB))
        await waiting
        hopeless = asyncio.ensure_future(server.allocate(8 * 10**6))
        await asyncio.sleep(0)
        await server.aclose()
        with pytest.raises((StoreClosedError, StoreFullError)):
            await hopeless
        await server.aclose()
        assert not os.path.exists(directory)
        assert repr(server) == "<StoreServer of 8.0 MB, not running>"
        with pytest.raises(StoreClosedError):
            _ = server.arena_fd
        with pytest.raises(StoreClosedError):
            await server.allocate(1)

    run(work())


def test_it_runs_in_a_thread_and_answers_any_other(server: StoreServer) -> None:
    with connect(server.socket_path) as store:
        object_id = store.put("x")
        assert server.contains(object_id)
        assert server.meta(object_id).nbytes == len(encode("x").to_bytes())
        assert len(server.list_objects()) == 1
        assert len(list(server.inventory())) == 1
        server.delete([object_id])
        assert not store.contains(object_id)
    assert any(thread.name == "holdfast-store" for thread in threading.enumerate())


def test_a_thread_that_cannot_start_says_why(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        StoreServer("lots")
    with pytest.raises(StoreError, match=r"reached at .*xxx: .*too long; choose another"):
        StoreServer("1 MB", tmp_path / ("x" * 200)).__enter__()
    for capacity in ("4000000 TB", 1 << 63):
        with pytest.raises(StoreError, match=r"store of .*; give it less capacity"):
            StoreServer(capacity).__enter__()


class OutOfDescriptors:
    """A listening socket in a process that can't open any more files."""

    def __init__(self, listener: socket.socket) -> None:
        self.asked = 0
        self.fileno = listener.fileno
        self.close = listener.close

    def accept(self) -> Any:
        self.asked += 1
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize("pause_seconds", [3600, 0.01])
def test_a_server_out_of_descriptors_asks_again_after_a_pause(
    server: StoreServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, pause_seconds: float
) -> None:
    monkeypatch.setattr("holdfast.objectstore.server.acceptor._ACCEPT_PAUSE_SECONDS", pause_seconds)
    acceptor = server._acceptor
    assert acceptor is not None
    listener = acceptor._listener
    poor = OutOfDescriptors(listener)
    monkeypatch.setattr(acceptor, "_listener", poor)
    with pytest.raises(StoreError, match="didn't answer"):
        connect(server.socket_path, timeout=0.2)
    assert "Too many open files" in caplog.text
    if pause_seconds > 1:
        assert poor.asked == 1
    else:
        monkeypatch.setattr(acceptor, "_listener", listener)
        connect(server.socket_path).close()


def test_a_closed_server_begins_nothing(
    run: Callable[..., Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def write(self: SpillDirectory, source: memoryview, layouts: Sequence[Layout]) -> Written:
        until(lambda: self._closed, "the server closes its directory")
        return Written([None] * len(layouts), "it was closed")

    monkeypatch.setattr(SpillDirectory, "write", write)

    async def work() -> None:
        async with StoreServer("8 MiB", spill_directory=tmp_path) as server:
            await bring_in(server, mint(), np.zeros(7 * MIB, "u1"))
            await asyncio.sleep(0)
            assert server.list_objects()[0]["state"] == "spilling"
        await asyncio.sleep(0)
        assert server._executor._deadline is None
        assert not server._executor._tasks

    run(work())
    assert not caplog.records


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("4 GB", 4 * 10**9), ("512MiB", 512 * 2**20), ("1.5k", 1500), (" 7 ", 7), (123, 123), ("2 tb", 2 * 10**12)],
)
def test_sizes_as_people_write_them(text: Any, nbytes: int) -> None:
    from holdfast.objectstore import format_size, parse_size

    assert parse_size(text) == nbytes
    assert parse_size(format_size(4_000_000_000)) == 4 * 10**9


@pytest.mark.parametrize("text", ["", "GB", "-4 GB", "4 parsecs", "0", 0, -1])
def test_what_is_no_size(text: Any) -> None:
    from holdfast.objectstore import parse_size

    with pytest.raises(ValueError, match="size"):
        parse_size(text)


def test_the_directories_of_killed_servers_are_removed_by_those_that_follow(runtime_directory: Path) -> None:
    def kill_one() -> Path:
        command = [sys.executable, "-m", "holdfast.objectstore", "--capacity", "1MB"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.kill()
        (left,) = set(runtime_directory.glob("holdfast-store-*/store.sock")) - known
        known.add(left)
        return left

    known: set[Path] = set()
    with StoreServer("1 MB") as alive:
        known.add(Path(alive.socket_path))
        killed = [kill_one() for _ in range(2)]
        of_another_version = runtime_directory / "holdfast-store-served" / "store.sock"
        of_another_version.parent.mkdir()
        with StoreServer("1 MB", of_another_version):
            an_hour_ago = time.time() - 3600
            for path in (of_another_version, of_another_version.parent, Path(alive.socket_path)):
                os.utime(path, (an_hour_ago, an_hour_ago))
            with StoreServer("1 MB"):
                assert not any(path.parent.exists() for path in killed)
                assert of_another_version.exists(), "it has no lock, but a server"
            with connect(alive.socket_path) as store:
                assert store.get(store.put(1)) == 1
