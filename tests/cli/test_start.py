"""What ``holdfast start`` makes of its options, and how much it takes where others run already."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import SMALL, address_in, holdfast, services

from holdfast import Client


@pytest.fixture
def stopped() -> Iterator[None]:
    yield
    holdfast("stop")


@pytest.mark.usefixtures("stopped")
def test_options_of_dask_have_their_effect_or_say_why_not(tmp_path: Path) -> None:
    first = tmp_path / "first.py"
    first.write_text(f"def dask_setup(worker):\n    open({str(tmp_path / 'seen')!r}, 'a').write(worker.name)\n")
    pid_file = tmp_path / "pid"
    said = holdfast(
        *("start", "--head", "--port", "0", "--nworkers", "-1", "--nthreads", "1", "--memory-limit", "auto"),
        *("--object-store-memory", "64MB", "--local-directory", str(tmp_path), "--interface", "lo"),
        *("--no-dashboard", "--dashboard-address", ":8787", "--no-nanny", "--death-timeout", "60"),
        *("--preload", str(first), "--pid-file", str(pid_file)),
    )
    assert "--dashboard-address has no effect: there is no dashboard" in said
    assert "--no-nanny has no effect: the agent of a host starts workers again" in said
    assert "--death-timeout has no effect" in said
    assert "--no-dashboard" not in said, "that is so anyway"
    (service,) = services()
    assert int(pid_file.read_text()) == service["pid"]
    with Client(address_in(said), set_as_default=False) as client:
        assert len(client.nthreads()) == max(1, len(os.sched_getaffinity(0)))
    assert socket.gethostname() in (tmp_path / "seen").read_text()
    holdfast("stop")
    assert not pid_file.exists()


def test_what_must_not_be_ignored_is_refused() -> None:
    for options, reason in (
        (("--tls-cert", "cert.pem"), "not encrypted"),
        (("--protocol", "tls"), "all connections are TCP"),
        (("--worker-class", "mine.Worker"), "--preload runs code"),
        (("--interface", "none-such"), "there is no such interface"),
        (("--interface", "lo", "--host", "127.0.0.1"), "either --host or --interface"),
        (("--nworkers", "0"), "is no number from 1 on"),
        (("--", "--colour", "red"), "an argument of --preload"),
    ):
        said = _refusal("start", "--head", "--port", "0", *SMALL, *options)
        assert reason in said
    assert services() == []


def _refusal(*arguments: str) -> str:
    result = subprocess.run([sys.executable, "-m", "holdfast", *arguments], capture_output=True, text=True, timeout=60)
    assert result.returncode in (1, 2), result
    return " ".join((result.stdout + result.stderr).split())


def test_too_little_time_is_named() -> None:
    said = holdfast("start", "--head", "--port", "0", *SMALL, "--timeout", "0.1", code=1)
    assert "All of it has 0.1 s to start; --timeout gives it more" in said
    assert services() == []


@pytest.mark.usefixtures("stopped")
def test_a_second_host_on_a_machine_has_a_name_of_its_own_and_takes_of_what_is_left(
    eventually: Callable[..., Any],
) -> None:
    address = address_in(holdfast("start", "--head", "--port", "0", "--workers", "1", "--threads", "1"))
    first = _stores()[socket.gethostname()]
    said = holdfast("start", "--address", address, "--workers", "1", "--threads", "1")
    second = f"{socket.gethostname()}.2"
    assert f"This host is called {second}" in said
    assert "This one gets 30 % of what they leave" in said
    stores = _stores()
    assert stores[socket.gethostname()] == first
    assert 0 < stores[second] < first
    said = holdfast("start", "--address", address, "--name", second, *SMALL)
    assert f"{second}.2" in said
    assert "of what they leave" not in said
    eventually(lambda: len(_stores()) == 3)


def _stores() -> dict[str, int]:
    nodes = json.loads(holdfast("status", "--json"))["nodes"].values()
    return {node["hostname"]: node["store"]["capacity"] for node in nodes}
