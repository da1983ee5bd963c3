"""The fork server: what its forks have of their own, how they end, and what the processes that ask for them hear."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from holdfast.cluster.comm import loops
from holdfast.cluster.processes import forking
from holdfast.cluster.processes.forking import ForkedProcess, Forker
from holdfast.cluster.processes.parent import describe_exit
from holdfast.objectstore.errors import HoldfastError

FORKED = """
import argparse, asyncio, os, random, sys
import numpy.random  # by the fork server, before there is any fork
from holdfast.cluster.comm import loops
from holdfast.cluster.processes.child import add_process_options, serve

class Server:
    async def start(self):
        self.finished = asyncio.Event()

    async def close(self):
        pass

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--name")
    add_process_options(parser)
    options = parser.parse_args()
    said = {
        "arguments": sys.argv[1:3],
        "random": [random.random(), numpy.random.random(), os.urandom(8).hex()],
        "environment": os.environ.get("HF_FORKED"),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "group": os.getpgid(0),
    }
    return loops.run(serve(Server(), options, lambda: said))
"""


@pytest.fixture
def forker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Forker]:
    (tmp_path / "hf_forked.py").write_text(FORKED)
    monkeypatch.syspath_prepend(str(tmp_path))
    forker = Forker()
    yield forker
    forker.close()


def fork(forker: Forker, name: str = "a", **options: Any) -> tuple[ForkedProcess, dict[str, Any]]:
    child = forker.fork("hf_forked", ["--name", name], name, 20, **options)
    return child, child.wait_ready(20)


def parent(child: ForkedProcess) -> psutil.Process:
    process = psutil.Process(child.pid).parent()
    assert process is not None
    return process


# -- what a fork has of its own


def test_each_has_its_arguments_its_environment_and_its_process_group(forker: Forker) -> None:
    one, of_one = fork(forker, "one", env={"HF_FORKED": "here"})
    other, of_other = fork(forker, "other")
    assert (of_one["arguments"], of_other["arguments"]) == (["--name", "one"], ["--name", "other"])
    assert (of_one["environment"], of_other["environment"]) == ("here", None)
    assert (of_one["group"], of_other["group"]) == (one.pid, other.pid)
    assert parent(one) == parent(other)
    assert one.stop(20)
    assert other.stop(20)


def test_each_draws_random_numbers_of_its_own(forker: Forker) -> None:
    (one, of_one), (other, of_other) = fork(forker), fork(forker)
    assert all(a != b for a, b in zip(of_one["random"], of_other["random"], strict=True))
    assert one.stop(20)
    assert other.stop(20)


def test_none_has_what_is_the_launchers_or_anothers(forker: Forker) -> None:
    children = [fork(forker) for _ in range(4)]
    assert len({said["descriptors"] for _, said in children}) == 1
    for child, _ in children:
        # Let go of, each ends, because nobody else holds the other end of its lifeline.
        child.close()
        assert child.wait(20) == 0


def test_each_is_shown_as_what_it_is(forker: Forker) -> None:
    child, _ = fork(forker, "a name")
    shown = Path(f"/proc/{child.pid}/cmdline").read_bytes().rstrip(b"\0").decode()
    assert shown.startswith(f"{sys.executable} -m hf_forked --name a name --ready-fd")
    long, _ = fork(forker, "x" * 4000)
    shown = Path(f"/proc/{long.pid}/cmdline").read_bytes().rstrip(b"\0").decode()
    assert shown == f"{sys.executable} -m hf_forked --name ".ljust(len(shown), "x")
    assert b"holdfast.cluster.processes.fork_server" in Path(f"/proc/{parent(child).pid}/cmdline").read_bytes()
    assert child.stop(20)
    assert long.stop(20)


def test_what_there_is_to_fork_has_one_thread(forker: Forker) -> None:
    forker.prepare("holdfast.cluster.worker.__main__")
    forker.prepare("holdfast.cluster.node.__main__")
    child, _ = fork(forker)
    assert parent(child).num_threads() == 1
    assert child.stop(20)


# -- what ends


def test_how_one_ended_is_told_by_the_launcher(forker: Forker) -> None:
    killed, _ = fork(forker)
    killed.kill()
    assert killed.wait(20) == -signal.SIGKILL
    assert killed.returncode == -signal.SIGKILL
    killed.kill()  # of no consequence, to anybody
    with pytest.raises(HoldfastError, match=r"b could not start: it exited with code 2"):
        forker.fork("hf_forked", ["--no-such-option"], "b", 20).wait_ready(20)


def test_they_go_on_when_it_is_killed_and_another_is_started(forker: Forker) -> None:
    child, _ = fork(forker)
    killed = parent(child)
    killed.kill()
    killed.wait(20)
    assert child.returncode is None

    async def another() -> ForkedProcess:
        other = await forker.fork_async("hf_forked", ["--name", "b"], "b")
        await other.ready(20)
        return other

    other = loops.run(another())
    assert parent(other) != killed
    child.terminate()
    assert describe_exit(child.wait(20) or 0) == "ended, and what had started it could not say how"
    assert other.stop(20)


def test_a_process_that_cannot_wait_for_another_is_told_how_it_ended(forker: Forker) -> None:
    child, _ = fork(forker)
    parent(child).kill()
    with pytest.raises(HoldfastError, match=r"^b could not start: the fork server was killed by SIGKILL$"):
        forker.fork("hf_forked", [], "b", 20)
    child.kill()
    child.wait()


def test_a_module_that_cannot_be_imported_is_told_of(forker: Forker, tmp_path: Path) -> None:
    forker = Forker(log_file=tmp_path / "log")
    with pytest.raises(HoldfastError, match=r"(?s)^b could not start: the fork server exited with code 1.*hf_no"):
        forker.fork("hf_nowhere", [], "b", 20)
    forker.close()


REFUSED_ONCE = """
import errno, os
watch = os.pidfd_open

def refuse(pid):
    os.pidfd_open = watch
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

os.pidfd_open = refuse
"""


def test_a_fork_that_it_cannot_watch_is_none_and_it_goes_on(forker: Forker, tmp_path: Path) -> None:
    (tmp_path / "hf_refused_once.py").write_text(FORKED + REFUSED_ONCE)  # by the fork server, which imports it
    first, _ = fork(forker)
    with pytest.raises(OSError, match="Too many open files"):
        forker.fork("hf_refused_once", [], "b", 20)
    second, _ = fork(forker)
    assert parent(second) == parent(first)
    assert len(parent(first).children()) == 2
    assert first.stop(20)
    assert second.stop(20)


ASKING = """
import argparse, os, socket
from holdfast.cluster.processes import forking
from holdfast.cluster.processes.child import add_process_options, tell_parent

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--forker-fd", type=int)
    add_process_options(parser)
    options = parser.parse_args()
    requests = socket.socket(fileno=options.forker_fd)
    with forking._Request("hf_forked", [], "b") as request:
        request.send(requests)
        forking._is_readable(requests.fileno(), 20)
        tell_parent(options.ready_fd, {})
        os._exit(0)
"""


def test_one_that_asks_and_is_gone_before_it_reads_the_answer_ends_nothing_else(forker: Forker, tmp_path: Path) -> None:
    (tmp_path / "hf_asking.py").write_text(ASKING)
    first, _ = fork(forker)
    asking = forker.fork("hf_asking", [], "asking", 20, may_fork=True)
    asking.wait_ready(20)
    assert asking.wait(20) == 0
    second, _ = fork(forker)
    assert parent(second) == parent(first)
    for child in (first, second):
        child.terminate()
        assert child.wait(20) == 0


def test_one_that_takes_too_long_is_late(forker: Forker) -> None:
    with pytest.raises(HoldfastError, match=r"^a was not ready after 0\.001 s$"):
        forker.fork("hf_forked", [], "a", 0.001)


def test_killing_its_starter_ends_all_of_it(tmp_path: Path, eventually: Any) -> None:
    (tmp_path / "hf_forked.py").write_text(FORKED)
    script = """
        import json, os, sys, time
        sys.path.insert(0, sys.argv[1])
        from holdfast.cluster.processes.forking import Forker
        forker = Forker()
        child = forker.fork("hf_forked", [], "a", 20)
        child.wait_ready(20)
        if (fork := os.fork()) == 0:  # which does not keep it alive
            time.sleep(600)
        print(json.dumps([child.pid, fork]), flush=True)
        time.sleep(600)
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert owner.stdout is not None
    child, fork = json.loads(owner.stdout.readline())
    owner.stdout.close()
    try:
        ended = [psutil.Process(child), psutil.Process(child).parent()]
        owner.kill()
        owner.wait()
        eventually(lambda: not any(each is not None and each.is_running() for each in ended), what="they end")
        assert psutil.pid_exists(fork)
    finally:
        os.kill(fork, signal.SIGKILL)


def test_an_answer_counts_though_the_process_that_waited_for_it_was_stopped(
    forker: Forker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forking, "FORK_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(forking, "readable", _slow_to_look)

    async def main() -> None:
        forker.fork("hf_forked", ["--name", "a"], "a", 20).stop(20)  # all that it imports is there by now
        child = await forker.fork_async("hf_forked", ["--name", "b"], "b")
        assert (await child.ready(20))["arguments"] == ["--name", "b"]
        child.stop(20)

    loops.run(main())


async def _slow_to_look(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll(20_000)  # the answer is there
    time.sleep(0.5)  # and only now, too late, is it looked at
    await asyncio.sleep(0)
    await asyncio.sleep(10)
