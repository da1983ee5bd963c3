"""Workers go on with a scheduler that has come in the place of another one."""

from __future__ import annotations

import gc
import hashlib
import os
import threading

import numpy as np
import pytest
from waiting import until

from holdfast import objectstore
from holdfast.cluster.comm.resume import KEPT_NBYTES
from holdfast.cluster.ledger import REVOKES
from holdfast.cluster.node.ledger import AgentLedger
from holdfast.cluster.protocol import payloads
from holdfast.cluster.worker import write_behind as small
from holdfast.cluster.worker.context import current_worker
from holdfast.cluster.worker.ledger import WorkerLedger
from holdfast.objectstore import ObjectID, decode


class Gates:
    """Tasks wait here, in the process of the test, and say that they have begun."""

    def __init__(self):
        self.begun = []
        self.opened = set()
        self.open = threading.Event()

    def wait(self, number):
        self.begun.append(number)
        until(lambda: self.open.is_set() or number in self.opened, "the gate opens")
        return number


gates = Gates()


def waits(number):
    return gates.wait(number)


def lends(number):
    with current_worker().lend():
        return gates.wait(number)


@pytest.fixture(autouse=True)
def fresh():
    global gates
    gates = Gates()
    yield
    gates.open.set()
    gc.collect()  # an error knows frames of its connection, which knows the error


@pytest.fixture
def mortal(scheduler):
    """A scheduler that may be started again."""
    scheduler.keep_journal()
    return scheduler


def kept(scheduler, peer):
    """What a worker says that it has; after what, by operation."""
    _, epoch, runs = scheduler.message(peer, "runs-kept")
    assert epoch == scheduler.epoch
    return [tuple(run) for run in runs]


def finished(peer):
    return [entry for message in peer.received if message[0] == "finished" for entry in message[1]]


def test_what_runs_goes_on_and_is_told_of_and_what_waits_is_forgotten(mortal, start_worker, eventually):
    _, peer = start_worker(nthreads=2)
    running = [mortal.task(peer, waits, 1), mortal.task(peer, lends, 2)]
    queued = [mortal.task(peer, waits, number) for number in range(3, 6)]
    behind = mortal.task(peer, abs, 0, depends=[("x", queued[0][1], None, [])])
    mortal.send(peer, ("run", running))
    eventually(lambda: sorted(gates.begun) == [1, 2])
    mortal.message(peer, "blocked")
    mortal.send(peer, ("run", [*queued[:1]]))
    eventually(lambda: sorted(gates.begun) == [1, 2, 3])  # in the slot that was lent
    mortal.send(peer, ("run", [*queued[1:], behind]))
    mortal.restart()
    peer = mortal.peer(peer.info["address"])
    expected = [(task[1], task[6], task is running[1]) for task in (*running, queued[0])]
    assert sorted(kept(mortal, peer)) == expected
    gates.open.set()
    outcomes = mortal.outcomes(peer, [task[1] for task in (*running, queued[0])])
    assert {decode(bytes(entry[4])) for _, entry in outcomes.values()} == {1, 2, 3}
    again = mortal.task(peer, waits, 4)
    mortal.send(peer, ("functions", list(_functions(waits))))
    assert mortal.value(peer, again) == 4
    assert sorted(gates.begun) == [1, 2, 3, 4], "nothing that waited has begun, and no thread waits for word"


def _functions(function):
    blob = payloads.dumps(function)
    return [(hashlib.blake2b(blob, digest_size=16).digest(), blob)]


def test_outcomes_come_before_and_small_results_again(mortal, start_worker, monkeypatch):
    monkeypatch.setattr(small, "AGE_SECONDS", 1000.0)
    _, peer = start_worker()
    tasks = [mortal.task(peer, abs, -number) for number in range(3)]
    large = mortal.task(peer, np.arange, 10_000)
    mortal.run(peer, *tasks, large)
    made = {entry[0]: entry[2] for entry in finished(peer)}
    mortal.restart()
    peer = mortal.peer(peer.info["address"])
    assert kept(mortal, peer) == []
    said = [message[0] for message in peer.received]
    entries = finished(peer)
    assert {entry[0]: entry[2] for entry in entries} == made
    again = [entry for entry in entries if entry[1] == 0]
    assert {entry[0]: decode(bytes(entry[4])) for entry in again} == {task[6]: n for n, task in enumerate(tasks)}
    assert said[-1] == "finished"


def test_a_small_result_that_was_just_stored_is_said_too(mortal, start_worker, monkeypatch, store, eventually):
    monkeypatch.setattr(small, "AGE_SECONDS", 0.05)
    worker, peer = start_worker()
    _, entry = mortal.one(peer, mortal.task(peer, abs, -1))
    rounds = worker._write_behind
    eventually(lambda: store.contains(ObjectID(entry[2])))
    assert [(each.serial, each.flat) for each in rounds.kept()] in ([(entry[0], None)], [])
    eventually(lambda: not rounds.kept(), what="it is in the store for long")


def test_nothing_small_is_stored_while_there_is_no_scheduler(mortal, start_worker, monkeypatch, store, eventually):
    monkeypatch.setattr(small, "AGE_SECONDS", 0.02)
    worker, peer = start_worker()
    worker._write_behind.pause(True)
    _, entry = mortal.one(peer, mortal.task(peer, abs, -1))
    eventually(lambda: entry[2] in worker._write_behind._old)
    assert not store.contains(ObjectID(entry[2]))
    worker._write_behind.pause(False)
    eventually(lambda: store.contains(ObjectID(entry[2])))


def test_a_scheduler_that_dies_while_it_is_told_is_followed_by_another(mortal, start_worker):
    _, peer = start_worker()
    task = mortal.task(peer, waits, 1)
    mortal.send(peer, ("run", [task]))
    for _ in range(3):
        mortal.restart()
    peer = mortal.peer(peer.info["address"])
    gates.open.set()
    mortal.wait(lambda: any(m[:2] == ("runs-kept", mortal.epoch) for m in peer.received), "it says what it has")


def test_a_new_worker_says_that_it_has_nothing_if_that_is_awaited(mortal, start_worker):
    mortal.restart()
    _, peer = start_worker()
    assert kept(mortal, peer) == []


def test_a_worker_ends_when_no_scheduler_comes(mortal, start_worker, eventually):
    mortal.restart_seconds = 0.3
    mortal.keep_journal()
    worker, _ = start_worker()
    mortal.die()
    eventually(worker.finished.is_set)
    assert "has not come back within 0.3 s" in worker.reason


def test_a_worker_ends_when_another_cluster_answers(mortal, start_worker, eventually):
    worker, _ = start_worker()
    mortal.id = "another"
    mortal.restart()
    eventually(worker.finished.is_set)
    assert "another/1 listens here now" in worker.reason


@pytest.mark.skipif(not REVOKES, reason="nothing is revoked on this processor")
def test_what_its_node_has_revoked_never_begins_though_nobody_says_so(mortal, start_worker, eventually):
    """A thread takes a run while a revocation is not confirmed: it waits for word, which never comes."""
    agent = AgentLedger(7, 1)
    _, peer = start_worker(ledger=WorkerLedger.of_descriptor(os.dup(agent.fd), 1))
    first, second = mortal.task(peer, waits, 1), mortal.task(peer, waits, 2)
    mortal.send(peer, ("run", [first]))
    eventually(lambda: gates.begun == [1])
    assert agent.revoke([second[1]])[1] == [second[1]]
    mortal.send(peer, ("run", [second]))
    gates.open.set()
    eventually(lambda: agent.running == [second[1]], what="its thread has taken the run, and waits for word")
    mortal.restart()
    peer = mortal.peer(peer.info["address"])
    assert kept(mortal, peer) == []
    assert gates.begun == [1]
    mortal.send(peer, ("functions", _functions(waits)))
    assert mortal.value(peer, mortal.task(peer, waits, 3)) == 3
    assert gates.begun == [1, 3]
    agent.close()


def test_the_store_names_what_the_labels_are(store, server):
    object_id = store.put_encoded(objectstore.encode(1), label=5)
    assert server.meta(object_id).label == 5


@pytest.mark.parametrize("is_granted", [False, True])
def test_a_run_that_wants_its_resources_back_asks_again_unless_it_has_them(
    mortal, start_worker, is_granted, eventually
):
    worker, peer = start_worker(nthreads=1)
    returns, other = mortal.task(peer, lends, 1), mortal.task(peer, waits, 2)
    mortal.send(peer, ("holding", [returns[1]]), ("run", [returns]))
    eventually(lambda: gates.begun == [1])
    mortal.message(peer, "blocked")
    mortal.send(peer, ("run", [other]))
    eventually(lambda: gates.begun == [1, 2])
    gates.opened.add(1)
    mortal.message(peer, "reclaim")
    if is_granted:
        mortal.send(peer, ("granted", [returns[1]]))
        eventually(lambda: not worker._blocking._grants)
    mortal.restart()
    peer = mortal.peer(peer.info["address"])
    assert {run: blocked for run, _, blocked in kept(mortal, peer)} == {returns[1]: not is_granted, other[1]: False}
    if not is_granted:
        assert mortal.message(peer, "reclaim") == ("reclaim", (returns[1],))
        mortal.send(peer, ("granted", [returns[1]]))
    gates.open.set()
    mortal.outcomes(peer, [returns[1], other[1]])
    said = [message[0] for message in peer.received]
    assert ("returned" in said[said.index("finished") :]) == (not is_granted)


def logs():
    for _ in range(200):
        current_worker().log_event("topic", b"x" * (1 << 19))
    return True


def test_what_is_said_while_there_is_no_scheduler_has_a_limit(mortal, start_worker, eventually):
    worker, peer = start_worker()
    mortal.send(peer, ("run", [task := mortal.task(peer, logs)]))
    session = worker._connection.session
    eventually(lambda: worker._connection.is_full)
    assert session.kept_nbytes < KEPT_NBYTES + (2 << 20)
    mortal.acknowledges = True
    mortal.restart()
    peer = mortal.peer(peer.info["address"])
    assert mortal.outcomes(peer, [task[1]])
    assert len([message for message in peer.received if message[0] == "event"]) >= 100
