"""``holdfast state``, on directories that are in use, whole and damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from command_line import holdfast

from holdfast import Client, LocalCluster
from holdfast.cluster.journal import records
from holdfast.cluster.journal.directory import StateDirectory, files
from holdfast.cluster.journal.recovery import recover
from holdfast.cluster.journal.writer import Writer


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state of a cluster whose scheduler was killed."""
    path = tmp_path / "state"
    with StateDirectory.open(path) as directory:
        recovered = recover(directory)
        writer = Writer(directory, recovered.next_file, recovered.next_batch, reserve_nbytes=0)
        writer.append([records.joined("c", "etl", {}, None)])
        writer.append([records.tasks(("c", ""), 1, [("x", None, b"", ()), ("y", None, b"", ("x",))], {})])
        writer.append([records.hold("c", [2]), records.put("queues", "q", 0)])
        writer.close()
    return path


def damage(state: Path, where: int = -10) -> Path:
    (file,) = (file.path for file in files(state))
    data = bytearray(file.read_bytes())
    data[where] ^= 0xFF
    file.write_bytes(data)
    return file


def test_inspecting_shows_whose_it_is_and_what_is_in_it(state: Path) -> None:
    said = holdfast("state", "inspect", str(state))
    assert f"State of cluster {json.loads((state / 'cluster.json').read_text())['id']} in {state}" in said
    assert "no scheduler has it" in said
    assert "2 tasks, 1 client with 1 future" in said
    assert "queues: 1" in said
    assert "Whole: 3 events in 1 file." in said
    report = json.loads(holdfast("state", "inspect", str(state), "--json"))
    assert (report["tasks"], report["clients"], report["holds"], report["damage"]) == (2, 1, 1, [])


def test_verifying_says_what_is_damaged_with_its_exit_code(state: Path) -> None:
    assert "Whole: 3 events" in holdfast("state", "verify", str(state))
    file = damage(state)
    said = holdfast("state", "verify", str(state), code=1)
    assert f"Damaged:\n  {file}, bytes" in said
    assert json.loads(holdfast("state", "verify", str(state), "--json", code=1))["damage"]
    before = file.read_bytes()
    holdfast("state", "inspect", str(state))
    assert file.read_bytes() == before


def test_an_end_that_was_not_written_is_no_damage(state: Path) -> None:
    (file,) = (file.path for file in files(state))
    os.truncate(file, file.stat().st_size - 3)
    assert "Not written to the end, which costs nothing" in holdfast("state", "verify", str(state))


def test_a_copy_is_the_same_and_takes_no_place_that_is_taken(state: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    assert f"Copied {state} to {target}" in holdfast("state", "backup", str(state), str(target))
    one, other = (json.loads(holdfast("state", "inspect", str(path), "--json")) for path in (state, target))
    assert one | {"directory": ""} == other | {"directory": ""}
    assert "is there already" in holdfast("state", "backup", str(state), str(target), code=1)


def test_what_is_no_state_directory_is_said(tmp_path: Path, state: Path) -> None:
    for command in ("inspect", "verify"):
        assert f"{tmp_path} is no state directory" in holdfast("state", command, str(tmp_path), code=1)
    assert "can't be copied" in holdfast("state", "backup", str(tmp_path / "nowhere"), str(tmp_path / "copy"), code=1)
    assert not (tmp_path / "copy").exists()
    (state / "cluster.json").write_text('{"format": 99, "id": "x"}')
    assert "a later version of Holdfast has made" in holdfast("state", "inspect", str(state), code=1)


def test_a_directory_in_use_is_read_and_copied(tmp_path: Path) -> None:
    with LocalCluster(1, 1, object_store_memory="64 MiB") as cluster, Client(cluster) as client:
        future = client.submit(pow, 2, 5)
        assert future.result() == 32
        report = json.loads(holdfast("state", "inspect", "--json"))
        assert report["process"] == cluster.scheduler_pid
        assert report["tasks"] == 1
        assert report["entries"]["hosts"] == 1
        address = cluster.scheduler_address
        assert json.loads(holdfast("state", "inspect", "--json", "--address", address))["process"] == report["process"]
        said = holdfast("state", "verify", "--address", "127.0.0.1:1", code=1)
        assert "the scheduler of the cluster at tcp://127.0.0.1:1 was not started here" in said
        assert "Whole" in holdfast("state", "verify")
        holdfast("state", "backup", report["directory"], str(tmp_path / "copy"))
        assert json.loads(holdfast("state", "inspect", str(tmp_path / "copy"), "--json"))["tasks"] == 1
