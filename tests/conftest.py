"""A private place for the session's clusters, and a check that no test leaves anything behind.

Several processes may share the tests (pytest-xdist). Each is a session here: it has its own place and its own mark, so
it sees nothing of what the others' tests start.

What is checked: processes (children, and detached ones that carry this session's mark in their environment), run
directories, arenas that this process has open or mapped, and threads that are Holdfast's or would keep this process
from ending. A test is compared with how things were when it started. What fixtures of wider scope made may stay
during the tests of their scope, and is checked for when that scope ends.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from tiers import is_fast
from waiting import DEADLINE_SECONDS, until

#: How long what a test has stopped may take to be gone.
GRACE_SECONDS = 5.0
#: Most processes that share the tests: each has its own clusters, and they need memory.
MOST_TEST_PROCESSES = 8
MARK = "HOLDFAST_TEST_SESSION"

# -- a private place: set before anything of Holdfast is imported, undone by the end of the process


_place = Path(tempfile.mkdtemp(prefix="hf-", dir="/tmp"))  # short: paths of socket files are limited


def pytest_configure(config: pytest.Config) -> None:
    (_place / "run").mkdir(mode=0o700)
    token = _place / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    for name in ("HOLDFAST_TOKEN", "HOLDFAST_ADDRESS", "HOLDFAST_CLUSTER_ID"):
        os.environ.pop(name, None)
    os.environ["HOLDFAST_TOKEN_FILE"] = str(token)
    os.environ["XDG_RUNTIME_DIR"] = str(_place / "run")
    os.environ["XDG_STATE_HOME"] = str(_place / "state")
    os.environ[MARK] = secrets.token_hex(8)
    strict = str(Path(__file__).parent / "support" / "strict")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (strict, os.environ.get("PYTHONPATH"))))
    # The suite tries the same examples each time; a campaign looks for new ones. A slow machine is no failure.
    campaign = any(name in os.environ for name in ("HOLDFAST_EXAMPLES", "HOLDFAST_FUZZ"))
    settings.register_profile("holdfast", deadline=None, derandomize=not campaign)
    settings.load_profile("holdfast")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many processes share the tests: more than there are cores, for a test waits a third of its time."""
    cores = len(os.sched_getaffinity(0))
    return min(MOST_TEST_PROCESSES, cores + (cores + 1) // 2)


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(_place, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_fast(item):
            item.add_marker("fast")


# -- what there is


@dataclass
class Footprint:
    """What of this session exists; each thing's identity maps to words for it."""

    processes: dict[tuple[int, int], str] = field(default_factory=dict)  # (pid, start time in ticks)
    directories: dict[str, str] = field(default_factory=dict)
    memory: dict[str, str] = field(default_factory=dict)
    threads: dict[int, str] = field(default_factory=dict)

    KINDS = ("processes", "directories", "memory", "threads")

    @classmethod
    def take(cls) -> Footprint:
        return cls(_processes(), _directories(), _memory(), _threads())

    def __sub__(self, other: Footprint) -> Footprint:
        difference = Footprint()
        for kind in self.KINDS:
            known = getattr(other, kind)
            setattr(difference, kind, {k: v for k, v in getattr(self, kind).items() if k not in known})
        return difference

    def __or__(self, other: Footprint) -> Footprint:
        return Footprint(*({**getattr(self, kind), **getattr(other, kind)} for kind in self.KINDS))

    def __bool__(self) -> bool:
        return any(getattr(self, kind) for kind in self.KINDS)

    def describe(self) -> str:
        return "\n".join(f"  {kind}: {words}" for kind in self.KINDS for words in getattr(self, kind).values())


_IGNORED_COMMANDS = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver")


def _processes() -> dict[tuple[int, int], str]:
    mark = f"{MARK}={os.environ[MARK]}".encode()
    parents: dict[int, int] = {}
    stats: dict[int, tuple[str, int]] = {}
    marked: set[int] = set()
    began = _beginning()
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        with contextlib.suppress(OSError):
            state, parent, *rest = _read(f"/proc/{entry}/stat").rpartition(b") ")[2].split()
            pid = int(entry)
            parents[pid], stats[pid] = int(parent), (state.decode(), int(rest[17]))
            # Processes of before this session are many, can't have its mark, and take long to ask.
            if stats[pid][1] >= began and mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                marked.add(pid)
    found = {}
    me = os.getpid()
    for pid, (state, started) in stats.items():
        # The zombie of another's child has ended, and is that other's to collect.
        if pid == me or (state == "Z" and parents[pid] != me):
            continue
        if pid in marked or _descends(pid, me, parents):
            command = b""
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").strip()
            if not any(ignored in command for ignored in _IGNORED_COMMANDS):
                words = "a zombie that was not waited for" if state == "Z" else command.decode(errors="replace")[:300]
                found[pid, started] = f"{pid}: {words}"
    return found


def _read(path: str) -> bytes:
    """A short file of the kernel's, with as few calls as can be: this happens for each process before each test."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


@functools.cache
def _beginning() -> int:
    """When this process began, in ticks."""
    return int(Path("/proc/self/stat").read_bytes().rpartition(b") ")[2].split()[19])


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid == ancestor:
            return True
    return False


def _directories() -> dict[str, str]:
    root = Path(os.environ["XDG_RUNTIME_DIR"], "holdfast")
    if not root.is_dir():
        return {}
    found = {}
    for path in root.iterdir():
        with contextlib.suppress(OSError):
            found[path.name] = f"{path} with {sorted(each.name for each in path.iterdir())}"
    return found


def _memory() -> dict[str, str]:
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{entry}")
            if "memfd:holdfast" in target:
                found[f"fd {entry} {os.fstat(int(entry)).st_ino}"] = f"descriptor {entry} is {target}"
    maps = Path("/proc/self/maps").read_text()
    if "memfd:holdfast" in maps:
        for line in maps.splitlines():
            if "memfd:holdfast" in line:
                found[line] = f"mapped: {line}"
    return found


def _threads() -> dict[int, str]:
    return {
        id(thread): f"{thread.name} ({'daemon' if thread.daemon else 'not daemon'})"
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and (not thread.daemon or thread.name.startswith("holdfast"))
    }


# -- what there may be


class _Scopes:
    """What fixtures of wider scope than a test's have made, by scope."""

    def __init__(self) -> None:
        self.made: dict[str, Footprint] = {}

    def add(self, scope: str, footprint: Footprint) -> None:
        self.made[scope] = self.made.get(scope, Footprint()) | footprint

    def forget(self, *scopes: str) -> None:
        for scope in scopes:
            self.made.pop(scope, None)

    def allowed(self, *scopes: str) -> Footprint:
        allowed = Footprint()
        for scope in scopes:
            allowed |= self.made.get(scope, Footprint())
        return allowed


_scopes = _Scopes()
#: What there was at the end of the last test, for the next one to begin with. None: look, for that test left something.
_latest: Footprint | None = None
_WIDER = {"test": ("class", "module", "package", "session"), "module": ("package", "session"), "session": ()}


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> Iterator[None]:
    if fixturedef.scope == "function" or fixturedef.argname.startswith("_leaks"):
        return (yield)
    before = Footprint.take()
    try:
        return (yield)
    finally:
        _scopes.add(fixturedef.scope, Footprint.take() - before)


def _left(now: Footprint, before: Footprint, scope: str) -> Footprint:
    """What is there now, was not at ``before``, and may not be."""
    allowed = _scopes.allowed(*_WIDER[scope])
    left = now - before - allowed
    if allowed:
        # A wider fixture's client or cluster may start what it needs when it needs it: its threads and its maps are
        # checked at the end of its own scope, and what its processes have started is theirs.
        left.threads, left.memory = {}, {}
        owners = {pid for pid, _ in {**before.processes, **allowed.processes}}
        parents = {pid: _parent(pid) for pid, _ in left.processes}
        left.processes = {k: v for k, v in left.processes.items() if not _belongs(k[0], owners, parents)}
    return left


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()[1])
    except OSError:
        return 0


def _belongs(pid: int, owners: set[int], parents: dict[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid in owners:
            return True
    return False


def _check(before: Footprint, scope: str, whose: str, node: Any) -> Footprint:
    """What is there in the end. Fails if there is more than may be."""
    now = Footprint.take()
    if not _left(now, before, scope):
        return now
    # What fixtures gave to a test that is over is garbage, but pytest holds it a moment longer.
    getattr(node, "funcargs", {}).clear()
    deadline = time.monotonic() + GRACE_SECONDS
    gc.collect()
    while (left := _left(now := Footprint.take(), before, scope)) and time.monotonic() < deadline:
        time.sleep(0.01)
        gc.collect()  # a thread that ends meanwhile may leave the last of a cycle behind
    if not left:
        return now
    for pid, _ in left.processes:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    pytest.fail(f"{whose} left behind:\n{left.describe()}", pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def _leaks_of_session() -> Iterator[None]:
    before = Footprint.take()
    yield
    _scopes.forget("package", "session")
    _check(before, "session", "the session's fixtures", None)


@pytest.fixture(scope="module", autouse=True)
def _leaks_of_module(_leaks_of_session: None, request: pytest.FixtureRequest) -> Iterator[None]:
    before = Footprint.take()
    yield
    _scopes.forget("class", "module")
    _check(before, "module", f"the fixtures of {request.node.name}", request.node)


@pytest.fixture(autouse=True)
def _leaks(_leaks_of_module: None, request: pytest.FixtureRequest) -> Iterator[None]:
    global _latest
    before, _latest = _latest or Footprint.take(), None
    yield
    _latest = _check(before, "test", request.node.name, request.node)


# -- for tests


@pytest.fixture
def runtime_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The test's own ``XDG_RUNTIME_DIR``. Its path is short, as those of socket files in it have to be."""
    place = Path(tempfile.mkdtemp(dir=_place))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    yield place
    shutil.rmtree(place)


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """``eventually(condition, timeout=30, what="...")``: waits until it is true, returns its value, fails when late."""

    def wait(condition: Callable[[], Any], timeout: float = DEADLINE_SECONDS, what: str = "") -> Any:
        return until(condition, what, timeout)

    return wait
