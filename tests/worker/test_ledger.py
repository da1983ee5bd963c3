"""What an agent finds in a worker's ledger, and that it finds it as long as anybody asks."""

from __future__ import annotations

import contextlib
import os
import random
from collections import deque

import pytest

from holdfast.cluster.ledger import runs_max
from holdfast.cluster.node.ledger import AgentLedger
from holdfast.cluster.scheduler.placing.placement import PREFETCH_SECONDS
from holdfast.cluster.scheduler.tasks.groups import SHORTEST_RUN_SECONDS
from holdfast.cluster.worker.ledger import WorkerLedger


@pytest.fixture
def make():
    """Both sides of a ledger, and what each thread calls with what it takes."""
    with contextlib.ExitStack() as stack:

        def make(nthreads=1):
            agent = stack.enter_context(contextlib.closing(AgentLedger(7, nthreads)))
            worker = WorkerLedger.of_descriptor(os.dup(agent.fd), nthreads)
            return agent, worker, [worker.taker(thread) for thread in range(nthreads)]

        yield make


def test_what_was_taken_has_begun_and_the_rest_is_revoked(make):
    agent, worker, (take,) = make()
    take(1)
    take(2)
    assert agent.revoke([3, 2, 1, 4]) == (1, [3, 4], [2, 1])
    assert worker.revocations[0] == 1


def test_if_all_have_begun_the_worker_need_not_wait(make):
    agent, worker, (take,) = make()
    take(1)
    assert agent.revoke([1]) == (0, [], [1])
    assert agent.revoke([]) == (0, [], [])
    assert worker.revocations[0] == 0


def test_the_agent_sees_what_the_worker_is_at(make):
    agent, worker, (take, other) = make(2)
    take(1)
    assert agent.is_at([1, 9])
    assert not agent.is_at([2])
    take(2)  # so the one before has ended
    assert not agent.is_at([1])
    place = worker.lend(2)
    take(0)
    assert agent.is_at([2]), "it is blocked"
    other(3)
    take(4)
    assert agent.is_at([2])
    worker.end(place)
    assert not agent.is_at([2])
    assert agent.is_at([3])
    assert not agent.is_at([])


def test_where_nothing_can_be_revoked_nothing_is_known(make, monkeypatch):
    agent, worker, (take,) = make()
    monkeypatch.setattr("holdfast.cluster.node.ledger.REVOKES", False)
    take(1)
    assert agent.revoke([1, 2]) == (0, [], [])
    assert worker.revocations[0] == 0
    assert agent.is_at([1])


def test_the_agent_sees_that_the_worker_hears_and_which_process_it_is(make):
    agent, worker, _ = make()
    assert agent.heard == 0
    worker.hear()
    assert agent.heard == 1
    assert worker.incarnation == agent.incarnation == 7
    assert WorkerLedger(1).incarnation is None


def test_a_long_run_is_found_whatever_the_other_threads_take(make):
    agent, _, takers = make(3)
    takers[1](1)
    for run_id in range(2, 20_000):
        takers[run_id % 2 * 2](run_id)
    assert agent.revoke([1]) == (0, [], [1])
    takers[1](20_000)
    assert agent.revoke([1]) == (0, [], [1]), "its outcome may still be on its way"


@pytest.mark.parametrize("nthreads", [1, 2, 3, 4, 8])
def test_the_scheduler_sends_no_more_than_there_is_room_for(nthreads):
    most, expected_seconds = 0, 0.0
    while expected_seconds < PREFETCH_SECONDS * nthreads:
        expected_seconds += SHORTEST_RUN_SECONDS
        most += 1
    assert most <= runs_max(nthreads)


@pytest.mark.parametrize("nthreads", [1, 2, 3, 8])
def test_what_counts_as_the_workers_is_found_until_its_outcome_is_handled(make, nthreads):
    """Threads take and end runs in any order. The scheduler always sends as many as it may, and handles what
    comes in batches, in each of which the failures come last."""
    agent, _, takers = make(nthreads)
    rng = random.Random(nthreads)
    run_ids = iter(range(1, 1_000_000))
    counted = dict.fromkeys(next(run_ids) for _ in range(runs_max(nthreads)))
    queue, outbox, taken = deque(counted), deque(), [None] * nthreads
    begun = set()
    for _ in range(30_000):
        thread = rng.randrange(nthreads)
        if taken[thread] is not None:
            outbox.append(taken[thread])
            taken[thread] = None
        elif queue:
            taken[thread] = queue.popleft()
            takers[thread](taken[thread])
            begun.add(taken[thread])
        if not queue and rng.random() < 0.5:
            batch = sorted(outbox, key=lambda run_id: run_id % 7 == 0)
            outbox.clear()
            for run_id in batch:
                del counted[run_id]
                sent = next(run_ids)
                counted[sent] = None
                queue.append(sent)
                if run_id % 50 == 0:
                    assert agent.revoke([r for r in counted if r in begun])[0] == 0
    assert len(begun) > 10_000
