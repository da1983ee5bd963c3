"""What a worker does with the scheduler's messages. The scheduler is scripted; sockets, store and threads are real."""

from __future__ import annotations

import io
import logging
import operator
import os
import pickle
import sys
import threading
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from dask._task_spec import Alias, DataNode, List, Task, TaskRef
from scripted_scheduler import TOKEN

from holdfast.cluster.comm.loops import LoopThread
from holdfast.cluster.errors import AuthenticationError, RemoteError
from holdfast.cluster.failures import dumping
from holdfast.cluster.protocol.payloads import INLINE_LIMIT_NBYTES, Item, Reference
from holdfast.cluster.worker import Worker
from holdfast.cluster.worker.context import current_key, current_worker
from holdfast.objectstore import ObjectID, StoreFullError, encode
from holdfast.objectstore.errors import StoreError

HERE = "tcp://127.0.0.1:1"


def inline(key, value):
    """A dependency that rides along."""
    return (key, bytes(16), encode(value).to_bytes(), [HERE])


def stored(key, object_id):
    """A dependency in this host's store."""
    return (key, object_id, None, [HERE])


def pins(store):
    return store.stats()["pins"]


# -- results


def test_a_task_runs_and_its_result_is_in_the_store_and_rides_along(scheduler, peer, store, eventually):
    task = scheduler.task(peer, operator.add, 1, 2, key="three")
    operation, entry = scheduler.one(peer, task)
    serial, _, object_id, nbytes, data, type_name, seconds = entry
    assert (operation, serial, type_name) == ("finished", task[6], "int")
    eventually(lambda: store.contains(ObjectID(object_id)))
    assert store.get(ObjectID(object_id)) == 3
    assert nbytes == len(data)
    assert seconds >= 0
    (listed,) = store.list()
    assert (listed["key"], listed["owner"]) == ("three", "host-0")


def test_large_results_are_in_the_store_only(scheduler, peer, store):
    _, entry = scheduler.one(peer, scheduler.task(peer, np.arange, 100_000))
    assert entry[4] is None
    assert entry[3] > INLINE_LIMIT_NBYTES
    assert store.get(ObjectID(entry[2])).sum() == sum(range(100_000))


def test_keys_of_any_kind_come_back_as_they_were(scheduler, peer):
    key = ("x", 0, ("y", 1.5))
    assert list(scheduler.run(peer, scheduler.task(peer, int, key=key))) == [key]


def test_tasks_run_in_the_order_in_which_they_came(scheduler, peer):
    ran = []
    runner = Recorder(ran)
    tasks = [scheduler.task(peer, runner, n) for n in range(300)]
    outcomes = scheduler.run(peer, *tasks)
    assert all(operation == "finished" for operation, _ in outcomes.values())
    assert Recorder.ran == list(range(300))


class Recorder:
    ran: ClassVar[list] = []

    def __init__(self, ran):
        Recorder.ran = ran

    def __reduce__(self):
        return _recorder, ()


def _recorder():
    return Recorder.ran.append


def test_all_threads_work(scheduler, start_worker):
    _, peer = start_worker(nthreads=3)
    # Each waits for the two others: fewer threads would never end.
    outcomes = scheduler.run(peer, *(scheduler.task(peer, meet) for _ in range(3)))
    assert all(operation == "finished" for operation, _ in outcomes.values())


barrier = threading.Barrier(3, timeout=10)


def meet():
    barrier.wait()


def test_each_seal_is_known_before_its_outcome_unless_the_result_rides_along(scheduler, peer, store, eventually):
    tasks = [scheduler.task(peer, operator.mul, "x", n % 2 * INLINE_LIMIT_NBYTES) for n in range(2000)]
    scheduler.send(peer, ("run", tasks))
    small, large = [], 0
    while len(small) + large < len(tasks):
        for _, _, object_id, _, inline, *_ in scheduler.message(peer, "finished")[1]:
            if inline is None:
                large += 1
                assert store.contains(ObjectID(object_id))
            else:
                small.append(ObjectID(object_id))
    assert large == len(small)
    eventually(lambda: all(map(store.contains, small)))


def test_work_may_come_with_the_welcome(scheduler, start_worker):
    payload = pickle.dumps(((-5,), {}))
    digest = bytes(16)
    run = ("x", 1, digest, payload, [], False, 1001)
    scheduler.greeting = [("functions", [(digest, pickle.dumps(abs))]), ("run", [run])]
    _, peer = start_worker()
    assert scheduler.message(peer, "finished")[1][0][1] == 1


# -- dependencies


def test_references_anywhere_in_the_arguments_become_values(scheduler, peer, store):
    big = store.put(np.ones(10_000), key="big")
    task = scheduler.task(
        peer,
        lambda nested, *, scale: float(nested["list"][0].sum()) * scale,
        {"list": [Reference("big")]},
        scale=Reference("small"),
        depends=[stored("big", big), inline("small", 3)],
    )
    assert scheduler.value(peer, task) == 30_000.0


def test_dependencies_are_read_in_place_and_let_go(scheduler, start_worker, store, eventually):
    worker, peer = start_worker()
    big = store.put(np.zeros(1 << 20))

    def address(array):
        return array.__array_interface__["data"][0], array.flags.writeable

    task = scheduler.task(peer, address, Reference("big"), depends=[stored("big", big)])
    where, writable = scheduler.value(peer, task)
    assert worker.store.address_in_arena(where)
    assert not writable
    eventually(lambda: pins(store) == 0, what="the task's view dies with it")


def test_views_are_let_go_when_a_task_fails(scheduler, peer, store, eventually):
    big = store.put(np.zeros(1 << 20))

    def fail(array):
        view = array[1:]  # noqa: F841 - a variable of the frame that fails
        raise LookupError("it has failed")

    error, _, _ = scheduler.error(peer, scheduler.task(peer, fail, Reference("b"), depends=[stored("b", big)]))
    assert isinstance(error, LookupError)
    eventually(lambda: pins(store) == 0, what="the failed task's views die with it")


@pytest.mark.parametrize("as_node", [False, True])
def test_no_other_thread_is_woken_for_the_views_of_a_task(
    scheduler, start_worker, store, eventually, monkeypatch, as_node
):
    worker, peer = start_worker()
    big = store.put(np.zeros(1 << 20))
    depends = [stored("big", big)]
    if as_node:
        task = scheduler.node_task(Task("t", np.sum, TaskRef("big")), depends=depends)
    else:
        task = scheduler.task(peer, np.sum, Reference("big"), depends=depends)
    holdings = worker.store._holdings
    wakers = []

    def wake(nbytes, wake=holdings._wake):
        before = holdings._tokens.qsize()
        wake(nbytes)
        if nbytes >= 1 << 20 and holdings._tokens.qsize() > before:
            wakers.append(threading.current_thread().name)

    monkeypatch.setattr(holdings, "_wake", wake)
    assert scheduler.value(peer, task) == 0
    eventually(lambda: pins(store) == 0, what="the task's views die with it")
    assert not wakers


def test_a_dependency_that_is_nowhere_is_missing_and_no_error(scheduler, peer):
    gone = ObjectID(b"0123456789abcdef")
    task = scheduler.task(peer, abs, Reference("x"), key="y", depends=[("x", gone, None, [])])
    operation, entry = scheduler.one(peer, task)
    assert operation == "missing"
    assert entry == (task[6], task[1], "x", gone)


def test_a_task_that_raises_what_the_store_raises_is_an_error(scheduler, peer):
    from holdfast.objectstore import ObjectNotFoundError

    def ask():
        raise ObjectNotFoundError("of the task's own")

    assert isinstance(scheduler.error(peer, scheduler.task(peer, ask))[0], ObjectNotFoundError)


# -- dask


def test_nodes_of_dask_graphs(scheduler, peer, store, eventually):
    x = store.put(np.arange(10))
    depends = [stored(("x", 0), x)]
    task = Task(("s", 0), operator.add, TaskRef(("x", 0)), 1)
    _, entry = scheduler.one(peer, scheduler.node_task(task, depends=depends))
    eventually(lambda: store.contains(ObjectID(entry[2])))
    assert store.get(ObjectID(entry[2])).tolist() == list(range(1, 11))
    nested = Task("n", sum, List(Task(None, operator.neg, 1), DataNode(None, 5)))
    assert scheduler.value(peer, scheduler.node_task(nested)) == 4
    assert scheduler.value(peer, scheduler.node_task(DataNode("d", {"a": 1}))) == {"a": 1}
    assert scheduler.value(peer, scheduler.node_task(Alias("a", "b"), depends=[inline("b", 7)])) == 7


# -- errors


def outer():
    return inner()


def inner():
    raise ZeroDivisionError("by hand")


@pytest.mark.parametrize("as_node", [False, True])
def test_an_error_comes_with_the_frames_of_the_user(scheduler, peer, as_node):
    task = scheduler.node_task(Task("t", outer)) if as_node else scheduler.task(peer, outer)
    error, trace, text = scheduler.error(peer, task)
    assert isinstance(error, ZeroDivisionError)
    assert str(error) == "by hand"
    names = []
    while trace is not None:
        names.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert names == ["outer", "inner"]
    assert "inner()" in text
    assert "execution.py" not in text


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_nothing_that_a_task_raises_ends_its_thread(scheduler, peer, kind):
    def leave():
        raise kind("bye")

    # Raised as it is where the result is asked for, it would end the program there.
    error, _, _ = scheduler.error(peer, scheduler.task(peer, leave))
    assert isinstance(error, RemoteError)
    assert f"{kind.__name__}: bye" in str(error)
    assert scheduler.value(peer, scheduler.task(peer, abs, -1)) == 1


class Speechless(Exception):
    def __init__(self, one, two):
        super().__init__(one)

    def __str__(self):
        raise RuntimeError("no words")


class Mute(Speechless):
    __repr__ = Speechless.__str__

    def __reduce__(self):
        raise SystemExit


class Blocking(BaseException):
    def __str__(self):
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", [Speechless, Mute, Blocking])
def test_an_error_that_cannot_say_what_it_is_arrives(scheduler, peer, kind):
    def fail():
        raise kind(1, 2)

    error, _, text = scheduler.error(peer, scheduler.task(peer, fail))
    assert type(error.__cause__ if kind is Blocking else error) is kind
    assert not isinstance(error, Blocking)
    assert kind.__name__ in text
    assert scheduler.value(peer, scheduler.task(peer, abs, -1)) == 1


def test_an_error_that_speaks_no_utf8_arrives(scheduler, peer):
    def fail():
        raise FileNotFoundError("\udcff.txt")

    error, _, text = scheduler.error(peer, scheduler.task(peer, fail))
    assert str(error) == "\udcff.txt"
    assert "FileNotFoundError: \\udcff.txt" in text


def test_a_failure_of_which_nothing_can_be_said_is_an_end_all_the_same(scheduler, peer, monkeypatch):
    def no_memory(error, note):
        raise MemoryError

    monkeypatch.setattr(dumping, "dump_exception", no_memory)
    error, _, _ = scheduler.error(peer, scheduler.task(peer, outer))
    assert "so did reporting" in str(error)
    assert scheduler.value(peer, scheduler.task(peer, abs, -1)) == 1


def test_a_recursion_without_end_is_told_as_what_it_is(scheduler, peer):
    def deeper(n):
        return deeper(n + 1)

    error, trace, text = scheduler.error(peer, scheduler.task(peer, deeper, 0))
    assert type(error) is RecursionError
    assert trace is not None
    assert "deeper(n + 1)" in text


def test_an_exception_that_somebody_keeps_does_not_keep_the_arguments_of_the_task_that_it_was_raised_in(
    scheduler, peer, store
):
    kept = []

    def keep(array):
        try:
            raise ValueError("caught, and kept")
        except ValueError as error:
            del array
            kept.append(error)
        return len(kept)

    object_id = store.put(np.ones(100_000))
    task = scheduler.task(peer, keep, Reference("x"), depends=[("x", object_id, None, ())])
    assert scheduler.value(peer, task) == 1
    scheduler.wait(lambda: not store.list()[0]["pins"], "the task's pin is gone")


def test_a_function_that_was_forgotten_can_be_sent_again(scheduler, peer):
    tasks = [scheduler.task(peer, abs, -number) for number in range(3)]
    assert scheduler.value(peer, tasks[0]) == 0
    digest = tasks[0][2]
    scheduler.send(peer, ("forget", [digest, b"never sent......"]))
    assert "was never sent" in str(scheduler.error(peer, tasks[1])[0])
    scheduler.send(peer, ("functions", [(digest, pickle.dumps(abs))]))
    assert scheduler.value(peer, tasks[2]) == 2


def test_a_result_that_cannot_be_pickled_names_task_and_type(scheduler, peer):
    error, _, _ = scheduler.error(peer, scheduler.task(peer, threading.Lock, key="my-lock"))
    assert isinstance(error, pickle.PicklingError)
    assert "'my-lock'" in str(error)
    assert "_thread.lock" in str(error)


def test_a_function_that_cannot_be_unpickled_is_named(scheduler, peer):
    def elsewhere():
        return 1

    elsewhere.__module__, elsewhere.__qualname__, elsewhere.__name__ = "only_there", "compute", "compute"
    module = type(sys)("only_there")
    module.compute = elsewhere
    sys.modules["only_there"] = module
    try:
        task = scheduler.task(peer, elsewhere)
    finally:
        del sys.modules["only_there"]
    error, _, _ = scheduler.error(peer, task)
    assert "only_there.compute" in str(error)
    assert "No module named" in str(error)


def test_arguments_that_cannot_be_unpickled_name_the_task(scheduler, peer):
    task = list(scheduler.task(peer, abs, 1, key="broken"))
    task[3] = b"no pickle"
    error, _, _ = scheduler.error(peer, task)
    assert "'broken'" in str(error)


def test_a_result_larger_than_the_store_is_the_tasks_error(scheduler, peer):
    error, _, _ = scheduler.error(peer, scheduler.task(peer, bytes, 200 << 20))
    assert isinstance(error, StoreFullError)
    assert "MB" in str(error)


def test_errors_are_the_same_when_dask_has_changed_how_exceptions_are_pickled(scheduler, peer):
    import dask.multiprocessing  # noqa: F401

    def fail():
        raise StoreFullError("full") from LookupError(threading.Lock())

    error, _, _ = scheduler.error(peer, scheduler.task(peer, fail))
    assert isinstance(error, StoreFullError)
    assert str(error) == "full"


# -- read-only data


def sort_in_place(array):
    array.sort()
    return array[0]


def needs_a_writable_buffer(array):
    return len((memoryview(array).cast("B")).obj) if not memoryview(array).readonly else _complain()


def _complain():
    raise ValueError("buffer source array is read-only")


@pytest.mark.parametrize("as_node", [False, True])
@pytest.mark.parametrize("function", [sort_in_place, needs_a_writable_buffer])
def test_a_function_that_writes_into_its_arguments_gets_private_copies(
    scheduler, peer, store, caplog, function, as_node
):
    array = np.arange(1000)[::-1].copy()
    x = store.put(array)

    def task(key):
        depends = [stored("x", x)]
        if as_node:
            return scheduler.node_task(Task(key, function, TaskRef("x")), depends=depends)
        return scheduler.task(peer, function, Reference("x"), key=key, depends=depends)

    with caplog.at_level(logging.WARNING):
        for key in ("a", "b", "c"):
            scheduler.value(peer, task(key))
    warnings = [record.getMessage() for record in caplog.records if "writes into its arguments" in record.getMessage()]
    assert len(warnings) == 1
    assert function.__name__ in warnings[0]
    assert store.get(x).tolist() == array.tolist()


@pytest.mark.parametrize("as_node", [False, True])
def test_the_scheduler_is_told_once_of_a_function_that_writes(scheduler, peer, store, as_node):
    x = store.put(np.arange(1000)[::-1])
    for key in ("a", "b"):
        if as_node:
            task = scheduler.node_task(Task(key, sort_in_place, TaskRef("x")), depends=[stored("x", x)])
        else:
            task = scheduler.task(peer, sort_in_place, Reference("x"), key=key, depends=[stored("x", x)])
        assert scheduler.value(peer, task) == 0
    assert [entries for operation, *entries in peer.received if operation == "wrote"] == [[(("a", task[2]),)]]


@pytest.mark.parametrize("as_node", [False, True])
def test_private_views_at_once_if_the_scheduler_says_so(scheduler, peer, store, tmp_path, as_node):
    x = store.put(np.arange(1000)[::-1])
    outcome = runs_of(scheduler, peer, tmp_path, sort_in_place, [stored("x", x)], as_node=as_node, private=True)
    assert outcome == ("finished", 1)
    assert store.get(x)[0] == 999
    assert not [message for message in peer.received if message[0] == "wrote"]


def test_small_values_are_a_tasks_own(scheduler, peer, tmp_path):
    def sort(array):
        (tmp_path / "ran").open("a").write("x")
        array.sort()
        return array[0]

    task = scheduler.task(peer, sort, Reference("x"), depends=[inline("x", np.array([3, 1, 2]))])
    assert scheduler.value(peer, task) == 1
    assert (tmp_path / "ran").read_text() == "x"


def runs_of(scheduler, peer, tmp_path, function, depends, *, as_node=False, private=False):
    """How often a task that fails, or not, was run."""
    log = tmp_path / "ran"

    def recorded(value):
        with log.open("a") as file:
            file.write("x")
        return function(value)

    if as_node:
        task = scheduler.node_task(Task("t", recorded, TaskRef("x")), depends=depends)
    else:
        task = scheduler.task(peer, recorded, Reference("x"), depends=depends)
    operation, _ = scheduler.one(peer, (*task[:5], private, task[6]))
    return operation, len(log.read_text())


def pandas_says_another_thing(series):
    series.iloc[0] = pd.Timestamp("2021")
    return series


def a_user_says_another_thing(series):
    try:
        series.to_numpy()[0] = 0
    except ValueError as error:
        raise LookupError("could not be set") from error


@pytest.mark.parametrize("as_node", [False, True])
@pytest.mark.parametrize("function", [pandas_says_another_thing, a_user_says_another_thing])
def test_a_refused_write_behind_another_error_is_run_once_more(scheduler, peer, store, tmp_path, function, as_node):
    x = store.put(pd.Series(pd.date_range("2020", periods=2000)))
    outcome = runs_of(scheduler, peer, tmp_path, function, [stored("x", x)], as_node=as_node)
    # pandas 3 lets nobody write into what `to_numpy` gives, not even the owner: the second failure counts.
    assert outcome == ("finished" if function is pandas_says_another_thing else "erred", 2)
    assert store.get(x).iloc[0] == pd.Timestamp("2020")


def the_file(array):
    raise ValueError("the file is read-only")


def not_a_buffer(array):
    io.BytesIO(b"abc").readinto("abc")


def words_of_a_write(array):
    raise ValueError("array is read-only")


@pytest.mark.parametrize("as_node", [False, True])
@pytest.mark.parametrize("function", [the_file, not_a_buffer])
def test_what_only_sounds_like_a_refused_write_runs_once(scheduler, peer, store, tmp_path, function, as_node):
    x = store.put(np.zeros(1000))
    assert runs_of(scheduler, peer, tmp_path, function, [stored("x", x)], as_node=as_node) == ("erred", 1)


@pytest.mark.parametrize("as_node", [False, True])
def test_what_reads_nothing_from_the_store_was_refused_nothing(scheduler, peer, tmp_path, as_node):
    depends = [inline("x", np.array([3, 1, 2]))]
    assert runs_of(scheduler, peer, tmp_path, words_of_a_write, depends, as_node=as_node) == ("erred", 1)


def test_a_fork_of_a_task_does_not_run_it_once_more(scheduler, peer, store, tmp_path):
    x = store.put(np.zeros(1000))

    def fork(array):
        if (pid := os.fork()) == 0:
            array[0] = 1
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert runs_of(scheduler, peer, tmp_path, fork, [stored("x", x)]) == ("finished", 1)


def test_other_errors_are_not_run_again(scheduler, peer, store):
    calls = []
    Recorder(calls)

    def fail(record, value):
        record(value)
        raise ValueError("not about memory")

    task = scheduler.task(peer, fail, RecorderReference(), Reference("x"), depends=[inline("x", 1)])
    assert isinstance(scheduler.error(peer, task)[0], ValueError)
    assert Recorder.ran == [1]


class RecorderReference:
    def __reduce__(self):
        return _recorder, ()


# -- what a task can know


def test_a_task_knows_its_worker_and_key(scheduler, start_worker):
    _, peer = start_worker()

    def name_itself():
        return current_worker().address, current_key()

    assert scheduler.value(peer, scheduler.task(peer, name_itself, key="me")) == (f"{HERE}/0", "me")
    assert current_worker() is None
    assert current_key() is None


# -- dropping and ending


gate = threading.Event()


def wait_for_gate():
    assert gate.wait(10)


def test_dropped_tasks_do_not_start(scheduler, peer):
    gate.clear()
    running, second, third = (scheduler.task(peer, wait_for_gate) for _ in range(3))
    scheduler.send(peer, ("run", [running, second, third]), ("drop", [second[1], 999]))
    assert list(scheduler.message(peer, "dropped")[1]) == [second[1]]
    gate.set()
    outcomes = scheduler.outcomes(peer, [running[1], third[1]])
    assert second[0] not in outcomes
    assert not any(second[1] == entry[1] for message in peer.received for entry in message[1])


def test_it_ends_when_it_is_told_to(scheduler, start_worker, eventually):
    worker, peer = start_worker()
    scheduler.send(peer, ("close",))
    eventually(worker.finished.is_set)
    assert worker.reason is None


def test_it_ends_when_the_scheduler_is_gone(scheduler, start_worker, eventually):
    worker, peer = start_worker()
    scheduler.thread.call_soon(peer.connection.abort)
    eventually(worker.finished.is_set)
    assert "scheduler" in worker.reason


def test_it_ends_when_the_store_is_gone(scheduler, start_worker, server, eventually):
    worker, peer = start_worker()
    closed = threading.Event()

    def close():
        for connection in list(server._clients._connections.values()):
            connection.close("test")
        closed.set()

    server._executor.loop.call_soon_threadsafe(close)
    assert closed.wait(10)
    scheduler.send(peer, ("run", [scheduler.task(peer, bytes, 100_000)]))
    eventually(worker.finished.is_set)
    assert "store" in worker.reason


def test_closing_does_not_wait_for_a_task_that_does_not_end(scheduler, start_worker):
    worker, peer = start_worker()
    gate.clear()
    task = scheduler.task(peer, wait_for_gate)
    scheduler.send(peer, ("run", [task]))
    worker.thread.run(worker.close(), timeout=5)
    gate.set()


def test_several_workers_in_one_loop(scheduler, start_worker):
    peers = [start_worker(index=n)[1] for n in range(3)]
    assert [scheduler.value(p, scheduler.task(p, abs, -n)) for n, p in enumerate(peers)] == [0, 1, 2]


def test_what_it_cannot_connect_to(scheduler, server):
    thread = LoopThread("worker")
    try:
        options = {"node_address": HERE, "index": 0, "name": "w"}
        worker = Worker(scheduler.address, token=TOKEN, store_socket="/tmp/nowhere.sock", **options)
        with pytest.raises(StoreError, match="no store"):
            thread.run(worker.start())
        worker = Worker(scheduler.address, token=b"another " * 4, store_socket=server.socket_path, **options)
        with pytest.raises(AuthenticationError):
            thread.run(worker.start())
    finally:
        thread.close()


# -- one item of a dependency


class Costly:
    """Knows how many of it were unpickled."""

    made = 0

    def __reduce__(self):
        return make_costly, ()


def make_costly():
    Costly.made += 1
    return Costly()


@pytest.mark.parametrize("as_node", [False, True])
def test_a_task_that_takes_one_array_of_a_dictionary_does_not_read_the_others(scheduler, peer, store, as_node):
    pieces = {i: pd.DataFrame({"x": np.arange(1000) + i, "o": pd.Series([Costly()] * 1000)}) for i in range(4)}
    split = store.put(pieces)
    depends = [stored(("split", 0), split)]
    if as_node:
        task = scheduler.node_task(Task(("part", 2), operator.getitem, TaskRef(("split", 0)), 2), depends=depends)
    else:
        task = scheduler.task(peer, operator.getitem, Reference(("split", 0)), 2, depends=depends)
    Costly.made = 0
    _, entry = scheduler.one(peer, task)
    assert Costly.made == 1
    assert store.get(ObjectID(entry[2]))["x"][0] == 2
    missing = scheduler.task(peer, operator.getitem, Reference(("split", 0)), 9, depends=depends)
    error, _, _ = scheduler.error(peer, missing)
    assert isinstance(error, KeyError)
    odd = scheduler.task(peer, operator.getitem, Reference(("split", 0)), 9, depends=depends)
    _, _, text = scheduler.error(peer, [*odd[:3], b"no pickle", *odd[4:]])
    assert f"the arguments of task {odd[0]!r} can't be unpickled" in text


def frames_of_costly(n):
    return {i: pd.DataFrame({"x": np.arange(1000) + i, "o": pd.Series([Costly()] * 1000)}) for i in range(n)}


def test_items_among_the_arguments_are_read_without_the_others_and_let_go(scheduler, peer, store, eventually):
    splits = [store.put(frames_of_costly(4)) for _ in range(3)]
    depends = [stored(("split", i), split) for i, split in enumerate(splits)]
    depends.append(inline("small", [5, 7]))
    pieces = [Item(("split", i), 2) for i in range(3)]
    Costly.made = 0
    task = scheduler.task(
        peer,
        lambda pieces, more: sum(int(p["x"].iloc[0]) for p in pieces) + more,
        pieces,
        Item("small", 1),
        depends=depends,
    )
    assert scheduler.value(peer, task) == 13
    assert Costly.made == 3
    eventually(lambda: pins(store) == 0, what="the pieces die with the task")


def test_an_item_of_what_is_nowhere_is_missing(scheduler, peer, store, eventually):
    there, gone = store.put(frames_of_costly(2)), ObjectID(b"0123456789abcdef")
    depends = [stored(("split", 0), there), ("lost", gone, None, [])]
    task = scheduler.task(peer, len, [Item(("split", 0), 1), Item("lost", 1)], key="y", depends=depends)
    operation, entry = scheduler.one(peer, task)
    assert operation == "missing"
    assert entry == (task[6], task[1], "lost", gone)
    eventually(lambda: pins(store) == 0, what="what was read before is let go")


def test_an_item_that_a_value_does_not_have_is_an_error_that_says_of_what(scheduler, peer, store, eventually):
    split = store.put(frames_of_costly(2))
    depends = [stored(("split", 0), split), inline("small", [5])]
    for key, item, kind in ((("split", 0), 9, KeyError), ("small", 1, IndexError), ("small", "a", TypeError)):
        error, _, text = scheduler.error(peer, scheduler.task(peer, len, [Item(key, item)], depends=depends))
        assert type(error) is kind
        assert f"item {item!r} of the result of {key!r}" in text
    eventually(lambda: pins(store) == 0, what="what was looked at is let go")


def sort_all(arrays):
    for array in arrays:
        array.sort()
    return sum(int(array[0]) for array in arrays)


def test_items_can_be_made_writable(scheduler, peer, store):
    split = store.put({i: np.arange(1000)[::-1] + i for i in range(3)})
    depends = [stored("split", split)]
    task = scheduler.task(peer, sort_all, [Item("split", 0), Item("split", 2)], depends=depends)
    assert scheduler.value(peer, task) == 2
    assert store.get_item(split, 2)[0] == 1001


def test_a_dependency_that_no_argument_refers_to_is_not_read(scheduler, peer, store):
    costly = store.put(pd.Series([Costly()] * 1000))
    Costly.made = 0
    assert scheduler.value(peer, scheduler.task(peer, len, [1], depends=[stored("costly", costly)])) == 1
    assert not Costly.made


def test_a_malformed_message_for_its_tasks_ends_it_though_they_have_no_client(scheduler, start_worker, caplog):
    caplog.set_level(logging.CRITICAL, "holdfast")  # the error that is logged would keep the worker
    worker, peer = start_worker()
    scheduler.send(peer, ("tasks", "reply", 1, "no boolean", None))
    scheduler.wait(lambda: peer.gone, "it hangs up")
    worker.thread.run(worker.finished.wait())
    assert "reply.ok" in worker.reason
