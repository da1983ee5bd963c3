"""``holdfast logs``: what processes log and tasks print, each line with its process and its task."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast import Client
from holdfast.cluster.cli.log_lines import LogFile, in_order
from holdfast.cluster.processes import log_files
from tests.support.command_line import address_in, holdfast
from tests.support.terminal import Terminal

WORKERS = ("--workers", "2", "--threads", "2", "--name", "alpha", "--object-store-memory", "64MB")


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def cluster(logs: Path) -> Iterator[str]:
    yield address_in(holdfast("start", "--head", "--port", "0", "--log-directory", str(logs), *WORKERS))
    holdfast("stop")


def say(text: str) -> None:
    print(f"printed {text}")
    sys.stderr.write("a\nb\n")
    logging.getLogger("theirs").warning("logged %s", text)
    subprocess.run(["echo", f"by another process {text}"], check=True)
    sys.stdout.buffer.write(f"bytes {text}\n".encode())
    sys.stdout.buffer.flush()
    print(f"\udcff half {text}", end="", flush=True)


def lines_with(said: str, text: str) -> list[str]:
    return [line for line in said.splitlines() if line.endswith(text)]


def test_each_line_has_its_worker_and_its_task(cluster: str) -> None:
    with Client(cluster) as client:
        client.submit(say, "x", key=("say", 1), workers="alpha-1").result()
        assert client.submit(int, "7").result() == 7  # so that the one before has ended
    said = holdfast("logs")
    for text, level in [("printed x", "OUT"), ("a", "ERR"), ("b", "ERR"), ("\\udcff half x", "OUT")]:
        (line,) = lines_with(said, f" {level} [('say', 1)] {text}")
        assert line.startswith("alpha-1")
    (line,) = lines_with(said, " WARNING [('say', 1)] theirs: logged x")
    assert line.startswith("alpha-1")
    # What doesn't go through Python has the worker's name at least.
    assert [line.split(maxsplit=1)[0] for line in lines_with(said, " by another process x")] == ["alpha-1"]
    assert [line.split(maxsplit=1)[0] for line in lines_with(said, " bytes x")] == ["alpha-1"]
    assert any(line.startswith("scheduler ") for line in said.splitlines())
    assert all(line.startswith("alpha-1 ") for line in holdfast("logs", "--worker", "alpha-1").splitlines())
    both = holdfast("logs", "--worker", "scheduler", "--worker", "service").splitlines()
    assert {line.split()[0] for line in both} == {"scheduler", "service"}
    times = [line.split()[1:3] for line in both]
    assert times == sorted(times)


def print_letters(letter: str, number: int) -> None:
    for _ in range(number):
        sys.stdout.write(letter * 5)
        sys.stdout.write(letter * 5 + "\n")


def test_lines_of_tasks_that_run_at_once_are_not_mixed(cluster: str) -> None:
    with Client(cluster) as client:
        client.gather([client.submit(print_letters, letter, 300, key=letter) for letter in "QRST"])
    said = holdfast("logs", "--lines", "0")
    for letter in "QRST":
        assert len(lines_with(said, f" OUT [{letter}] {letter * 10}")) == 300


def show_progress() -> None:
    for percent in range(101):
        print(f"\r{percent:3} %", end="", flush=True)
    print(" done\r\nnext\rlast\r\r\n100 %\r", end="")


def test_of_a_line_that_is_written_over_its_last_state_is_kept(cluster: str) -> None:
    with Client(cluster) as client:
        client.submit(show_progress, key="bar").result()
        assert client.submit(int, "8").result() == 8  # so that the one before has ended
    said = holdfast("logs", "--lines", "0")
    shown = [line.partition(" OUT [bar] ")[2] for line in said.split("\n") if "[bar]" in line]
    assert shown == ["100 % done", "last", "100 %"]


def test_the_last_lines_only(cluster: str) -> None:
    said = holdfast("logs", "--lines", "5").splitlines()
    assert len(said) == 5
    assert holdfast("logs", "--lines", "0").splitlines()[-5:] == said


def test_a_log_can_be_followed(cluster: str) -> None:
    with Terminal("logs", "--follow", "--lines", "1", columns=200) as terminal, Client(cluster) as client:
        terminal.read_until("\n")
        for number in range(3):
            client.submit(print, f"number {number}", key=f"print-{number}").result()
            terminal.read_until(f"OUT [print-{number}] number {number}\n")
        assert terminal.interrupt() == 0
    assert "Traceback" not in terminal.shown


def test_a_part_that_is_not_there_is_named_with_those_that_are(cluster: str) -> None:
    said = holdfast("logs", "--worker", "beta-0", code=1)
    assert "there is no log of 'beta-0'" in said
    assert "alpha-0, alpha-1, fork-server, node-0, scheduler, service" in said
    said = holdfast("logs", "--address", "10.9.8.7:6", code=1)
    assert "no part of the cluster at tcp://10.9.8.7:6 was started on this host" in said


def test_the_logs_of_a_worker_are_bounded(cluster: str, logs: Path, eventually: Callable[..., Any]) -> None:
    log = logs / "alpha-0.log"
    with open(log, "ab") as file:
        file.write(b"a task prints\n" * (log_files.LIMIT_NBYTES // 10))
    eventually(lambda: log.stat().st_size < log_files.LIMIT_NBYTES, what="it is cut")
    assert log_files.older(log).stat().st_size >= log_files.LIMIT_NBYTES - 100


def test_the_logs_of_a_cluster_that_has_ended(tmp_path: Path) -> None:
    env = {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "XDG_STATE_HOME": str(tmp_path / "state")}
    (tmp_path / "run").mkdir(mode=0o700)
    assert "there are no logs of earlier starts" in holdfast("logs", code=1, **env)
    holdfast("start", "--head", "--port", "0", *WORKERS, **env)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        with Terminal("logs", "--follow") as terminal:
            terminal.read_until("ready:")
            holdfast("stop", **env)
            assert terminal.end() == 0
    assert "The cluster has ended." in terminal.shown
    said = holdfast("logs", **env)
    assert "These are the logs of the last start" in said
    assert "stopped" in said
    (directory,) = (tmp_path / "state" / "holdfast" / "logs").iterdir()
    assert said.startswith(holdfast("logs", "--log-directory", str(directory), **env))


# -- reading files


def stamped(second: int, text: str) -> str:
    return f"2026-01-01 00:00:{second:02},000 17 OUT {text}"


def test_lines_are_put_in_order_and_stay_together(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("\n".join([stamped(1, "one"), stamped(3, "three"), "  and more", ""]))
    (tmp_path / "b.log").write_text("\n".join([stamped(2, "two"), stamped(4, "four"), "not complete"]))
    files = [LogFile(tmp_path / "a.log"), LogFile(tmp_path / "b.log")]
    lines = in_order(line for file in files for line in file.last(None))
    assert [line.text.rpartition(" OUT ")[2] for line in lines] == ["one", "two", "three", "  and more", "four"]
    with open(tmp_path / "b.log", "a") as file:
        file.write(" yet\n")
    assert [line.text for line in files[1].news()] == ["not complete yet"]
    assert files[1].news() == []


def test_the_end_of_a_log_goes_on_in_what_was_cut_from_it(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log_files.older(log).write_text("".join(f"old {n}\n" for n in range(20_000)))
    log.write_text("new 0\nnew 1\n")
    assert [line.text for line in LogFile(log).last(2)] == ["new 0", "new 1"]
    assert [line.text for line in LogFile(log).last(4)] == ["old 19998", "old 19999", "new 0", "new 1"]
    assert len(LogFile(log).last(None)) == 20_002
    assert LogFile(tmp_path / "none.log").last(3) == []


def test_a_log_that_is_cut_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("x\n" * 1000)
    file = LogFile(log)
    assert len(file.last(10)) == 10
    os.truncate(log, 0)
    with open(log, "a") as out:
        out.write("after\n")
    assert [line.text for line in file.news()] == ["after"]


def test_names_that_can_not_be_those_of_files(tmp_path: Path) -> None:
    paths = [log_files.file_of(tmp_path, name) for name in ("a-0", "a/0", "a\\0", "h" * 300, "h" * 301)]
    assert paths[0].name == "a-0.log"
    assert len(set(paths)) == 5
    for path in paths:
        assert path.parent == tmp_path
        path.touch()
