"""Futures that a user pickles: into a file, for another process, for nobody."""

from __future__ import annotations

import copy
import functools
import gc
import itertools
import operator
import pickle
import subprocess
import sys

import dask
import numpy as np
import pytest
from dask.tokenize import tokenize

from holdfast import CancelledError, Client, Future
from tests.support.waiting import until

_numbers = itertools.count()


def made(number):
    return np.full(100_000, number, dtype="u1")


def new_key():
    return f"pickled-{next(_numbers)}"


def keepers(client, key):
    return {each["kind"] for each in client.explain(key).holders}


READS = """
import pickle, sys
from holdfast import Client
with Client({address!r}, token={token!r}) as client:
    future = pickle.load(sys.stdin.buffer)
    print(int(future.result().sum()), future.key)
"""


def in_another_process(code, data):
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, timeout=60)
    return done.stdout.decode(), done.stderr.decode()


def test_it_is_read_in_another_process_as_often_as_one_likes(client, cluster):
    key = new_key()
    data = pickle.dumps({"it": [client.submit(made, 2, key=key)]})[:]
    data = pickle.dumps(pickle.loads(data)["it"][0])
    gc.collect()
    until(lambda: keepers(client, key) == {"pickled future"}, "nothing else keeps it")
    code = READS.format(address=cluster.scheduler_address, token=cluster.token)
    for _ in range(2):
        assert in_another_process(code, data) == (f"200000 {key}\n", "")
    future = pickle.loads(data)
    assert future.client is client
    assert future.result()[0] == 2
    assert "a future pickled by hand, until 20" in client.explain(key).render()
    assert "test_pickled_futures.py" in client.explain(key).render()


def test_where_there_is_no_client_it_says_which_to_open(client, cluster):
    data = pickle.dumps(client.submit(made, 2, key=(key := new_key())))
    out, errors = in_another_process("import pickle, sys; pickle.load(sys.stdin.buffer)", data)
    assert not out
    assert f"ValueError: a future of '{key}' is unpickled, and there is no client here" in errors
    assert f"holdfast.Client('{cluster.scheduler_address}')" in errors


def test_a_client_of_another_cluster_says_so_and_one_of_its_own_is_found(client, in_process):
    data = pickle.dumps(client.submit(made, 2, key=new_key()))
    with Client(in_process) as other:
        assert Client.current() is other
        future = pickle.loads(data)  # there are clients of both clusters in this process
        assert future.client is client
        assert future.result()[0] == 2
    code = READS.format(address=in_process.scheduler_address, token=in_process.token)
    _, errors = in_another_process(code, data)
    assert "which is a result of the cluster at" in errors


def test_after_its_time_it_says_why_it_has_no_result(client, cluster, monkeypatch):
    monkeypatch.setenv("HOLDFAST_PICKLED_LEASE", "100 ms")
    key = new_key()
    future = client.submit(made, 2, key=key)
    data = pickle.dumps(future)
    assert pickle.loads(data).result()[0] == 2
    del future
    gc.collect()
    until(lambda: key not in client.who_has(), "the lease is over")
    with pytest.raises(CancelledError, match=rf"'{key}' has no result: .* was kept for 0.1 s"):
        pickle.loads(data).result()


def test_no_lease_and_a_lease_that_is_none(client, monkeypatch):
    future = client.submit(made, 2, key=new_key())
    monkeypatch.setenv("HOLDFAST_PICKLED_LEASE", "0")
    data = pickle.dumps(future)
    assert pickle.loads(data).result()[0] == 2  # this client has it
    monkeypatch.setenv("HOLDFAST_PICKLED_LEASE", "long")
    with pytest.raises(ValueError, match=r"HOLDFAST_PICKLED_LEASE .* '10 min' or 600, and not 'long'"):
        pickle.dumps(future)


def test_in_each_kind_of_client(run):
    async def case(client, got):
        key = new_key()
        with client.as_current():
            data = pickle.dumps(client.submit(made, 4, key=key))
            gc.collect()
            future = pickle.loads(data)
        assert future.key == key
        assert (await got(future.result()))[0] == 4

    run(case)


def pickles(number):
    from holdfast import get_client

    return pickle.dumps(get_client().submit(made, number, pure=False))


def test_a_task_pickles_a_future_by_hand(client):
    future = pickle.loads(client.submit(pickles, 6).result())
    assert future.result()[0] == 6


def test_a_future_that_is_pickled_and_released_is_none(client):
    future = client.submit(made, 2, key=new_key())
    future.release()
    with pytest.raises(CancelledError, match="was released"):
        pickle.dumps(future)


def test_a_copy_is_another_future_and_takes_no_lease(client):
    key = new_key()
    future = client.submit(made, 2, key=key)
    for copied in (copy.copy(future), copy.deepcopy(future), copy.deepcopy([future])[0]):
        assert type(copied) is Future
        assert copied is not future
        assert copied.key == key
    assert keepers(client, key) == {"client"}


def test_tokens_and_graphs_take_no_lease(client):
    key = new_key()
    future = client.submit(made, 2, key=key)
    box = functools.partial(operator.getitem, [future])
    assert tokenize(box) == tokenize(box)
    value = dask.delayed(lambda box: int(box(0).result()[0]))(box)
    assert client.compute(value).result() == 2
    assert keepers(client, key) == {"client"}
