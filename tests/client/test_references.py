"""What keeps an object: each kind of holder, let go of in each order, with the bytes looked for in the store."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import gc
import itertools
import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from holdfast import Client, Future, LocalCluster, Queue, Variable, get_client
from holdfast.cluster.protocol.holders import HOLDERS, as_table
from tests.support.waiting import DEADLINE_SECONDS, until

_numbers = itertools.count()
NBYTES = 100_000


def made(number):
    """Something that is too large to ride along with a message."""
    return np.full(NBYTES, number % 256, dtype="u1")


def name(what):
    """A key that no other test has."""
    return f"{what}-{next(_numbers)}"


class Box:
    """An object that is pickled as it is."""

    def __init__(self, value):
        self.value = value


class Reduced(Box):
    """One that says itself how it is pickled."""

    def __reduce__(self):
        return Reduced, (self.value,)


@dataclasses.dataclass
class Fields:
    value: object


def closure_of(future):
    return lambda: future


#: What a future may be inside of, and how it is taken out.
CONTAINERS = {
    "itself": (lambda future: future, lambda value: value),
    "list": (lambda future: [1, [future]], lambda value: value[1][0]),
    "dict": (lambda future: {"a": {"b": future}}, lambda value: value["a"]["b"]),
    "object": (Box, lambda value: value.value),
    "reduce": (Reduced, lambda value: value.value),
    "dataclass": (Fields, lambda value: value.value),
    "closure": (closure_of, lambda value: value()),
    "partial": (lambda future: functools.partial(closure_of, future), lambda value: value()()),
}


def submits(key, container):
    """A task that submits another one, and gives its future."""
    return CONTAINERS[container][0](get_client().submit(made, 3, key=key))


async def submits_awaiting(key):
    return [get_client().submit(made, 3, key=key)]


def gives_back(box):
    """A task that gives what it was given: the future of another client."""
    return box


def raises_with(box):
    raise ValueError("it has a future", box.value)


class Keeper:
    """An actor."""

    def __init__(self):
        self.kept = None

    def keep(self, box):
        self.kept = box.value

    def give(self):
        return [self.kept]

    def fail(self):
        raise ValueError("it has a future", self.kept)

    def drop(self):
        self.kept = None


async def is_there(client, got, key):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while key not in await got(client.who_has()):
        assert time.monotonic() < deadline, f"{key} is not there"
        await asyncio.sleep(0.005)


async def stays(client, got, key):
    """Something is there, after all that the scheduler had to do."""
    gc.collect()
    for _ in range(3):
        await got(client.submit(int, 7, pure=False).result())
    assert key in await got(client.who_has()), f"{key} was deleted"


async def goes(client, got, key):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while key in await got(client.who_has()):
        assert time.monotonic() < deadline, f"{key} stays: {await got(client.explain(key))}"
        gc.collect()
        await asyncio.sleep(0.005)


async def holders(client, got, key):
    return {each["kind"] for each in (await got(client.explain(key))).holders}


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_result_keeps_the_futures_inside(client, container):
    key = name("inner")
    outer = client.submit(submits, key, container)
    value = outer.result()
    inner = CONTAINERS[container][1](value)
    assert isinstance(inner, Future)
    assert inner.key == key
    assert inner.client is client
    assert inner.result()[0] == 3
    del value, inner
    until(lambda: {each["kind"] for each in client.explain(key).holders} == {"object"}, "only the result keeps it")
    again = CONTAINERS[container][1](outer.result())
    del outer
    assert again.result()[0] == 3
    until(lambda: {each["kind"] for each in client.explain(key).holders} == {"client"}, "only this client keeps it")
    del again
    until(lambda: key not in client.who_has(), "it is gone")


def test_a_result_keeps_the_futures_inside_of_any_kind_of_client(run):
    async def case(client, got):
        key = name("inner")
        outer = client.submit(submits, key, "list")
        _, (inner,) = await got(outer.result())
        assert (await got(inner.result()))[0] == 3
        del inner
        await stays(client, got, key)
        del outer
        await goes(client, got, key)

    run(case)


def test_the_result_of_a_coroutine_keeps_the_futures_inside(run):
    async def case(client, got):
        key = name("inner")
        outer = client.submit(submits_awaiting, key)
        (inner,) = await got(outer.result())
        assert (await got(inner.result()))[0] == 3
        del inner
        await stays(client, got, key)
        del outer
        await goes(client, got, key)

    run(case)


@pytest.mark.parametrize("container", [Box, Reduced, closure_of])
def test_a_borrower_outlives_the_owner(cluster, client, container):
    """A client gives a future to a task whose result contains it, publishes that result, and leaves."""
    key, dataset = name("x"), name("borrowed")
    with Client(cluster, set_as_default=False) as owner:
        x = owner.submit(made, 5, key=key)
        given = owner.submit(gives_back, container(x))
        owner.publish_dataset(**{dataset: given})
        del x, given
    until(lambda: {each["kind"] for each in client.explain(key).holders} == {"object"}, "its owner has left")
    back = client.get_dataset(dataset).result()
    inner = back() if container is closure_of else back.value
    client.unpublish_dataset(dataset)
    assert inner.result()[0] == 5
    del back, inner
    until(lambda: key not in client.who_has(), "it is gone")


def test_a_task_reads_a_future_out_of_a_result_and_keeps_it(run):
    async def case(client, got):
        key = name("inner")
        outer = client.submit(submits, key, "object")
        again = client.submit(gives_back, outer)  # whose result has another future of the same key
        await got(again.result())
        del outer
        await stays(client, got, key)
        box = await got(again.result())
        del again
        assert (await got(box.value.result()))[0] == 3
        del box
        await goes(client, got, key)

    run(case)


def test_stored_data_keeps_the_futures_inside(run):
    async def case(client, got):
        key = name("x")
        x = client.submit(made, 5, key=key)
        scattered = await got(client.scatter(Box([x])))
        del x
        await stays(client, got, key)
        assert await holders(client, got, key) == {"object"}
        box = await got(scattered.result())
        del scattered
        assert (await got(box.value[0].result()))[0] == 5
        del box
        await goes(client, got, key)

    run(case)


def test_an_exception_keeps_the_futures_inside(run):
    async def case(client, got):
        key = name("x")
        x = client.submit(made, 5, key=key)
        failed = client.submit(raises_with, Box(x))
        dependent = client.submit(np.sum, failed)
        error = await got(failed.exception())
        assert error.args[1].key == key
        del x, error, failed
        await stays(client, got, key)
        assert await holders(client, got, key) == {"exception"}
        error = await got(dependent.exception())  # the dependent has failed for it
        del dependent
        assert (await got(error.args[1].result()))[0] == 5
        del error
        await goes(client, got, key)

    run(case)


def test_an_actor_keeps_futures_in_its_state_and_gives_them(run):
    async def case(client, got):
        key = name("x")
        actor = await got(client.submit(Keeper, actor=True, pure=False).result())
        x = client.submit(made, 5, key=key)
        await got(actor.keep(Box(x)).result())
        del x
        await stays(client, got, key)
        (given,) = await got(actor.give().result())
        await got(actor.drop().result())
        assert (await got(given.result()))[0] == 5
        await got(actor.keep(Box(given)).result())
        del given
        with pytest.raises(ValueError, match="it has a future") as raised:
            await got(actor.fail().result())
        await got(actor.drop().result())
        assert (await got(raised.value.args[1].result()))[0] == 5
        del raised
        await got(actor.drop().result())
        await goes(client, got, key)

    run(case)


def keeps_in_its_module(box):
    _kept.append(box.value)


def reads_from_its_module():
    return int(_kept.pop().result()[0])


_kept: list[Future] = []


def test_a_task_keeps_a_future_beyond_its_end(run):
    async def case(client, got):
        (worker, *_) = await got(client.nthreads())
        for _ in range(10):
            key = name("x")
            x = client.submit(made, 5, key=key)
            keeping = client.submit(keeps_in_its_module, Box(x), pure=False, workers=[worker])
            del x  # the task may be the last one that has it
            await got(keeping.result())
            await stays(client, got, key)
            reading = client.submit(reads_from_its_module, pure=False, workers=[worker])
            assert await got(reading.result()) == 5
            await goes(client, got, key)

    run(case)


def test_queues_variables_and_datasets_keep_results_that_contain_futures(run):
    async def case(client, got):
        for kind in ("queue", "variable", "dataset"):
            key, where = name("inner"), name(kind)
            outer = client.submit(submits, key, "list", pure=False)
            await got(outer.result())
            queue, variable = Queue(where, client=client), Variable(where, client=client)
            if kind == "queue":
                await got(queue.put([outer]))
            elif kind == "variable":
                await got(variable.set({"it": outer}))
            else:
                await got(client.publish_dataset(**{where: [outer]}))
            outer_key = outer.key
            del outer
            await stays(client, got, key)
            assert await holders(client, got, outer_key) == {kind}
            assert await holders(client, got, key) == {"object"}
            if kind == "queue":
                (back,) = await got(queue.get())
            elif kind == "variable":
                back = (await got(variable.get()))["it"]
                await got(variable.delete())
            else:
                (back,) = await got(client.get_dataset(where))
                await got(client.unpublish_dataset(where))
            _, (inner,) = await got(back.result())
            del back
            assert (await got(inner.result()))[0] == 3
            del inner
            await goes(client, got, key)

    run(case)


def takes(queue_name, number):
    """Takes items until it has so many, and looks at the futures in them."""
    queue = Queue(queue_name)
    return sum(int(queue.get(timeout=30)[0].result()[0]) for _ in range(number))


def test_what_is_let_go_of_in_the_moment_in_which_another_takes_it_up(client):
    where = name("race")
    queue = Queue(where, client=client)
    taking = [client.submit(takes, where, 50, pure=False) for _ in range(2)]
    for number in range(100):
        future = client.submit(made, 1, key=name(f"raced{number}"))
        queue.put([future])
        del future  # its taker may have it by now, or not
    assert sum(client.gather(taking)) == 100
    until(lambda: not any(str(key).startswith("raced") for key in client.who_has()), "nothing is left")


def contains_itself(key, other):
    """A result that contains a future of another one, which contains one of this."""
    return [Future(other), key]


def test_objects_that_keep_each_other_are_reported_and_can_be_freed(client, cluster):
    one, other = name("one"), name("other")
    futures = [
        client.submit(contains_itself, one, other, key=one),
        client.submit(contains_itself, other, one, key=other),
    ]
    client.gather(futures)
    del futures
    until(lambda: {each["kind"] for each in client.explain(one).holders} == {"object"}, "nothing else keeps it")
    (suspect,) = [each for each in client.memory().suspects if each["suspicion"] == "cycle"]
    assert suspect["objects"] == 2
    assert "client.cancel(Future(key, client), force=True)" in suspect["text"]
    client.cancel(Future(one, client), force=True)
    until(lambda: not {one, other} & set(client.who_has()), "they are gone")


def test_the_table_of_holders_is_that_of_the_documentation():
    page = Path(__file__).parents[2] / "docs" / "how-to" / "lifetimes.md"
    assert as_table() in page.read_text()


def test_explain_has_words_for_each_kind_of_holder(client):
    key = name("x")
    x = client.submit(made, 1, key=key)
    kept = client.scatter(Box(x))
    text = client.explain(key).render()
    assert f"the object {kept.key!r}" in text
    assert {each["kind"] for each in client.explain(key).holders} <= set(HOLDERS)


def test_a_result_with_very_many_futures(client):
    count = 1_200

    def many():
        return get_client().map(int, range(count), pure=False)

    outer = client.submit(many)
    futures = outer.result()
    assert client.gather(futures) == list(range(count))
    keys = [future.key for future in futures]
    del futures
    until(lambda: all(each["kind"] == "object" for each in client.explain(keys[-1]).holders), "the result keeps it")
    assert client.gather(outer.result()) == list(range(count))
    del outer
    until(lambda: not {*keys} & {*client.who_has()}, "they are gone")


def test_a_future_of_another_cluster_is_no_result(client, in_process):
    def foreign(address, token):
        return Client(address, token=token, set_as_default=False).submit(int, 1)

    future = client.submit(foreign, in_process.scheduler_address, in_process.token)
    with pytest.raises(pickle.PicklingError, match="is a result of the cluster at"):
        future.result()


def test_all_of_that_outlives_the_scheduler():
    """Results with futures inside, exceptions, futures that were pickled by hand: the next scheduler keeps them too."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, object_store_memory="64 MiB") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        inner, raised, by_hand = name("inner"), name("raised"), name("by hand")
        outer = client.submit(submits, inner, "list")
        failed = client.submit(raises_with, Box(client.submit(made, 4, key=raised)))
        hand = client.submit(made, 5, key=by_hand)
        client.gather([outer, hand])
        failed.exception()
        with client.as_current():
            data = pickle.dumps(hand)
        del hand
        expected = {inner: {"object"}, raised: {"exception"}, by_hand: {"pickled future"}}
        for key, kinds in expected.items():
            until(lambda key=key, kinds=kinds: {each["kind"] for each in client.explain(key).holders} == kinds, key)
        os.kill(cluster.scheduler_pid, signal.SIGKILL)
        for key, kinds in expected.items():
            assert {each["kind"] for each in client.explain(key).holders} == kinds
        assert outer.result()[1][0].result()[0] == 3
        assert failed.exception().args[1].result()[0] == 4
        with client.as_current():
            assert pickle.loads(data).result()[0] == 5
        del outer, failed
        until(lambda: set(client.who_has()) == {by_hand}, "all but what was pickled is gone")
