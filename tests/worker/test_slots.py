"""Tasks that wait lend their slots: others run meanwhile, and no more of them at a time than there are slots."""

import asyncio
import contextlib
import os
import random
import threading

import pytest

from holdfast.cluster.errors import BlockedTasksError
from holdfast.cluster.ledger import REVOKES
from holdfast.cluster.node.ledger import AgentLedger
from holdfast.cluster.worker import slots as slots_module
from holdfast.cluster.worker.ledger import WorkerLedger
from holdfast.cluster.worker.threads import SPARE_MAX, TaskThreads

DEADLINE_SECONDS = 20

revokes = pytest.mark.skipif(not REVOKES, reason="nothing is revoked on this processor")


def task(run_id):
    return ("key", run_id, None, b"", (), False, 1)


class Slots:
    """Threads in a loop of their own, whose tasks are functions; what the scheduler would be told is in `told`."""

    def __init__(self, nthreads=1, **options):
        self.nthreads = nthreads
        self.options = options
        self.functions = {}
        self.told = []
        self.agent = AgentLedger(1, nthreads)
        self.running = self.most = 0
        self.lock = threading.Lock()
        self.errors = []

    def __enter__(self):
        ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._main(ready)))
        self.thread.start()
        assert ready.wait(DEADLINE_SECONDS)
        return self

    def __exit__(self, *exc_info):
        self.loop.call_soon_threadsafe(self.ended.set)
        self.thread.join(DEADLINE_SECONDS)
        self.agent.close()
        assert not self.errors

    async def _main(self, ready):
        self.loop, self.ended = asyncio.get_running_loop(), asyncio.Event()
        ledger = WorkerLedger.of_descriptor(os.dup(self.agent.fd), self.nthreads)
        self.threads = TaskThreads(
            self.nthreads,
            contextlib.nullcontext,
            self._run,
            lambda waits: False,
            lambda: None,
            ledger,
            "test",
            **self.options,
        )
        ready.set()
        await self.ended.wait()
        self.threads.stop()
        assert await self.threads.join(DEADLINE_SECONDS)

    def submit(self, run_id, function):
        self.functions[run_id] = function
        self.threads.submit([task(run_id)])

    def _run(self, entry):
        with self._counted():
            try:
                self.functions.pop(entry[1])(entry[1])
            except BaseException as error:
                self.errors.append(error)

    @contextlib.contextmanager
    def _counted(self):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            yield
        finally:
            with self.lock:
                self.running -= 1

    def wait(self, run_id, event):
        """What a task does to wait for others."""

        def blocked(run_id):
            self.told.append(("blocked", run_id))
            with self.lock:
                self.running -= 1

        def returned(run_id):
            with self.lock:
                self.running += 1
                self.most = max(self.most, self.running)
            self.told.append(("returned", run_id))

        with self.threads.lend(run_id, blocked, returned):
            assert event.wait(DEADLINE_SECONDS)

    def tree(self, run_ids, depth, done):
        """A task that waits for two others, each of which does, and so on."""

        def run(run_id):
            if depth:
                children = [threading.Event() for _ in range(2)]
                for child in children:
                    self.submit(next(run_ids), self.tree(run_ids, depth - 1, child))
                for child in children:
                    self.wait(run_id, child)
            done.set()

        return run


@pytest.mark.parametrize("nthreads", [1, 3])
def test_a_tree_of_tasks_that_wait_for_tasks_ends_and_no_more_run_at_a_time_than_there_are_slots(nthreads):
    with Slots(nthreads) as slots:
        done = threading.Event()
        run_ids = iter(range(1, 10_000))
        slots.submit(next(run_ids), slots.tree(run_ids, 7, done))
        assert done.wait(DEADLINE_SECONDS)
        assert slots.most <= nthreads
        assert not slots.threads.blocked
    assert slots.told


def test_the_one_that_was_blocked_last_returns_first_and_before_those_that_have_not_begun(eventually):
    with Slots() as slots:
        waits = [threading.Event() for _ in range(3)]
        order = []

        def blocks(number):
            def run(run_id):
                slots.wait(run_id, waits[number])
                order.append(f"{number} returned")

            return run

        holds, holding, done = threading.Event(), threading.Event(), threading.Event()
        for number in range(3):
            slots.submit(number + 1, blocks(number))
        slots.submit(4, lambda run_id: (holds.set(), holding.wait(DEADLINE_SECONDS)))
        slots.submit(5, lambda run_id: (order.append("new"), done.set()))
        assert holds.wait(DEADLINE_SECONDS), "the three before it have lent the one slot"
        assert slots.threads.blocked == 3
        for wait in waits:
            wait.set()
        eventually(lambda: len(slots.threads._slots.returning) == 3)
        holding.set()
        assert done.wait(DEADLINE_SECONDS)
    assert order == ["2 returned", "1 returned", "0 returned", "new"]


def test_a_task_that_waits_says_so_before_others_begin_and_after_it_has_a_slot_again(eventually):
    with Slots() as slots:
        child, done = threading.Event(), threading.Event()
        slots.submit(1, lambda run_id: (slots.wait(run_id, child), slots.told.append("goes on"), done.set()))
        slots.submit(2, lambda run_id: (slots.told.append("another begins"), child.set()))
        assert done.wait(DEADLINE_SECONDS)
    assert slots.told == [("blocked", 1), "another begins", ("returned", 1), "goes on"]


def test_beyond_the_most_that_may_wait_a_wait_is_an_error_and_nothing_hangs(eventually):
    with Slots(blocked_max=2) as slots:
        event, done = threading.Event(), threading.Event()
        refused = []

        def one_too_many(run_id):
            with pytest.raises(BlockedTasksError, match=r"2 tasks of its worker wait already.*as arguments") as caught:
                slots.wait(run_id, event)
            refused.append(caught.value)
            done.set()

        for run_id in (1, 2):
            slots.submit(run_id, lambda run_id: slots.wait(run_id, event))
        slots.submit(3, one_too_many)
        assert done.wait(DEADLINE_SECONDS)
        event.set()
        eventually(lambda: not slots.threads.blocked)
        again = threading.Event()
        slots.submit(4, lambda run_id: (slots.wait(run_id, event), again.set()))
        assert again.wait(DEADLINE_SECONDS), "there is room again"
    assert refused


def test_without_a_thread_for_others_a_wait_is_an_error_and_nothing_is_lent(eventually, monkeypatch):
    with Slots() as slots:

        def refuse(thread):
            raise RuntimeError("can't start new thread")

        done = threading.Event()

        def refused(run_id):
            with pytest.raises(BlockedTasksError, match="the system has no thread for one more"):
                slots.wait(run_id, threading.Event())
            monkeypatch.undo()
            done.set()

        monkeypatch.setattr(threading.Thread, "start", refuse)
        slots.submit(1, refused)
        assert done.wait(DEADLINE_SECONDS)
        assert not slots.told
        event, again = threading.Event(), threading.Event()
        slots.submit(2, lambda run_id: (slots.wait(run_id, event), again.set()))
        slots.submit(3, lambda run_id: event.set())
        assert again.wait(DEADLINE_SECONDS)


def test_threads_that_are_not_needed_any_more_end(eventually):
    with Slots() as slots:
        event = threading.Event()
        for run_id in range(1, 101):
            slots.submit(run_id, lambda run_id: slots.wait(run_id, event))
        eventually(lambda: slots.threads.blocked == 100)
        assert len(slots.threads.threads) > 100
        event.set()
        eventually(lambda: len(slots.threads.threads) <= 1 + SPARE_MAX, what="the others have ended")


def test_a_thread_that_a_task_has_started_lends_nothing(eventually):
    with Slots() as slots:
        done = threading.Event()
        done.set()

        def run(run_id):
            thread = threading.Thread(target=slots.wait, args=(run_id, done))
            thread.start()
            thread.join(DEADLINE_SECONDS)
            ended.set()

        ended = threading.Event()
        slots.submit(1, run)
        assert ended.wait(DEADLINE_SECONDS)
    assert not slots.told


def lent(count):
    """Slots of which the first thread has lent its own, in the middle of its run 7."""
    slots = slots_module.Slots(count, WorkerLedger(count))
    for thread in range(1, count + 1):
        slots.take(thread)
    slots.blocked[1] = slots_module.Blocked()
    slots.lend(1, 7)
    return slots


def test_a_slot_that_a_task_was_given_and_did_not_take_since_it_was_interrupted_is_there_when_it_has_ended():
    slots = lent(1)
    slots.want(slots.blocked[1])
    assert not slots.free
    slots.ended(1, slots.lent.pop(7))
    assert len(slots.free) == 1
    assert not slots.blocked


def test_one_that_was_interrupted_before_it_got_a_slot_gets_none_when_it_has_ended():
    slots = lent(1)
    slots.take(2)
    slots.want(slots.blocked[1])
    assert slots.returning
    slots.ended(1, slots.lent.pop(7))
    slots.leave(2)
    assert len(slots.free) == 1
    assert not slots.returning


def test_a_slot_that_was_lost_between_two_steps_goes_to_one_that_returns():
    slots = lent(2)
    slots.free.clear()
    slots.blocked[3] = waits = slots_module.Blocked()
    slots.want(waits)
    slots.ended(1, slots.lent.pop(7))
    assert waits.slot is not None
    assert not waits.gate.locked()
    slots.returned(3, 8)
    assert set(slots.held) == {2, 3}


def test_a_worker_that_stops_waits_for_no_slot(eventually):
    event = threading.Event()
    with Slots() as slots:
        for run_id in (1, 2):
            slots.submit(run_id, lambda run_id: slots.wait(run_id, event))
        eventually(lambda: slots.threads.blocked == 2)
        event.set()


def test_the_agent_finds_what_a_thread_does_that_has_changed_its_slot():
    agent = AgentLedger(1, 2)
    slots = slots_module.Slots(2, WorkerLedger.of_descriptor(os.dup(agent.fd), 2))
    here = threading.get_ident()

    def there():
        slots.take(threading.get_ident()).take(8)
        slots.leave(here)
        slots.leave(threading.get_ident())

    slots.take(here).take(7)
    other = threading.Thread(target=there)
    other.start()
    other.join(DEADLINE_SECONDS)
    slots.take(here).take(9)  # in the slot that the other thread had
    assert sorted(agent.running) == [7, 9]
    assert agent.running[agent.slot_of(here)] == 9
    agent.close()


@revokes
def test_a_run_that_is_blocked_or_was_has_begun_for_its_agent(eventually):
    with Slots(2) as slots:
        events = [threading.Event() for _ in range(2)]
        done = threading.Event()

        def run(run_id):
            for event in events:
                slots.wait(run_id, event)
            done.set()

        slots.submit(1, run)
        eventually(lambda: slots.told and 1 not in slots.agent.running, what="it isn't what the process is doing")
        for run_id in range(2, 5000):
            slots.submit(run_id, lambda run_id: None)
        eventually(lambda: slots.threads.nothing_queued())
        assert slots.agent.revoke([1]) == (0, [], [1])
        events[0].set()
        eventually(lambda: slots.told[-1] == ("blocked", 1) and len(slots.told) == 3)
        events[1].set()
        assert done.wait(DEADLINE_SECONDS)
        assert slots.agent.revoke([1]) == (0, [], [1]), "its outcome may still be on its way"


@revokes
def test_an_agent_that_looks_at_any_moment_finds_what_has_begun():
    with Slots(2) as slots:
        stop = threading.Event()
        missed = []
        finished = threading.Event()

        def run(run_id):
            rng = random.Random(run_id)
            gone = threading.Event()
            gone.set()
            while not stop.is_set():
                slots.wait(run_id, gone)
                if rng.random() < 0.3:
                    slots.submit(next(run_ids), lambda run_id: None)
            finished.set()

        run_ids = iter(range(2, 1_000_000))
        slots.submit(1, run)
        while 1 not in slots.agent._begun():
            pass
        for _ in range(3000):
            missed += [run_id for run_id in [1] if run_id not in slots.agent._begun()]
        stop.set()
        assert finished.wait(DEADLINE_SECONDS)
    assert not missed
