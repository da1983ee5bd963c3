from __future__ import annotations

import numpy as np
import pytest

from holdfast.client.packing.keys import content_token, random_token, wire_key
from holdfast.client.packing.options import from_annotations, options_of, per_key


class TestWireKeys:
    @pytest.mark.parametrize("key", ["x", ("x", 0), ("x", 1, 2.5, "y"), 3, b"k", ("x", ("y", 1)), ("x", None)])
    def test_keys_of_builtin_types_stay_as_they_are(self, key):
        assert wire_key(key) == key
        assert type(wire_key(key)) is type(key)

    def test_numbers_of_numpy_become_builtin_and_stay_equal(self):
        key = ("x", np.int64(3), np.float32(0.5))
        assert wire_key(key) == key
        assert [type(part) for part in wire_key(key)] == [str, int, float]

    def test_a_subclass_becomes_its_builtin(self):
        kind = type("Name", (str,), {})
        assert type(wire_key(kind("x"))) is str

    @pytest.mark.parametrize("key", [object(), ["x"], {"a": 1}, ("x", object())])
    def test_anything_else_is_refused(self, key):
        with pytest.raises(TypeError, match="can't be a key"):
            wire_key(key)

    @pytest.mark.parametrize(
        "key", ["\udcff", ("x", "\udcff"), 1 << 64, ("x", -(1 << 63) - 1), float("nan"), ("x", (np.float64("nan"), 1))]
    )
    def test_what_a_message_can_t_carry_is_refused(self, key):
        with pytest.raises(ValueError, match="key"):
            wire_key(key)

    def test_the_largest_numbers_and_any_text_are_fine(self):
        for key in ((1 << 64) - 1, -(1 << 63), "é", ("é", float("inf"))):
            assert wire_key(key) == key

    def test_a_key_can_t_be_nested_without_end(self):
        key = ()
        for _ in range(200):
            key = (key,)
        with pytest.raises(ValueError, match="nested"):
            wire_key(key)


def test_tokens_stand_for_their_content():
    assert content_token(b"a", b"b") == content_token(b"ab") != content_token(b"ba")
    assert len(content_token(b"")) == len(random_token()) == 32
    assert random_token() != random_token()


class TestOptions:
    def test_only_what_says_something_is_sent(self):
        assert options_of() == options_of(0, None, None, False, None) == {}
        assert options_of(allow_other_workers=True) == {}
        assert options_of(2, 3, "alice", True, {"GPU": 1}) == {
            "priority": 2.0,
            "retries": 3,
            "workers": ["alice"],
            "allow_other_workers": True,
            "resources": {"GPU": 1.0},
        }

    def test_workers_are_names_or_host_and_port(self):
        assert options_of(workers=["alice", ("10.0.0.1", 80)])["workers"] == ["alice", "10.0.0.1:80"]

    @pytest.mark.parametrize(
        "wrong", [{"priority": "high"}, {"retries": 1.5}, {"workers": 3}, {"resources": {"GPU": "a"}}, {"resources": 2}]
    )
    def test_what_makes_no_sense_is_named(self, wrong):
        with pytest.raises(TypeError, match=next(iter(wrong))):
            options_of(**wrong)

    def test_negative_retries_are_refused(self):
        with pytest.raises(ValueError, match="retries"):
            options_of(retries=-1)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"retries": 2**70},
            {"priority": float("nan")},
            {"priority": 10**400},
            {"workers": "\udcff"},
            {"workers": ["alice", "\udcff"]},
            {"resources": {"\udcff": 1}},
            {"resources": {"GPU": float("nan")}},
            {"resources": {"GPU": -1}},
        ],
    )
    def test_what_a_message_can_t_carry_is_refused(self, wrong):
        with pytest.raises(ValueError, match=next(iter(wrong)).rstrip("s")):
            options_of(**wrong)

    def test_annotations_of_others_are_left_alone(self):
        assert from_annotations({"priority": 1, "their_own": object()}) == {"priority": 1.0}
        assert per_key({"priority": {("x", 0): 1}, "retries": {("x", 0): 2}, "note": {"y": "z"}}) == {
            ("x", 0): {"priority": 1.0, "retries": 2}
        }
