"""The client against a scheduler that does what the test says: what is sent, in what order, and what an answer does."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import operator
import pickle
import socket
import threading
import time

import numpy as np
import pytest
from dask import delayed
from scripted_scheduler import TOKEN

from holdfast import CancelledError, Client, ConnectError, DatasetNotFoundError, ObjectLostError, wait
from holdfast.client.core import sent_functions
from holdfast.client.futures.holding import own
from holdfast.client.packing.arguments import Packer
from holdfast.client.packing.constants import Constants
from holdfast.cluster.failures import dumping
from holdfast.cluster.protocol import payloads
from holdfast.cluster.protocol.limits import MAX_ITEMS
from holdfast.objectstore import ObjectID, encode

ID = ObjectID(bytes(15) + b"\1")


def memory(key, value, nodes=(), inline=True):
    data = encode(value).to_bytes()
    return ("memory", [(key, ID, len(data), data if inline else None, list(nodes))])


def test_a_report_that_was_under_way_when_a_key_was_released_and_held_again_is_not_taken_for_the_new_one(script):
    old = script.client.submit(operator.neg, 1, key="x")
    (_, first_turn) = script.next("turn")
    script.next("submit")
    old.release()
    script.next("release")
    new = script.client.submit(operator.neg, 2, key="x")
    script.next("submit")
    script.send(memory("x", -1), turn=first_turn)
    script.send(("erred", [("x", *dumping.dump_exception(ValueError()))]), turn=first_turn)
    script.send(("cancelled", ["x"], "cancelled by somebody"), turn=first_turn)
    script.send(memory("x", -2))
    assert new.result(10) == -2


def test_the_scheduler_is_told_to_forget_functions_so_that_they_have_a_limit(script, monkeypatch):
    monkeypatch.setattr(sent_functions, "MAX_SENT_FUNCTIONS", 4)
    for i in range(6):
        script.client.submit(lambda i=i: i, key=f"x{i}")
        script.next("submit")
    (_, forgotten) = script.next("forget")
    sent = [digest for _ in range(6) for digest, _ in script.next("functions")[1]]
    assert list(forgotten) == sent[:2]


@pytest.mark.parametrize("how", ["submit", "map", "graph"])
@pytest.mark.parametrize("holds", ["a future", "much data"])
def test_a_function_with_futures_or_much_data_in_it_goes_with_its_tasks(script, how, holds):
    client = script.client
    inside = client.submit(operator.neg, 1, key="inside") if holds == "a future" else b"x" * 10_000
    function = functools.partial(max, [inside])
    futures = []
    for i in range(2):
        if how == "submit":
            futures.append(client.submit(function, i, key=f"outer{i}"))
        elif how == "map":
            futures += client.map(function, [i], key=[f"outer{i}"])
        else:
            futures.append(client.compute(delayed(function)(i, dask_key_name=f"outer{i}")))
        (_, [forgotten]) = script.next("forget")
        digests = [digest for m in script.peer.received if m[0] == "functions" for digest, _ in m[1]]
        assert digests[-1] == forgotten
        names = [m[0] for m in script.peer.received]
        assert names.index("functions") < names.index("submit")
        script.peer.received.clear()
    assert not client._core.sent.digests.keys() & {forgotten}
    del futures, inside


class TestCalls:
    def test_a_function_is_sent_once_and_before_its_first_task(self, script):
        one = script.client.submit(operator.neg, 1)
        two = script.client.submit(operator.neg, 2)
        script.next("submit")
        messages = [m[0] for m in script.peer.received]
        _, [(digest, blob)] = script.next("functions")
        assert pickle.loads(blob) is operator.neg
        assert "functions" not in messages[messages.index("functions") + 1 :]
        assert one.key != two.key
        assert digest == script.client._core.functions.get(operator.neg, own).digest

    def test_a_call_carries_its_arguments_with_references_for_futures(self, script):
        first = script.client.submit(operator.neg, 1, key="first")
        second = script.client.submit(max, [first, 5], {"a": (first, 2)}, default=first, key="second")
        tasks = []
        while len(tasks) < 2:
            tasks += script.next("submit")[1]
        key, _, data, dependencies = tasks[1]
        assert (key, dependencies) == ("second", ("first",))
        assert payloads.loads(data, {"first": -1}) == (([-1, 5], {"a": (-1, 2)}), {"default": -1})
        assert second.status == "pending"

    def test_the_same_pure_call_is_one_computation(self, script):
        futures = [script.client.submit(operator.add, 1, 2) for _ in range(3)]
        other = script.client.submit(operator.add, 1, 2, pure=False)
        assert len({future.key for future in futures}) == 1
        assert other.key != futures[0].key
        futures += script.client.map(operator.add, [1, 1], [2, 2])
        tasks = [task for m in self.sent(script, other.key) for task in m[1]]
        assert sorted(task[0] for task in tasks) == sorted({futures[0].key, other.key})

    def sent(self, script, last_key):
        """The submit messages up to the one with a key."""
        found = []
        while not any(task[0] == last_key for m in found for task in m[1]):
            found.append(script.next("submit"))
        return found

    def test_a_map_is_one_message_unless_it_is_too_long_for_one(self, script):
        futures = script.client.map(operator.neg, range(MAX_ITEMS + 1), key="neg")
        messages = [script.next("submit"), script.next("submit")]
        assert [len(tasks) for _, tasks, _, _, _ in messages] == [MAX_ITEMS, 1]
        assert [task[0] for _, tasks, _, _, _ in messages for task in tasks] == [future.key for future in futures]
        assert all(message[2:4] == (None, {}) for message in messages)
        assert all(future.key.startswith("neg-") for future in futures)

    def test_options_go_along(self, script):
        script.client.submit(operator.neg, 1, priority=3, retries=2, workers="alice", resources={"GPU": 1})
        assert script.next("submit")[3] == {
            "priority": 3.0,
            "retries": 2,
            "workers": ("alice",),
            "resources": {"GPU": 1.0},
        }

    def test_a_future_in_an_object_keeps_its_key_as_a_dependency(self, script):
        from types import SimpleNamespace

        inner = script.client.submit(operator.neg, 1, key="inner")
        script.client.submit(type, SimpleNamespace(future=inner), key="outer")
        tasks = [task for m in self.sent(script, "outer") for task in m[1]]
        assert {task[0]: task[3] for task in tasks}["outer"] == ("inner",)

    def test_what_cant_be_pickled_is_named_and_nothing_is_sent(self, script):
        def call(number, lock, *, named=None):
            pass

        client = script.client
        lock = threading.Lock()
        with pytest.raises(TypeError, match=r"argument 2 \('lock'\) of call, a _thread.lock, can't be pickled"):
            client.submit(call, 1, lock)
        with pytest.raises(TypeError, match=r"argument 'named' of call, a _thread.lock"):
            client.submit(call, 1, 2, named=lock)
        with pytest.raises(TypeError, match=r"argument 1 .* of neg"):
            client.map(operator.neg, [1, lock])
        assert not client._core.table.states
        client.submit(operator.neg, 1, key="after")
        assert script.next("submit")[1][0][0] == "after"
        assert not [m for m in script.peer.received if m[0] == "submit"]

    def test_what_a_message_can_t_carry_is_refused_by_the_call_and_the_client_goes_on(self, script):
        client = script.client
        for call in (
            lambda: client.submit(operator.neg, 1, key="\udcff"),
            lambda: client.submit(operator.neg, 1, key=2**70),
            lambda: client.submit(operator.neg, 1, retries=2**70),
            lambda: client.map(operator.neg, [1], key="\udcff"),
            lambda: client.map(operator.neg, [1], key=[("x", 2**70)]),
            lambda: client.has_what("\udcff"),
            lambda: client.publish_dataset(1, name="\udcff"),
            lambda: client.get_dataset("\udcff"),
            lambda: client.wait_for_workers(2**70),
        ):
            with pytest.raises(ValueError, match=r"key|retries|worker|dataset"):
                call()
        namesake = eval("lambda: 1")
        namesake.__name__ = "\udcff"
        client.submit(namesake)
        assert script.next("submit")[1][0][0].startswith("?-")

    def test_a_future_of_another_client_is_wanted_before_it_is_named(self, script):
        with Client(script.client.scheduler_address, token=TOKEN, set_as_default=False) as other:
            future = other.submit(operator.neg, 1, key="theirs")
            type(script)(script.scheduler, other).send(memory("theirs", -1))
            wait([future], timeout=10)
            mine = script.client.submit(operator.neg, [future], key="mine")
            submitted = script.next("submit")
            assert list(submitted[1][0][3]) == ["theirs"]
            assert ("want", ("theirs",)) in script.peer.received
            closing = threading.Thread(target=other.close)
            closing.start()
            assert script.answer({})[2] == "who-has", "it ends when the scheduler knows what others hold of it"
            closing.join(20)
            assert not closing.is_alive()
            del mine


class TestFutures:
    def test_a_small_result_comes_with_its_announcement(self, script):
        future = script.client.submit(operator.neg, 1, key="x")
        script.send(memory("x", {"a": [1, 2]}))
        assert future.result(timeout=10) == {"a": [1, 2]}
        assert future.status == "finished"
        assert future.done()
        assert future.object_id == ID
        assert future.result() is not future.result()

    def test_many_threads_wait_for_one_future(self, script):
        future = script.client.submit(operator.neg, 1, key="x")
        results = []
        threads = [threading.Thread(target=lambda: results.append(future.result(timeout=20))) for _ in range(10)]
        for thread in threads:
            thread.start()
        script.send(memory("x", 7))
        for thread in threads:
            thread.join(20)
        assert results == [7] * 10

    def test_a_timeout_says_what_is_not_done(self, script):
        future = script.client.submit(operator.neg, 1, key="slow one")
        for call in (future.result, future.exception, future.traceback):
            with pytest.raises(TimeoutError, match=r"not done within 0\.01 s: 'slow one'"):
                call(timeout="10 ms")
        assert not future._state.waiters

    def test_a_failed_task_raises_its_exception_with_the_remote_traceback_each_time(self, script):
        def fail():
            raise ZeroDivisionError("of the worker")

        future = script.client.submit(operator.neg, 1, key="x")
        try:
            fail()
        except ZeroDivisionError as error:
            blob, text = dumping.dump_exception(error, "in fail")
        script.send(("erred", [("x", blob, text)]))
        seen = []
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match="of the worker") as caught:
                future.result(timeout=10)
            assert caught.value.__notes__ == ["in fail"]
            assert caught.traceback[-1].name == "fail"
            seen.append(caught.value)
        assert seen[0] is not seen[1]
        assert isinstance(future.exception(), ZeroDivisionError)
        assert future.traceback().tb_frame is not None
        assert future.status == "error"

    def test_the_last_future_of_a_key_releases_it(self, script):
        one = script.client.submit(operator.neg, 1, key="x")
        two = script.client.submit(operator.neg, 1, key="x")
        script.next("submit")
        del one
        gc.collect()
        three = script.client.submit(operator.neg, 2, key="y")
        script.next("submit")
        assert not [m for m in script.peer.received if m[0] == "release"]
        two.release()
        two.release()
        assert script.next("release") == ("release", ("x",))
        assert two.cancelled()
        with pytest.raises(CancelledError, match="released"):
            two.result()
        with pytest.raises(CancelledError, match="released"):
            script.client.submit(operator.neg, two)
        del three

    def test_a_cancelled_key_is_made_anew_when_it_is_submitted_again(self, script):
        future = script.client.submit(operator.neg, 1, key="x")
        canceller = threading.Thread(target=future.cancel)
        canceller.start()
        assert script.next("cancel") == ("cancel", ("x",), False, None, "")
        script.send(("cancelled", ["x"], "cancelled by somebody"))
        script.answer({})
        canceller.join(10)
        assert future.cancelled()
        with pytest.raises(CancelledError, match="cancelled by somebody"):
            future.result()
        script.next("submit")
        again = script.client.submit(operator.neg, 1, key="x")
        assert script.next("submit")[1][0][0] == "x"
        del future
        gc.collect()
        script.send(memory("x", 5))
        assert again.result(timeout=10) == 5
        assert not [m for m in script.peer.received if m[0] == "release"]

    @pytest.mark.parametrize("error", [RuntimeError, SystemExit, asyncio.CancelledError])
    def test_callbacks_run_in_a_thread_of_their_own_also_when_it_is_done_already(self, script, caplog, error):
        future = script.client.submit(operator.neg, 1, key="x")
        seen = []
        called = threading.Semaphore(0)

        def callback(done):
            seen.append((done, threading.current_thread().name))
            called.release()
            raise error("from a callback")

        future.add_done_callback(callback)
        script.send(memory("x", 1))
        assert called.acquire(timeout=10)
        future.add_done_callback(callback)
        assert called.acquire(timeout=10)
        assert [done for done, _ in seen] == [future, future]
        assert {name for _, name in seen} == {"holdfast-callbacks"}
        script.client.close()
        assert caplog.text.count("from a callback") >= 2

    def test_wait_returns_what_is_done(self, script):
        futures = script.client.map(operator.neg, range(3), key=["a", "b", "c"])
        with pytest.raises(TimeoutError, match="and 2 more"):
            wait(futures, timeout=0.01)
        script.send(memory("b", 1))
        done, not_done = wait(futures, timeout=10, return_when="FIRST_COMPLETED")
        assert [future.key for future in done] == ["b"]
        assert {future.key for future in not_done} == {"a", "c"}
        script.send(memory("a", 1), ("erred", [("c", *dumping.dump_exception(ValueError()))]))
        assert wait(futures, timeout=10) == (set(futures), set())
        with pytest.raises(ValueError, match="return_when"):
            wait(futures, return_when="SOME")

    def test_repr_and_pickle(self, script):
        future = script.client.submit(operator.neg, 1, key="x")
        assert repr(future) == "<Future: pending, key: 'x'>"
        with pytest.raises(TypeError, match="can't be pickled"):
            pickle.dumps(script.client)

    def test_gather_ends_at_the_first_error(self, script):
        futures = script.client.map(operator.neg, range(2), key=["a", "b"])
        script.send(("erred", [("b", *dumping.dump_exception(ValueError("b failed")))]))
        with pytest.raises(ValueError, match="b failed"):
            script.client.gather(futures)


class TestReadingAgain:
    def test_a_copy_that_is_gone_is_reported_and_waited_for(self, script):
        future = script.client.submit(operator.neg, 1, key="x")
        script.send(memory("x", 1, inline=False, nodes=["tcp://127.0.0.1:9"]))
        results = []
        reader = threading.Thread(target=lambda: results.append(future.result(timeout=20)))
        reader.start()
        assert script.next("missing") == ("missing", (("x", ID, "tcp://127.0.0.1:9"),))
        script.send(("pending", ["x"]), memory("x", "again"))
        reader.join(20)
        assert results == ["again"]

    def test_it_ends_with_what_the_scheduler_says(self, script):
        future = script.client.submit(operator.neg, 1, key="x")
        script.send(memory("x", 1, inline=False))
        errors = []

        def read():
            try:
                future.result(timeout=20)
            except Exception as error:
                errors.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        script.next("missing")
        script.send(("erred", [("x", *dumping.dump_exception(ObjectLostError("x is gone")))]))
        reader.join(20)
        assert isinstance(errors[0], ObjectLostError)

    def test_a_caller_s_own_deadline_says_nothing_of_a_copy(self, script):
        with contextlib.ExitStack() as stack:
            silent = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
            nodes = ["tcp://{}:{}".format(*listener.getsockname()) for listener in silent]
            future = script.client.submit(operator.neg, 1, key="x")
            script.send(memory("x", 1, inline=False, nodes=nodes))
            wait(future, timeout=10)
            started = time.monotonic()
            with pytest.raises(TimeoutError, match=r"'x' could not be read within 0\.3 s"):
                future.result(timeout=0.3)
            assert time.monotonic() - started < 2
        assert future.status == "finished"
        script.client.submit(operator.neg, 2, key="after")
        while script.next("submit")[1][-1][0] != "after":
            pass
        assert not [m for m in script.peer.received if m[0] == "missing"]

    def test_a_timeout_while_it_is_made_again_is_the_one_that_was_given(self, script):
        future = script.client.submit(operator.neg, 1, key="x")
        script.send(memory("x", 1, inline=False))
        wait(future, timeout=10)
        with pytest.raises(TimeoutError, match=r"not done within 0\.2 s: 'x'"):
            future.result(timeout=0.2)
        assert script.next("missing")


class TestRequests:
    def test_errors_are_those_that_the_scheduler_names(self, script):
        script_thread = threading.Thread(
            target=lambda: script.answer(["DatasetNotFoundError", "no dataset 'x'; there are: 'y'"], ok=False)
        )
        script_thread.start()
        with pytest.raises(DatasetNotFoundError, match="there are: 'y'"):
            script.client.get_dataset("x")
        script_thread.join(10)


class TestTheEnd:
    def test_a_lost_connection_ends_everything_that_waits(self, script):
        future = script.client.submit(operator.neg, 1, key="x")
        failures = []

        def collect(call):
            try:
                call()
            except Exception as error:
                failures.append(error)

        calls = [future.result, lambda: script.client.gather([future]), script.client.list_datasets]
        threads = [threading.Thread(target=collect, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        script.next("submit")
        script.next("request")
        script.scheduler.thread.call_soon(script.peer.connection.abort)
        for thread in threads:
            thread.join(20)
        assert len(failures) == 3
        for failure in failures:
            assert isinstance(failure, ConnectError)
            assert "was lost" in str(failure)
        assert future.status == "lost"
        for call in (lambda: script.client.submit(operator.neg, 2), script.client.nthreads, future.result):
            with pytest.raises(ConnectError, match="was lost"):
                call()

    def test_a_closing_cluster_says_why(self, script):
        future = script.client.submit(operator.neg, 1)
        script.send(("closing", "somebody stopped it"))
        with pytest.raises(ConnectError, match="somebody stopped it"):
            future.result(timeout=10)
        assert "somebody stopped it" in repr(script.client)

    def test_closing_cancels_what_is_pending_and_keeps_what_is_there(self, script):
        pending = script.client.submit(operator.neg, 1)
        finished = script.client.submit(operator.neg, 1, key="x")
        script.send(memory("x", 3))
        wait(finished, timeout=10)
        script.client.close()
        script.client.close()
        assert pending.cancelled()
        with pytest.raises(CancelledError, match="the client was closed"):
            pending.result()
        assert finished.result() == 3
        with pytest.raises(ConnectError, match="closed"):
            script.client.submit(operator.neg, 1)
        del pending, finished

    def test_a_client_that_is_garbage_closes_its_connection(self, script):
        client = Client(script.client.scheduler_address, token=TOKEN, set_as_default=False)
        peer = script.scheduler.wait(
            lambda: len(script.scheduler.peers) == 2 and script.scheduler.peers[1], "it is here"
        )
        del client
        gc.collect()
        script.scheduler.wait(lambda: peer.gone, "its connection ends")


class TestTheHotPath:
    def test_a_submission_costs_microseconds(self, script):
        """A guard against accidents, with a wide margin: the aim is far below."""
        client = script.client
        client.map(operator.neg, range(100))
        started = time.thread_time()
        futures = client.map(operator.neg, range(20_000), key="guard")
        per_call = (time.thread_time() - started) / len(futures)
        assert per_call < 60e-6

    def test_a_loop_over_submit_leaves_in_few_messages(self, script):
        futures = [script.client.submit(operator.neg, i) for i in range(2000)]
        tasks, messages = 0, 0
        while tasks < len(futures):
            tasks += len(script.next("submit")[1])
            messages += 1
        assert messages < len(futures) / 4


class TestLargeArguments:
    class Store:
        """What a packer stores."""

        def __init__(self, client):
            self.client = client
            self.values = []

        def __call__(self, value):
            self.values.append(value)
            return self.client.submit(operator.neg, len(self.values), key=f"stored-{len(self.values)}")

    @pytest.fixture
    def packing(self, script):
        store = self.Store(script.client)
        return Packer("f", None, functools.partial(own, script.client._core), Constants(store)), store

    def test_a_large_array_is_stored_and_referred_to(self, packing):
        packer, store = packing
        array = np.zeros(1 << 20)
        for _ in range(2):
            call = packer.pack((array, 1), {"again": array})
            assert len(call.payload) < 1000
            assert call.dependencies == ["stored-1"]
        (kept,) = store.values
        assert kept is array

    def test_so_is_whatever_turns_out_to_be_large(self, packing):
        packer, store = packing
        numbers = list(range(1_000_000))
        call = packer.pack((1, numbers, b"x" * 2_000_000), {})
        assert len(call.payload) < 1000
        assert payloads.loads(call.payload, {"stored-1": "bytes", "stored-2": "numbers"}) == (
            (1, "numbers", "bytes"),
            {},
        )
        assert store.values[1] is numbers

    def test_not_so_what_has_futures_in_it(self, packing, script):
        packer, store = packing
        future = script.client.submit(operator.neg, 1, key="x")
        large = b"x" * 2_000_000
        call = packer.pack(([future, large],), {})
        assert call.dependencies == ["x", "stored-1"]
        assert store.values == [large]

    def test_a_list_that_contains_itself_is_fine(self, packing):
        packer, _ = packing
        items = [1, object]
        items.append(items)
        ((again,), _) = payloads.loads(packer.pack((items,), {}).payload, {})
        assert again[2] is again
