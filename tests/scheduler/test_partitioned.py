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


@given(st.lists(st.integers(0, 30) | st.just("pop"), max_size=200))
def test_a_roll_is_a_set_in_the_order_of_insertion(steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitioned, "_PART_LENGTH", 4)
        roll, expected = PartitionedSet(), {}
        for step in steps:
            if step == "pop":
                if expected:
                    assert roll.pop() == expected.popitem()[0]
                else:
                    with pytest.raises(KeyError):
                        roll.pop()
            elif step in expected:
                roll.remove(step)
                del expected[step]
            else:
                with pytest.raises(KeyError):
                    roll.remove(step)
                roll.add(step)
                expected[step] = None
            assert list(roll) == list(expected)
            assert len(roll) == len(expected)
            assert bool(roll) == bool(expected)
            assert all((number in roll) == (number in expected) for number in range(31))
            assert len(roll._parts) <= 1 + len(expected)
