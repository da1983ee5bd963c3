"""Hostile environments: each either works and computes, or says in one line what is missing and what to do about it.

All of them are real: another user without an entry in the system's table, mounts of their own, limits of the kernel's,
and a kernel that lacks a system call.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import other_user
import pytest
from other_user import SOURCE, SUPPORT, USER
from seccomp import PIDFD_OPEN

COMPUTE = """
import sys
from holdfast import Client, LocalCluster
from holdfast.objectstore import HoldfastError, StoreServer, connect

def store():
    with StoreServer(capacity="32MB") as server, connect(server.socket_path) as client:
        return sum(client.get(client.put([1, 2, 3])))

def cluster(**options):
    with LocalCluster(1, 1, object_store_memory="64MB", **options) as cluster, Client(cluster) as client:
        return client.submit(sum, [1, 2, 3]).result()

ways = {"store": store, "cluster": cluster, "threads": lambda: cluster(processes=False)}

if __name__ == "__main__":
    for name in sys.argv[1:]:
        try:
            print(name, ways[name](), flush=True)
        except HoldfastError as error:
            print(name, "ERROR", error, flush=True)
"""
START = "-m holdfast start --head --port 0 --workers 1 --threads 1 --object-store-memory 64MB"
WORKS = {"store": "6", "cluster": "6"}


@dataclass
class Case:
    """An environment, and what happens in it.

    Attributes
    ----------
    setup : str
        Shell commands that root runs in a mount namespace of their own, before the user's programs.
    prelude : str
        Shell commands of the user's, before each program.
    wrapper : str
        A command that runs each program.
    env : mapping
        Changes to the environment; None: unset. ``{base}`` is a directory of the case's.
    says : mapping of str to str
        What ``COMPUTE`` says of each way to compute: a pattern.
    commands : str or None
        What ``holdfast start`` says, then ``status`` and ``stop`` work if it does; None: isn't tried.
    """

    setup: str = ":"
    prelude: str = ":"
    wrapper: str = ""
    env: Mapping[str, str | None] = field(default_factory=dict)
    says: Mapping[str, str] = field(default_factory=lambda: WORKS)
    commands: str | None = None


STARTED = "Holdfast runs at"
NO_PIDFD = (
    r"ERROR the kernel lets nobody watch processes \(pidfd_open: {}\): Linux 5.3 .* LocalCluster\(processes=False\)"
)
NO_STORE = "ERROR .*there can't be a store of .*File too large; give it less capacity"
UMASK = "ERROR the umask 0777 takes new files and directories from their owner: set another"
READ_ONLY = "mount --bind {0} {0} && mount -o remount,bind,ro {0}"
NO_PLACE = r"ERROR there is no place for .*/tmp.*: set XDG_RUNTIME_DIR to a directory of yours"


def without_pidfds(number: int) -> Case:
    error = NO_PIDFD.format(os.strerror(number))
    return Case(
        wrapper=f"{sys.executable} {SUPPORT}/seccomp.py {PIDFD_OPEN} {number}",
        says={"store": "6", "cluster": error, "threads": "6"},
        commands=error.removeprefix("ERROR "),
    )


CASES = {
    # Where things lie.
    "another user's runtime directory": Case(
        setup="mkdir -m 700 {base}/theirs", env={"XDG_RUNTIME_DIR": "{base}/theirs"}, commands=STARTED
    ),
    "another user's open runtime directory": Case(
        setup="mkdir -m 777 {base}/theirs && chmod 777 {base}/theirs", env={"XDG_RUNTIME_DIR": "{base}/theirs"}
    ),
    "a runtime directory that is not there": Case(env={"XDG_RUNTIME_DIR": "{base}/nowhere"}),
    "a runtime directory that is a file": Case(setup="touch {base}/file", env={"XDG_RUNTIME_DIR": "{base}/file"}),
    "a home that can't be written": Case(env={"HOME": "/"}, commands=STARTED),
    "another user's home": Case(setup="mkdir -m 700 {base}/theirs", env={"HOME": "{base}/theirs"}),
    "a home that is not there": Case(env={"HOME": "{base}/nowhere"}),
    "a home that is full": Case(
        setup="mount -t tmpfs -o size=4k,mode=777 none {base}/home; head -c 4096 /dev/zero >{base}/home/x"
    ),
    "no home and no runtime directory": Case(env={"HOME": None, "XDG_RUNTIME_DIR": None}, commands=STARTED),
    "a temporary directory that can't be written": Case(
        setup=READ_ONLY.format("/tmp"), env={"XDG_RUNTIME_DIR": None}, commands=STARTED
    ),
    "no directory that can be written": Case(
        setup=f"{READ_ONLY.format('/tmp')} && {READ_ONLY.format('/var/tmp')}",
        env={"XDG_RUNTIME_DIR": "{base}/nowhere", "HOME": "/"},
        says=dict.fromkeys(["store", "cluster", "threads"], NO_PLACE),
        commands=NO_PLACE.removeprefix("ERROR "),
    ),
    "no disk for what doesn't fit": Case(
        setup="mkdir /mnt/base && mount --bind {base} /mnt/base && "
        f"{READ_ONLY.format('/tmp')} && {READ_ONLY.format('/var/tmp')} && mount --bind /mnt/base {{base}}",
        commands=r"Holdfast runs at(.|\n)*spilling +off: there is no place on a disk: /tmp .*name a spill directory",
    ),
    "a working directory that was removed": Case(prelude="mkdir {base}/home/here && cd {base}/home/here && rmdir $PWD"),
    "hardly any shared memory": Case(setup="mount -t tmpfs -o size=64k,mode=1777 none /dev/shm"),
    # What the kernel tells and does.
    "nothing in /proc/sys": Case(setup="mount -t tmpfs -o ro none /proc/sys"),
    "nothing in /sys": Case(setup="mount -t tmpfs -o ro none /sys"),
    "a kernel without pidfd_open": without_pidfds(errno.ENOSYS),
    "a sandbox that refuses pidfd_open": without_pidfds(errno.EPERM),
    "a host name that does not resolve": Case(setup="hostname does.not.resolve.invalid"),
    # What a process has inherited.
    "few descriptors": Case(prelude="ulimit -n 64"),
    "no memory that may be locked": Case(prelude="ulimit -l 0"),
    "little address space": Case(prelude="ulimit -v 3000000"),
    "no file may have more than 1 MiB": Case(prelude="ulimit -f 1024", says=dict.fromkeys(WORKS, NO_STORE)),
    "a umask that takes everything from everybody": Case(
        prelude="umask 0777", says=dict.fromkeys(WORKS, UMASK), commands=UMASK.removeprefix("ERROR ")
    ),
    "a umask that gives everything to everybody": Case(prelude="umask 0"),
    "no standard input, output and error": Case(wrapper="sh {base}/closed", commands=""),
    "signals that nobody hears": Case(wrapper=f"{sys.executable} {SUPPORT}/deaf.py", commands=STARTED),
    "a terminal that knows ASCII only": Case(
        env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, commands=STARTED
    ),
}


class User:
    """Runs programs as `USER`, who can read this repository and its interpreter, in an environment."""

    def __init__(self, base: Path, case: Case) -> None:
        self._case = case
        self._base = str(base)
        for name in ("home", "run"):
            (base / name).mkdir(mode=0o700)
            os.chown(base / name, USER, USER)
        # The output goes to a file by another descriptor.
        (base / "closed").write_text('exec 9>&1; exec "$@" <&- >&- 2>&-')

    def run(self, *programs: str) -> str:
        """What the programs say, one after the other."""
        env: dict[str, str | None] = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": SOURCE,
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": f"{self._base}/home",
            "XDG_RUNTIME_DIR": f"{self._base}/run",
            "HOLDFAST_TEST_SESSION": os.environ["HOLDFAST_TEST_SESSION"],
            **self._case.env,
        }
        commands = [self._case.prelude, *(f"{self._case.wrapper} {sys.executable} {program}" for program in programs)]
        said = other_user.run(
            [self._filled(command) for command in commands],
            {name: self._filled(value) for name, value in env.items() if value is not None},
            setup=self._filled(self._case.setup),
        )
        assert "Traceback" not in said, said
        return said

    def _filled(self, text: str) -> str:
        return text.replace("{base}", self._base)


@pytest.fixture(scope="module", autouse=True)
def _as_another_user() -> None:
    if reason := other_user.why_not():
        pytest.skip(reason)


@pytest.fixture
def base() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="hf-test-", dir="/var/tmp"))
    made.chmod(0o755)
    yield made
    for left in (made, *other_user.left_behind()):
        shutil.rmtree(left, ignore_errors=True)
    for left in Path("/tmp").glob("holdfast-logs-*"):  # if there was no other place for them
        if owner(left) == USER:
            shutil.rmtree(left, ignore_errors=True)


def owner(path: Path) -> int | None:
    """None: it is gone. Others have things of such names, too."""
    try:
        return path.stat().st_uid
    except FileNotFoundError:
        return None


def run_directories(base: Path) -> list[str]:
    """What processes have left for each other, in all places where they could."""
    roots = [base / "run", Path("/tmp"), Path("/var/tmp")]
    found = [path for root in roots for path in [*root.glob(f"holdfast-{USER}/*"), *root.glob("holdfast/*")]]
    stores = [path for root in roots for path in root.glob("holdfast-s*") if owner(path) == USER]
    return [str(path) for path in [*found, *stores] if path.name != "token"]


@pytest.mark.parametrize("name", CASES)
def test_it_computes_or_says_what_is_missing(name: str, base: Path) -> None:
    case = CASES[name]
    user = User(base, case)
    (base / "compute.py").write_text(COMPUTE)
    if "closed" in case.wrapper:
        code = (base / "compute.py").read_text().replace("flush=True", "file=open(9, 'w', closefd=False), flush=True")
        (base / "compute.py").write_text(code)
    said = user.run(f"{base / 'compute.py'} {' '.join(case.says)}")
    answers = dict(line.split(" ", 1) for line in said.splitlines() if line.split(" ")[0] in case.says)
    assert set(answers) == set(case.says), said
    for way, pattern in case.says.items():
        assert re.fullmatch(f"{pattern}.*" if "ERROR" in pattern else pattern, answers[way]), said
    assert run_directories(base) == []


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.commands is not None])
def test_commands_work_or_say_what_is_missing(name: str, base: Path) -> None:
    case = CASES[name]
    assert case.commands is not None
    user = User(base, case)
    said = user.run(START, "-m holdfast status", "-m holdfast stop")
    assert re.search(case.commands, said), said
    if case.commands == STARTED:
        assert "1 host, 1 worker, 1 thread" in said
        assert "Stopped the cluster" in said, "it wasn't killed"
    assert run_directories(base) == []
