"""``holdfast status`` and ``holdfast memory``, and what else is asked of a cluster that runs."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import SMALL, address_in, holdfast, services
from terminal import Terminal

import holdfast as package
from holdfast.cluster import protocol
from holdfast.cluster.deploy.ask import ask, wait_for_scheduler
from holdfast.cluster.errors import ConnectError
from holdfast.cluster.processes import run_directory


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    yield address_in(holdfast("start", "--head", "--port", "0", *SMALL))
    holdfast("stop")


def test_status_shows_hosts_workers_stores_and_tasks(cluster: str, eventually: Callable[..., Any]) -> None:
    said = holdfast("status")
    assert f"Cluster at {cluster}" in said
    assert "1 host, 1 worker, 1 thread, 0 clients" in said
    assert "object store:" in said
    assert "64.0 MB" in said
    assert "Tasks: none" in said
    report = json.loads(holdfast("status", "--json"))
    assert report["scheduler"]["address"] == cluster
    (node,) = report["nodes"].values()
    assert [worker["nthreads"] for worker in node["workers"].values()] == [1]
    # What agents measure arrives with their heartbeats.
    eventually(lambda: "MB" in holdfast("status").partition("worker ")[2], what="a worker's memory is shown")


def test_a_cluster_can_be_watched_until_one_has_seen_enough(cluster: str) -> None:
    with Terminal("status", "--watch", "0.1", rows=8) as terminal:
        terminal.read_until("Cluster at", times=3)
        assert terminal.interrupt() == 0
    assert terminal.shown.count("\x1b[2J") == 1, "later texts are written over the first"
    (before, *screens) = terminal.shown.split("\x1b[H")
    assert before == "\x1b[2J"
    assert all(screen.count("\n") < 8 for screen in screens), "what doesn't fit would scroll"
    assert "more lines" in screens[0]
    assert "Traceback" not in terminal.shown


def test_a_program_that_watches_gets_a_line_each_time(cluster: str) -> None:
    with Terminal("status", "--watch", "0.1", "--json", columns=40) as terminal:
        terminal.read_until("\n", times=2)
        assert terminal.interrupt() == 0
    assert [json.loads(line)["scheduler"]["address"] for line in terminal.shown.splitlines()[:2]] == [cluster] * 2


def test_tables_fit_into_the_terminal(cluster: str) -> None:
    from holdfast import Client

    with Client(cluster, name="a-client-with-a-rather-long-name") as client:
        future = client.submit(bytes, 1_000_000, key="a-key-that-is-" + "very-" * 20 + "long")
        assert len(future.result()) == 1_000_000
        for columns in (80, 120):
            with Terminal("memory", columns=columns) as terminal:
                assert terminal.end() == 0
            assert "a-key" in terminal.shown
            assert max(map(len, terminal.shown.splitlines())) <= columns


def test_memory_shows_objects(cluster: str) -> None:
    from holdfast import Client

    assert holdfast("memory").startswith("0 objects, 0 B")
    with Client(cluster) as client:
        future = client.submit(bytes, 1_000_000, key="a-megabyte")
        assert len(future.result()) == 1_000_000
        said = holdfast("memory", "--address", cluster.removeprefix("tcp://"))
        assert "1 object, 1.0 MB" in said
        assert "a-megabyte" in said
        report = json.loads(holdfast("memory", "--json"))
        (entry,) = report["objects"]
        assert (entry["key"], entry["type"]) == ("a-megabyte", "bytes")
        assert [place["node"] for place in entry["places"]] == list(json.loads(holdfast("status", "--json"))["nodes"])
        assert entry["places"][0]["state"] == "in memory"
        assert entry["call_site"].startswith(f"{__file__}:")
        assert "a-megabyte" in holdfast("memory", "--by", "prefix")
        assert "held by" in holdfast("memory", "--by", "holder", "--by", "owner")
        assert "Invalid value for '--by'" in holdfast("memory", "--by", "colour", code=2)
        assert "1 client" in holdfast("status")


def test_explain_says_what_keeps_an_object_and_who_has_made_it(cluster: str) -> None:
    from holdfast import Client

    with Client(cluster, name="etl") as client:
        future = client.submit(bytes, 1_000_000, key=("a-tuple", 3))
        assert len(future.result()) == 1_000_000
        said = holdfast("explain", "('a-tuple', 3)")
        assert said.startswith("('a-tuple', 3): memory\n")
        assert "Its result (bytes, 1.0 MB) is there" in said
        assert "It is in memory in the store of" in said
        assert "It is kept by the client etl (" in said
        assert f", by the line {__file__}:" in said
        assert holdfast("explain", str(future.object_id)).startswith("('a-tuple', 3): memory")
        assert holdfast("explain", "('a-tu…").startswith("('a-tuple', 3): memory"), "the only one that is meant"
        found = json.loads(holdfast("explain", "a-tuple", "--json"))
        assert (found["state"], found["origin"]["pid"]) == ("memory", os.getpid())
        with Terminal("explain", "a-tuple", columns=60) as terminal:
            assert terminal.end() == 0
        assert max(map(len, terminal.shown.splitlines())) <= 60
        said = holdfast("explain", "nobody-knows-it", code=1)
        assert said.startswith("nobody-knows-it: unknown")
        assert "The cluster knows no such key" in said
        others = client.map(abs, range(3), key="many")
        client.gather(others)
        assert "Is one of these meant: 'many-" in holdfast("explain", "many", code=1)
        assert holdfast("explain", "(not a key", code=1).startswith("(not a key: unknown")


def test_an_address_can_come_from_the_environment(cluster: str) -> None:
    assert f"Cluster at {cluster}" in holdfast("status", HOLDFAST_ADDRESS=cluster)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    said = holdfast("status", HOLDFAST_ADDRESS=f"127.0.0.1:{port}", code=1)
    assert f"can't connect to tcp://127.0.0.1:{port}: Connection refused. Is a cluster running there?" in said


def test_a_host_that_nobody_knows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    words = r"^can't connect to tcp://nowhere:8786: no host is known by the name 'nowhere'; check the name$"
    with pytest.raises(ConnectError, match=words):
        ask("nowhere:8786", protocol.requests.STATUS)
    with pytest.raises(ConnectError, match=words):
        wait_for_scheduler("nowhere:8786", timeout=0.05)


def test_a_wrong_token_is_refused_with_the_way_out(cluster: str) -> None:
    said = holdfast("status", HOLDFAST_TOKEN=secrets.token_hex(32), code=1)
    assert "use the token of the host that started the cluster" in said


def test_a_missing_token_is_named(cluster: str, tmp_path: Path) -> None:
    said = holdfast("status", HOLDFAST_TOKEN_FILE=str(tmp_path / "none"), code=1)
    assert f"there is no token at {tmp_path / 'none'}" in said
    said = holdfast("start", "--address", cluster, HOLDFAST_TOKEN_FILE=str(tmp_path / "none"), code=1)
    assert "copy the file from the host that started the cluster" in said


def test_a_place_where_no_logs_can_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = holdfast(
        "start", "--head", "--port", "0", "--log-directory", str(tmp_path / "file" / "logs"), *SMALL, code=1
    )
    assert f"there can be no logs in {tmp_path / 'file' / 'logs'}: Not a directory; name another place" in said


def test_a_second_head_on_its_port_is_an_error(cluster: str) -> None:
    port = cluster.rpartition(":")[2]
    said = holdfast("start", "--head", "--port", port, *SMALL, code=1)
    assert f"port {port} of 127.0.0.1 is in use" in said
    assert len(services()) == 1
    assert "1 host" in holdfast("status")


def test_a_local_cluster_is_shown_too_but_not_stopped(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        place = Path(os.environ["XDG_RUNTIME_DIR"], "local")
        place.mkdir(mode=0o700)
        patch.setenv("XDG_RUNTIME_DIR", str(place))
        with package.LocalCluster(1, 1, processes=False, object_store_memory="64MB") as local:
            assert f"Cluster at {local.scheduler_address}" in holdfast("status")
            assert holdfast("stop") == "Nothing was running.\n"
            said = holdfast("logs", "--address", local.scheduler_address, code=1)
            assert "is a LocalCluster: what it logs goes to the standard error of the process that made it" in said
            assert len(local.describe()["nodes"]) == 1


def test_joining_with_a_wrong_token_is_refused(cluster: str) -> None:
    said = holdfast("start", "--address", cluster, *SMALL, HOLDFAST_TOKEN=secrets.token_hex(32), code=1)
    assert "use the token of the host that started the cluster" in said
    assert run_directory.running("host") == []


def test_status_lists_what_waits_and_what_for(cluster: str, eventually: Callable[..., Any]) -> None:
    with package.Client(cluster, name="etl", set_as_default=False) as client:
        go = package.Event("go", client=client)
        waiting = threading.Thread(target=go.wait)
        waiting.start()
        never = client.submit(abs, -1, key="never", resources={"GPU": 8})
        eventually(lambda: "the event 'go'" in holdfast("status"), what="the wait is listed")
        said = holdfast("status")
        assert "Requests that wait: 1" in said
        (line,) = [line for line in said.splitlines() if line.startswith("  never")]
        assert line.split()[:6] == ["never", "no-worker", "for", "a", "worker", "with"]
        go.set()
        waiting.join(30)
        never.release()
