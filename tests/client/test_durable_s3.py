"""Durable datasets in S3, which moto's server stands for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask.array as da
import numpy as np
import pytest

from holdfast import Client, DurableError, LocalCluster, ObjectLostError
from holdfast.objectstore.durable import elsewhere
from holdfast.objectstore.durable.catalogue import Catalogue
from holdfast.objectstore.durable.objects import name_of
from holdfast.objectstore.durable.opening import id_of, open_place
from holdfast.objectstore.durable.place import NewFile
from holdfast.objectstore.durable.sweeping import sweep

pytest.importorskip("s3fs")
server = pytest.importorskip("moto.server")

LARGE, SMALL = name_of("a" * 64), name_of("b" * 64)
BUCKET = "s3://published/datasets"


@pytest.fixture(scope="module", autouse=True)
def s3() -> Iterator[Any]:
    """A bucket; processes that are started find it by their environment."""
    import boto3

    with pytest.MonkeyPatch.context() as patch:
        moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        moto.start()
        host, port = moto.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        client = boto3.client("s3")
        client.create_bucket(Bucket="published")
        yield client
        client.close()
        moto.stop()


def a_cluster(**options: Any) -> LocalCluster:
    return LocalCluster(1, 2, durable=BUCKET, object_store_memory="128 MiB", **options)


def test_a_dataset_is_there_in_another_cluster() -> None:
    x = np.random.default_rng(0).random((1100, 1000))  # larger than what one request sends
    with a_cluster() as cluster, Client(cluster) as client:
        client.publish_dataset(
            x=client.persist(da.from_array(x[:, :20], chunks=(1100, 10))), words=["a", "b"], whole=x, durable=True
        )
        assert client.list_datasets(detail=True)["x"]["durable"] == BUCKET
    with a_cluster() as cluster, Client(cluster) as client:
        assert client.list_datasets() == ("whole", "words", "x")
        assert (client.get_dataset("x").compute() == x[:, :20]).all()
        assert (client.get_dataset("whole") == x).all()
        client.unpublish_dataset("whole", "words")
    with a_cluster() as cluster, Client(cluster, attach=False) as client:
        assert client.list_datasets() == ("x",)
        assert client.get_dataset("x")[0, :3].compute().shape == (3,)


def test_a_damaged_object_is_an_error(s3: Any) -> None:
    with a_cluster() as cluster, Client(cluster) as client:
        client.publish_dataset(damaged=client.scatter(np.arange(1000)), durable=True)
    place = open_place(BUCKET)
    catalogue = Catalogue(place)
    found = catalogue.find("damaged")
    assert found is not None
    (entry,) = catalogue.entries(found.dataset)
    place.put([NewFile(name_of(entry.digest), [bytes(entry.nbytes)])])
    with a_cluster() as cluster, Client(cluster) as client, pytest.raises(ObjectLostError, match=entry.digest):
        client.get_dataset("damaged").result()


def test_a_bucket_that_is_not_there() -> None:
    with (
        a_cluster() as cluster,
        Client(cluster) as client,
        pytest.raises(DurableError, match="s3://nosuchbucket/x"),
    ):
        client.publish_dataset(x=1, durable="s3://nosuchbucket/x")


def test_the_place_itself(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elsewhere, "_PART_NBYTES", 5 << 20)
    place = open_place("s3://published/another")
    assert id_of(place) is None
    assert id_of(place, create=True) == id_of(open_place("s3://published/another"))
    chunks = [bytes([n]) * (1 << 20) for n in range(13)]
    place.put([NewFile(LARGE, chunks), NewFile(SMALL, [b"small"])])
    assert place.size(LARGE) == 13 << 20
    assert b"".join(place.chunks(LARGE)) == b"".join(chunks)
    assert place.names("objects") == [LARGE[8:], SMALL[8:]]
    place.delete(LARGE)
    place.delete("objects/never there")
    assert place.read(LARGE) is None
    assert sweep(place).nobjects == 1

    def failing() -> Iterator[bytes]:
        yield bytes(12 << 20)
        raise OSError(5, "the store is gone")

    with pytest.raises(DurableError, match="the store is gone"):
        place.put([NewFile(LARGE, failing())])
    assert place.names("objects") == []
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="published"), "what was sent is not kept"
