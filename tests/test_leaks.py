"""The check that no test leaves anything behind, itself tested: a pytest session of its own for each kind of leak."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import pytest

LEAKS = {
    "child process": (
        """
        import subprocess
        kept = []
        def test():
            kept.append(subprocess.Popen(["sleep", "600"]))
        """,
        "sleep 600",
    ),
    "detached process": (
        """
        import subprocess
        def test():
            subprocess.run(["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 </dev/null &"], check=True)
        """,
        "sleep 600",
    ),
    "forked process": (
        """
        import os, time
        def test():
            if os.fork() == 0:
                time.sleep(600)
        """,
        "processes:",
    ),
    "run directory": (
        """
        from holdfast.cluster.processes.run_directory import RunDirectory
        kept = []
        def test():
            kept.append(RunDirectory.create("forgotten"))
        """,
        "forgotten-",
    ),
    "socket of a process that was killed": (
        """
        import os, signal, socket
        from holdfast.cluster.processes.run_directory import RunDirectory
        def test():
            if (pid := os.fork()) == 0:
                directory = RunDirectory.create("killed")
                socket.socket(socket.AF_UNIX).bind(str(directory.path / "store.sock"))
                os.kill(os.getpid(), signal.SIGKILL)
            os.waitpid(pid, 0)
        """,
        "store.sock",
    ),
    "open arena": (
        """
        import os
        def test():
            os.memfd_create("holdfast-arena")
        """,
        "memfd:holdfast-arena",
    ),
    "mapped arena": (
        """
        import mmap, os
        kept = []
        def test():
            fd = os.memfd_create("holdfast-arena")
            os.ftruncate(fd, 4096)
            kept.append(mmap.mmap(fd, 4096))
            os.close(fd)
        """,
        "memfd:holdfast-arena",
    ),
    "thread": (
        """
        import threading
        end = threading.Event()
        def test():
            threading.Thread(target=end.wait, name="forgotten").start()
        def test_after():
            end.set()
        """,
        "forgotten (not daemon)",
    ),
    "event loop": (
        """
        from holdfast.cluster.comm.loops import LoopThread
        kept = []
        def test():
            kept.append(LoopThread("holdfast-forgotten"))
        """,
        "holdfast-forgotten (daemon)",
    ),
    "module's fixture": (
        """
        import subprocess, pytest
        kept = []
        @pytest.fixture(scope="module")
        def cluster():
            kept.append(subprocess.Popen(["sleep", "600"]))
            yield
        def test(cluster):
            pass
        """,
        "the fixtures of",
    ),
}

TIDY = """
import os, signal, subprocess, threading
import pytest

@pytest.fixture(scope="module")
def shell():
    # It starts another process when the first one ends, as a node agent does with workers.
    process = subprocess.Popen(["sh", "-c", "sleep 600; sleep 600"], process_group=0)
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

@pytest.fixture(scope="session")
def wide():
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()

def test_a_fixture_of_the_module_may_stay(shell):
    pass

def test_what_its_processes_start_is_theirs(shell):
    with open(f"/proc/{shell.pid}/task/{shell.pid}/children") as file:
        os.kill(int(file.read()), signal.SIGKILL)

def test_one_that_is_asked_for_late_may_too(request):
    request.getfixturevalue("wide")

def test_what_takes_its_time_to_end_is_waited_for():
    threading.Thread(target=threading.Event().wait, args=(0.3,)).start()
"""


def run_session(folder: Path, sources: dict[str, str], *arguments: str, grace_seconds: float = 5.0) -> dict[str, str]:
    """Run each source as a module of one session; return what was wrong with each, by name."""
    conftest = (Path(__file__).parent / "conftest.py").read_text()
    assert "GRACE_SECONDS = 5.0" in conftest
    (folder / "conftest.py").write_text(conftest.replace("GRACE_SECONDS = 5.0", f"GRACE_SECONDS = {grace_seconds}"))
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {Path(__file__).parent / 'support'}\nmarkers = fast\n")
    for name, source in sources.items():
        (folder / f"test_{name}.py").write_text(textwrap.dedent(source))
    report = folder / "report.xml"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-q",
            f"--junitxml={report}",
            *arguments,
            str(folder),
        ],
        capture_output=True,
        timeout=100,
        cwd=folder,
    )
    wrong: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.get("classname", "").removeprefix("test_")
        wrong[name] = wrong.get(name, "") + "".join(f"{e.get('message')} {e.text}" for e in case if e.tag != "skipped")
    return wrong


@pytest.fixture(scope="module")
def caught(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    sources = {kind.replace(" ", "_").replace("'", "_"): source for kind, (source, _) in LEAKS.items()}
    return run_session(tmp_path_factory.mktemp("leaks"), sources, grace_seconds=0.05)


@pytest.mark.parametrize("kind", LEAKS)
def test_a_leak_is_caught(caught: dict[str, str], kind: str) -> None:
    words = caught[kind.replace(" ", "_").replace("'", "_")]
    assert "left behind" in words
    assert LEAKS[kind][1] in words


def test_what_wider_fixtures_keep_is_none(tmp_path: Path) -> None:
    assert run_session(tmp_path, {"tidy": TIDY}) == {"tidy": ""}


def test_sessions_side_by_side_each_answer_for_their_own(tmp_path: Path) -> None:
    """The tidy tests come and go while the other session's forgotten process is there."""
    sources = {"tidy": TIDY, "forgets": LEAKS["detached process"][0]}
    wrong = run_session(tmp_path, sources, "--numprocesses=2", "--dist=loadfile", grace_seconds=2.0)
    assert wrong["tidy"] == ""
    assert "left behind" in wrong["forgets"]
