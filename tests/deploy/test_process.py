"""Child processes, spawned and forked: being ready, failing, and ending with their parent."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from holdfast.cluster.comm import loops
from holdfast.cluster.processes.forking import Forker
from holdfast.cluster.processes.parent import ChildProcess, describe_exit, spawn
from holdfast.objectstore.errors import HoldfastError

SERVER = """
import argparse, asyncio, os, sys, threading, time
from holdfast.cluster.comm import loops
from holdfast.cluster.processes.child import add_process_options, serve
from holdfast.objectstore.errors import HoldfastError

class Server:
    async def start(self):
        self.finished = asyncio.Event()
        if "fail" in options.how:
            raise HoldfastError("there is no room")
        if "bug" in options.how:
            raise KeyError("oops")
        if "slow" in options.how:
            await asyncio.sleep(600)
        if "finish" in options.how:
            self.finished.set()
        if "stuck" in options.how:
            threading.Thread(target=time.sleep, args=(600,)).start()

    async def close(self):
        print("closed", flush=True)

def main():
    global options
    parser = argparse.ArgumentParser()
    parser.add_argument("how", nargs="*")
    add_process_options(parser)
    options = parser.parse_args()
    if "die" in options.how:
        print("last words", flush=True)
        os._exit(7)
    return loops.run(serve(Server(), options, lambda: {"pid": os.getpid()}))

if __name__ == "__main__":
    sys.exit(main())
"""

Start = Callable[..., ChildProcess]


@pytest.fixture(params=["spawned", "forked"])
def start(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    (tmp_path / "hf_server.py").write_text(SERVER)
    monkeypatch.syspath_prepend(str(tmp_path))
    children: list[ChildProcess] = []
    forker = Forker()

    def start(*how: str) -> ChildProcess:
        log = tmp_path / "log"
        if request.param == "spawned":
            children.append(spawn("hf_server", how, log_file=log))
        else:
            children.append(forker.fork("hf_server", how, "hf_server", 20, log_file=log))
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.wait()
    forker.close()


def test_it_says_when_it_is_ready_and_stops_when_it_is_told_to(start: Start, tmp_path: Path) -> None:
    child = start()
    assert child.wait_ready(20) == {"pid": child.pid}
    assert child.returncode is None
    assert child.stop(20)
    assert child.returncode == 0
    assert "closed" in (tmp_path / "log").read_text()


def test_it_finds_what_this_process_can_import_without_this_ones_packages(start: Start) -> None:
    # hf_server itself was found through sys.path; and a second start is not the worse for it.
    for _ in range(2):
        child = start()
        assert child.wait_ready(20) == {"pid": child.pid}


def test_a_failure_arrives_in_its_own_words(start: Start) -> None:
    with pytest.raises(HoldfastError, match=r"^hf_server could not start: there is no room$"):
        start("fail").wait_ready(20)
    with pytest.raises(HoldfastError, match="hf_server could not start: KeyError: 'oops'"):
        start("bug").wait_ready(20)


def test_a_death_shows_how_and_the_end_of_the_log(start: Start) -> None:
    with pytest.raises(HoldfastError, match=r"(?s)it exited with code 7; its log, .*last words"):
        start("die").wait_ready(20)


def _unread(fd: int) -> int:
    return struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("way", ["blocking", "in a loop"])
def test_what_one_has_said_in_time_counts_though_nobody_looked(
    start: Start, eventually: Callable[..., Any], way: str
) -> None:
    child = start()
    eventually(lambda: _unread(child._ready_fd) > 5, 20, "it says that it is ready")
    if way == "blocking":
        assert child.wait_ready(0) == {"pid": child.pid}
    else:
        assert loops.run(child.ready(0)) == {"pid": child.pid}


def test_one_that_is_late_is_still_there(start: Start) -> None:
    child = start("slow")
    with pytest.raises(HoldfastError, match=r"was not ready after 0\.05 s"):
        child.wait_ready(0.05)
    assert child.returncode is None


def test_one_that_is_told_to_stop_while_it_starts_stops(start: Start, eventually: Any) -> None:
    child = start("slow")
    eventually(lambda: _handles(child.pid, signal.SIGTERM), what="it handles SIGTERM")
    child.terminate()
    with pytest.raises(HoldfastError, match="it was told to stop while it started"):
        child.wait_ready(20)
    assert child.wait(20) == 0


def _handles(pid: int, number: int) -> bool:
    caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def test_it_may_end_by_itself(start: Start) -> None:
    child = start("finish")
    child.wait_ready(20)
    assert child.wait(20) == 0


def test_in_an_event_loop(start: Start) -> None:
    async def main() -> None:
        child = start()
        assert await child.ready(20) == {"pid": child.pid}
        child.kill()
        async with asyncio.timeout(20):
            assert describe_exit(await child.exited()) == "was killed by SIGKILL"
        with pytest.raises(HoldfastError, match="there is no room"):
            await start("fail").ready(20)
        with pytest.raises(HoldfastError, match="was not ready after"):
            await start("slow").ready(0.05)

    loops.run(main())


def test_letting_go_of_it_ends_it(start: Start) -> None:
    child = start()
    child.wait_ready(20)
    child.close()
    assert child.wait(20) == 0


def test_killing_its_parent_ends_it(tmp_path: Path, eventually: Any) -> None:
    (tmp_path / "hf_server.py").write_text(SERVER)
    script = """
        import os, subprocess, sys, json, time
        sys.path.insert(0, sys.argv[1])
        from holdfast.cluster.processes.parent import spawn
        child = spawn("hf_server")
        child.wait_ready(20)
        if os.fork() == 0:  # neither this nor a program that is started keeps it alive
            time.sleep(600)
        program = subprocess.Popen(["sleep", "600"], close_fds=False)
        forked = [int(p) for p in open(f"/proc/self/task/{os.getpid()}/children").read().split()]
        print(json.dumps([child.pid, [p for p in forked if p != child.pid]]), flush=True)
        time.sleep(600)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert parent.stdout is not None
    child, others = json.loads(parent.stdout.readline())
    parent.stdout.close()
    try:
        assert psutil.pid_exists(child)
        parent.kill()
        parent.wait()
        eventually(lambda: not psutil.pid_exists(child), what="the child ends")
        assert all(psutil.pid_exists(pid) for pid in others)
    finally:
        for pid in others:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.timeout(60)
def test_a_thread_that_does_not_end_does_not_keep_it(start: Start) -> None:
    child = start("stuck")
    child.wait_ready(20)
    child.terminate()
    assert child.wait(30) is not None
