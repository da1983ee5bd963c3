"""The token is nowhere where programs that tasks start, or the files that they write, would have it from."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_line import SMALL, address_in, descendants, holdfast, services

from holdfast import Client, LocalCluster


def surroundings() -> dict[str, str]:
    """What a task, and a program that it starts, find in their environment."""
    return {
        "os.environ": repr(dict(os.environ)),
        "/proc/self/environ": Path("/proc/self/environ").read_text(),
        "env": subprocess.run(["env"], capture_output=True, text=True, check=True).stdout,
        "descriptors": _readable_descriptors(),
    }


def _readable_descriptors() -> str:
    """The text of all memory files and plain files that are open here, and aren't large."""
    found = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            if 0 < os.stat(f"/proc/self/fd/{entry}").st_size < 1 << 16:
                found.append(Path(f"/proc/self/fd/{entry}").read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)


def environments(processes: list[psutil.Process]) -> dict[str, str]:
    return {
        f"{process.pid} {' '.join(process.cmdline())[:100]}": Path(f"/proc/{process.pid}/environ").read_text()
        for process in processes
    }


def in_which(token: str, texts: dict[str, str]) -> list[str]:
    return [where for where, text in texts.items() if token in text]


@pytest.fixture
def exported_token(monkeypatch: pytest.MonkeyPatch) -> str:
    token = secrets.token_hex(32)
    monkeypatch.setenv("HOLDFAST_TOKEN", token)
    return token


@pytest.fixture
def token_in_file() -> str:
    return Path(os.environ["HOLDFAST_TOKEN_FILE"]).read_text()


@pytest.mark.parametrize("given", ["exported_token", "token_in_file"])
def test_a_local_clusters_token_is_in_no_environment(
    given: str, request: pytest.FixtureRequest, tmp_path: Path, eventually: Any
) -> None:
    token = request.getfixturevalue(given)
    with LocalCluster(2, 1, object_store_memory="64MB", log_directory=tmp_path, silence_logs=0) as cluster:
        assert cluster.token == token.encode()
        with Client(cluster) as client:
            assert in_which(token, client.submit(surroundings).result()) == []
            processes = psutil.Process().children(recursive=True)
            assert len(processes) >= 5, "the fork server, a scheduler, an agent and two workers"
            assert in_which(token, environments(processes)) == []

            def connect(address: str) -> int:
                with Client(address) as inner:
                    return inner.submit(abs, -1).result()

            assert client.submit(connect, cluster.scheduler_address).result() == 1

            def crash(marker: str) -> None:
                if not os.path.exists(marker):
                    Path(marker).touch()
                    os.abort()

            client.submit(crash, str(tmp_path / "crashed"), retries=3).result()
            # And a worker that was started again.
            seen = client.map(lambda number: (time.sleep(0.1), surroundings())[1], range(4))
            assert [in_which(token, each) for each in client.gather(seen)] == [[]] * 4
    logs = {str(path): path.read_text(errors="replace") for path in tmp_path.iterdir() if path.is_file()}
    assert len(logs) >= 3
    assert in_which(token, logs) == []


def test_a_started_clusters_token_is_in_no_environment(exported_token: str, tmp_path: Path) -> None:
    importable = os.pathsep.join(filter(None, sys.path))
    said = holdfast("start", "--head", "--port", "0", *SMALL, "--log-directory", str(tmp_path), PYTHONPATH=importable)
    try:
        assert exported_token not in said
        with Client(address_in(said)) as client:
            assert in_which(exported_token, client.submit(surroundings).result()) == []
        processes = [psutil.Process(service["pid"]) for service in services()] + descendants()
        assert len(processes) >= 4
        assert in_which(exported_token, environments(processes)) == []
    finally:
        holdfast("stop")
    logs = {str(path): path.read_text(errors="replace") for path in tmp_path.iterdir()}
    assert in_which(exported_token, logs) == []


def test_a_process_started_by_hand_hands_no_token_on(exported_token: str) -> None:
    code = (
        "import argparse, os, subprocess\n"
        "from holdfast.cluster.comm.tokens import add_token_option, token_of\n"
        "parser = argparse.ArgumentParser()\n"
        "add_token_option(parser)\n"
        "print(token_of(parser.parse_args([])).decode())\n"
        "print(subprocess.run(['env'], capture_output=True, text=True).stdout)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.count(exported_token) == 1
