"""A scheduler's process that begins with a state directory to which something was done."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import DEADLINE_SECONDS

from holdfast.cluster import protocol
from holdfast.cluster.comm import tokens
from holdfast.cluster.deploy.ask import ask
from holdfast.cluster.journal import compaction, records
from holdfast.cluster.journal.directory import StateDirectory, files
from holdfast.cluster.journal.recovery import recover
from holdfast.cluster.journal.writer import Writer
from holdfast.cluster.processes.parent import spawn
from holdfast.objectstore.errors import HoldfastError

TOKEN = b"t" * 32
#: Each scheduler before has left one task, which a client holds.
SCHEDULERS = 3
ORIGIN = ("c", "c", {}, "", None)


def write(path: Path, number: int) -> None:
    """What a scheduler leaves that was killed."""
    with StateDirectory.open(path) as directory:
        recovered = recover(directory)
        writer = Writer(directory, recovered.next_file, recovered.next_batch, reserve_nbytes=0)
        client = f"c{number}"
        writer.append([records.joined(client, client, {}, None)])
        writer.append([records.tasks(ORIGIN, number, [(f"x{number}", None, b"", ())], {})])
        writer.append([records.hold(client, [number])])
        writer.close()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    for number in range(1, SCHEDULERS + 1):
        write(path, number)
    return path


@contextlib.contextmanager
def scheduler(state: Path) -> Iterator[dict[str, Any]]:
    """A scheduler's process; gives its status, once it serves clients."""
    with tokens.handed_down(TOKEN) as token_fd:
        options = ["--port", "0", "--state-directory", str(state), tokens.OPTION, str(token_fd)]
        log = state.parent / "log"
        child = spawn("holdfast.cluster.scheduler", options, log_file=log, pass_fds=[token_fd])
    try:
        address = child.wait_ready(DEADLINE_SECONDS)["address"]
        yield {
            **ask(address, protocol.requests.STATUS, token=TOKEN),
            "keys": {row[0] for row in ask(address, protocol.requests.LIST_TASKS, token=TOKEN)["tasks"]},
            "log": log.read_text(),
        }
    finally:
        child.kill()
        child.wait()


def of(state: Path, number: int) -> Path:
    """The file of one of the schedulers."""
    return files(state)[number - 1].path


def flip(path: Path, where: int) -> None:
    data = bytearray(path.read_bytes())
    data[where] ^= 0xFF
    path.write_bytes(data)


def the_last_is_cut_in_a_batch(state: Path) -> None:
    last = of(state, 3)
    os.truncate(last, last.stat().st_size - 5)


def the_last_is_damaged_at_its_end(state: Path) -> None:
    flip(of(state, 3), -5)


def one_in_the_middle_is_damaged(state: Path) -> None:
    flip(of(state, 2), -5)


def one_in_the_middle_is_cut(state: Path) -> None:
    os.truncate(of(state, 2), of(state, 2).stat().st_size // 2)


def one_in_the_middle_is_gone(state: Path) -> None:
    of(state, 2).unlink()


def a_beginning_is_damaged(state: Path) -> None:
    flip(of(state, 2), 3)


def one_is_empty(state: Path) -> None:
    of(state, 2).write_bytes(b"")


def all_are_noise(state: Path) -> None:
    for number in range(1, SCHEDULERS + 1):
        of(state, number).write_bytes(os.urandom(500))


def a_summary_is_damaged(state: Path) -> None:
    flip(compaction.summarize(state, 2), -5)


def a_summary_is_half_written(state: Path) -> None:
    summary = compaction.summarize(state, 2)
    os.truncate(summary, summary.stat().st_size // 2)


def who_it_is_of_is_damaged(state: Path) -> None:
    (state / "cluster.json").write_bytes(b"\0\0\0")


def nobody_says_who_it_is_of(state: Path) -> None:
    (state / "cluster.json").unlink()


def the_epoch_is_damaged(state: Path) -> None:
    (state / "epoch").write_bytes(b"")


def others_have_left_what_was_not_done(state: Path) -> None:
    (state / "journal" / "00000002.sum.new").write_bytes(b"half")
    (state / "epoch.new").write_bytes(b"9")


ALL = {"x1", "x2", "x3"}


@pytest.mark.parametrize(
    ("harm", "kept", "is_damaged"),
    [
        (the_last_is_cut_in_a_batch, {"x1", "x2"}, False),
        (the_last_is_damaged_at_its_end, {"x1", "x2"}, True),
        (one_in_the_middle_is_damaged, {"x1", "x3"}, True),
        (one_in_the_middle_is_cut, {"x1", "x3"}, True),
        (one_in_the_middle_is_gone, {"x1", "x3"}, True),
        (a_beginning_is_damaged, ALL, True),
        (one_is_empty, {"x1", "x3"}, True),
        (all_are_noise, set(), True),
        (a_summary_is_damaged, ALL, True),
        (a_summary_is_half_written, {"x3"}, True),
        (who_it_is_of_is_damaged, ALL, False),
        (nobody_says_who_it_is_of, ALL, False),
        (the_epoch_is_damaged, ALL, False),
        (others_have_left_what_was_not_done, ALL, False),
    ],
)
def test_whatever_was_done_to_a_journal_a_scheduler_starts_and_says_what_is_wrong(
    state: Path, harm: Callable[[Path], None], kept: set[str], is_damaged: bool
) -> None:
    harm(state)
    with scheduler(state) as status:
        assert status["keys"] == kept
        journal = status["scheduler"]["journal"]
        assert bool(journal["damage"]) == is_damaged
        assert ("the journal is damaged" in status["log"]) == is_damaged
        assert status["scheduler"]["epoch"].endswith(f"/{SCHEDULERS + 1}")
    # What it has written goes on from there.
    with scheduler(state) as status:
        assert status["keys"] == kept
        assert status["scheduler"]["epoch"].endswith(f"/{SCHEDULERS + 2}")


def test_a_journal_with_which_no_scheduler_can_begin_is_set_aside_as_a_whole(state: Path) -> None:
    with StateDirectory.open(state) as directory:
        recovered = recover(directory)
        writer = Writer(directory, recovered.next_file, recovered.next_batch, reserve_nbytes=0)
        writer.append([records.tasks(("an origin", "of no version"), 9, [("odd", None, b"", ())], {})])
        writer.append([records.hold("c1", [9])])
        writer.close()
    before = {file.path.read_bytes() for file in files(state)}
    with scheduler(state) as status:
        assert status["keys"] == set()
        assert "no scheduler could go on with what was in it" in status["scheduler"]["journal"]["damage"][0]
        (place,) = (state / "aside").iterdir()
        assert {file.read_bytes() for file in place.iterdir()} == before


def test_what_can_not_be_read_is_set_aside(state: Path) -> None:
    lost = of(state, 2).read_bytes()[-20:]
    one_in_the_middle_is_damaged(state)
    with scheduler(state):
        kept = b"".join(each.read_bytes() for each in (state / "aside").iterdir())
    assert lost[:-5] in kept


@pytest.mark.parametrize("what", ["directory", "file"])
def test_what_a_later_version_has_written_is_refused_and_not_touched(
    state: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "directory":
        (state / "cluster.json").write_text('{"format": 99, "id": "x"}')
    else:
        monkeypatch.setattr("holdfast.cluster.journal.writer.FORMAT", 99)
        write(state, 4)
    before = {path: path.read_bytes() for path in (state / "journal").iterdir()}
    with pytest.raises(HoldfastError, match="a later version of Holdfast has"), scheduler(state):
        pass
    assert {path: path.read_bytes() for path in (state / "journal").iterdir()} == before


def test_a_directory_that_can_not_be_one_is_refused_by_name(state: Path) -> None:
    shutil.rmtree(state)
    state.write_text("a file")
    with pytest.raises(HoldfastError, match="can't be a state directory"), scheduler(state):
        pass
