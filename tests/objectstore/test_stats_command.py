"""``python -m holdfast.objectstore stats``, as its user sees it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.objectstore import Store, StoreFullError, StoreServer, connect

COMMAND = [sys.executable, "-m", "holdfast.objectstore", "stats"]


def stats(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)


def rows(text: str) -> list[str]:
    """The keys of the objects, in the order in which they're shown."""
    return [line.split(", ")[1] for line in text.splitlines() if ", numpy.ndarray" in line]


def test_it_shows_the_objects_with_their_owners_and_their_readers(server: StoreServer, store: Store) -> None:
    with connect(server.socket_path, name="etl") as etl, connect(server.socket_path, name="viewer") as viewer:
        large = etl.put(np.zeros(1_000_000), key="large")
        small = etl.put(np.zeros(10_000), key="small")
        middle = store.put(np.zeros(100_000), key="middle")
        views: list[Any] = [viewer.get(small) for _ in range(3)] + [store.get(middle)]
        doomed = viewer.get(etl.put(np.zeros(20_000), key="doomed", object_id=(gone := etl.new_id())))
        etl.delete(gone)
        reserved = etl.create(50_000)
        shown = stats(server.socket_path)
        assert shown.returncode == 0, shown.stderr
        text = shown.stdout
        assert rows(text) == ["large", "middle", "doomed", "small"]
        assert text.startswith("9.5 MB of 67.1 MB used (14 %)")
        assert "3 objects of" in text
        assert "5 pins, 4 clients, this one included" in text
        assert "400.1 kB reserved for 1 object to come" in text
        assert "160.1 kB deleted but still viewed by 'viewer'" in text
        assert "8.2 MB  held by etl" in text
        (line,) = [line for line in text.splitlines() if "small" in line and small.hex() in line]
        assert line.endswith("etl, small, numpy.ndarray; pinned by viewer")
        assert line.split()[4:6] == ["s", "3"]
        assert rows(stats(server.socket_path, "--sort", "pins").stdout)[0] == "small"
        assert rows(stats(server.socket_path, "--sort", "age", "--limit", "2").stdout) == ["large", "small"]
        assert "the largest 1 of 5" in stats(server.socket_path, "--limit", "1").stdout
        everything = json.loads(stats(server.socket_path, "--json", "--limit", "1").stdout)
        assert everything["stats"]["pins"] == 5
        assert [item["id"] for item in everything["objects"]][:2] == [large.hex(), middle.hex()]
        assert {name for item in everything["objects"] for name in item["pinned_by"]} == {"viewer", "test"}
        del views, doomed, reserved


def test_it_shows_what_is_on_disk_and_what_keeps_the_rest_from_it(tmp_path: Path) -> None:
    with (
        StoreServer("16 MiB", spill_directory=tmp_path, spill_limit="10 MiB") as server,
        connect(server.socket_path) as store,
    ):
        with contextlib.suppress(StoreFullError):
            for number in range(20):
                store.put(np.zeros(2 << 20, "u1"), key=f"array {number}", timeout=0.5)
        text = stats(server.socket_path).stdout
        assert "4 objects of 8.4 MB on disk, in files of 8.4 MB" in text
        assert "nothing more can be moved to disk: " in text
        assert "would exceed the limit of 10.5 MB" in text
        assert len([line for line in text.splitlines() if " spilled " in line]) == 4


def test_an_empty_store_is_shown_too(server: StoreServer) -> None:
    text = stats(server.socket_path).stdout
    assert text.startswith("0 B of 67.1 MB used (0 %)")
    assert "0 objects of 0 B, 0 pins, 1 client, this one included" in text


def test_it_watches_until_it_is_interrupted(server: StoreServer, store: Store) -> None:
    process = subprocess.Popen(
        [*COMMAND, server.socket_path, "--watch", "0.05"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("0 B of")
    object_id = store.put(np.zeros(100_000), key="appears")
    while "appears" not in process.stdout.readline():
        pass
    store.delete(object_id)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, ""), rest


def test_a_reader_that_has_enough_is_no_error(server: StoreServer, store: Store) -> None:
    with store.batch():
        for i in range(3000):
            store.put(i)
    command = f"{' '.join(COMMAND)} {server.socket_path} --limit 3000 | head -1"
    shown = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=60)
    assert shown.stderr == ""
    assert len(shown.stdout.splitlines()) == 1


def test_a_name_cannot_do_anything_to_the_terminal(server: StoreServer) -> None:
    with connect(server.socket_path, name="\x1b[2J\nroot") as store:
        view = store.get(store.put(np.zeros(1000), key="\x07key"))
        text = stats(server.socket_path).stdout
        assert "\x1b" not in text
        assert "\x07" not in text
        assert r"\x1b[2J\nroot, \x07key, numpy.ndarray; pinned by \x1b[2J\nroot" in text
        del view


def test_a_wrong_path_says_what_to_do(server: StoreServer, tmp_path: Path) -> None:
    directory = os.path.dirname(server.socket_path)
    (tmp_path / "file").write_text("")
    for path, reason, hint in [
        (tmp_path / "nothing", "no store serves at", "prints it when it starts"),
        (directory, "no store serves at", f"It is a directory; try {server.socket_path}"),
        (tmp_path / "file", "no store serves at", "It is not a socket"),
    ]:
        shown = stats(path)
        assert shown.returncode == 1
        assert shown.stdout == ""
        assert reason in shown.stderr
        assert hint in shown.stderr
        assert "Traceback" not in shown.stderr


def test_wrong_options_are_refused(server: StoreServer) -> None:
    for options in (["--sort", "colour"], ["--limit", "-1"], ["--watch", "0"]):
        shown = stats(server.socket_path, *options)
        assert shown.returncode == 2
        assert options[0] in shown.stderr


def test_it_shows_what_is_shared(server: StoreServer, store: Store) -> None:
    store.put(store.get(store.put(np.zeros(100_000))))
    text = stats(server.socket_path).stdout
    assert "2 objects of 1.6 MB" in text
    assert "800.0 kB of that are counted for several objects that share them" in text
