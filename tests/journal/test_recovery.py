"""What is left of a journal, whatever has become of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.cluster.errors import JournalError
from holdfast.cluster.journal import batches, records
from holdfast.cluster.journal import directory as state
from holdfast.cluster.journal.directory import StateDirectory
from holdfast.cluster.journal.recovery import Recovered, read, recover
from holdfast.cluster.journal.writer import Writer


def _values(recovered: Recovered) -> dict[Any, Any]:
    return {key: entry.value for key, entry in recovered.tables.entries.get("variables", {}).items()}


def _put(number: int) -> list[Any]:
    return [records.put("variables", number, b"v" * (number % 50))]


def _last(path: Path) -> Path:
    return state.files(path)[-1].path


def test_what_was_written_is_read(path, write):
    write(_put(1), [*_put(2), *_put(3)])
    write([records.remove("variables", 2)])
    recovered = read(path)
    assert _values(recovered) == {1: b"v", 3: b"vvv"}
    assert not recovered.damage
    assert not recovered.torn
    assert (recovered.batches, recovered.next_file) == (3, 3)


def test_an_empty_directory_is_a_journal_that_says_nothing(path):
    with StateDirectory.open(path) as directory:
        recovered = recover(directory)
    assert (recovered.next_file, recovered.next_batch, recovered.cluster) == (1, 1, None)


def test_a_batch_that_is_cut_off_anywhere_costs_only_itself(path, write):
    write(_put(1), _put(2))
    place = _last(path)
    whole = place.read_bytes()
    begins = whole.rindex(batches.BATCH_MAGIC)
    for end in range(begins + 1, len(whole)):
        place.write_bytes(whole[:end])
        recovered = read(path)
        assert _values(recovered) == {1: b"v"}, end
        assert not recovered.damage, end
        assert len(recovered.torn) == 1, end
        assert recovered.next_batch == 3


def test_after_a_torn_end_the_next_scheduler_goes_on(path, write):
    write(_put(1), _put(2))
    place = _last(path)
    place.write_bytes(place.read_bytes()[:-3])
    write(_put(3))
    write(_put(4))
    recovered = read(path)
    assert sorted(_values(recovered)) == [1, 3, 4]
    assert not recovered.damage
    assert [torn.path for torn in recovered.torn] == [place]


def test_a_damaged_batch_costs_only_itself_and_is_set_aside(path, write):
    write(_put(10), _put(20), _put(30))
    place = _last(path)
    data = bytearray(place.read_bytes())
    hit = data.index(b"v" * 20)
    data[hit] ^= 1
    place.write_bytes(data)
    with StateDirectory.open(path) as directory:
        recovered = recover(directory)
    assert sorted(_values(recovered)) == [10, 30]
    assert "does not have its checksum" in str(recovered.damage[0])
    aside = list((path / "aside").iterdir())
    assert len(aside) == 1
    assert bytes(data[hit : hit + 20]) in aside[0].read_bytes()


@pytest.mark.parametrize("length", [1, 7, 21, 400])
def test_zeros_in_the_place_of_what_had_not_come_to_the_disk(path, write, length):
    write(_put(1), _put(2))
    place = _last(path)
    place.write_bytes(place.read_bytes() + bytes(length))
    recovered = read(path)
    assert sorted(_values(recovered)) == [1, 2]
    assert recovered.damage


def test_a_damaged_beginning_leaves_the_rest(path, write):
    write(_put(1), _put(2))
    place = _last(path)
    place.write_bytes(b"X" + place.read_bytes()[1:])
    recovered = read(path)
    assert sorted(_values(recovered)) == [1, 2]
    assert recovered.damage
    assert recovered.next_batch == 4


def test_a_file_that_is_missing_is_damage(path, write):
    for number in range(1, 4):
        write(_put(number))
    state.files(path)[1].path.unlink()
    recovered = read(path)
    assert sorted(_values(recovered)) == [1, 3]
    assert "batch 3 should come, and batch 5 does" in str(recovered.damage[0])


def test_a_torn_end_before_a_gap_is_damage(path, write):
    write(_put(1), _put(2))
    place = _last(path)
    write(_put(3))
    place.write_bytes(place.read_bytes()[:-3])
    recovered = read(path)
    assert sorted(_values(recovered)) == [1, 3]
    assert len(recovered.damage) == 2


def test_a_record_of_a_kind_that_is_not_known_is_damage(path, write):
    write(_put(1), [(250, "later")], _put(2))
    recovered = read(path)
    assert sorted(_values(recovered)) == [1, 2]
    assert "kind 250" in str(recovered.damage[0])


def _contents(path: Path) -> dict[str, bytes]:
    """All files of a state directory but the one that says which process has it."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != "lock"
    }


def test_a_later_format_is_refused_before_anything_changes(path, write, monkeypatch):
    monkeypatch.setattr("holdfast.cluster.journal.writer.FORMAT", batches.FORMAT + 1)
    write(_put(1))
    before = _contents(path)
    with pytest.raises(JournalError, match="a later version of Holdfast"):
        StateDirectory.open(path)
    assert _contents(path) == before


def test_a_later_format_is_refused_before_a_damaged_identity_is_moved(path, write, monkeypatch):
    monkeypatch.setattr("holdfast.cluster.journal.writer.FORMAT", batches.FORMAT + 1)
    write(_put(1))
    (path / "cluster.json").write_text("damaged")
    before = _contents(path)
    with pytest.raises(JournalError, match="a later version of Holdfast"):
        StateDirectory.open(path)
    assert _contents(path) == before


def test_a_journal_of_another_cluster_is_refused_before_anything_changes(path, write):
    write(_put(1))
    (path / "cluster.json").write_text('{"format": 1, "id": "another"}')
    before = _contents(path)
    with pytest.raises(JournalError, match="two clusters"):
        StateDirectory.open(path)
    assert _contents(path) == before


def test_a_file_of_another_cluster_is_refused(path, write, tmp_path):
    write(_put(1))
    with StateDirectory.open(tmp_path / "other") as other:
        writer = Writer(other, 2, 3, reserve_nbytes=0)
        writer.append(_put(2))
        writer.close()
        stranger = state.files(other.path)[0].path
    stranger.rename(path / "journal" / stranger.name)
    with pytest.raises(JournalError, match="of another cluster"):
        read(path)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_is_done_to_the_bytes_reading_ends_and_only_loses(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzzed") / "state"
    with StateDirectory.open(path) as directory:
        writer = Writer(directory, 1, 1, reserve_nbytes=0, file_nbytes=400)
        for number in range(20):
            writer.append(_put(number))
        writer.close()
    expected = _values(read(path))
    place = data.draw(st.sampled_from([file.path for file in state.files(path)]))
    found = bytearray(place.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(found)))
        end = data.draw(st.integers(start, min(len(found), start + 60)))
        found[start:end] = data.draw(st.binary(max_size=60))
    changed = bytes(found) != place.read_bytes()
    place.write_bytes(bytes(found))
    recovered = read(path)
    values = _values(recovered)
    assert values.items() <= expected.items()
    if changed and values != expected:
        assert recovered.damage or recovered.torn
