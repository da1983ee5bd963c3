"""The command line, as users run it: real commands, real processes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_line import SMALL, address_in, descendants, holdfast, services

import holdfast as package
from holdfast import Client, LocalCluster
from holdfast.cluster.processes import log_files, run_directory


@pytest.fixture
def stopped() -> Iterator[None]:
    yield
    holdfast("stop")


# -- what needs no cluster


def test_it_says_its_version() -> None:
    assert holdfast("--version").strip() == f"holdfast {package.__version__}"
    console_script = Path(sys.executable).with_name("holdfast")
    if console_script.exists():
        assert subprocess.check_output([console_script, "--version"], text=True).strip().endswith(package.__version__)


@pytest.mark.parametrize("command", [(), ("start",), ("stop",), ("status",), ("memory",), ("logs",)])
def test_help_has_examples(command: tuple[str, ...]) -> None:
    said = holdfast(*command, "--help")
    assert "Example" in said
    assert " ".join(["holdfast", *command]) in said


@pytest.mark.parametrize("command", ["status", "memory"])
def test_when_nothing_runs_it_says_so(command: str) -> None:
    assert "no cluster of yours runs on this host. 'holdfast start --head' starts one" in holdfast(command, code=1)


def test_help_says_each_command_in_a_whole_sentence_and_a_wrong_one_what_may_be_meant() -> None:
    commands = holdfast("--help", COLUMNS="80").partition("Commands:")[2].strip().splitlines()
    names = [line.split()[0] for line in commands]
    assert names == ["start", "stop", "status", "memory", "explain", "datasets", "state", "logs"]
    assert all(line.endswith(".") and not line.endswith("..") for line in commands)
    result = subprocess.run([sys.executable, "-m", "holdfast", "stopp"], capture_output=True, text=True)
    assert (result.returncode, "No such command 'stopp'. Did you mean 'stop'?" in result.stderr) == (2, True)


def test_stopping_nothing_is_no_error() -> None:
    assert holdfast("stop") == "Nothing was running.\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "say either --head, to start a cluster, or --address HOST:PORT"),
        (("--head", "--address", "127.0.0.1:1"), "say either --head"),
        (("--address", "127.0.0.1:1", "--port", "5"), "--port is the scheduler's"),
        (("--address", "nonsense://x"), "unknown scheme 'nonsense'"),
        (("--head", "--workers", "0"), "--workers"),
        (
            ("--head", "--memory", "lots"),
            "'--memory-limit': 'lots' is no size; one is, for example, 4GB, 512MiB or 0.25, and 0",
        ),
        (("--head", "--memory", "4 GBB"), "'--memory-limit': '4 GBB' is no size"),
        (("--head", "--memory", "4"), "--memory: 4 B is less than a worker takes to start"),
        (("--head", "--memory", "900TB"), "--memory: 900.0 TB is more than the"),
        (("--head", "--object-store-memory", "0"), "'--object-store-memory': '0' is no size"),
        (("--head", "--object-store-memory", "900TB"), "--object-store-memory: 900.0 TB is more than the"),
        (("--head", "--workers", "5000"), "--workers must be from 0 to 1024, not 5000"),
        (("--head", "--resources", "GPU=2 MEM"), "'--resources': 'MEM' is no resource; one is, for example, GPU=2"),
        (("--head", "--resources", "GPU=-1"), "'--resources': 'GPU=-1' is no resource"),
        (("--head", "--resources", "=1"), "'--resources': '=1' is no resource"),
        (("--head", "--log-level", "LOUD"), "'--log-level': 'LOUD' is not one of"),
        (("--head", "--host", "192.0.2.7"), "can't listen on tcp://192.0.2.7:8786"),
    ],
)
def test_what_can_not_be_is_named(arguments: tuple[str, ...], words: str) -> None:
    result = subprocess.run([sys.executable, "-m", "holdfast", "start", *arguments], capture_output=True, text=True)
    assert result.returncode in (1, 2)
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert services() == []


# -- starting and stopping


@pytest.mark.usefixtures("stopped")
def test_start_says_how_to_connect_and_stop_what_it_stopped(tmp_path: Path) -> None:
    said = holdfast("start", "--head", "--port", "0", "--log-directory", str(tmp_path / "logs"), *SMALL)
    address = address_in(said)
    assert f'client = Client("{address}")' in said
    assert os.environ["HOLDFAST_TOKEN_FILE"] in said
    assert str(tmp_path / "logs") in said
    assert {path.name for path in (tmp_path / "logs").iterdir()} >= {"service.log", "scheduler.log", "node-0.log"}
    everything = descendants()
    assert len(everything) == 5
    said = holdfast("stop")
    assert f"Stopped the cluster at {address}" in said
    assert not any(each.is_running() for each in everything)
    assert holdfast("stop") == "Nothing was running.\n"


@pytest.mark.usefixtures("stopped")
def test_its_logs_are_bounded_whatever_writes_to_them(tmp_path: Path, eventually: Callable[..., Any]) -> None:
    holdfast("start", "--head", "--port", "0", "--log-directory", str(tmp_path), *SMALL)
    mine = tmp_path / "mine.log"
    for log in (tmp_path / "node-0.log", tmp_path / "service.log", mine):
        with open(log, "ab") as file:
            file.write(b"a task prints\n" * (log_files.LIMIT_NBYTES // 10))
    for name in ("node-0.log", "service.log"):
        eventually(lambda name=name: (tmp_path / name).stat().st_size < log_files.LIMIT_NBYTES, what=f"{name} is cut")
        assert (tmp_path / f"{name}.1").stat().st_size >= log_files.LIMIT_NBYTES - 100
    assert mine.stat().st_size > log_files.LIMIT_NBYTES, "what isn't the cluster's is left alone"


@pytest.mark.usefixtures("stopped")
def test_what_workers_have_and_how_much_is_logged(tmp_path: Path) -> None:
    log = ("--log-directory", str(tmp_path), "--log-level", "warning")
    address = address_in(holdfast("start", "--head", "--port", "0", "--resources", "GPU=2 MEM=1e9", *log, *SMALL))
    with Client(address, set_as_default=False) as client:
        (worker,) = client.scheduler_info()["workers"].values()
        assert (worker["resources"]["GPU"], worker["resources"]["MEM"]) == (2.0, 1e9)
        assert client.submit(abs, -1, resources={"GPU": 2}).result(timeout=30) == 1
    assert "INFO" not in (tmp_path / "scheduler.log").read_text()


@pytest.mark.usefixtures("stopped")
def test_stop_says_what_others_lose_and_asks_if_there_is_a_terminal() -> None:
    address = address_in(holdfast("start", "--head", "--port", "0", *SMALL))
    with Client(address, set_as_default=False) as client:
        client.publish_dataset(flights=1, planes=2)
        pending = client.submit(abs, 1, workers="nowhere")
        ours, theirs = pty.openpty()
        os.write(ours, b"n\n")
        asked = subprocess.run(
            [sys.executable, "-m", "holdfast", "stop"], stdin=theirs, capture_output=True, text=True, timeout=90
        )
        os.close(ours)
        os.close(theirs)
        words = f"The cluster at {address} still has 1 client, 1 task, 2 datasets (flights, planes): they end with it."
        assert words in asked.stdout
        assert "Stop it? [y/N]" in asked.stdout
        assert asked.returncode == 1
        assert len(services()) == 1
        said = holdfast("stop", "--address", address)
        assert words in said
        assert f"Stopped the cluster at {address}" in said
        del pending
    assert services() == []


def test_a_cluster_that_was_not_started_here_is_stopped_by_its_address(tmp_path: Path) -> None:
    with LocalCluster(n_workers=1, object_store_memory="64 MB", durable=tmp_path) as cluster:
        address = cluster.scheduler_address
        with Client(cluster, set_as_default=False) as client:
            client.publish_dataset(x=1)
            client.publish_dataset(stays=1, durable=True)
            assert "--force kills processes of this host" in holdfast("stop", "--address", address, "--force", code=2)
            said = holdfast("stop", "--address", address.removeprefix("tcp://"), "--yes")
        assert (
            f"The cluster at {address} still has 1 client, 1 dataset (x): they end with it.\n"
            f"Stopped the cluster at {address}."
        ) in said
    assert "can't connect" in holdfast("stop", "--address", address, code=1)


@pytest.mark.usefixtures("stopped")
def test_it_does_not_belong_to_the_terminal_it_was_started_in() -> None:
    holdfast("start", "--head", "--port", "0", *SMALL)
    (service,) = services()
    assert os.getsid(service["pid"]) == service["pid"]


@pytest.mark.usefixtures("stopped")
def test_a_host_joins_and_leaves(eventually: Callable[..., Any]) -> None:
    address = address_in(holdfast("start", "--head", "--port", "0", *SMALL))
    said = holdfast("start", "--address", address.removeprefix("tcp://"), "--name", "beta", *SMALL)
    assert f"This host has joined the cluster at {address}" in said
    report = json.loads(holdfast("status", "--json"))
    assert {node["hostname"] for node in report["nodes"].values()} == {"beta", socket.gethostname()}
    (joined,) = run_directory.running("host")
    os.kill(joined["pid"], signal.SIGTERM)
    eventually(lambda: len(json.loads(holdfast("status", "--json"))["nodes"]) == 1, what="it has left")
    holdfast("start", "--address", address, *SMALL)
    said = holdfast("stop")
    assert "Stopped this host's part of the cluster" in said.splitlines()[0]
    assert "Stopped the cluster" in said.splitlines()[1]


@pytest.mark.usefixtures("stopped")
def test_a_host_whose_cluster_ends_ends(eventually: Callable[..., Any]) -> None:
    address = address_in(holdfast("start", "--head", "--port", "0", *SMALL))
    holdfast("start", "--address", address, *SMALL)
    everything = descendants()
    (head,) = run_directory.running("head")
    os.kill(head["pid"], signal.SIGTERM)
    eventually(lambda: not services(), timeout=20, what="both have ended")
    eventually(lambda: not any(each.is_running() for each in everything))


def test_nobody_at_the_address_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    said = holdfast("start", "--address", f"127.0.0.1:{port}", "--timeout", "2", *SMALL, code=1)
    assert f"can't connect to tcp://127.0.0.1:{port}: Connection refused (tried for " in said
    assert "'holdfast start --head' starts one" in said
    assert services() == []


def test_in_the_foreground_it_ends_with_the_command(eventually: Callable[..., Any]) -> None:
    for number, code in ((signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)):
        process = subprocess.Popen(
            [sys.executable, "-m", "holdfast", "start", "--head", "--block", "--port", "0", *SMALL],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert process.stdout is not None
        while "stop" not in (line := process.stdout.readline()):
            assert line, "it ended"
        everything = psutil.Process(process.pid).children(recursive=True)
        assert len(everything) == 6
        process.send_signal(number)
        process.communicate(timeout=30)
        assert process.returncode == code
        eventually(lambda gone=everything: not any(each.is_running() for each in gone), what="all of it ends")
        eventually(lambda: not services())


# -- kill -9


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("victim", ["service", "scheduler"])
def test_killing_what_it_stands_on_ends_it(
    victim: str, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_SCHEDULER_TIMEOUT", "0")
    address = address_in(holdfast("start", "--head", "--port", "0", *SMALL))
    everything = descendants()
    pids = {"service": services()[0]["pid"], "scheduler": json.loads(holdfast("status", "--json"))["scheduler"]["pid"]}
    os.kill(pids[victim], signal.SIGKILL)
    eventually(lambda: not any(each.is_running() for each in everything), what="all of it ends")
    eventually(lambda: not services())
    assert "no cluster of yours" in holdfast("status", code=1)
    assert "can't connect" in holdfast("status", "--address", address, code=1)


@pytest.mark.usefixtures("stopped")
def test_killed_agents_of_a_head_and_of_a_host_that_joined_are_started_again(eventually: Callable[..., Any]) -> None:
    address = address_in(holdfast("start", "--head", "--port", "0", "--name", "alpha", *SMALL))
    holdfast("start", "--address", address, "--name", "beta", *SMALL)
    nodes = json.loads(holdfast("status", "--json"))["nodes"]
    workers = [each for each in descendants() if "-m holdfast.cluster.worker " in " ".join(each.cmdline())]
    assert len(workers) == 2
    for node in nodes.values():
        os.kill(node["pid"], signal.SIGKILL)
    eventually(lambda: not any(each.is_running() for each in workers), what="their workers end")

    def new_ones() -> dict[str, Any]:
        report = json.loads(holdfast("status", "--json"))["nodes"]
        return {
            node["hostname"]: (node["deaths"], len(node["workers"]))
            for address, node in report.items()
            if address not in nodes
        }

    eventually(lambda: new_ones() == {"alpha": (1, 1), "beta": (1, 1)}, 60, "both are there again")
    said = holdfast("status")
    assert len(re.findall(r"node agent: running; died 1 time, last \d+ s ago: was killed by SIGKILL", said)) == 2
    there = set(json.loads(holdfast("status", "--json"))["nodes"])
    eventually(lambda: {address for service in services() for address in service["nodes"]} == there)
    log = Path(run_directory.running("head")[0]["log_directory"], "service.log").read_text()
    assert "node-0 was killed by SIGKILL: starting it again in" in log
    assert "node-0 runs again" in log


@pytest.mark.usefixtures("stopped")
def test_stop_works_while_an_agent_can_not_be_started(tmp_path: Path, eventually: Callable[..., Any]) -> None:
    spill = tmp_path / "spill"
    holdfast("start", "--head", "--port", "0", "--name", "alpha", "--spill-directory", str(spill), *SMALL)
    (node,) = json.loads(holdfast("status", "--json"))["nodes"].values()
    shutil.rmtree(spill, ignore_errors=True)
    spill.write_text("no store can have its directory here")
    os.kill(node["pid"], signal.SIGKILL)
    tried = re.compile(
        r"^Host alpha: (starting|down, next start in \d+ s); died \d+ times, last \d+ s ago: could not start", re.M
    )
    said = eventually(lambda: said if tried.search(said := holdfast("status")) else "", 30, "it was tried")
    assert "0 hosts" in said
    everything = descendants()
    assert "Stopped the cluster" in holdfast("stop")
    assert not any(each.is_running() for each in everything)


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("agents_too", [False, True])
def test_a_host_whose_scheduler_is_gone_for_good_ends(
    agents_too: bool, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_SCHEDULER_TIMEOUT", "0")
    address = address_in(holdfast("start", "--head", "--port", "0", *SMALL))
    holdfast("start", "--address", address, *SMALL)
    everything = descendants()
    report = json.loads(holdfast("status", "--json"))
    os.kill(report["scheduler"]["pid"], signal.SIGKILL)
    for node in report["nodes"].values() if agents_too else ():
        os.kill(node["pid"], signal.SIGKILL)
    eventually(lambda: not services(), 60, "both have ended")
    eventually(lambda: not any(each.is_running() for each in everything), what="all of it ends")


def scheduler_of(said: dict[str, Any]) -> int:
    return int(said["scheduler"]["pid"])


def epoch() -> tuple[str, int]:
    """The cluster that runs here, and which of its schedulers."""
    cluster, number = json.loads(holdfast("status", "--json"))["scheduler"]["epoch"].split("/")
    return cluster, int(number)


@pytest.mark.usefixtures("stopped")
def test_a_scheduler_that_was_killed_is_started_again_where_it_was(eventually: Callable[..., Any]) -> None:
    address = address_in(holdfast("start", "--head", "--port", "0", *SMALL))
    killed, (cluster, number) = scheduler_of(json.loads(holdfast("status", "--json"))), epoch()
    os.kill(killed, signal.SIGKILL)
    said = eventually(lambda: scheduler_of(said) != killed and said if (said := _status()) else None, 30, "another")
    assert said["scheduler"]["address"] == address
    assert epoch() == (cluster, number + 1)
    assert re.search(r"Scheduler: running; died 1 time, last \d+ s ago: was killed by SIGKILL", holdfast("status"))
    log = Path(run_directory.running("head")[0]["log_directory"], "service.log").read_text()
    assert "scheduler was killed by SIGKILL: another one goes on in" in log


def _status() -> dict[str, Any] | None:
    try:
        return dict(json.loads(holdfast("status", "--json")))
    except AssertionError:
        return None


@pytest.mark.usefixtures("stopped")
def test_a_head_all_of_whose_processes_were_killed_goes_on_at_its_address(
    tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    state = tmp_path / "state"
    start = ("start", "--head", "--port", "0", *SMALL, "--state-directory", str(state))
    holdfast(*start)
    cluster, number = epoch()
    # Together: a service that dies alone tells the others.
    family = [*descendants(), *(psutil.Process(service["pid"]) for service in services())]
    for each in (signal.SIGSTOP, signal.SIGKILL):
        for process in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, each)
    psutil.wait_procs(family, 20)
    holdfast(*start)
    assert epoch() == (cluster, number + 1)
    service = services()[0]["pid"]
    os.kill(service, signal.SIGKILL)  # the others end by that, and leave the state to the next
    eventually(lambda: not descendants(), what="all of it ends")
    holdfast(*start)
    assert epoch() == (cluster, number + 2)
    holdfast("stop")
    holdfast(*start)
    other, _ = epoch()
    assert other != cluster
    holdfast("stop", "--force")
    holdfast(*start)
    assert epoch()[0] not in (cluster, other)


@pytest.mark.usefixtures("stopped")
def test_the_state_of_a_head_lies_at_a_place_for_its_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    holdfast("start", "--head", "--port", str(port), *SMALL)
    place = tmp_path / "holdfast" / "state" / f"127.0.0.1-{port}"
    assert json.loads(holdfast("status", "--json"))["scheduler"]["journal"]["directory"] == str(place)
    assert place.stat().st_mode & 0o777 == 0o700


@pytest.mark.usefixtures("stopped")
def test_a_head_whose_scheduler_can_not_go_on_ends_and_says_so(
    tmp_path: Path, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_SCHEDULER_TIMEOUT", "1")
    state = tmp_path / "state"
    holdfast("start", "--head", "--port", "0", *SMALL, "--state-directory", str(state))
    logs = Path(run_directory.running("head")[0]["log_directory"])
    everything = descendants()
    (log,) = (state / "journal").glob("*.log")
    (state / "cluster.json").write_text('{"format": 99, "id": "of a later version"}')
    os.kill(scheduler_of(json.loads(holdfast("status", "--json"))), signal.SIGKILL)
    eventually(lambda: not services(), 60, "it ends")
    eventually(lambda: not any(each.is_running() for each in everything), what="all of it ends")
    said = (logs / "service.log").read_text()
    assert "a later version of Holdfast has made" in said
    assert "it is given up after" in said
    assert log.exists()


def test_stop_by_force_leaves_nothing(eventually: Callable[..., Any]) -> None:
    holdfast("start", "--head", "--port", "0", *SMALL)
    everything = descendants()
    assert "Killed the cluster" in holdfast("stop", "--force")
    eventually(lambda: not any(each.is_running() for each in everything), what="all of it ends")


def test_only_what_others_can_reach_is_started_with_a_warning() -> None:
    warning = "can read what this cluster sends"
    try:
        assert warning not in holdfast("start", "--head", "--port", "0", *SMALL)
        holdfast("stop")
        said = holdfast("start", "--head", "--host", "0.0.0.0", "--port", "0", *SMALL)
        assert said.count(warning) == 1
        assert "docs/security.md" in said
    finally:
        holdfast("stop")
