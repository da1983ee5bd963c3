"""Another try for what has failed, in every kind of client; and futures of keys that nobody has submitted yet."""

from __future__ import annotations

import os

import dask
import numpy as np
import pytest

from holdfast import CancelledError, Client, Future, as_completed, fire_and_forget, get_client, wait
from tests.support.waiting import until

DEADLINE_SECONDS = 30


def read(path):
    with open(path) as file:
        return file.read()


def longer(text):
    return text + "!"


def test_what_failed_is_computed_again_with_what_made_it_fail(run, tmp_path):
    async def case(client, got):
        path = tmp_path / "file"
        first = client.submit(read, path)
        future = client.submit(longer, first, pure=False)
        other = client.submit(longer, first, pure=False)
        with pytest.raises(FileNotFoundError):
            await got(future.result())
        assert await got(future.retry()) is None
        with pytest.raises(FileNotFoundError):
            await got(future.result())
        path.write_text("hello")
        assert await got(client.retry([future])) is None
        assert await got(future.result()) == "hello!"
        assert await got(other.result()) == "hello!"
        assert await got(first.result()) == "hello"
        path.unlink()

    run(case)


def test_what_has_not_failed_is_left_alone(run):
    async def case(client, got):
        future = client.submit(os.urandom, 8, pure=False)
        value = await got(future.result())
        await got(client.retry([future]))
        assert await got(future.result()) == value
        assert future.done()

    run(case)


def test_a_collection_is_tried_again(client, tmp_path):
    path = tmp_path / "file"
    (persisted,) = dask.persist(dask.delayed(longer)(dask.delayed(read)(path)))
    with pytest.raises(FileNotFoundError):
        persisted.compute()
    path.write_text("hello")
    client.retry(persisted)
    assert persisted.compute() == "hello!"


def test_futures_of_another_client_hear_of_it(client, cluster, tmp_path):
    path = tmp_path / "file"
    with Client(cluster, set_as_default=False) as other:
        mine, others = client.submit(read, path), other.submit(read, path)
        for future in (mine, others):
            with pytest.raises(FileNotFoundError):
                future.result()
        path.write_text("hello")
        client.retry(others)
        assert others.result(DEADLINE_SECONDS) == "hello"
        until(lambda: mine.status == "finished", "the other client hears of it")


def test_what_was_cancelled_or_released_is_not_tried(client):
    future = client.submit(divmod, 1, 0, pure=False)
    wait(future)
    future.release()
    with pytest.raises(CancelledError, match="released"):
        future.retry()
    with pytest.raises(CancelledError, match="released"):
        client.retry(future)


# -- futures by key


def test_a_future_of_a_key_that_the_cluster_knows(run):
    async def case(client, got):
        kept = client.submit(abs, -1, pure=False)
        await got(wait(kept))
        assert await got(Future(kept.key, client).result()) == 1

    run(case)


def test_one_of_a_key_that_nobody_knows_waits_for_it(run, cluster):
    async def case(client, got):
        future = Future("to come", client)
        assert future.status == "pending"
        assert await got(client.nthreads())  # so the scheduler has heard of it
        assert future.status == "pending"
        submitted = client.submit(abs, -7, key="to come")
        assert await got(future.result()) == 7
        assert await got(submitted.result()) == 7
        future.release()
        submitted.release()

    run(case)


def test_or_for_what_another_client_brings(client, cluster):
    pending = [Future("theirs", client), Future("their data", client), Future(("their graph", 0), client)]
    with Client(cluster, set_as_default=False) as other:
        submitted = other.submit(abs, -1, key="theirs")
        scattered = other.scatter({"their data": np.arange(10)})
        graph = other.get({("their graph", 0): (abs, -3)}, ("their graph", 0), sync=False)
        values = [future.result(DEADLINE_SECONDS) for future in pending]
        assert (values[0], values[1].sum(), values[2]) == (1, 45, 3)
        del submitted, scattered, graph


def test_its_own_data_and_its_own_graph_may_have_the_key(client):
    data, node = Future("own data", client), Future("own node", client)
    client.scatter({"own data": [1, 2]})
    assert data.result(DEADLINE_SECONDS) == [1, 2]
    assert client.get({"own node": (abs, -3), "more": (abs, "own node")}, "more") == 3
    assert node.result(DEADLINE_SECONDS) == 3


def test_one_that_is_not_waited_for_any_longer(client):
    future = Future("never", client)
    ac = as_completed([future])
    future.release()
    assert list(ac) == [future]
    again = Future("never", client)
    with pytest.raises(TimeoutError):
        again.result(timeout=0.01)
    again.cancel()
    assert again.cancelled()


def test_what_has_no_effect_is_refused(client):
    with pytest.raises(ValueError, match="the scheduler hears of"):
        Future("x", client, inform=False)
    with pytest.raises(TypeError):
        Future([], client)


def test_the_type_of_a_result(run):
    async def case(client, got):
        small, large = client.submit(abs, -1), client.submit(np.ones, 100_000)
        failed = client.submit(divmod, 1, 0, pure=False)
        assert Future("nothing yet", client).type is None
        await got(wait([small, large, failed]))
        assert (small.type, large.type, failed.type) == (int, np.ndarray, None)
        assert small.executor is client

    run(case)


def test_callbacks_are_called_however_a_future_ends(client, tmp_path):
    ended = []
    futures = {
        "finished": client.submit(abs, -1, pure=False),
        "error": client.submit(divmod, 1, 0, pure=False),
        "cancelled": Future("cancelled one", client),
        "released": Future("released one", client),
    }
    for future in futures.values():
        future.add_done_callback(lambda future: ended.append(future.key))
    futures["cancelled"].cancel()
    futures["released"].release()
    until(lambda: set(ended) == {future.key for future in futures.values()}, "all of them are called")
    assert futures["cancelled"].status == futures["released"].status == "cancelled"


# -- fire and forget


def write(path, text, after=None):
    if after is not None:
        until(after.exists, "the test lets it go on")
    path.write_text(text)


def test_what_is_fired_runs_though_it_is_forgotten(run, tmp_path):
    async def case(client, got):
        first = client.submit(write, tmp_path / "one", "done", tmp_path / "go", pure=False)
        second = client.submit(write, tmp_path / "two", "done", pure=False)
        assert fire_and_forget({"a": [first], "b": (second,)}) is None
        first.release()
        second.release()
        del first, second
        (tmp_path / "go").touch()
        while not ((tmp_path / "one").exists() and (tmp_path / "two").exists()):
            await got(client.nthreads())
        for name in ("one", "two", "go"):
            (tmp_path / name).unlink()

    run(case)


def test_and_though_its_client_is_closed(cluster, tmp_path):
    with Client(cluster, set_as_default=False) as client:
        text = client.submit(longer, "a")
        fire_and_forget(client.submit(write, tmp_path / "one", text, tmp_path / "go", pure=False))
    (tmp_path / "go").touch()
    until(lambda: (tmp_path / "one").exists() and (tmp_path / "one").read_text(), "it runs to its end")
    assert (tmp_path / "one").read_text() == "a!"


def fire_below(path):
    fire_and_forget(get_client().submit(write, path, "from a task", pure=False))


def test_in_a_task(client, tmp_path):
    client.submit(fire_below, tmp_path / "one", pure=False).result(DEADLINE_SECONDS)
    until(lambda: (tmp_path / "one").exists(), "it runs")


def test_what_has_no_futures_is_refused(client):
    with pytest.raises(TypeError, match="takes futures"):
        fire_and_forget(3)
    fire_and_forget([])
    future = client.submit(abs, -1)
    future.release()
    with pytest.raises(CancelledError):
        fire_and_forget(future)
