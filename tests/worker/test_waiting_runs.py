"""Tasks that are sent before the result that they read is there. Scheduler scripted; sockets, store, threads real."""

from __future__ import annotations

import operator
import threading

import numpy as np
import pytest

from holdfast.cluster.protocol.payloads import INLINE_LIMIT_NBYTES, Reference
from holdfast.cluster.worker.waiting_runs import REMEMBERED_MAX
from holdfast.objectstore import ObjectID, decode

gate = threading.Event()


def behind(task):
    """The result of a run that was sent before, as a dependency."""
    return (task[0], task[1], None, ())


def add_to(scheduler, peer, task, amount, **options):
    return scheduler.task(peer, operator.add, Reference(task[0]), amount, depends=[behind(task)], **options)


def wait_and_return(value):
    assert gate.wait(10)
    return value


def fail_at_the_gate():
    assert gate.wait(10)
    raise ValueError("no result")


def value_of(outcome):
    operation, entry = outcome
    assert operation == "finished", entry
    return decode(bytes(entry[4]))


@pytest.mark.parametrize("nthreads", [1, 3])
def test_a_chain_runs_to_its_end_by_itself(scheduler, start_worker, nthreads):
    _, peer = start_worker(nthreads=nthreads)
    chain = [scheduler.task(peer, int, 0)]
    for _ in range(200):
        chain.append(add_to(scheduler, peer, chain[-1], 1))
    outcomes = scheduler.run(peer, *chain)
    assert [value_of(outcomes[task[0]]) for task in chain] == list(range(201))
    told = [entry[1] for message in peer.received if message[0] == "finished" for entry in message[1]]
    assert told == [task[1] for task in chain], "each outcome is told before those that are made of it"


def test_large_results_are_read_in_the_store(scheduler, peer, store):
    first = scheduler.task(peer, np.arange, INLINE_LIMIT_NBYTES)
    second = add_to(scheduler, peer, first, 1)
    outcomes = scheduler.run(peer, first, second)
    _, entry = outcomes[second[0]]
    assert entry[4] is None
    assert store.get(ObjectID(entry[2])).tolist() == list(range(1, INLINE_LIMIT_NBYTES + 1))


def test_it_may_come_when_the_result_is_there_already(scheduler, peer):
    first = scheduler.task(peer, int, 5)
    scheduler.one(peer, first)
    assert scheduler.value(peer, add_to(scheduler, peer, first, 1)) == 6


def test_without_a_result_all_that_is_behind_it_misses_its_dependency(scheduler, peer):
    gate.clear()
    first = scheduler.task(peer, fail_at_the_gate)
    second = add_to(scheduler, peer, first, 1)
    third = add_to(scheduler, peer, second, 1)
    fourth = scheduler.task(peer, int, 4)
    scheduler.send(peer, ("run", [first, second, third, fourth]))
    gate.set()
    outcomes = scheduler.outcomes(peer, [task[1] for task in (first, second, third, fourth)])
    assert outcomes[first[0]][0] == "erred"
    assert outcomes[second[0]] == ("missing", (second[6], second[1], first[0], b""))
    assert outcomes[third[0]] == ("missing", (third[6], third[1], second[0], b""))
    assert value_of(outcomes[fourth[0]]) == 4
    late = add_to(scheduler, peer, third, 1)
    assert scheduler.one(peer, late) == ("missing", (late[6], late[1], third[0], b""))


def test_a_result_that_is_long_gone_is_missing(scheduler, peer):
    first = scheduler.task(peer, int, 5)
    scheduler.run(peer, first, *(scheduler.task(peer, int) for _ in range(REMEMBERED_MAX + 10)))
    late = add_to(scheduler, peer, first, 1)
    assert scheduler.one(peer, late)[0] == "missing"


def test_what_waits_can_be_dropped_and_what_is_behind_it_is_told(scheduler, peer):
    gate.clear()
    running = scheduler.task(peer, wait_and_return, 1)
    queued = scheduler.task(peer, int, 2)
    held = add_to(scheduler, peer, running, 1)
    behind_held = add_to(scheduler, peer, held, 1)
    behind_queued = add_to(scheduler, peer, queued, 1)
    scheduler.send(peer, ("run", [running, queued, held, behind_held, behind_queued]))
    scheduler.send(peer, ("drop", [held[1], queued[1]]))
    assert sorted(scheduler.message(peer, "dropped")[1]) == sorted([held[1], queued[1]])
    outcomes = scheduler.outcomes(peer, [behind_held[1], behind_queued[1]])
    assert {operation for operation, _ in outcomes.values()} == {"missing"}
    gate.set()
    assert value_of(scheduler.outcomes(peer, [running[1]])[running[0]]) == 1
    both = [scheduler.task(peer, int, 1)]
    both.append(add_to(scheduler, peer, both[0], 1))
    scheduler.send(peer, ("run", both))
    outcomes = scheduler.outcomes(peer, [task[1] for task in both])
    assert value_of(outcomes[both[1][0]]) == 2
