"""Actors as a user has them, in every kind of client."""

from __future__ import annotations

import asyncio
import os
import pickle
import sqlite3
import threading
import time
import traceback

import dask
import numpy as np
import pytest

from holdfast import (
    Actor,
    ActorFuture,
    CancelledError,
    Client,
    Queue,
    RemoteError,
    Variable,
    as_completed,
    get_client,
    wait,
)
from holdfast.cluster.protocol.limits import MAX_CALLS
from holdfast.cluster.worker.context import current_worker
from holdfast.objectstore import ObjectID


class Counter:
    """Counts."""

    unit = "things"

    def __init__(self, n=0):
        self.n = n
        self.seen = []

    def add(self, k=1):
        self.n += k
        return self.n

    def note(self, item):
        self.seen.append(item)

    def notes(self):
        return self.seen

    def fail(self, text):
        raise LookupError(text)

    def fail_with_much(self):
        raise LookupError(np.zeros(100_000))

    def where(self):
        return os.getpid(), threading.get_ident()

    @property
    def twice(self):
        return 2 * self.n

    @staticmethod
    def double(x):
        return 2 * x


class Holder:
    """Keeps what it is given."""

    def __init__(self, kept=None):
        self.kept = kept

    def keep(self, value):
        self.kept = value

    def give(self):
        return self.kept

    def give_back(self, value):
        return value

    def add_in_place(self):
        self.kept += 1
        return float(self.kept[0])

    def call(self, method, *args):
        return getattr(self.kept, method)(*args).result()

    def start(self, method, *args):
        self.pending = getattr(self.kept, method)(*args)

    def submit(self, function, *args):
        return get_client().submit(function, *args, pure=False).result()

    def run(self, function, *args):
        return function(*args)

    def is_shared(self, value):
        return not value.flags.owndata


class Waiter:
    """Its methods wait on an event loop."""

    def __init__(self):
        self.log = []
        self.event = asyncio.Event()

    async def wait(self, name):
        self.log.append(f"{name} begins")
        await self.event.wait()
        self.log.append(f"{name} ends")
        return threading.get_ident()

    async def set(self):
        self.event.set()
        return threading.get_ident()

    def now(self):
        return threading.get_ident()

    async def raise_it(self):
        await asyncio.sleep(0)
        raise LookupError("in a coroutine")

    async def exit(self):
        raise SystemExit(3)

    async def ask(self, other):
        return (
            await other.add(1),
            await other.n,
            await get_client().submit(inc, 1, pure=False),
            await other.add().result(),
        )


class Broken:
    """Can't be made."""

    def __init__(self, text):
        raise ValueError(text)


def inc(x):
    return x + 1


def use(counter, k):
    return counter.add(k).result()


def gate(path):
    while not os.path.exists(path):
        time.sleep(0.005)
    return path


async def made(client, got, *args, **kwargs):
    return await got(client.submit(*args, actor=True, **kwargs).result())


def test_a_method_is_called_where_the_object_lives(run):
    async def case(client, got):
        counter = await made(client, got, Counter, 10)
        assert type(counter) is Actor
        future = counter.add(5)
        assert type(future) is ActorFuture
        assert await got(future.result()) == 15
        assert future.done()
        assert await got(future.result()) == 15, "it can be asked for again"
        assert await got(counter.add(k=1).result(timeout="10 s")) == 16
        assert await got(counter.double(4).result()) == 8

    run(case)


def test_an_actor_future_is_awaited_on_any_loop(run):
    async def case(client, got):
        counter = await made(client, got, Counter)
        assert await counter.add(3) == 3
        assert await asyncio.gather(*[counter.add() for _ in range(5)]) == [4, 5, 6, 7, 8]

    run(case)


def test_attributes_are_read(run):
    async def case(client, got):
        counter = await made(client, got, Counter, 4)
        assert await got(counter.n) == 4
        assert await got(counter.twice) == 8
        assert await got(counter.unit) == "things"
        with pytest.raises(AttributeError, match="missing"):
            await got(counter.missing)
        for name in ("__array__", "_repr_html_", "_ipython_display_"):
            assert not hasattr(counter, name)
        with pytest.raises(AttributeError, match="give Counter a method that sets 'n'"):
            counter.n = 5

    run(case)


class Thermometer:
    unit = "K"
    _secret = 1

    def __init__(self):
        self.degrees = 300

    @property
    def celsius(self):
        return self.degrees - 273

    @property
    def broken(self):
        raise AttributeError("it is broken")

    def warm(self, by):
        self.degrees += by

    @staticmethod
    def zero():
        return 0


def test_names_are_listed_and_properties_are_read(run):
    async def case(client, got):
        actor = await got(client.submit(Thermometer, actor=True).result())
        names = {name for name in dir(actor) if not name.startswith("__")}
        assert names == {"unit", "degrees", "celsius", "broken", "warm", "zero", "key", "client"}
        assert actor.warm.__name__ == "warm"
        await got(actor.warm(2).result())
        assert await got(actor.celsius) == 29
        assert await got(actor.zero().result()) == 0
        with pytest.raises(AttributeError, match="it is broken"):
            await got(actor.broken)

    run(case)


def test_what_a_call_will_give_is_no_result_of_a_task_which_says_what_to_do(client):
    actor = client.submit(Thermometer, actor=True).result()
    with pytest.raises(Exception, match=r"what a call of Thermometer.warm will give can't be sent elsewhere"):
        client.submit(actor.warm, 1).result()


def test_calls_of_one_caller_run_in_order(run):
    async def case(client, got):
        counter = await made(client, got, Counter)
        futures = [counter.note(i) for i in range(300)]
        assert await got(counter.notes().result()) == list(range(300))
        assert all(future.done() for future in futures)

    run(case)


def test_futures_among_the_arguments_stand_for_their_values_and_later_calls_wait(run, tmp_path):
    async def case(client, got):
        counter = await made(client, got, Counter)
        other = await made(client, got, Counter)
        path = str(tmp_path / "go")
        slow = client.submit(gate, path, pure=False)
        counter.note([slow, {"x": client.submit(inc, 1)}])
        last = counter.note("later")
        assert await got(other.add(7).result()) == 7, "another actor is not held up"
        assert not last.done()
        open(path, "w").close()
        assert await got(counter.notes().result()) == [[path, {"x": 2}], "later"]

    run(case)


def test_a_call_fails_with_what_its_argument_failed_with(run):
    async def case(client, got):
        counter = await made(client, got, Counter)
        failed = counter.note(client.submit(int, "seven"))
        later = counter.add()
        with pytest.raises(ValueError, match="seven"):
            await got(failed.result())
        assert await got(later.result()) == 1
        assert await got(counter.notes().result()) == []

    run(case)


def test_what_a_method_raises_reaches_the_caller_with_the_users_frames(run):
    async def case(client, got):
        counter = await made(client, got, Counter)
        for _ in range(2):
            with pytest.raises(LookupError, match="gone") as caught:
                await got(counter.fail("gone").result())
        frames = traceback.extract_tb(caught.value.__traceback__)
        assert frames[-1].name == "fail"
        assert frames[-1].filename == __file__
        assert "actors.py" not in {os.path.basename(frame.filename) for frame in frames}
        assert "Raised by Counter.fail" in "".join(caught.value.__notes__)
        assert await got(counter.add().result()) == 1, "it lives on"

    run(case)


def test_a_large_exception_arrives_whole(run):
    async def case(client, got):
        counter = await made(client, got, Counter)
        with pytest.raises(LookupError) as caught:
            await got(counter.fail_with_much().result())
        assert caught.value.args[0].nbytes == 800_000

    run(case)


def test_large_arguments_and_results_lie_in_the_store(run):
    async def case(client, got):
        holder = await made(client, got, Holder)
        array = np.arange(1_000_000.0)
        assert await got(holder.is_shared(array).result())
        result = await got(holder.give_back(array).result())
        assert (result == array).all()
        result[0] = -1.0  # it is the caller's own
        assert array[0] == 0.0
        await got(holder.keep(client.submit(np.ones, 100_000)).result())
        assert await got(holder.add_in_place().result()) == 2.0
        assert await got(holder.add_in_place().result()) == 3.0
        assert (await got(holder.give().result())).sum() == 300_000.0

    run(case)


def test_a_constructor_may_keep_large_arguments_and_change_them(run):
    async def case(client, got):
        holder = await made(client, got, Holder, np.zeros(100_000))
        assert await got(holder.add_in_place().result()) == 1.0

    run(case)


def test_handles_travel_into_tasks_and_other_actors(run):
    async def case(client, got):
        counter = await made(client, got, Counter)
        assert await got(client.submit(use, counter, 5).result()) == 5
        assert await got(client.submit(use, client.submit(Counter, 1, actor=True), 1).result()) == 2
        holder = await made(client, got, Holder, counter)
        assert await got(holder.call("add", 2).result()) == 7
        back = await got(holder.give().result())
        assert back == counter
        assert await got(back.add(1).result()) == 8
        assert await got(holder.give_back([counter, {"x": counter}]).result()) == [counter, {"x": counter}]

    run(case)


def test_a_method_may_submit_tasks_and_wait_for_them(run):
    async def case(client, got):
        holder = await made(client, got, Holder)
        futures = [holder.submit(inc, i) for i in range(5)]
        assert [await got(future.result()) for future in futures] == [1, 2, 3, 4, 5]

    run(case)


def test_what_takes_futures_of_tasks_says_that_a_call_is_none(client):
    counter = client.submit(Counter, actor=True).result()
    for call in (wait, client.gather, as_completed, client.scatter, lambda given: client.submit(sum, given)):
        with pytest.raises(TypeError, match=r"the future of an actor's call.*give its result\(\)"):
            call([counter.add()])
    assert counter.add().result() == 6, "all of them were made"


class Submitter:
    def submit(self, number):
        return {"futures": [get_client().submit(inc, number, pure=False)]}

    async def submit_soon(self, number):
        return self.submit(number)


def test_a_method_may_give_a_future_that_it_has_only_just_submitted(run):
    async def case(client, got):
        submitter = await made(client, got, Submitter)
        for number in range(40):
            for method in (submitter.submit, submitter.submit_soon):
                given = await got(method(number).result())
                assert await got(given["futures"][0].result()) == number + 1

    run(case)


class Deep:
    """Makes what it is made of by tasks."""

    def __init__(self, depth):
        self.value = get_client().submit(inc, depth, pure=False).result()
        self.below = get_client().submit(Deep, depth - 1, actor=True).result() if depth else None

    def sum(self):
        return self.value + (self.below.sum().result() if self.below is not None else 0)


def test_constructors_that_wait_for_tasks_and_actors_on_one_thread_do_not_deadlock():
    with Client(n_workers=1, threads_per_worker=1, object_store_memory="64 MiB") as client:
        deep = client.submit(Deep, 3, actor=True).result(timeout=30)
        assert deep.sum().result(timeout=30) == 4 + 3 + 2 + 1


def test_an_actor_has_a_thread_of_its_own_and_takes_no_slot(run, tmp_path):
    async def case(client, got):
        holders = [await made(client, got, Holder) for _ in range(4)]
        path = str(tmp_path / "go")
        waiting = [holder.run(gate, path) for holder in holders]
        assert await got(client.submit(inc, 1, pure=False).result()) == 2, "tasks run beside them"
        first, second = [await made(client, got, Counter) for _ in range(2)]
        assert len({await got(each.where().result()) for each in (first, second)}) == 2
        assert await got(first.where().result()) == await got(first.where().result())
        open(path, "w").close()
        assert [await got(each.result()) for each in waiting] == [path] * 4

    run(case)


class Database:
    """What it has belongs to its thread."""

    def __init__(self):
        self.connection = sqlite3.connect(":memory:")
        self.connection.execute("create table t (x)")

    def put(self, x):
        self.connection.execute("insert into t values (?)", (x,))

    def all(self):
        return self.connection.execute("select x from t").fetchall()


def test_an_object_is_made_and_called_in_one_thread(run):
    async def case(client, got):
        database = await made(client, got, Database)
        database.put(1)
        assert await got(database.all().result()) == [(1,)]

    run(case)


def test_async_methods_go_on_beside_each_other_in_the_actors_thread(run):
    async def case(client, got):
        waiter = await made(client, got, Waiter)
        first, second = waiter.wait("first"), waiter.wait("second")
        thread = await got(waiter.now().result())
        assert await got(waiter.log) == ["first begins", "second begins"]
        assert not first.done()
        assert await got(waiter.set().result()) == thread
        assert [await got(each.result()) for each in (first, second)] == [thread, thread]
        assert await got(waiter.log) == ["first begins", "second begins", "first ends", "second ends"]
        with pytest.raises(LookupError, match="in a coroutine"):
            await got(waiter.raise_it().result())
        with pytest.raises(RemoteError, match="SystemExit"):
            await got(waiter.exit().result())
        counter = await made(client, got, Counter)
        assert await got(waiter.ask(counter).result()) == (1, 1, 2, 2)

    run(case)


def test_a_constructor_that_fails(run, tmp_path):
    async def case(client, got):
        future = client.submit(Broken, "not made", actor=True)
        with pytest.raises(ValueError, match="not made") as caught:
            await got(future.result())
        frames = traceback.extract_tb(caught.value.__traceback__)
        assert frames[-1].name == "__init__"
        assert "actors.py" not in {os.path.basename(frame.filename) for frame in frames}
        flaky = client.submit(Flaky, str(tmp_path), actor=True, retries=2)
        assert await got((await got(flaky.result())).tries().result()) == 3

    run(case)


class Flaky:
    """Can be made the third time."""

    def __init__(self, folder):
        self.count = len(os.listdir(folder)) + 1
        open(os.path.join(folder, str(self.count)), "w").close()
        if self.count < 3:
            raise OSError("not yet")

    def tries(self):
        return self.count


def test_what_can_not_be_pickled_is_named(run):
    async def case(client, got):
        holder = await made(client, got, Holder)
        with pytest.raises(TypeError, match=r"argument 1 of Holder.keep, a _thread.lock, can't be pickled"):
            holder.keep(threading.Lock())
        giver = await made(client, got, Unpicklable)
        with pytest.raises(pickle.PicklingError, match=r"what Unpicklable.give gave, a _thread.lock, can't be pickled"):
            await got(giver.give().result())

    run(case)


class Unpicklable:
    """Gives what can't be sent."""

    def give(self):
        return threading.Lock()


def test_a_call_that_takes_long_is_timed_out_and_goes_on(run, tmp_path):
    async def case(client, got):
        holder = await made(client, got, Holder)
        path = str(tmp_path / "go")
        future = holder.run(gate, path)
        with pytest.raises(TimeoutError, match=r"0\.05 s: the call of Holder.run"):
            await got(future.result(timeout=0.05))
        open(path, "w").close()
        assert await got(future.result()) == path

    run(case)


def test_an_actor_is_dropped_with_the_last_that_refers_to_it(run, tmp_path):
    async def case(client, got):
        counter = await made(client, got, Dying, str(tmp_path))
        future = counter.add()
        del counter
        assert await got(future.result()) == 1
        del future
        await got_until(lambda: os.listdir(tmp_path) == ["gone"])

    run(case)


class Dying(Counter):
    """Leaves a file when it is gone."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def __del__(self):
        open(os.path.join(self.folder, "gone"), "w").close()


async def got_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_calls_that_were_made_are_carried_out_though_no_handle_is_left(run, tmp_path):
    async def case(client, got):
        counter = await made(client, got, Dying, str(tmp_path))
        path = str(tmp_path / "go")
        futures = [counter.add(client.submit(gate_one, path, pure=False)), counter.add()]
        del counter
        open(path, "w").close()
        assert [await got(each.result()) for each in futures] == [1, 2]
        del futures
        await got_until(lambda: "gone" in os.listdir(tmp_path))

    run(case)


def gate_one(path):
    gate(path)
    return 1


def test_a_cancelled_actor(run):
    async def case(client, got):
        future = client.submit(Counter, actor=True)
        counter = await got(future.result())
        await got(future.cancel())
        with pytest.raises(CancelledError):
            await got(counter.add().result())

    run(case)


def test_map_makes_many_and_spreads_them(run):
    async def case(client, got):
        futures = client.map(Counter, range(4), actor=True)
        counters = [await got(future.result()) for future in futures]
        assert [await got(counter.n) for counter in counters] == [0, 1, 2, 3]
        assert len({future.key for future in client.map(Counter, [1, 1], actors=True)}) == 2, "none is the other"

    run(case)


def test_actors_go_where_few_are(client):
    counters = [client.submit(Counter, actor=True).result() for _ in range(6)]
    pids = [counter.where().result()[0] for counter in counters]
    assert sorted(map(pids.count, set(pids))) == [3, 3]


def test_workers_and_resources_choose_the_place():
    with Client(n_workers=2, threads_per_worker=1, resources={"GPU": 1}, object_store_memory="64 MiB") as client:
        first, second = client.scheduler_info()["workers"]
        counters = [client.submit(Counter, actor=True, workers=[second]).result() for _ in range(3)]
        pids = {counter.where().result()[0] for counter in counters}
        assert pids == {client.submit(os.getpid, workers=[second], pure=False).result()}
        assert pids != {client.submit(os.getpid, workers=[first], pure=False).result()}
        many = client.map(Counter, range(3), actor=True, resources={"GPU": 1})
        assert [counter.n for counter in client.gather(many)] == [0, 1, 2], "it keeps no resources"


def test_collections_with_actors(run):
    async def case(client, got):
        counter = dask.delayed(Counter)(5)
        actor = await got(client.compute(counter, actors=True).result())
        assert await got(actor.add().result()) == 6
        persisted = client.persist(dask.delayed(Counter)(7), actors=True)
        assert await got(client.compute(use_delayed(persisted)).result()) == 8
        other = dask.delayed(Counter)(8)
        values = client.compute([other, dask.delayed(inc)(1)], actors={other: True})
        actor, two = [await got(value.result()) for value in values]
        assert (await got(actor.n), two) == (8, 2)
        futures = client.get({"a": (Counter, 1), "b": (inc, 1)}, ["a", "b"], sync=False, actors={"a": True})
        actor, two = [await got(future.result()) for future in futures]
        assert (await got(actor.n), two) == (1, 2)

    run(case)


def use_delayed(counter):
    return dask.delayed(use)(counter, 1)


def test_options_that_are_none(client):
    with pytest.raises(TypeError, match="actor is True or False, not 'yes'"):
        client.submit(Counter, actor="yes")
    with pytest.raises(TypeError, match="actors is True or False"):
        client.map(Counter, [1], actors=2)


def test_other_clients_share_an_actor(client, cluster):
    counter = client.submit(Counter, key="shared", actor=True).result()
    client.publish_dataset(shared=counter)
    with Client(cluster, set_as_default=False) as other:
        same = other.get_dataset("shared")
        assert same == counter
        assert same.client is other
        assert same.key == counter.key == "shared"
        assert same.add(2).result() == 2
        moved = pickle.loads(pickle.dumps(counter))
        assert moved.add(1).result() == 3
        assert other.submit(use, counter, 1).result() == 4
    client.unpublish_dataset("shared")
    assert counter.add(1).result() == 5


def test_calls_of_several_callers_interleave_and_never_run_at_once(client, cluster):
    lonely = client.submit(Lonely, actor=True).result()
    futures = [client.submit(call_often, lonely, name, pure=False) for name in "ab"]
    threads = [threading.Thread(target=call_often, args=(lonely, name)) for name in "cd"]
    for thread in threads:
        thread.start()
    client.gather(futures)
    for thread in threads:
        thread.join()
    seen = lonely.seen
    for name in "abcd":
        assert [number for each, number in seen if each == name] == list(range(50))
    assert not lonely.overlapped


class Lonely:
    """Sees whether two calls run at once."""

    def __init__(self):
        self.seen = []
        self.inside = False
        self.overlapped = False

    def enter(self, name, number):
        self.overlapped |= self.inside
        self.inside = True
        time.sleep(0.0002)
        self.seen.append((name, number))
        self.inside = False


def call_often(lonely, name):
    for future in [lonely.enter(name, number) for number in range(50)]:
        future.result()


def test_a_blocking_client_waits_for_room_and_an_asynchronous_one_keeps_calls(run_outside_of_tasks, tmp_path):
    path = str(tmp_path / "go")

    async def case(client, got):
        holder = await made(client, got, Holder)
        holder.run(gate, path)
        opener = threading.Timer(0.2, lambda: open(path, "w").close())
        opener.start()
        futures = [holder.give_back(number) for number in range(MAX_CALLS + 500)]
        assert [await got(future.result()) for future in futures] == list(range(MAX_CALLS + 500))
        opener.join()
        os.unlink(path)

    run_outside_of_tasks(case)


def test_what_is_not_small_travels_in_each_way(run):
    async def case(client, got):
        holder = await made(client, got, Holder)
        for nbytes in (100, 50_000, 120_000, 300_000):
            array = np.arange(nbytes // 8)
            back = await got(holder.give_back(array).result())
            assert (back == array).all()
            many = [holder.give_back(array) for _ in range(20)]
            assert all([(await got(each.result()) == array).all() for each in many])

    run(case)


def lose(object_id):
    worker = current_worker()
    worker.store.delete([ObjectID(object_id)])
    worker.store.flush()


def test_an_argument_that_is_lost_is_made_again_and_the_order_of_calls_stays(client):
    counter = client.submit(Counter, actor=True).result()
    array = client.submit(np.ones, 100_000, pure=False)
    array.result()
    client.submit(lose, bytes(array.object_id), pure=False).result()
    counter.note(client.submit(inc, 1))
    counter.note(array)
    counter.note("later")
    seen = counter.notes().result(timeout=30)
    assert [type(each).__name__ for each in seen] == ["int", "ndarray", "str"]
    assert seen[1].sum() == 100_000


def gives_a_handle():
    return get_client().submit(Counter, actor=True).result()


def test_a_handle_is_the_result_of_a_task(client):
    future = client.submit(gives_a_handle)
    counter = future.result()
    del future
    assert counter.add().result() == 1


def test_handles_lie_in_queues_variables_and_data(run):
    async def case(client, got):
        counter = await made(client, got, Counter)
        queue, variable = Queue("handles", client=client), Variable("handle", client=client)
        await got(queue.put(counter))
        await got(variable.set(counter))
        assert await got((await got(queue.get())).add().result()) == 1
        del counter
        kept = await got(variable.get())
        assert await got(kept.add().result()) == 2
        future = (await got(client.scatter({"handles": [kept]})))["handles"]
        del kept
        await got(variable.delete())
        ((again),) = await got(future.result())
        assert await got(again.add().result()) == 3

    run(case)


def test_an_actor_on_another_host_is_given_large_data(two_hosts):
    with Client(two_hosts, set_as_default=False) as client:
        workers = list(client.scheduler_info()["workers"])
        holders = [client.submit(Holder, actor=True, workers=[worker]).result() for worker in workers]
        array = np.arange(500_000.0)
        for holder in holders:
            assert (holder.give_back(array).result() == array).all()
            made = client.submit(np.ones, 500_000, workers=[workers[0]], pure=False)
            assert holder.give_back(made).result().sum() == 500_000


def test_reprs(client):
    counter = client.submit(Counter, key="mine", actor=True).result()
    assert repr(counter) == "<Actor: Counter, key: 'mine'>"
    future = counter.add()
    future.result()
    assert repr(future) == "<ActorFuture: finished, Counter.add>"
    assert repr(counter.add) == "<method add of <Actor: Counter, key: 'mine'>>"
    assert {"add", "where", "key"} <= set(dir(counter))
    assert hash(counter) == hash(client.submit(Counter, key="mine", actor=True).result())


def test_handles_from_a_closed_client_say_so(cluster):
    with Client(cluster, set_as_default=False) as client:
        counter = client.submit(Counter, actor=True).result()
        holder = client.submit(Holder, actor=True).result()
        pending = holder.run(time.sleep, 5)
    with pytest.raises(OSError, match="closed"):
        pending.result()
    with pytest.raises(OSError, match="closed"):
        counter.add()
