"""What a worker says and hears when its tasks wait for others. The scheduler is scripted; the rest is real."""

from __future__ import annotations

import ctypes
import threading

import pytest

from holdfast.cluster.errors import ConnectError
from holdfast.cluster.worker.context import current_run, current_worker

DEADLINE_SECONDS = 20

#: What the tasks wait for, and what they note; workers of these tests are threads of this process.
events = {}
notes = []


@pytest.fixture(autouse=True)
def _fresh():
    events.clear()
    notes.clear()
    yield
    for event in events.values():
        event.set()


def event(name):
    return events.setdefault(name, threading.Event())


def wait_for(name):
    with current_worker().lend():
        assert event(name).wait(DEADLINE_SECONDS)
    notes.append(f"{name} is there")
    return current_run()


def give(name):
    notes.append(f"gives {name}")
    event(name).set()
    return name


class Receiver:
    """A client's session, as far as the way of its messages goes."""

    def __init__(self):
        self.heard = []
        self.elsewhere = []
        self.takes_elsewhere = True
        self.closed = []

    def on_batch(self, messages):
        self.heard += messages

    def on_batch_elsewhere(self, messages):
        if self.takes_elsewhere:
            self.elsewhere += messages
        return self.takes_elsewhere

    def on_close(self, error):
        self.closed.append(error)

    def on_room(self):
        pass

    def send_all_posted(self):
        pass


@pytest.fixture
def receiver(start_worker, scheduler):
    """A worker with one thread whose tasks are a client; with the scheduler's view of it, and the client's session."""
    worker, peer = start_worker()
    receiver = Receiver()
    worker.thread.call_soon(worker.tasks.start, receiver)
    scheduler.message(peer, "tasks-opened")
    receiver.worker, receiver.peer = worker, peer
    return receiver


def test_a_task_that_waits_says_so_and_another_runs_in_its_slot(scheduler, peer):
    waits = scheduler.task(peer, wait_for, "x")
    scheduler.send(peer, ("run", [waits]))
    assert scheduler.message(peer, "blocked") == ("blocked", (waits[1],))
    assert scheduler.value(peer, scheduler.task(peer, give, "x")) == "x"
    assert scheduler.message(peer, "returned") == ("returned", (waits[1],))
    assert scheduler.outcomes(peer, [waits[1]])[waits[0]][0] == "finished"
    assert notes == ["gives x", "x is there"]


def test_what_it_says_comes_in_the_order_in_which_it_happens(scheduler, peer):
    waits, gives = scheduler.task(peer, wait_for, "x"), scheduler.task(peer, give, "x")
    scheduler.run(peer, waits, gives)
    said = [
        (operation, entry if operation in ("blocked", "returned") else entry[1])
        for operation, entries in peer.received
        for entry in entries
    ]
    of_it = [operation for operation, run_id in said if run_id == waits[1]]
    assert of_it == ["blocked", "returned", "finished"]
    assert said.index(("blocked", waits[1])) < said.index(("finished", gives[1]))


def test_one_that_holds_resources_waits_for_them_before_it_goes_on(scheduler, peer, eventually):
    waits = scheduler.task(peer, wait_for, "x")
    scheduler.send(peer, ("holding", [waits[1]]), ("run", [waits]))
    scheduler.message(peer, "blocked")
    event("x").set()
    assert scheduler.message(peer, "reclaim") == ("reclaim", (waits[1],))
    assert scheduler.value(peer, scheduler.task(peer, abs, -1)) == 1, "its slot is lent still"
    assert not any(message[0] == "returned" for message in peer.received)
    scheduler.send(peer, ("granted", [waits[1]]))
    assert scheduler.outcomes(peer, [waits[1]])[waits[0]][0] == "finished"
    assert scheduler.message(peer, "returned") == ("returned", (waits[1],))


def test_a_worker_forgets_which_runs_hold_resources(scheduler, start_worker, eventually):
    worker, peer = start_worker()
    waits, dropped, ends = (scheduler.task(peer, wait_for, "x"), *(scheduler.task(peer, abs, -1) for _ in range(2)))
    holding = [waits[1], dropped[1], ends[1]]
    scheduler.send(peer, ("holding", holding), ("run", [waits]))
    scheduler.message(peer, "blocked")
    scheduler.send(peer, ("run", [ends]))
    scheduler.outcomes(peer, [ends[1]])
    hold = scheduler.task(peer, hold_slot)
    scheduler.send(peer, ("run", [hold, dropped]), ("drop", [dropped[1]]))
    scheduler.message(peer, "dropped")
    event("slot").set()
    event("x").set()
    scheduler.message(peer, "reclaim")
    scheduler.send(peer, ("granted", [waits[1]]))
    scheduler.outcomes(peer, [waits[1], hold[1]])
    eventually(lambda: not worker._blocking._holding)


def hold_slot():
    event("held").set()
    assert event("slot").wait(DEADLINE_SECONDS)


def wait_and_tell(name):
    try:
        wait_for(name)
    finally:
        event("ended").set()


@pytest.mark.parametrize("holds", [False, True])
def test_a_worker_that_closes_waits_for_no_resources_and_no_slots(scheduler, start_worker, holds):
    worker, peer = start_worker()
    waits = scheduler.task(peer, wait_and_tell, "x")
    scheduler.send(peer, *([("holding", [waits[1]])] if holds else []), ("run", [waits]))
    scheduler.message(peer, "blocked")
    scheduler.send(peer, ("run", [scheduler.task(peer, hold_slot)]))
    assert event("held").wait(DEADLINE_SECONDS)
    event("x").set()
    if holds:
        scheduler.message(peer, "reclaim")
    worker.thread.call_soon(worker._end, None)
    assert event("ended").wait(DEADLINE_SECONDS)
    event("slot").set()
    scheduler.wait(lambda: peer.gone, "the worker leaves")
    assert not [message for message in peer.received if message[0] == "returned"], "it has neither of them again"


def wait_and_name_thread(name):
    notes.append(threading.get_ident())
    wait_for(name)


def raise_in_its_thread(error):
    (thread,) = [note for note in notes if isinstance(note, int)]
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


def test_a_task_that_is_interrupted_while_it_waits_for_its_slot_has_it_then(scheduler, start_worker, eventually):
    """From another thread, as code does that gives calls a time limit."""
    worker, peer = start_worker()
    waits, holds = scheduler.task(peer, wait_and_name_thread, "x"), scheduler.task(peer, hold_slot)
    scheduler.send(peer, ("run", [waits]))
    scheduler.message(peer, "blocked")
    scheduler.send(peer, ("run", [holds]))
    assert event("held").wait(DEADLINE_SECONDS)
    event("x").set()
    eventually(lambda: worker._threads._slots.returning)
    raise_in_its_thread(KeyboardInterrupt)
    event("slot").set()
    scheduler.message(peer, "returned")
    after = scheduler.task(peer, give, "y")
    scheduler.send(peer, ("run", [after]))
    outcomes = scheduler.outcomes(peer, [task[1] for task in (waits, holds, after)])
    assert [outcomes[task[0]][0] for task in (waits, holds, after)] == ["erred", "finished", "finished"]


def test_a_task_that_is_interrupted_while_it_waits_for_its_resources_has_them_then(scheduler, start_worker, eventually):
    worker, peer = start_worker()
    waits, holds = scheduler.task(peer, wait_and_name_thread, "x"), scheduler.task(peer, hold_slot)
    scheduler.send(peer, ("holding", [waits[1]]), ("run", [waits]))
    scheduler.message(peer, "blocked")
    scheduler.send(peer, ("run", [holds]))
    assert event("held").wait(DEADLINE_SECONDS)
    event("x").set()
    scheduler.message(peer, "reclaim")
    raise_in_its_thread(KeyboardInterrupt)
    other = scheduler.task(peer, give, "y")
    scheduler.send(peer, ("run", [other]))  # which that thread receives: no other one has time for it
    eventually(lambda: worker._threads._queued)
    event("slot").set()
    scheduler.outcomes(peer, [holds[1], other[1]])
    assert not [message for message in peer.received if message[0] == "returned"]
    scheduler.send(peer, ("granted", [waits[1]]))
    scheduler.message(peer, "returned")
    kind, _ = scheduler.outcomes(peer, [waits[1]])[waits[0]]
    assert kind == "erred"


# -- the client that the tasks are


def test_what_the_tasks_say_travels_in_the_workers_connection(scheduler, receiver):
    queue = [("release", ["a"]), ("turn", 2)]
    receiver.worker.tasks.send([("release", ["a"])], queue, slice(1))
    assert queue == [("turn", 2)], "what is sent leaves the queue in the same step"
    assert scheduler.message(receiver.peer, "tasks") == ("tasks", "release", ("a",))


def test_what_they_are_told_comes_to_them_and_the_rest_to_the_worker(scheduler, receiver, eventually):
    task = scheduler.task(receiver.peer, abs, -1)
    scheduler.send(receiver.peer, ("tasks", "kept", ["a"]), ("run", [task]), ("tasks", "nodes", [], []))
    scheduler.outcomes(receiver.peer, [task[1]])
    eventually(lambda: [*receiver.heard, *receiver.elsewhere] == [("kept", ("a",)), ("nodes", (), ())])


def test_a_thread_that_reads_leaves_to_the_loop_what_only_the_loop_can_handle(scheduler, receiver, eventually):
    receiver.takes_elsewhere = False
    for _ in range(20):
        task = scheduler.task(receiver.peer, abs, -1)
        scheduler.send(receiver.peer, ("tasks", "kept", ["a"]), ("run", [task]))
        scheduler.outcomes(receiver.peer, [task[1]])
    eventually(lambda: len(receiver.heard) == 20)
    assert not receiver.elsewhere


def test_messages_for_tasks_that_are_no_client_are_dropped(scheduler, peer):
    scheduler.send(peer, ("tasks", "kept", ["a"]))
    assert scheduler.value(peer, scheduler.task(peer, abs, -1)) == 1


def test_when_the_worker_ends_the_tasks_hear_of_it(scheduler, receiver, eventually):
    scheduler.cut(receiver.peer)
    eventually(lambda: receiver.closed)
    (error,) = receiver.closed
    assert isinstance(error, ConnectError)
    assert receiver.worker.tasks.closed


def fail_when(name, begun):
    event(begun).set()
    assert event(name).wait(DEADLINE_SECONDS)
    raise ConnectError("the worker ends")


def test_a_task_that_fails_for_the_end_of_its_worker_is_not_told_of(scheduler, receiver):
    """It runs again on another worker, as those do that are still running then."""
    receiver.on_close = lambda error: event("the end").set()
    scheduler.send(receiver.peer, ("run", [scheduler.task(receiver.peer, fail_when, "the end", "begun")]))
    assert event("begun").wait(DEADLINE_SECONDS)
    receiver.worker.thread.run(receiver.worker.close())
    scheduler.wait(lambda: receiver.peer.gone, "the worker leaves")
    assert event("the end").is_set()
    assert "erred" not in [message[0] for message in receiver.peer.received]


def test_a_session_that_is_closed_leaves_the_worker_as_it_is(scheduler, receiver, eventually):
    receiver.worker.thread.call_soon(receiver.worker.tasks.close)
    eventually(lambda: receiver.closed == [None])
    assert scheduler.value(receiver.peer, scheduler.task(receiver.peer, abs, -1)) == 1
    again = Receiver()
    receiver.worker.thread.call_soon(receiver.worker.tasks.start, again)
    scheduler.message(receiver.peer, "tasks-opened")
    assert not receiver.worker.tasks.closed


def read_or_not(name):
    tasks = current_worker().tasks
    gate = event(name)
    waits = threading.Lock()
    waits.acquire()
    with_slot = tasks.read_while(waits.locked, 0.0)
    with current_worker().lend():
        gate.wait(DEADLINE_SECONDS)
    waits.release()
    return with_slot


def test_a_task_that_has_its_slot_takes_in_no_other_tasks(scheduler, receiver):
    """It would have them queued for itself, and nobody would be woken for them."""
    event("x").set()
    assert scheduler.value(receiver.peer, scheduler.task(receiver.peer, read_or_not, "x")) is False
