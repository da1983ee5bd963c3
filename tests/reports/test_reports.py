"""What reports show to people and to programs: plain functions of what the scheduler tells."""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar

import pytest

from holdfast.cluster.reports import asking, phrases
from holdfast.cluster.reports.explanation import Explanation
from holdfast.cluster.reports.memory import GROUPED_BY, Group, MemoryReport, groupings
from holdfast.objectstore.errors import HoldfastError

NODE, OTHER = "tcp://10.0.0.1:4000", "tcp://10.0.0.2:4000"
ETL = {"kind": "client", "name": "etl", "user": "ada", "hostname": "alpha", "pid": 7, "silent_seconds": 1800.0}


def told_object(key, nbytes=1_000, **more):
    return {
        "key": key,
        "object_id": f"{abs(hash(key)) % 10**30:032d}",
        "nbytes": nbytes,
        "type": "DataFrame",
        "owner": "etl",
        "call_site": "/home/ada/analysis.py:12 in load",
        "holders": [ETL],
        "n_holders": 1,
        "where": [NODE],
        "age": 4_000.0,
        **more,
    }


def told(objects=(), **more):
    objects = list(objects)
    return {
        "objects": objects,
        "count": len(objects),
        "nbytes": sum(each["nbytes"] for each in objects),
        "groups": {},
        "left_out": {},
        "suspects": [],
        "stores": {NODE: {"used": 3_000_010, "capacity": 10_000_000, "spilled_nbytes": 2_000_000}},
        "hosts": {NODE: "alpha", OTHER: "beta"},
        **more,
    }


def shown(report, **options):
    return MemoryReport(report, {}).render(**options).splitlines()


class TestObjects:
    def test_each_with_what_is_known_of_it(self):
        dataset = {"kind": "dataset", "name": "'flights'"}
        frame = told_object(
            ("frame", 3), 3_000_000, holders=[ETL, dataset, ETL], n_holders=5, where=[NODE, OTHER], task=None
        )
        report = MemoryReport(
            told([frame]), {(NODE, frame["object_id"]): "sealed", (OTHER, frame["object_id"]): "spilled"}
        )
        lines = report.render().splitlines()
        assert lines[0] == "1 object, 3.0 MB"
        assert re.split(r" {2,}", lines[3].strip()) == [f"alpha ({NODE})", "3.0 MB of 10.0 MB (30 %)", "2.0 MB"]
        assert re.split(r" {2,}", lines[5].strip()) == [
            "size", "key", "type", "owner", "line", "holders", "where", "age",
        ]  # fmt: skip
        assert re.split(r" {2,}", lines[6].strip()) == [
            "3.0 MB",
            "('frame', 3)",
            "DataFrame",
            "etl",
            "analysis.py:12 in load",
            "client etl, dataset 'flights' +3",
            "alpha, beta (disk)",
            "67 min",
        ]
        (entry,) = report.objects
        assert entry["places"] == [
            {"node": NODE, "name": "alpha", "state": "in memory"},
            {"node": OTHER, "name": "beta", "state": "on disk"},
        ]

    def test_what_is_left_out_is_counted(self):
        objects = [told_object(f"k{number}") for number in range(10)]
        assert "  … and 7 smaller objects of 7.0 kB together" in shown(told(objects), objects=3)
        assert "  … and 90 smaller objects of 490.0 kB together" in shown(told(objects, count=100, nbytes=500_000))
        assert not any("smaller" in line for line in shown(told(objects), objects=None))

    @pytest.mark.parametrize("width", [40, 60, 80, 100, 130, 250])
    def test_lines_fit_into_the_terminal_and_key_and_size_stay(self, width):
        objects = [told_object("a-key-that-is-" + "very-" * 20 + "long", where=[NODE, OTHER])]
        lines = shown(told(objects), width=width)
        header = next(line for line in lines if " key " in line)
        assert header.split()[:2] == ["size", "key"]
        assert "holders" in header
        if width >= 80:
            assert max(map(len, lines)) <= width
        assert ("where" in header) == (width >= 98)

    def test_nothing_there_is_no_error(self):
        assert shown(told(stores={})) == ["0 objects, 0 B"]
        assert "alpha" in MemoryReport(told(stores={NODE: None}), {}).render()
        assert MemoryReport(told([told_object("x", age=None, type="", call_site="")]), {}).render()

    def test_as_json(self):
        report = MemoryReport(told([told_object(("x", 1))], groups={"owner": {"etl": (1, 5, 2.0, 1.0)}}), {})
        again = json.loads(json.dumps(report.as_dict()))
        assert again["objects"][0]["key"] == "('x', 1)"
        assert again["groups"]["owner"]["etl"] == {"objects": 1, "nbytes": 5, "oldest": 2.0, "newest": 1.0}

    def test_html_is_escaped(self):
        suspect = {"suspicion": "cycle", "objects": 1, "nbytes": 1, "holders": [], "keys": ["<x>"]}
        text = MemoryReport(told([told_object("<x>")], suspects=[suspect]), {})._repr_html_()
        assert "&lt;x&gt;" in text
        assert "<x>" not in text


class TestGroups:
    def test_the_largest_and_the_rest_together(self):
        groups = {"prefix": {f"p{number}": (number, 1_000 * number, 200.0, 10.0) for number in range(9, 0, -1)}}
        lines = shown(told(groups=groups, left_out={"prefix": [5, 500]}, stores={}), groups=2)
        assert [line.split() for line in lines[2:]] == [
            ["size", "objects", "oldest", "prefix"],
            ["9.0", "kB", "9", "3", "min", "p9"],
            ["8.0", "kB", "8", "3", "min", "p8"],
            ["28.5", "kB", "33", "…", "7", "more"],
        ]

    def test_attributes_and_those_that_were_not_asked_for(self):
        report = MemoryReport(told(groups={"owner": {"etl": (1, 5, 2.0, 1.0)}}), {})
        assert report.by_owner == {"etl": Group(1, 5, 2.0, 1.0)}
        with pytest.raises(AttributeError, match=r"not grouped by line: ask for it with client.memory\(by='line'\)"):
            _ = report.by_line

    def test_what_can_be_asked_for(self):
        assert groupings(None) == GROUPED_BY
        assert groupings("owner") == ("owner",)
        assert groupings(["line", "type", "line"]) == ("line", "type")
        with pytest.raises(ValueError, match="by='colour' is unknown: objects are grouped by owner, holder"):
            groupings("colour")
        with pytest.raises(TypeError, match="by is a text such as 'line', or a list of texts, not 3"):
            groupings(3)


class TestSuspicions:
    @pytest.mark.parametrize(
        ("suspect", "words"),
        [
            (
                {"suspicion": "idle", "holders": [ETL], "call_site": "etl.py:3 in load", "oldest_seconds": 7_300.0},
                "2.0 GB in 20 objects, made by the line etl.py:3 in load, only the client etl (ada@alpha, process 7, "
                "silent for 30 min) keeps: there for 2.0 h. If it is forgotten, end that process, or release its "
                "futures. Such as 'a' and ('b', 1).",
            ),
            (
                {"suspicion": "growing", "holders": [ETL], "oldest_seconds": 7_300.0, "newest_seconds": 2.0},
                "keeps, and there are more and more: the oldest is there for 2.0 h, the newest for 2 s. Look for a "
                "container there that only grows.",
            ),
            (
                {"suspicion": "queue", "holders": [{"kind": "queue", "name": "'jobs'"}], "oldest_seconds": 7_300.0},
                "only the queue 'jobs' keeps, for up to 2.0 h: nobody takes it out.",
            ),
            (
                {"suspicion": "cycle", "holders": [{"kind": "actor", "name": "Node 'n'"}]},
                "only objects and actors keep that keep each other: no client has a future of them, "
                "and they stay. To free them, cancel one by its key",
            ),
            (
                {"suspicion": "read", "holders": [{"kind": "process", "name": "etl"}], "host": {"name": "alpha"}},
                "2.0 GB in 20 objects of alpha are deleted, and still read by etl, which holds views",
            ),
        ],
        ids=lambda value: value["suspicion"] if isinstance(value, dict) else "",
    )
    def test_each_says_why(self, suspect, words):
        whole = {"objects": 20, "nbytes": 2_000_000_000, "keys": ["a", ("b", 1)], **suspect}
        report = MemoryReport(told(suspects=[whole]), {})
        assert words in report.suspects[0]["text"]
        lines = report.render(width=72).splitlines()
        assert "Is this still wanted?" in lines
        assert max(map(len, lines)) <= 72
        assert json.dumps(report.as_dict())


class TestExplanations:
    FIGURES: ClassVar[dict[str, Any]] = {
        "key": "x", "prefix": "x", "state": "memory", "seconds": 90.0, "owner": "etl", "origin": {}, "type": "bytes",
        "nbytes": 10, "object_id": b"o" * 16, "holders": [ETL], "n_holders": 1, "waiters": [], "n_waiters": 0,
        "waits_for": [], "where": [{"node": NODE, "name": "alpha"}], "run": None, "actor": None, "requirements": None,
        "retries": 0, "deaths": 0, "is_computed": True, "error": None, "near": [], "n_near": 0,
    }  # fmt: skip

    def test_copies_in_memory_and_on_disk(self):
        where = [{"node": NODE, "name": "alpha"}, {"node": OTHER, "name": "beta"}]
        places = {NODE: {"state": "sealed", "readers": ["p", "q"]}, OTHER: {"state": "spilled", "readers": []}}
        found = Explanation("x", {**self.FIGURES, "where": where}, places)
        assert found.why[:3] == [
            "Its result (bytes, 10 B) is there for 90 s, in 2 copies.",
            f"It is in memory in the store of alpha ({NODE}), and p and q look at it now.",
            f"It is on disk in the store of beta ({OTHER}).",
        ]
        assert "It is kept by the client etl (ada@alpha, process 7, silent for 30 min)." in found.why

    def test_an_actor_and_its_calls(self):
        actor = {
            "name": "Counter", "worker": f"{NODE}/0", "worker_name": "alpha-0", "host": "alpha", "lost": "",
            "calls": 3, "callers": 2, "held_up": 1,
        }  # fmt: skip
        text = f"The actor Counter lives on alpha-0 ({NODE}/0)"
        assert Explanation("x", {**self.FIGURES, "actor": actor}, {}).why[2] == (
            f"{text}; 3 calls of 2 clients have no answer yet, of which 1 waits for what they depend on."
        )
        idle = {**actor, "calls": 0, "callers": 0, "held_up": 0}
        assert Explanation("x", {**self.FIGURES, "actor": idle}, {}).why[2] == f"{text}; no call of it is under way."

    def test_keys_that_may_be_meant(self):
        found = Explanation("x", {"near": [("x", 1), "xyz"], "n_near": 7}, {})
        assert not found.is_known
        assert found.why[1] == "Is one of these meant: ('x', 1), 'xyz' and 5 more?"
        assert Explanation("x", {"near": [], "n_near": 0}, {}).as_dict()["state"] == "unknown"

    def test_lines_fit_into_the_terminal(self):
        text = Explanation("x", self.FIGURES, {}).render(width=50)
        assert text.splitlines()[0] == "x: memory"
        assert max(map(len, text.splitlines())) <= 50


class TestQuestions:
    def test_hosts_that_have_just_left_say_nothing(self):
        questions = asking.explaining("x")
        assert next(questions)[1] == {"key": "x"}
        _, arguments = questions.send(TestExplanations.FIGURES)
        assert arguments["names"] == [NODE]
        with pytest.raises(StopIteration) as end:
            questions.throw(HoldfastError("ValueError: no node is called that"))
        assert end.value.value.where[0]["state"] == "unknown"

    def test_the_hosts_of_many_objects_are_asked_together(self):
        objects = [
            told_object("a", 1, where=[NODE]),
            told_object("b", 2, where=[NODE, OTHER]),
            told_object("c", 3, where=[]),
        ]
        questions = asking.looking_at_memory(("owner",), 2)
        assert next(questions)[1] == {"by": ["owner"], "limit": 2}
        _, arguments = questions.send(told(objects))
        assert arguments["names"] == [NODE, OTHER]
        assert arguments["arguments"] == {"object_ids": [bytes.fromhex(objects[1]["object_id"])]}
        with pytest.raises(StopIteration) as end:
            questions.send({NODE: {"value": ["spilled"]}, OTHER: {"error": ["TimeoutError", "too slow"]}})
        report = end.value.value
        assert [each["key"] for each in report.objects] == ["c", "b"]
        assert [place["state"] for place in report.objects[1]["places"]] == ["on disk", "unknown"]


def test_names_of_several():
    assert phrases.few([]) == ""
    assert phrases.few(["a"]) == "a"
    assert phrases.few(["a", "b"]) == "a and b"
    assert phrases.few(list("abcdef"), 5) == "a, b, c, d, e and 1 more"
