"""A dictionary in parts."""

from __future__ import annotations

import pytest

from holdfast.cluster.scheduler.table import Table


def test_it_is_used_like_a_dictionary():
    table, expected = Table(), {}
    for number in range(1000):
        key = ("x", number) if number % 2 else f"y-{number}"
        table[key] = expected[key] = number
    for number in range(0, 1000, 3):
        key = ("x", number) if number % 2 else f"y-{number}"
        del table[key], expected[key]
    assert len(table) == len(expected)
    assert dict(table.items()) == expected
    assert all(table[key] == table.get(key) == expected[key] and key in table for key in expected)
    assert "nothing" not in table
    assert table.get("nothing") is None
    with pytest.raises(KeyError):
        table["nothing"]
    with pytest.raises(KeyError):
        del table["nothing"]
