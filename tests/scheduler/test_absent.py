"""Hosts that were given up are shown until they, or others in their places, are there."""

from __future__ import annotations

from holdfast.cluster.scheduler.io import absent as module
from holdfast.cluster.scheduler.io.absent import Absent


def names(absent: Absent) -> list[str]:
    return [host["hostname"] for host in absent.describe()]


def test_a_host_is_absent_until_it_is_back() -> None:
    absent = Absent()
    absent.gave_up("tcp://a:1", "alpha", "it has said nothing for 30 s")
    absent.gave_up("tcp://b:1", "beta", "it has said nothing for 30 s")
    (first, _) = absent.describe()
    assert 0 <= first.pop("seconds") < 60
    assert first == {"address": "tcp://a:1", "hostname": "alpha", "reason": "it has said nothing for 30 s"}
    absent.joined("tcp://c:1", "gamma")
    assert names(absent) == ["alpha", "beta"]
    absent.joined("tcp://a:1", "alpha")
    assert names(absent) == ["beta"]


def test_another_agent_of_the_same_name_takes_its_place() -> None:
    absent = Absent()
    absent.gave_up("tcp://a:1", "alpha", "")
    absent.joined("tcp://a:2", "alpha")
    assert names(absent) == []


def test_only_so_many_are_kept(monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_ABSENT", 3)
    absent = Absent()
    for n in range(5):
        absent.gave_up(f"tcp://a:{n}", f"host-{n}", "")
    absent.gave_up("tcp://a:2", "host-2", "")
    assert names(absent) == ["host-3", "host-4", "host-2"]
