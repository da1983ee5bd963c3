"""What the kernel is told about whom to kill first, read from the processes of a real cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from holdfast import Client, LocalCluster
from holdfast.cluster.processes import oom


def score_adj(pid: int | str) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def of_a_child() -> int:
    return int(subprocess.check_output(["cat", "/proc/self/oom_score_adj"]))


def page_makers() -> list[int]:
    return [score_adj(p.pid) for p in psutil.Process().children(True) if "page_maker" in " ".join(p.cmdline())]


def test_workers_go_first_then_agents_and_the_scheduler_last(eventually: Any) -> None:
    with LocalCluster(2, 1, object_store_memory="64MB") as cluster, Client(cluster) as client:
        mine = score_adj("self")
        assert score_adj(cluster.scheduler_pid) == mine
        assert score_adj(cluster.nodes[0]["pid"]) == min(mine + oom.AGENT, 1000)
        workers = {client.submit(os.getpid, workers=[name], pure=False).result() for name in client.nthreads()}
        assert len(workers) == 2
        assert {score_adj(pid) for pid in workers} == {min(mine + oom.WORKER, 1000)}
        assert client.submit(of_a_child).result() == min(mine + oom.WORKER, 1000)
        eventually(lambda: page_makers() == [min(mine + oom.AGENT, 1000)], what="the page maker has begun")


RAISE = """
import sys
from pathlib import Path
from holdfast.cluster.processes import oom
for by in map(int, sys.argv[1:]):
    oom.be_killed_before_others(by)
    print(Path("/proc/self/oom_score_adj").read_text().strip())
"""


def test_it_is_raised_from_what_was_inherited_and_never_lowered() -> None:
    mine = score_adj("self")
    said = subprocess.check_output([sys.executable, "-c", RAISE, "10", "-5", "0", "5000"], text=True)
    assert [int(word) for word in said.split()] == [mine + 10, mine + 10, mine + 10, oom.MAX_SCORE_ADJ]


def test_where_it_can_not_be_raised_nothing_happens(tmp_path: Path, monkeypatch: Any) -> None:
    mine = score_adj("self")
    monkeypatch.setattr(oom, "_FILE", tmp_path / "none")
    oom.be_killed_before_others(100)
    monkeypatch.setattr(oom, "_FILE", tmp_path)
    oom.be_killed_before_others(100)
    assert score_adj("self") == mine
    assert list(tmp_path.iterdir()) == []
