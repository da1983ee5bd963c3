"""A dictionary and a set in parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cluster.scheduler.tasks import partitioned
from holdfast.cluster.scheduler.tasks.partitioned import PartitionedDict, PartitionedSet


def test_it_is_used_like_a_dictionary():
    entries, expected = PartitionedDict(), {}
    for number in range(1000):
        key = ("x", number) if number % 2 else f"y-{number}"
        entries[key] = expected[key] = number
    for number in range(0, 1000, 3):
        key = ("x", number) if number % 2 else f"y-{number}"
        del entries[key], expected[key]
    assert len(entries) == len(expected)
    assert dict(entries.items()) == expected
    assert all(entries[key] == entries.get(key) == expected[key] and key in entries for key in expected)
    assert "nothing" not in entries
    assert entries.get("nothing") is None
    with pytest.raises(KeyError):
        entries["nothing"]
    with pytest.raises(KeyError):
        del entries["nothing"]


def test_a_key_is_taken_out_only_with_its_value():
    entries, one, other = PartitionedDict(), object(), object()
    entries["x"] = one
    assert not entries.disown("x", other)
    assert not entries.disown("y", one)
    assert entries["x"] is one
    assert entries.disown("x", one)
    assert not entries


@given(st.lists(st.integers(0, 30) | st.just("pop"), max_size=200))
def test_a_partitioned_set_is_in_the_order_of_insertion(steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitioned, "_PART_LENGTH", 4)
        entries, expected = PartitionedSet(), {}
        for step in steps:
            if step == "pop":
                if expected:
                    assert entries.pop() == expected.popitem()[0]
                else:
                    with pytest.raises(KeyError):
                        entries.pop()
            elif step in expected:
                entries.remove(step)
                del expected[step]
            else:
                with pytest.raises(KeyError):
                    entries.remove(step)
                entries.add(step)
                expected[step] = None
            assert list(entries) == list(expected)
            assert len(entries) == len(expected)
            assert bool(entries) == bool(expected)
            assert all((number in entries) == (number in expected) for number in range(31))
            assert len(entries._parts) <= 1 + len(expected)
