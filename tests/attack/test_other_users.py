"""Another user of the host gets at nothing, and can't pretend to be a part of a cluster."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import other_user
import psutil
import pytest
from other_user import SOURCE

from holdfast import Client, LocalCluster
from holdfast.cluster.comm import shortcut
from holdfast.objectstore import StoreServer


@pytest.fixture(scope="module", autouse=True)
def _as_another_user() -> None:
    if reason := other_user.why_not():
        pytest.skip(reason)


@pytest.fixture
def open_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Everybody may enter it, so that it protects nothing that is in it."""
    before = os.umask(0)
    place = Path(tempfile.mkdtemp(prefix="hf-test-", dir="/var/tmp"))
    place.chmod(0o777)
    for name, variable in {"run": "XDG_RUNTIME_DIR", "config": "XDG_CONFIG_HOME"}.items():
        (place / name).mkdir(mode=0o755)
        monkeypatch.setenv(variable, str(place / name))
    monkeypatch.delenv("HOLDFAST_TOKEN_FILE")
    yield place
    os.umask(before)
    shutil.rmtree(place)
    for left in other_user.left_behind():
        shutil.rmtree(left, ignore_errors=True)


ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE, "PYTHONDONTWRITEBYTECODE": "1"}


def intrude(**told: Any) -> dict[str, list[str]]:
    command = f"{sys.executable} {SOURCE}/tests/attack/intruder.py {shlex.quote(json.dumps(told))}"
    said = other_user.run([command], ENVIRONMENT)
    done: dict[str, list[str]] = json.loads(said.splitlines()[-1])
    return done


def test_another_user_gets_at_nothing_of_a_cluster(open_place: Path) -> None:
    spilled, logs = open_place / "spill", open_place / "logs"
    with (
        LocalCluster(
            1, 1, object_store_memory="32MB", spill_directory=spilled, log_directory=logs, silence_logs=0
        ) as cluster,
        Client(cluster) as client,
    ):
        kept = client.map(lambda number: np.full(1 << 20, number), range(10))  # 80 MB: some of it is on disk
        assert client.submit(lambda arrays: sum(int(each[0]) for each in arrays), kept).result() == sum(range(10))
        assert list(spilled.rglob("*")), "something is on disk"
        processes = psutil.Process().children(recursive=True)
        stores = [str(path) for path in (open_place / "run").rglob("*.sock")]
        assert stores
        done = intrude(
            folders=[str(open_place), str(logs)],
            processes=[process.pid for process in processes],
            addresses=[cluster.scheduler_address, *(node["address"] for node in cluster.nodes)],
            stores=stores,
        )
        assert client.submit(sum, [1, 2]).result() == 3
    open_to_all = [f"listed {open_place / name}" for name in ("run", "config")]
    assert sorted(done["folders"]) == sorted([f"listed {open_place}", *open_to_all, f"wrote into {open_place}"])
    assert done["processes"] == []
    assert done["addresses"] == ["AuthenticationError"] * 2
    assert set(done["stores"]) <= {"PermissionError", "StoreClosedError", "StoreError"}, done["stores"]


def test_a_store_serves_its_own_user_even_where_everybody_can_enter(open_place: Path) -> None:
    path = open_place / "socket" / "store.sock"
    with StoreServer(capacity="8MB", socket_path=path, spill_directory=open_place / "spill"):
        path.parent.chmod(0o777)
        path.chmod(0o777)
        done = intrude(stores=[str(path)])
    assert done["stores"] in (["StoreClosedError"], ["StoreError"], ["ConnectionResetError"])


def test_another_user_can_not_stand_in_for_a_scheduler(eventually: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # The name that a client of this host looks for first.
    code = (
        "import socket, time; s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM); "
        f"s.bind('\\0holdfast/127.0.0.1/{port}'); s.listen(); print('listening', flush=True); "
        "c, _ = s.accept(); print('heard', c.recv(100), flush=True)"
    )
    impostor = other_user.popen([f"{sys.executable} -c {shlex.quote(code)}"], ENVIRONMENT)
    try:
        assert impostor.stdout is not None
        assert impostor.stdout.readline() == "listening\n"
        assert shortcut.connected("127.0.0.1", port) is None
        assert impostor.stdout.readline() == "heard b''\n", "nothing was sent"
    finally:
        impostor.kill()
        impostor.communicate()


def test_the_files_of_a_cluster_are_its_users_alone(open_place: Path) -> None:
    # Whatever the umask: it takes nothing from anybody here.
    spilled, logs = open_place / "spill", open_place / "logs"
    options: dict[str, Any] = {"spill_directory": spilled, "log_directory": logs}
    with LocalCluster(1, 1, object_store_memory="32MB", **options) as cluster, Client(cluster) as client:
        kept = client.map(lambda number: np.full(1 << 20, number), range(10))
        client.gather([client.submit(len, each) for each in kept])
        listing = subprocess.run(["find", open_place, "-perm", "/077"], capture_output=True, text=True, check=True)
    mine = {str(open_place), str(open_place / "run"), str(open_place / "config")}
    assert set(listing.stdout.splitlines()) <= mine
