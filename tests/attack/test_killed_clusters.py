"""What is left of a cluster all of whose processes were killed goes with the next command or cluster of this user."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from command_line import SMALL, address_in, descendants, holdfast, services
from waiting import until

from holdfast import Client, LocalCluster, wait
from holdfast.cluster.processes import run_directory


def status() -> None:
    assert "no cluster of yours runs on this host" in holdfast("status", code=1)


def look_elsewhere() -> None:
    """Its options say nothing of this host."""
    holdfast("memory", "--address", "127.0.0.1:1", code=1)


def another_cluster() -> None:
    with LocalCluster(1, 1, object_store_memory="32 MiB"):
        pass


@pytest.mark.parametrize("look", [status, look_elsewhere, another_cluster])
def test_it_leaves_nothing(tmp_path: Path, look: Callable[[], None]) -> None:
    spill = tmp_path / "far" / "away"
    address = address_in(holdfast("start", "--head", "--port", "0", *SMALL, "--spill-directory", str(spill)))
    with Client(address) as client:
        futures = client.map(np.full, [1_000_000] * 12, range(12))
        wait(futures)
        until(lambda: list(spill.glob("*/[0-9]*")), "there are files of spilled objects")
        # All at one time: none can tidy up after another.
        family = [*descendants(), *(psutil.Process(service["pid"]) for service in services())]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)
        psutil.wait_procs(family, 20)
    register = Path(os.environ["XDG_RUNTIME_DIR"], "holdfast-leftovers")
    assert list(spill.glob("*/[0-9]*"))
    assert list(register.iterdir())
    look()
    assert not list(spill.iterdir())
    assert not list(run_directory.run_root().iterdir())
    assert not [note for note in register.iterdir() if note.read_text().startswith(str(spill))]
