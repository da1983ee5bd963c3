"""What the commands show to people: plain functions of the reports that schedulers give."""

from __future__ import annotations

import time

from holdfast.cluster.cli import status
from holdfast.cluster.tables import format_duration, shorten, table


def test_a_status_report() -> None:
    report = {
        "scheduler": {"address": "tcp://10.0.0.1:8786", "started": time.time() - 300, "version": "0.1.0"},
        "nodes": {
            "tcp://10.0.0.1:4000": {
                "hostname": "alpha",
                "workers": {
                    "tcp://10.0.0.1:4000/0": {
                        "name": "alpha-0",
                        "nthreads": 2,
                        "memory": 123_000_000,
                        "cpu": 98.7,
                        "processing": 3,
                        "condition": "stopped",
                        "seconds": 42.3,
                    }
                },
                "store": {"capacity": 8_000_000_000, "used": 2_000_000_000, "objects": 17},
            }
        },
        "tasks": {"memory": 1700, "processing": 3, "waiting": 0},
        "clients": 1,
        "datasets": ["flights"],
    }
    assert status.render(report) == "\n".join(
        [
            "Cluster at tcp://10.0.0.1:8786, up 5 min, holdfast 0.1.0",
            "1 host, 1 worker, 2 threads, 1 client",
            "",
            "Host alpha (tcp://10.0.0.1:4000)",
            "  object store: 2.0 GB of 8.0 GB (25 %), 17 objects",
            "  worker   threads    memory   cpu  tasks  state",
            "  alpha-0        2  123.0 MB  99 %      3  stopped for 42 s",
            "",
            "Tasks: 1,700 memory, 3 processing",
            "",
            "Datasets: flights",
        ]
    )


def test_a_status_report_counts_tasks_that_wait_for_others_apart() -> None:
    workers = {f"tcp://10.0.0.1:4000/{n}": {"processing": 1, "blocked": n} for n in range(2)}
    lines = status.render({"nodes": {"tcp://10.0.0.1:4000": {"workers": workers}}}).splitlines()
    assert ["blocked" in line for line in lines if "4000/" in line] == [False, True]
    assert any("1 + 1 blocked" in line for line in lines)


def test_workers_keep_their_place_in_a_status_report_when_they_were_started_again() -> None:
    workers = {f"tcp://10.0.0.1:4000/{number}": {"name": f"alpha-{number}"} for number in (10, 2, 0)}
    lines = status.render({"nodes": {"tcp://10.0.0.1:4000": {"workers": workers}}}).splitlines()
    assert [line.split()[0] for line in lines if "alpha-" in line] == ["alpha-0", "alpha-2", "alpha-10"]


def test_a_status_report_names_the_datasets_that_one_host_has() -> None:
    single = {
        "plain": {"nbytes": 490_000_000, "lost_nbytes": 480_000_000, "reason": "there is no other host"},
        "twice": {"nbytes": 480_000_000, "lost_nbytes": 0, "reason": "there is no other host"},
        **{f"more-{number}": {"nbytes": 10, "lost_nbytes": 10, "reason": "no"} for number in range(24)},
    }
    lines = status.render({"datasets": ["plain", "persisted"], "one_copy": single}).splitlines()
    where = lines.index("Datasets: plain, persisted")
    assert lines[where + 1] == (
        "  480.0 MB of plain in one host's store only, lost if that dies: there is no other host"
    )
    assert lines[where + 2] == "  480.0 MB of twice with fewer copies than it is to have: there is no other host"
    assert len(lines[where:]) == 22
    assert lines[-1] == "  and data of 6 more datasets"


def test_a_status_report_says_what_becomes_of_workers_that_died() -> None:
    places = {
        "a/0": {"name": "alpha-0", "state": "running", "deaths": 0},
        "a/1": {"name": "alpha-1", "state": "running", "deaths": 1, "last_death": "killed", "last_death_seconds": 300},
        "a/2": {"name": "alpha-2", "state": "starting", "deaths": 0},
        "a/3": {
            "name": "alpha-3",
            "state": "down",
            "deaths": 12,
            "last_death": "could not start: no room",
            "next_start_seconds": 4.2,
        },
    }
    assert status.render({"nodes": {"a": {"hostname": "alpha", "places": places}}}).splitlines()[3:-4] == [
        "Host alpha (a)",
        "  object store: -",
        "  no workers",
        "  alpha-1: running; died 1 time, last 5 min ago: killed",
        "  alpha-2: starting",
        "  alpha-3: down, next start in 4 s; died 12 times, last: could not start: no room",
    ]


def test_a_status_report_says_what_becomes_of_agents_that_died() -> None:
    report = {
        "nodes": {"a": {"hostname": "alpha", "deaths": 2, "last_death": "was killed by SIGKILL"}},
        "restarting": [
            {"name": "beta", "state": "down", "deaths": 3, "last_death": "exited with code 1", "next_start_seconds": 8}
        ],
    }
    assert status.render(report).splitlines()[3:-4] == [
        "Host alpha (a)",
        "  node agent: running; died 2 times, last: was killed by SIGKILL",
        "  object store: -",
        "  no workers",
        "",
        "Host beta: down, next start in 8 s; died 3 times, last: exited with code 1",
    ]


def test_a_status_report_says_what_a_full_store_waits_for() -> None:
    store = {
        "capacity": 60_000_000,
        "used": 57_000_000,
        "objects": 9,
        "spilled_nbytes": 16_000_000,
        "waiting_creates": 2,
        "spill_error": "no space left",
    }
    assert status.render({"nodes": {"a": {"hostname": "alpha", "store": store}}}).splitlines()[4:6] == [
        "  object store: 57.0 MB of 60.0 MB (95 %), 9 objects, 16.0 MB on disk; 2 more waiting for room",
        "  nothing more can be moved to disk: no space left",
    ]


def test_a_status_report_says_which_hosts_nobody_hears_of() -> None:
    report = {
        "nodes": {"a": {"hostname": "alpha", "silent_seconds": 12.0}, "b": {"hostname": "beta", "silent_seconds": 1.0}},
        "absent": [{"address": "c", "hostname": "gamma", "reason": "it has said nothing for 30 s", "seconds": 200.0}],
    }
    hosts = [line for line in status.render(report).splitlines() if line.startswith("Host ")]
    assert hosts == [
        "Host alpha (a): nothing heard of it for 12 s; what follows is older",
        "Host beta (b)",
        "Host gamma (c): given up 3 min ago: it has said nothing for 30 s",
    ]


def test_a_table_that_is_too_wide_is_narrowed_where_it_is_widest() -> None:
    rows = [["k" * 30, 12345, "o" * 12], ["k", 1, "o"]]
    assert table(["key", "size", "owner"], rows, right=[1], width=40).splitlines() == [
        "  key                 size  owner",
        "  kkkkkkkkkk…kkkkkk  12345  oooooooooooo",
        "  k                      1  o",
    ]
    lines = table(["key", "size", "owner"], rows, right=[1], width=5).splitlines()
    assert lines[1] == "  kkkkkk…kkk  12345  oooooo…ooo", "what is left says something"
    assert table(["key", "size", "owner"], rows, right=[1], width=200) == table(
        ["key", "size", "owner"], rows, right=[1]
    )


def test_fields_that_are_missing_are_no_error() -> None:
    assert "0 hosts" in status.render({})
    assert "no workers" in status.render({"nodes": {"a": {}}})
    assert "object store: - of 1.0 kB" in status.render({"nodes": {"a": {"store": {"capacity": 1000}}}})
    assert "object store: -" in status.render({"nodes": {"a": {"workers": {"w": {}}, "store": None}}})


def test_tables_and_quantities() -> None:
    assert (
        table(["a", "number"], [["x", 1], ["long", 20]], right=[1]) == "  a     number\n  x          1\n  long      20"
    )
    assert [format_duration(s) for s in (3, 300, 9000, 400_000, None)] == ["3 s", "5 min", "2.5 h", "4.6 days", "-"]
    assert shorten("short", 10) == "short"
    assert shorten("a-very-long-name", 10) == "a-very…ame"


def test_a_status_report_lists_some_of_what_waits() -> None:
    report = {
        "tasks": {"waiting": 30, "ready": 2, "processing": 1},
        "waiting": [{"key": f"join-{n}", "state": "waiting", "for": "for load-1 (processing)"} for n in range(20)],
        "n_waits": 13,
        "waits": [
            {"client": "etl", "what": "items of the queue 'jobs'", "seconds_left": None},
            *[{"client": "etl", "what": f"the lock 'l{n}'", "seconds_left": 12.3} for n in range(12)],
        ],
    }
    lines = status.render(report).splitlines()
    where = lines.index("Tasks: 30 waiting, 2 ready, 1 processing")
    assert lines[where + 1 : where + 3] == [
        "  task    state    waits",
        "  join-0  waiting  for load-1 (processing)",
    ]
    assert lines[where + 12 : where + 17] == [
        "  … and 22 more tasks",
        "",
        "Requests that wait: 13",
        "  client  waits for                  at most",
        "  etl     items of the queue 'jobs'  until then",
    ]
    assert lines[where + 17] == "  etl     the lock 'l0'              12 s more"
    assert lines[-3:] == ["  … and 3 more", "", "Datasets: none"]
    narrow = status.render(report, 40).splitlines()[where:]
    assert all(len(line) <= 40 for line in narrow), narrow
