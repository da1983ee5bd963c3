"""What clients, futures, clusters and datasets show of themselves, in a terminal and in a notebook."""

from __future__ import annotations

import re

import pytest

from holdfast import Client, Future, LocalCluster
from holdfast.cluster.notebook import TEXT_LENGTH_MAX, card


def texts(thing) -> dict[str, str]:
    """The rows of its card."""
    return dict(re.findall(r"<tr><th>(.*?)</th><td>(.*?)</td></tr>", thing._repr_html_()))


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(1, 2, processes=False, object_store_memory="64MB") as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster, name="shown") as client:
        yield client


def test_a_client(client: Client, cluster: LocalCluster) -> None:
    address = cluster.scheduler_address
    assert repr(client) == f"<Client: {address}, hosts: 1, threads: 2>"
    assert texts(client) == {
        "scheduler": address,
        "name": "shown",
        "state": "connected",
        "hosts": "1",
        "threads": "2",
        "object stores": "64.0 MB",
    }
    client.close()
    assert repr(client) == f"<Client: {address}, closed>"
    assert texts(client)["state"] == "closed"


def test_a_future(client: Client) -> None:
    future = client.submit(bytes, 1000, key="<key> & co")
    future.result()
    assert repr(future).startswith("<Future: finished, key: '<key> & co', nbytes: 1,0")
    shown = texts(future)
    assert shown["status"] == "finished"
    assert shown["key"] == "&lt;key&gt; &amp; co"
    assert shown["size"] == "1.0 kB"
    failed = client.submit(int, "x")
    with pytest.raises(ValueError, match="invalid literal"):
        failed.result()
    assert texts(failed) == {"status": "error", "key": str(failed.key)}
    assert repr(failed) == f"<Future: error, key: {failed.key!r}>"


def test_a_future_with_a_very_long_key(client: Client) -> None:
    future = client.submit(int, 1, key="k" * 100_000)
    assert future.result() == 1
    assert isinstance(future, Future)
    assert len(repr(future)) < 300
    assert len(texts(future)["key"]) == TEXT_LENGTH_MAX


def test_a_cluster(cluster: LocalCluster) -> None:
    assert repr(cluster) == f"LocalCluster({cluster.scheduler_address!r}, workers=1, threads=2)"
    assert texts(cluster) == {
        "scheduler": cluster.scheduler_address,
        "state": "running",
        "hosts": "1",
        "workers": "1",
        "scaling": "manual",
        "threads": "2",
        "object stores": "64.0 MB",
    }


def test_a_cluster_that_is_closed() -> None:
    with LocalCluster(1, 1, processes=False, object_store_memory="16MB") as cluster:
        pass
    assert repr(cluster) == "LocalCluster(closed)"
    assert texts(cluster) == {"state": "closed"}


def test_datasets(client: Client) -> None:
    datasets = client.datasets
    assert repr(datasets) == "<Datasets: none>"
    datasets["a"] = client.submit(int, 1)
    datasets["<b>"] = 2
    assert repr(datasets) == "<Datasets: <b>, a>"
    assert texts(datasets) == {"names": "&lt;b&gt;, a"}
    for name in list(datasets):
        del datasets[name]
    client.close()
    assert re.fullmatch("<Datasets: unknown: .*closed.*>", repr(datasets))
    assert texts(datasets)["names"].startswith("unknown: ")


def test_a_card_escapes_what_it_shows() -> None:
    assert card("<t>", {"<n>": "<v>", "no": None}) == (
        "<div><strong>&lt;t&gt;</strong><table><tr><th>&lt;n&gt;</th><td>&lt;v&gt;</td></tr></table></div>"
    )
