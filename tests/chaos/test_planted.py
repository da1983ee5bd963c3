"""What a run has to find: each thing that may not be is planted, and the run says so."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from holdfast import Client, ObjectLostError
from holdfast.cluster.errors import ConnectError
from tests.chaos import run as stages
from tests.chaos.client_program import attempt
from tests.chaos.holders import TooMany, held
from tests.chaos.operations import Operation, Work, expect
from tests.chaos.place import MARK, Place
from tests.chaos.run import Options, Run
from tests.chaos.timeline import Deed

CHANGED = (
    *(MARK, "HOLDFAST_TOKEN_FILE", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "TMPDIR"),
    *("HOLDFAST_TOKEN", "HOLDFAST_ADDRESS", "HOLDFAST_CLUSTER_ID", "HOLDFAST_DURABLE"),
)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name in CHANGED:
        monkeypatch.setenv(name, os.environ.get(name, ""))  # so that all of them are put back
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
    place = Place()
    yield place
    place.remove()


@pytest.fixture
def run(place: Place, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(stages, "HEALING_SECONDS", 0.0)
    return Run(Options(seconds=1.0, seed=1), place, lambda line: None)


def take(run: Run, place: Place, operation: Operation) -> None:
    """A client does something, with no cluster, and the run judges it."""
    run._take(attempt(0, operation, Work(cast(Client, None), random.Random(1), place.holders)))


def test_a_right_value_is_no_failure(run: Run, place: Place) -> None:
    take(run, place, lambda work: expect(4, 4, "a square"))
    assert not run.failures
    assert run.timeline.right.total() == 1


def test_a_wrong_value_is_found(run: Run, place: Place) -> None:
    take(run, place, lambda work: expect(5, 4, "a square"))
    assert "Wrong: a square: 5, and it has to be 4" in run.failures[0]


@pytest.mark.parametrize(("listened", "failures"), [("tcp://127.0.0.1:1", 0), ("tcp://127.0.0.1:2", 1)])
def test_an_object_that_is_lost_without_the_death_of_its_host_is_found(
    run: Run, place: Place, listened: str, failures: int
) -> None:
    def scattered(work: Work) -> None:
        work.fragile.append("k")
        work.places.append("tcp://127.0.0.1:1")
        deed = Deed(work.since, "killed", "agent", 7, addresses=(listened,))
        run.timeline.add(deed.when, deed)
        raise ObjectLostError("'k' is lost")

    take(run, place, scattered)
    assert len(run.failures) == failures


def test_an_object_that_can_be_made_again_may_not_be_lost(run: Run, place: Place) -> None:
    def keep(work: Work) -> None:
        run.timeline.add(work.since, Deed(work.since, "killed", "agent", 7))
        raise ObjectLostError("'k' is lost")

    take(run, place, keep)
    assert "ObjectLostError: 'k' is lost" in run.failures[0]


@pytest.mark.parametrize("text", ["the session has ended", "the scheduler does not know the client Client-1 any more"])
@pytest.mark.parametrize(("seconds", "failures"), [(9.0, 0), (0.1, 1)])
def test_a_client_that_is_given_up_though_it_was_not_away_is_found(
    run: Run, place: Place, text: str, seconds: float, failures: int
) -> None:
    work = Work(cast(Client, None), random.Random(1), place.holders)
    run.timeline.add(work.began, Deed(work.began, "stopped", "client", os.getpid(), seconds))

    def tasks(work: Work) -> None:
        raise ConnectError(text)

    run._take(attempt(0, lambda work: None, work))  # what it does before it learns of that
    run._take(attempt(0, tasks, work))
    assert len(run.failures) == failures


@pytest.mark.parametrize("places", [1, 2])
def test_one_holder_too_many_is_found(run: Run, place: Place, places: int) -> None:
    def exclusive(work: Work) -> None:
        with held(work.holders, "lock", places):
            if places == 1:
                inner(work)
            else:
                with held(work.holders, "lock", places):
                    inner(work)

    def inner(work: Work) -> None:
        with held(work.holders, "lock", places):
            pass

    take(run, place, exclusive)
    assert f"TooMany: lock is held by process {os.getpid()}" in run.failures[0]
    with held(place.holders, "lock", places):  # and it is free again
        pass


def test_the_file_of_a_holder_that_was_killed_is_free(place: Place) -> None:
    program = "import sys; from pathlib import Path; from tests.chaos.holders import held\n"
    program += "with held(Path(sys.argv[1]), 'lock'): print('has it', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(place.holders)]
    root = Path(__file__).parent.parent.parent
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"has it\n"
        with pytest.raises(TooMany, match=f"process {holder.pid}"), held(place.holders, "lock"):
            pass
        holder.kill()
    with held(place.holders, "lock"):
        pass


def test_a_process_that_is_left_is_found(run: Run) -> None:
    command = [sys.executable, "-c", "print('runs', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as left:
        assert left.stdout is not None
        assert left.stdout.readline() == b"runs\n"  # what tells whose it is, its environment, can be read by now
        run._look_for_remains()
        left.kill()
    assert "processes are left" in run.failures[0]
    assert str(left.pid) in run.failures[0]


@pytest.mark.parametrize("directory", ["spill", "run/holdfast", "run/holdfast-leftovers", "tmp", "durable/p/writers"])
def test_a_file_that_is_left_is_found(run: Run, place: Place, directory: str) -> None:
    (place.path / directory).mkdir(parents=True, exist_ok=True)
    (place.path / directory / "left").touch()
    run._look_for_remains()
    assert "files are left" in run.failures[0]


def test_where_a_process_listens_is_found(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert f"tcp://127.0.0.1:{server.getsockname()[1]}" in place.addresses(os.getpid())
    assert place.addresses(1 << 30) == ()
