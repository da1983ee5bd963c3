"""Objects by their ids, also between clients, and arrays that are filled in the store: with each kind of client."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from holdfast import Client, ObjectNotFoundError, StoreError, StoreFullError
from holdfast.objectstore import ObjectID

VALUES = [None, 7, "text", [1, [2, 3]], {"a": (1, 2)}, np.arange(100_000)]


def is_equal(one, other):
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


def test_what_was_put_is_got_by_its_id(run):
    async def case(client, got):
        ids = [await got(client.put(value)) for value in VALUES]
        assert len(set(ids)) == len(VALUES)
        for object_id, value in zip(ids, VALUES, strict=True):
            assert isinstance(object_id, ObjectID)
            assert pickle.loads(pickle.dumps(object_id)) == object_id
            for given in (object_id, bytes(object_id), str(object_id)):
                assert is_equal(await got(client.get_object(given)), value)
        all_of_them = await got(client.get_object(ids))
        assert all(map(is_equal, all_of_them, VALUES))
        client.free(ids[0])
        client.free(ids[1:])
        with pytest.raises(ValueError, match="does not hold object"):
            client.free(ids[0])

    run(case)


def test_another_client_gets_it_until_it_is_freed(cluster, client, eventually):
    with Client(cluster, set_as_default=False, attach=False) as other:
        object_id = client.put({"data": np.arange(100_000)})
        assert other.get_object(str(object_id))["data"].sum() == 4999950000
        with pytest.raises(ValueError, match="the client that has put it frees it"):
            other.free(object_id)
        client.free(object_id)

        def is_gone():
            try:
                other.get_object(object_id)
            except ObjectNotFoundError:
                return True
            return False

        eventually(is_gone, what="nobody holds it")


def test_it_goes_with_the_client_that_has_put_it(cluster, client, eventually):
    with Client(cluster, set_as_default=False) as other:
        object_id = other.put(np.arange(100_000))
        assert client.get_object(object_id).sum() == 4999950000

    def is_gone():
        try:
            client.get_object(object_id)
        except ObjectNotFoundError:
            return True
        return False

    eventually(is_gone, what="nobody holds it")


def test_futures_inside_live_as_long(run):
    async def case(client, got):
        object_id = await got(client.put({"inner": client.submit(abs, -7, pure=False)}))
        inner = (await got(client.get_object(object_id)))["inner"]
        assert await got(client.gather(inner)) == 7
        client.free(object_id)

    run(case)


def test_a_result_that_is_there_has_an_id_too(client):
    future = client.submit(np.arange, 1_000, pure=False)
    assert future.result().size == 1_000
    object_id = future._state.location.object_id
    assert client.get_object(object_id).size == 1_000


def test_wrong_ids(run):
    async def case(client, got):
        with pytest.raises(ObjectNotFoundError, match="it was freed, or never put"):
            await got(client.get_object(bytes(16)))
        for wrong in ("xyz", b"short", 7, None, "00"):
            with pytest.raises(ValueError, match="the id of an object is sixteen bytes"):
                await got(client.get_object(wrong))

    run(case)


def test_an_array_is_filled_in_the_store(run):
    async def case(client, got):
        created = await got(client.create((300, 1_000), "int64"))
        assert "being filled" in repr(created)
        with created as array:
            array[:] = np.arange(300_000).reshape(300, 1_000)
        assert not array.flags.writeable
        assert await got(client.gather(client.submit(np.sum, created.future, pure=False))) == 44999850000
        read = await got(client.gather(created.future, writable=False))
        assert client.store.address_in_arena(read.__array_interface__["data"][0]), "it is read in place"
        assert np.array_equal(read, array)
        sealed = await got(client.create(3))
        sealed.array[:] = 1.0
        assert (await got(client.gather(sealed.seal()))).tolist() == [1.0, 1.0, 1.0]
        with pytest.raises(StoreError, match="sealed or aborted before"):
            sealed.seal()
        given_up = await got(client.create(3))
        with pytest.raises(ZeroDivisionError), given_up:
            raise ZeroDivisionError
        assert given_up.future is None
        with pytest.raises(ValueError, match="more than its memory"):
            await got(client.create(3, object))
        with pytest.raises(StoreFullError, match="there is no room for data of this client"):
            await got(client.create(1 << 30, timeout=0))

    run(case)


def test_without_a_store_of_this_host(remote):
    with pytest.raises(StoreError, match=r"no object store on its host.*Client\.put"):
        remote.create(3)
    object_id = remote.put(np.arange(100_000))
    assert remote.get_object(object_id).sum() == 4999950000
