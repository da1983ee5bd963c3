"""``--scheduler-file``: the file by which others find a cluster."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import SMALL, holdfast

from holdfast import Client
from tests.support.waiting import until


@pytest.fixture
def stopped() -> Iterator[None]:
    yield
    holdfast("stop")


def test_a_head_writes_it_and_hosts_and_clients_read_it(tmp_path: Path, stopped: None) -> None:
    file = tmp_path / "scheduler.json"
    holdfast("start", "--head", "--port", "0", "--scheduler-file", str(file), *SMALL)
    said = json.loads(file.read_text())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(said["workers"]) == 1
    assert "has joined the cluster" in holdfast("start", "--scheduler-file", str(file), *SMALL)
    with Client(scheduler_file=file, set_as_default=False) as client:
        assert client.scheduler_address == said["address"]
        assert len(client.nthreads()) == 2
    holdfast("stop")
    until(lambda: not file.exists(), "it is removed with the cluster")


def test_what_contradicts_itself_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    said = holdfast("start", "--address", "127.0.0.1:1", "--scheduler-file", str(file), code=2)
    assert "give one of them" in said
    assert "there is no scheduler file" in holdfast("start", "--timeout", "0.1", "--scheduler-file", str(file), code=1)
    assert "can't be written" in holdfast(
        "start", "--head", "--port", "0", "--scheduler-file", "/no/such/place/file", *SMALL, code=1
    )
