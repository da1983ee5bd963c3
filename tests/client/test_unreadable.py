"""A result that can't be unpickled where it's asked for: an error that says which, of what, from where, and why."""

from __future__ import annotations

import asyncio
import operator
import pickle
import sys
import traceback
import types

import numpy as np
import pytest

from holdfast import Client, ConnectError, ObjectNotFoundError, StoreError, UnreadableError
from holdfast.objectstore import DecodeError, StoreServer, connect
from holdfast.objectstore.errors import SpillError, StoreClosedError
from holdfast.objectstore.pickling.outline import name_in

PATIENCE_SECONDS = 30
LARGE = 100_000


def of_a_module_that_is_only_there(nbytes=0):
    """An object of a class that this process can't import."""
    module = types.ModuleType("only_there")
    sys.modules["only_there"] = module
    module.Model = type("Model", (), {"__module__": "only_there"})
    model = module.Model()
    model.weights = np.ones(nbytes, "u1")
    return model


class Picky:
    """Doesn't take back what it has given."""

    def __getstate__(self):
        return {"x": 1}

    def __setstate__(self, state):
        raise LookupError("nothing of the kind")


class OfAStore:
    """Wants something of another store, or of another cluster, when it is unpickled."""

    def __init__(self, error, runs, nbytes):
        self.error = error
        self.pad = np.ones(nbytes, "u1")
        with open(runs, "a") as file:
            file.write("x")

    def __setstate__(self, state):
        raise state["error"]("of another one")


@pytest.mark.parametrize("size", [0, LARGE])
@pytest.mark.parametrize("error", [StoreClosedError, ObjectNotFoundError, SpillError, StoreError, ConnectError])
def test_an_error_like_those_of_a_copy_that_is_gone_is_no_reason_to_look_for_another(client, tmp_path, error, size):
    future = client.submit(OfAStore, error, tmp_path / "runs", size)
    with pytest.raises(UnreadableError, match=f"in this process: {error.__name__}: of another one") as caught:
        future.result(PATIENCE_SECONDS)
    assert type(caught.value.__cause__) is error
    with pytest.raises(UnreadableError, match=f"on the task's worker: {error.__name__}: of another one"):
        client.submit(type, future).result(PATIENCE_SECONDS)
    assert (tmp_path / "runs").read_text() == "x"


@pytest.mark.parametrize("size", [0, LARGE])
@pytest.mark.parametrize("attach", [True, False])
def test_of_a_class_that_can_t_be_imported(cluster, attach, size):
    with Client(cluster, attach=attach, set_as_default=False) as client:
        (address,) = client._core.stores._nodes()
        future = client.submit(of_a_module_that_is_only_there, size, key=f"model-{size}")
        with pytest.raises(UnreadableError) as caught:
            future.result(PATIENCE_SECONDS)
        text = str(caught.value)
        assert f"the result of 'model-{size}'" in text
        assert (address in text) == bool(size)  # a small one rides along
        assert "of the class only_there.Model, can't be unpickled" in text
        assert "ModuleNotFoundError: No module named 'only_there'. The module 'only_there' is where it was made" in text
        assert isinstance(caught.value.__cause__, ModuleNotFoundError)
        assert [frame.name for frame in caught.traceback] == ["test_of_a_class_that_can_t_be_imported"]
        # What is there can still be used where it is.
        assert client.submit(lambda model: model.weights.nbytes, future, workers=None).status in ("pending", "finished")


def test_of_a_class_that_refuses(client):
    future = client.submit(Picky, key="picky")
    with pytest.raises(UnreadableError, match=r"the result of 'picky'.*Picky, can't.*LookupError: nothing of the kind"):
        future.result(PATIENCE_SECONDS)
    with pytest.raises(UnreadableError, match="'picky'") as caught:
        client.gather([future])
    shown = traceback.extract_tb(caught.value.__cause__.__traceback__)
    assert [frame.name for frame in shown] == ["__setstate__"]


class Silent(Exception):
    def __str__(self):
        raise RuntimeError("no words")

    __repr__ = __str__


class Refusing:
    def __init__(self, kind):
        self.kind = kind

    def __setstate__(self, state):
        raise state["kind"]("x" * 100_000)


@pytest.mark.parametrize("kind", [Silent, LookupError])
def test_whatever_a_class_has_to_say(client, kind):
    with pytest.raises(UnreadableError, match=kind.__name__) as caught:
        client.submit(Refusing, kind, key="refusing").result(PATIENCE_SECONDS)
    assert len(str(caught.value)) < 2000
    with pytest.raises(RuntimeError, match=f"arguments of task 'use'.*{kind.__name__}"):
        client.submit(id, Refusing(kind), key="use").result(PATIENCE_SECONDS)


@pytest.mark.parametrize("size", [0, LARGE])
@pytest.mark.parametrize("kind", [asyncio.CancelledError, GeneratorExit, StopIteration, StopAsyncIteration])
def test_what_would_end_an_await_is_a_failure_like_any_other(client, cluster, kind, size):
    """To the loop it would mean that the await was cancelled, and nobody has cancelled anything."""

    class Ending:
        def __init__(self):
            self.pad = np.ones(size, "u1")

        def __setstate__(self, state):
            raise kind

    async def awaited():
        async with Client(cluster, asynchronous=True, set_as_default=False) as client:
            future = client.submit(Ending)
            with pytest.raises(UnreadableError, match=kind.__name__):
                await future
            with pytest.raises(UnreadableError, match=kind.__name__):
                await client.gather([future])
            await client.publish_dataset(ending=Ending())
            with pytest.raises(UnreadableError, match=f"the dataset 'ending'.*{kind.__name__}"):
                await client.get_dataset("ending")
            await client.unpublish_dataset("ending")

    asyncio.run(awaited())
    with pytest.raises(UnreadableError, match=kind.__name__):
        client.submit(Ending).result(PATIENCE_SECONDS)


def test_leaving_out_what_failed_leaves_out_no_result(client):
    futures = [client.submit(operator.truediv, 1, 0), client.submit(abs, -1)]
    assert client.gather(futures, errors="skip") == [1]
    with pytest.raises(UnreadableError, match="'picky'"):
        client.gather([*futures, client.submit(Picky, key="picky")], errors="skip")


def test_in_a_worker_it_is_the_error_of_the_task_that_reads_it(client):
    with pytest.raises(
        UnreadableError, match=r"the result of 'picky', which the task depends on, .* on the task's worker: "
    ) as caught:
        client.submit(id, client.submit(Picky, key="picky")).result(PATIENCE_SECONDS)
    cause = caught.value.__cause__
    assert repr(cause) == "LookupError('nothing of the kind')"
    assert cause.__context__ is None
    assert [frame.name for frame in traceback.extract_tb(cause.__traceback__)] == ["__setstate__"]
    assert "Raised by task 'id-" in caught.value.__notes__[0]


def test_arguments_and_functions_name_the_worker_and_the_way_out(client):
    module = types.ModuleType("only_here")
    exec("class Value: pass\ndef use(x): return x", vars(module))
    sys.modules["only_here"] = module
    try:
        of_argument = client.submit(id, module.Value(), key="of value")
        of_function = client.submit(module.use, 1)
    finally:
        del sys.modules["only_here"]
    with pytest.raises(
        RuntimeError, match=r"arguments of task 'of value' .* The module 'only_here' is where it was made"
    ):
        of_argument.result(PATIENCE_SECONDS)
    with pytest.raises(
        RuntimeError,
        match=r"function 'only_here.use' can't be unpickled on the worker: .* The module 'only_here' is where it was",
    ):
        of_function.result(PATIENCE_SECONDS)


def test_a_dataset_says_which_it_is(client):
    module = types.ModuleType("only_here")
    exec("class Value: pass", vars(module))
    sys.modules["only_here"] = module
    try:
        client.publish_dataset([module.Value()], name="of values")
    finally:
        del sys.modules["only_here"]
    with pytest.raises(UnreadableError, match=r"the dataset 'of values'.* The module 'only_here' is where it was made"):
        client.get_dataset("of values")
    client.unpublish_dataset("of values")


def test_in_the_store():
    with StoreServer(capacity="16 MiB") as server, connect(server.socket_path) as store:
        object_id = store.put([Picky()])
        with pytest.raises(DecodeError, match="an object, of the class list, can't be unpickled") as caught:
            store.get(object_id)
        assert isinstance(caught.value.__cause__, LookupError)


def a_function():
    return 1


def test_what_a_pickle_is_of():
    import cloudpickle

    class Local:
        pass

    def local():
        return local

    assert name_in(pickle.dumps([1])) == "list"
    assert name_in(pickle.dumps(a_function)).endswith(".a_function")
    assert name_in(pickle.dumps(np.float64(1))).endswith("scalar")
    assert name_in(cloudpickle.dumps(local)).endswith("test_what_a_pickle_is_of.<locals>.local")
    assert name_in(cloudpickle.dumps(Local)) == "__main__.Local"
    assert name_in(cloudpickle.dumps(Local())) == "__main__.Local"
    buffers = []
    data = pickle.dumps({"a": np.ones(3)}, protocol=5, buffer_callback=buffers.append)
    assert name_in(data, buffers) == "dict"
    assert name_in(b"no pickle") == name_in(pickle.dumps(bytes(5 << 20))) == ""
