"""Where objects go that don't fit: to a disk, unless somebody names a place that is memory."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from holdfast.objectstore import ObjectID, StoreFullError, StoreServer, connect
from holdfast.objectstore.spill.location import default_location

MIB = 1 << 20


@pytest.fixture
def in_memory() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="hf-test-", dir="/dev/shm") as folder:
        yield folder


def put_all(server: StoreServer, count: int) -> None:
    with connect(server.socket_path) as store:
        objects = [store.put(np.full(MIB // 8, number)) for number in range(count)]
        assert [int(store.get(each)[0]) for each in objects] == list(range(count))


def test_a_temporary_directory_that_is_memory_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, in_memory: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert default_location().path == str(tmp_path)
    monkeypatch.setenv("TMPDIR", in_memory)
    place = default_location().path
    assert place is not None
    assert not place.startswith("/dev/shm")
    with StoreServer(capacity=8 * MIB) as server:
        put_all(server, 20)


@pytest.mark.parametrize("text", ["relative", ""])
def test_a_place_that_depends_on_the_working_directory_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", text)
    monkeypatch.setenv("XDG_CACHE_HOME", text)
    path = default_location().path
    assert path is not None
    assert os.path.isabs(path)


def test_without_a_disk_nothing_is_moved_and_the_log_and_errors_say_why() -> None:
    # A real one: in a mount namespace of its own, where all the usual places are memory.
    code = """
import logging
import numpy as np
from holdfast.objectstore import StoreFullError, StoreServer, connect
logging.basicConfig(format="LOG %(levelname)s %(message)s")
with StoreServer(capacity=8 << 20) as server, connect(server.socket_path) as store:
    kept = []
    try:
        while len(kept) < 40:
            kept.append(store.put(np.full(1 << 17, len(kept)), timeout=0.1))
    except StoreFullError as error:
        print("FULL", error)
    print("KEPT", [int(store.get(each)[0]) for each in kept] == list(range(len(kept))))
"""
    # The environment that Python runs in may lie in one of these places itself.
    mounts = """
set -e
mount --bind . /mnt
mount --bind "$1" /srv
cd /mnt
mount -t tmpfs none /tmp
mount -t tmpfs none /var/tmp
mkdir -p "$1"
mount --bind /srv "$1"
shift
exec "$@"
"""
    command = ["unshare", "-m", "sh", "-c", mounts, "sh", sys.prefix, sys.executable, "-c", code]
    working = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        memory = dict.fromkeys(("XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "TMPDIR"), place)
        environment = {**os.environ, **memory, "PYTHONPATH": "/mnt"}
        result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=working, timeout=60)
    if "unshare" in result.stderr or "mount" in result.stderr:
        pytest.skip(f"this machine lets nobody mount: {result.stderr}")
    assert result.returncode == 0, result
    warnings = [line for line in result.stderr.splitlines() if "LOG WARNING" in line]
    assert len(warnings) == 1
    for text in (warnings[0], result.stdout):
        assert "/tmp is memory (tmpfs)" in text
        assert "/var/tmp is memory (tmpfs)" in text
        assert "name a spill directory" in text
    assert "nothing was moved to disk" in result.stdout
    assert "KEPT True" in result.stdout


def test_a_place_that_is_memory_and_is_named_is_used_with_a_warning_and_within_bounds(
    in_memory: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING),
        StoreServer(capacity=8 * MIB, spill_directory=in_memory) as server,
        connect(server.socket_path) as store,
    ):
        assert f"spill directory {in_memory} is memory (tmpfs)" in caplog.text
        kept: list[ObjectID] = []

        def fill() -> None:
            while len(kept) < 40:
                kept.append(store.put(np.full(MIB // 8, len(kept)), timeout=0.3))

        with pytest.raises(StoreFullError, match=r"exceed the limit of 8\.4 MB"):
            fill()
        assert 10 <= len(kept) <= 16
        assert [int(store.get(each)[0]) for each in kept] == list(range(len(kept)))
