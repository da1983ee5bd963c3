"""The simulator: histories go well, faults that are put into the scheduler are found, and few steps tell them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.cluster.scheduler.parts.leases import LeasePart
from holdfast.cluster.scheduler.parts.part import Part
from holdfast.cluster.scheduler.parts.queues import Queues
from holdfast.cluster.scheduler.parts.replies import Replies
from holdfast.cluster.scheduler.placing.revocation import Revocation
from holdfast.cluster.scheduler.tasks.holding import Holding
from holdfast.cluster.scheduler.tasks.lifecycle import Lifecycle
from holdfast.cluster.scheduler.tasks.results import Results
from tests.simulator import __main__ as command
from tests.simulator import invariants, scale, shrinking
from tests.simulator.clock import stream
from tests.simulator.faults import faults
from tests.simulator.history import History
from tests.simulator.profile import drawn
from tests.simulator.shrinking import explain, shrunk
from tests.simulator.trace import Trace
from tests.simulator.workload import OPERATIONS

REPOSITORY = Path(__file__).parent.parent.parent


def run(seed, **options):
    """Run a history, which has to go well."""
    outcome = History(seed, **options).run()
    assert not outcome.failure, explain(outcome, with_faults=options.get("with_faults", True))
    return outcome


@pytest.mark.long
@pytest.mark.parametrize("first", range(0, 60, 10))
def test_histories_go_well(first):
    for seed in range(first, first + 10):
        run(seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(504, 508))
def test_after_each_event_the_whole_state_is_right(seed, monkeypatch):
    monkeypatch.setattr(invariants, "WHOLE_EVERY", 1)
    run(seed)


@pytest.mark.parametrize("seed", range(3))
def test_without_faults_too(seed):
    assert run(seed, with_faults=False).reads


@pytest.mark.long
def test_the_same_seed_is_the_same_history_whatever_sets_are_in_order():
    def traced(hashes):
        return subprocess.run(
            [sys.executable, "-m", "tests.simulator", "--seed", "7", "--trace"],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONHASHSEED": hashes},
            check=True,
            capture_output=True,
        ).stdout

    assert traced("1") == traced("2")


def test_steps_that_are_left_out_leave_the_others_as_they_were():
    traces = []
    for keep in (None, set(range(0, 150, 2))):
        trace = Trace()
        History(11, keep=keep, trace=trace).run()
        traces.append([line for line in trace.lines if " step " in line])
    whole, half = traces
    assert half
    assert set(half) < set(whole)


class TestFaults:
    """What is put into the scheduler here is told apart from chance by some seed of a few."""

    def find(self, seeds=range(40)):
        failed = next((o for seed in seeds if (o := History(seed).run()).failure), None)
        assert failed is not None, "no seed has found it"
        return failed

    def test_a_lock_that_is_given_to_two(self, monkeypatch):
        place = LeasePart._place

        def place_nowhere(self, lease, line):
            place(self, lease, line)
            line.taken.clear()

        monkeypatch.setattr(LeasePart, "_place", place_nowhere)
        self.find()

    def test_an_item_that_is_lost_with_its_getter(self, monkeypatch):
        monkeypatch.setattr(Queues, "_put_back", lambda self, queue, items: None)
        self.find()

    def test_a_result_that_does_not_keep_what_it_contains(self, monkeypatch):
        monkeypatch.setattr(Holding, "contain_now", lambda self, task, others: None)
        self.find()

    def test_a_result_that_is_deleted_while_it_is_held(self, monkeypatch):
        lose = Holding._lose_holder

        def lose_all(self, task, holder):
            task.holders = (holder,)
            lose(self, task, holder)

        monkeypatch.setattr(Holding, "_lose_holder", lose_all)
        self.find()

    def test_an_object_that_is_not_deleted(self, monkeypatch):
        monkeypatch.setattr(Results, "discard", lambda self, maker, object_id: None)
        assert "objects" in self.find().failure

    def test_a_run_that_is_not_repeated_when_its_worker_dies(self, monkeypatch):
        monkeypatch.setattr(Lifecycle, "requeue", lambda self, task: None)
        self.find()

    def test_a_worker_that_is_told_things_when_it_is_gone(self, monkeypatch):
        monkeypatch.setattr(Revocation, "gone", lambda self, worker: None)
        assert "objects that nobody knows of" in self.find(range(140, 150)).failure


@pytest.mark.parametrize("seed", range(1000, 1012))
def test_a_scheduler_that_dies_is_replaced_by_one_that_knows_what_it_did(seed):
    """At random moments, also when it has written down an event of which nothing has left."""
    profile = drawn(stream(seed, "profile"), OPERATIONS, faults())
    profile.weights["scheduler_dies"] = 0.03 * sum(profile.weights.values())
    history = History(seed, steps=150, profile=profile)
    outcome = history.run()
    assert not outcome.failure, outcome.failure
    assert history.world.scheduler.epoch > 1


class TestThatItFindsOfARestart:
    """What a faulty journal leads to."""

    def failures(self, seeds):
        for seed in seeds:
            profile = drawn(stream(seed, "profile"), OPERATIONS, [])
            profile.weights |= dict.fromkeys(["put", "get", "lock", "scheduler_dies"], 5.0)
            yield History(seed, steps=150, profile=profile).run().failure

    def test_an_item_that_is_not_noted(self, monkeypatch):
        monkeypatch.setattr(Part, "note", lambda self, key, value, holder=None: None)
        assert any(self.failures(range(10)))

    def test_a_reply_that_is_not_noted(self, monkeypatch):
        monkeypatch.setattr(Replies, "note", lambda self, instructions: None)
        assert any(self.failures(range(40)))


class TestShrinking:
    def test_what_is_left_is_what_it_takes(self):
        tried = []

        def fails(steps):
            tried.append(steps)
            return {3, 40, 41} <= set(steps)

        assert shrunk(range(100), fails) == [3, 40, 41]
        assert len(tried) < 150

    def test_it_ends_in_time(self):
        clock = iter(range(0, 1_000_000, 10))
        assert len(shrunk(range(100), lambda steps: 0 in steps, lambda: next(clock))) > 1

    @pytest.mark.long
    def test_a_failure_is_told_with_its_steps_and_the_command_that_repeats_it(self, monkeypatch):
        monkeypatch.setattr(Queues, "_put_back", lambda self, queue, items: None)
        failed = TestFaults().find()
        monkeypatch.setattr(shrinking, "MAX_SECONDS", 20.0)
        text = explain(failed)
        count = int(text.partition("with ")[2].partition(" of its")[0])
        assert count < 15
        again = text.splitlines()[-1].partition("-m tests.simulator ")[2].split()
        assert command.main(again) == 1


class TestCommand:
    def test_one_seed(self, capsys):
        assert command.main(["--seed", "3"]) == 0
        assert "no fault" in capsys.readouterr().out

    def test_several(self, capsys):
        assert command.main(["--first", "0", "--seeds", "7", "--processes", "2", "--steps", "20"]) == 0
        assert capsys.readouterr().out.splitlines()[1].startswith("7 seeds, ")

    def test_so_many_events(self, capsys):
        assert command.main(["--first", "0", "--events", "1000", "--processes", "1"]) == 0
        events = int(capsys.readouterr().out.splitlines()[1].split()[2].replace(",", ""))
        assert events >= 1000


@pytest.mark.parametrize("case", scale.CASES)
def test_scale_is_measured(case, monkeypatch):
    monkeypatch.setattr(scale, "HOSTS", 4)
    monkeypatch.setattr(scale, "WORKERS", 8)
    row = scale.measure(case, 200)
    assert row.tasks == 200
    assert row.microseconds > 0
    assert row.event
