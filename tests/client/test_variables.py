"""Variables between clients and tasks."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import threading

import numpy as np
import pytest

from holdfast import Client, ConnectError, Future, Variable, get_client
from tests.support.interrupts import Interrupt
from tests.support.waiting import until

DEADLINE_SECONDS = 30


class TestInAllKindsOfClients:
    def test_it_is_set_got_and_deleted(self, run):
        async def case(client, got):
            variable = await Variable("plain", client=client)
            with pytest.raises(TimeoutError, match="the variable 'plain' ha"):
                await got(variable.get(timeout="10 ms"))
            for value in (1, None, [1, "x"], {"a": b"x" * 5_000}):
                await got(variable.set(value, timeout="30 s"))
                assert await got(Variable("plain", client=client).get()) == value
                assert await got(variable.get(timeout=0)) == value
            await got(variable.delete())
            await got(variable.delete())
            with pytest.raises(TimeoutError, match="the variable 'plain' has no value"):
                await got(variable.get(timeout=0))
            assert repr(variable) == "<Variable: 'plain'>"
            assert Variable(client=client).name.startswith("variable-")

        run(case)

    def test_futures_are_its_value(self, run):
        async def case(client, got):
            variable = Variable("futures", client=client)
            await got(variable.set(client.submit(pow, 2, 10, pure=False)))
            for _ in range(2):
                taken = await got(variable.get())
                assert isinstance(taken, Future)
                assert taken.client is client
                assert await got(taken.result()) == 1024
            await got(variable.set({"both": [taken, client.submit(pow, 2, 11, pure=False)]}))
            del taken
            assert await got(client.gather((await got(variable.get()))["both"])) == [1024, 2048]
            await got(variable.delete())

        run(case)

    def test_those_that_wait_get_the_value(self, run_outside_of_tasks):
        async def case(client, got):
            variable = Variable("waited for", client=client)
            calls = [variable.get() if client.asynchronous else asyncio.to_thread(variable.get) for _ in range(3)]
            waiting = [asyncio.ensure_future(call) for call in calls]
            await asyncio.to_thread(until, lambda: len(client._core.session._answers) == 3, "they wait")
            await got(variable.set("value"))
            assert await asyncio.gather(*waiting) == ["value"] * 3
            await got(variable.delete())

        run_outside_of_tasks(case)


def test_a_value_is_kept_and_goes_with_its_last_reader(cluster, client, eventually):
    with Client(cluster, set_as_default=False) as gone:
        future = gone.submit(np.ones, 10_000, pure=False)
        key = future.key
        Variable("kept", client=gone).set(future)
    taken = Variable("kept").get()
    assert taken.result().sum() == 10_000
    Variable("kept").set(1)
    assert key in client.who_has()
    del taken
    eventually(lambda: key not in client.who_has(), what="nobody holds it any more")
    Variable("kept").delete()


def test_memory_says_which_variable_holds_it(client):
    from holdfast.cluster.protocol.requests import MEMORY

    variable = Variable("holding")
    future = client.submit(np.ones, 10_000, pure=False)
    future.result()
    variable.set(future)
    key = future.key
    del future

    def holders():
        objects = client._request(MEMORY)["objects"]
        return [[(h["kind"], h["name"]) for h in each["holders"]] for each in objects if each["key"] == key]

    until(lambda: holders() == [[("variable", "'holding'")]], "the variable alone holds it")
    variable.delete()
    until(lambda: not holders(), "it goes with the value")


def test_large_data_lies_in_the_store(client, eventually):
    variable = Variable("large")
    variable.set(np.arange(1_000_000))
    assert variable.get().sum() == 499_999_500_000
    variable.delete()
    eventually(lambda: not client.who_has(), what="nothing is left of it")


def set_from_task(variable, value):
    variable.set(get_client().submit(pow, value, 2))
    return variable


def test_a_task_sets_it_and_another_one_waits_for_it(client):
    variable = Variable("in tasks")
    waiting = client.submit(wait_for, variable, pure=False)
    assert client.submit(set_from_task, variable, 5, pure=False).result().name == "in tasks"
    assert waiting.result(timeout=DEADLINE_SECONDS) == 25
    assert pickle.loads(pickle.dumps(variable)).get().result() == 25
    variable.delete()


def wait_for(variable):
    return variable.get().result()


def test_of_a_closed_client(cluster):
    with Client(cluster, set_as_default=False) as closed:
        variable = Variable("gone", client=closed)
        variable.set(1)
    for call in (lambda: variable.set(1), variable.get):
        with pytest.raises(ConnectError, match="closed"):
            call()
    variable.delete()


def test_what_can_not_be_pickled_is_refused_by_name(client):
    with pytest.raises(TypeError, match="the value of the variable 'refused' can't be pickled"):
        Variable("refused").set(threading.Lock())


def test_an_interrupt_anywhere_leaves_nothing_held(client, eventually):
    variable = Variable("interrupted")
    variable.set(client.submit(pow, 2, 10))
    at = untouched = 0
    while untouched < 3:
        at += 1
        interrupt = Interrupt("holdfast.c", at)
        with contextlib.suppress(KeyboardInterrupt), interrupt.armed():
            assert variable.get().result() == 1024
        untouched += interrupt.where is None
    variable.delete()
    eventually(lambda: not client.who_has(), what="nothing is held any more")
    assert not client._core.session._answers
