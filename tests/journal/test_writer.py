"""What a scheduler writes is there when it is gone; and what a full disk leads to."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest

from holdfast.cluster.errors import JournalError, JournalFullError
from holdfast.cluster.journal import directory as state
from holdfast.cluster.journal import records
from holdfast.cluster.journal.compaction import ENDS_WITH_INPUT, summarize
from holdfast.cluster.journal.directory import StateDirectory
from holdfast.cluster.journal.group_sync import GroupSync
from holdfast.cluster.journal.recovery import read, recover
from holdfast.cluster.journal.writer import Writer

PATIENCE_SECONDS = 30.0
_SMALL = 4_000
_COMPACTION = [sys.executable, "-m", "holdfast.cluster.journal.compaction"]

_WRITES_WITHOUT_END = """
import itertools, sys
from pathlib import Path
from holdfast.cluster.journal import records
from holdfast.cluster.journal.directory import StateDirectory
from holdfast.cluster.journal.recovery import recover
from holdfast.cluster.journal.writer import Writer

directory = StateDirectory.open(Path(sys.argv[1]))
recovered = recover(directory)
writer = Writer(directory, recovered.next_file, recovered.next_batch, file_nbytes=200_000)
begin = max(recovered.tables.entries.get("variables", {}), default=0) + 1
for number in itertools.count(begin):
    writer.append([records.put("variables", number, b"v" * (number % 5_000)), records.remove("variables", number - 50)])
    print(number, flush=True)
"""


def _put(number, nbytes=100):
    return [records.put("variables", number, b"v" * nbytes)]


def _numbers(path):
    return sorted(read(path).tables.entries.get("variables", {}))


@pytest.fixture
def directory(path):
    with StateDirectory.open(path) as directory:
        yield directory


@pytest.fixture
def writer(directory):
    writer = Writer(directory, 1, 1, file_nbytes=_SMALL, reserve_nbytes=1 << 16)
    yield writer
    writer.close()


def test_what_was_appended_survives_a_kill(path):
    """Each number that the process has said is in the journal, and the next process goes on from there."""
    last = 0
    for round_ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITES_WITHOUT_END, str(path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(40 + 60 * round_):
                said = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().split()
        said = max([said, *map(int, rest[:-1])])  # the last line may be cut off
        recovered = read(path)
        numbers = sorted(recovered.tables.entries["variables"])
        assert not recovered.damage
        assert numbers[-1] >= said > last
        assert numbers == list(range(max(1, numbers[-1] - 49), numbers[-1] + 1))
        last = numbers[-1]


def test_a_file_that_is_large_enough_is_closed(path, directory):
    closed = []
    writer = Writer(directory, 1, 1, file_nbytes=_SMALL, reserve_nbytes=0, on_closed=closed.append)
    for number in range(100):
        writer.append(_put(number))
    writer.close()
    assert closed == list(range(1, writer.file_number))
    assert len(closed) >= 3
    assert _numbers(path) == list(range(100))


def test_closed_files_are_summed_up_while_others_are_written(path, directory):
    closed = []
    writer = Writer(directory, 1, 1, file_nbytes=_SMALL, reserve_nbytes=0, on_closed=closed.append)
    for number in range(300):
        writer.append(_put(number))
        if len(closed) == 3:
            summarize(path, closed[-1])
            closed.clear()
    writer.close()
    files = state.files(path)
    assert files[0].is_summary
    assert not state.superseded(path)
    assert _numbers(path) == list(range(300))
    assert not read(path).damage


def test_the_summary_is_made_in_a_process_of_its_own(path, write):
    write(*[_put(number) for number in range(100)], file_nbytes=_SMALL)
    last = state.files(path)[-1].number
    # Its scheduler keeps the other end of its input.
    process = subprocess.Popen([*_COMPACTION, str(path), str(last), ENDS_WITH_INPUT], stdin=subprocess.PIPE)
    assert process.wait(PATIENCE_SECONDS) == 0
    process.stdin.close()
    assert [file.is_summary for file in state.files(path)] == [True]
    write(_put(100))
    assert _numbers(path) == list(range(101))


def test_a_summary_that_was_cut_off_is_as_if_it_had_not_been_begun(path, write, monkeypatch):
    write(*[_put(number) for number in range(100)], file_nbytes=_SMALL)

    def fail(source, place):
        raise OSError(errno.EIO, "cut off")

    last = state.files(path)[-1].number
    with monkeypatch.context() as patched:
        patched.setattr(state, "rename", fail)
        with pytest.raises(OSError, match="cut off"):
            summarize(path, last)
    assert not any(file.is_summary for file in state.files(path))
    write(_put(100))
    assert _numbers(path) == list(range(101))
    assert not list((path / "journal").glob("*.new"))


def test_files_that_a_summary_stands_for_are_not_read_again(path, write, monkeypatch):
    """The process that wrote the summary may end before it has removed them."""
    write(_put(1))
    write([records.remove("variables", 1)], _put(2))
    with monkeypatch.context() as patched:
        patched.setattr(state, "superseded", lambda path: [])
        summarize(path, 2)
    assert len(list((path / "journal").glob("*.log"))) == 2
    assert _numbers(path) == [2]
    assert len(state.superseded(path)) == 2


class _Disk:
    """A disk with little room: `os.writev` and `os.posix_fallocate` fail beyond it."""

    def __init__(self, monkeypatch, room):
        self.room = room
        self._writev = os.writev
        monkeypatch.setattr(os, "writev", self.writev)
        monkeypatch.setattr(os, "posix_fallocate", self.allocate)

    def writev(self, descriptor, chunks):
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._writev(descriptor, [b"".join(chunks)[: self.room]])
        self.room -= written
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written

    def allocate(self, descriptor, offset, nbytes):
        if nbytes > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_on_a_full_disk_the_reserve_is_used_and_said(path, directory, writer, monkeypatch):
    writer.append(_put(1))
    disk = _Disk(monkeypatch, room=50)
    reserve = path / "journal" / "reserve"
    assert reserve.exists()
    monkeypatch.setattr(type(reserve), "unlink", _giving_room(disk, type(reserve).unlink, 10_000))
    writer.append(_put(2))
    assert writer.is_short
    assert not reserve.exists()
    assert not writer.regain()
    disk.room = 1 << 20
    assert writer.regain()
    assert not writer.is_short
    writer.append(_put(3))
    assert _numbers(path) == [1, 2, 3]
    assert not read(path).damage


def _giving_room(disk, unlink, nbytes):
    def give(path, *arguments, **keywords):
        unlink(path, *arguments, **keywords)
        disk.room += nbytes

    return give


def test_when_the_reserve_is_used_up_a_batch_is_refused_whole(path, directory, writer, monkeypatch):
    writer.append(_put(1))
    disk = _Disk(monkeypatch, room=50)
    with pytest.raises(JournalFullError, match=f"the disk of the state directory {path} is full. Make room"):
        writer.append(_put(2))
    disk.room = 1 << 20
    writer.append(_put(3))
    recovered = read(path)
    assert sorted(recovered.tables.entries["variables"]) == [1, 3]
    assert not recovered.damage
    assert not recovered.torn


def test_another_failure_of_the_disk_is_named(path, writer, monkeypatch):
    def fail(descriptor, chunks):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "writev", fail)
    with pytest.raises(JournalError, match=f"the journal in {path} can't be written: Input/output error"):
        writer.append(_put(1))


def test_one_sync_serves_all_that_asked_while_another_ran():
    begun, goes_on = threading.Event(), threading.Event()
    syncs, told = [], []

    def sync():
        syncs.append(len(told))
        begun.set()
        assert goes_on.wait(PATIENCE_SECONDS)

    group = GroupSync(sync)
    group.ask(told.append)
    assert begun.wait(PATIENCE_SECONDS)
    for _ in range(10):
        group.ask(told.append)
    goes_on.set()
    group.close()
    assert told == [None] * 11
    assert syncs == [0, 1]


def test_a_sync_that_fails_is_told_to_those_that_asked():
    told = []

    def sync():
        raise OSError(errno.EIO, "broken")

    group = GroupSync(sync)
    group.ask(told.append)
    group.close()
    assert [error.errno for error in told] == [errno.EIO]
    with pytest.raises(RuntimeError, match="closed"):
        group.ask(told.append)


def test_a_sync_covers_the_files_that_were_closed_meanwhile(directory, writer, monkeypatch):
    synced = []
    fdatasync = os.fdatasync

    def count(descriptor):
        synced.append(os.fstat(descriptor).st_ino)
        fdatasync(descriptor)

    monkeypatch.setattr(os, "fdatasync", count)
    for number in range(100):
        writer.append(_put(number))
    writer.sync()
    inodes = {file.path.stat().st_ino for file in state.files(directory.path)}
    assert set(synced) == inodes
    assert len(inodes) > 2


def test_a_second_scheduler_is_refused_by_name(path, directory):
    with pytest.raises(JournalError, match=rf"{path} belongs to a scheduler that runs \(process {os.getpid()}\)"):
        StateDirectory.open(path)


def test_each_scheduler_has_an_epoch_of_its_own(path):
    epochs = []
    for _ in range(3):
        with StateDirectory.open(path) as directory:
            epochs.append(directory.epoch)
            cluster = directory.cluster
    assert epochs == [1, 2, 3]
    assert cluster == state.identity(path)


@pytest.mark.parametrize("damaged", ["epoch", "cluster.json"])
def test_the_files_of_the_journal_know_what_a_damaged_file_beside_them_does_not(path, write, damaged):
    for _ in range(3):
        write()
    cluster = state.identity(path)
    (path / damaged).write_bytes(b"\0\0")
    with StateDirectory.open(path) as directory:
        assert (directory.epoch, directory.cluster) == (4, cluster)
    assert state.identity(path) == cluster
    if damaged == "cluster.json":
        assert [kept.read_bytes() for kept in (path / "aside").iterdir()] == [b"\0\0"]


def test_what_is_in_a_directory_and_in_its_copies_is_this_users_alone(path, write, tmp_path):
    before = os.umask(0)
    try:
        write()
        write()
        with StateDirectory.open(path) as directory:
            directory.set_aside("name", memoryview(b"bytes"))
        state.backup(path, tmp_path / "copy")
    finally:
        os.umask(before)
    for root in (path, tmp_path / "copy"):
        folders = [root, root / "journal", root / "aside"]
        assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}
        kept = [*(root / "journal").iterdir(), *(root / "aside").iterdir()]
        assert {file.stat().st_mode & 0o777 for file in kept} == {0o600}


def test_a_cluster_that_has_ended_in_order_is_forgotten(path, write):
    write()
    with StateDirectory.open(path) as directory:
        cluster, epoch = directory.cluster, directory.epoch
        directory.forget()
        assert not state.files(path)
    with StateDirectory.open(path) as directory:
        assert directory.cluster != cluster
        assert directory.epoch > epoch


def test_forgetting_goes_on_where_it_was_cut_short(path, write):
    write()
    (path / "journal").rename(path / "forgotten")
    cluster = state.identity(path)
    with StateDirectory.open(path) as directory:
        assert directory.cluster != cluster
    assert not (path / "forgotten").exists()


def test_a_directory_of_a_later_version_is_refused(path):
    StateDirectory.open(path).close()
    (path / "cluster.json").write_text('{"format": 99, "id": "x"}')
    with pytest.raises(JournalError, match="a later version of Holdfast has made"):
        StateDirectory.open(path)


def test_what_can_be_no_directory_is_named(path):
    path.write_text("a file")
    with pytest.raises(JournalError, match=f"{path} can't be a state directory"):
        StateDirectory.open(path)


def test_a_backup_of_a_directory_in_use_can_be_recovered(path, directory, writer, tmp_path):
    for number in range(50):
        writer.append(_put(number))
    nbytes = state.backup(path, tmp_path / "copy")
    assert nbytes > 5_000
    writer.append(_put(50))
    with StateDirectory.open(tmp_path / "copy") as copy:
        recovered = recover(copy)
        assert copy.cluster == directory.cluster
    assert sorted(recovered.tables.entries["variables"]) == list(range(50))
    with pytest.raises(JournalError, match="is there already"):
        state.backup(path, tmp_path / "copy")
