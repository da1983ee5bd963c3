"""The books of a cluster at rest: what its stores have, what its scheduler has, and what is left of it in the end."""

from __future__ import annotations

from typing import Any

from holdfast import Client, LocalCluster, Queue, Semaphore, Variable
from holdfast.objectstore import connect
from holdfast.objectstore.durable.opening import open_place
from holdfast.objectstore.durable.sweeping import sweep
from tests.chaos.operations import COUNTER, LIMIT, LIMITED, QUEUE, SHARED

#: More objects than a run ever has at once.
_MANY = 100_000


def unlike(cluster: LocalCluster, client: Client) -> list[str]:
    """Where the stores and the scheduler differ about what lies where."""
    named = {
        (place["node"], each["object_id"]): f"{each['key']} ({each['nbytes']:,} bytes)"
        for each in client.memory(limit=_MANY).objects
        for place in each["places"]
    }
    there: dict[tuple[str, str], str] = {}
    for node in cluster.nodes:
        with connect(node["store_socket"]) as store:
            for each in store.list():
                there[node["address"], each["id"]] = f"{each['key']} ({each['nbytes']:,} bytes), {each['state']}"
    words = [f"only in the store of {node}: {id} {there[node, id]}" for node, id in there.keys() - named.keys()]
    words += [f"only with the scheduler, at {node}: {id} {named[node, id]}" for node, id in named.keys() - there.keys()]
    return sorted(words)


def is_whole(status: dict[str, Any], hosts: int, workers: int) -> bool:
    """Whether all hosts and workers are there, and none is on its way."""
    nodes = status["nodes"].values()
    return len(nodes) == hosts and sum(len(node["workers"]) for node in nodes) == workers and not status["restarting"]


def clear(client: Client) -> None:
    """Let go of all that has a name in the cluster."""
    if names := list(client.list_datasets()):
        client.unpublish_dataset(*names)
    Queue(QUEUE, client=client).close()
    Semaphore(LIMIT, LIMITED, client=client).close()
    for name in (COUNTER, SHARED):
        Variable(name, client=client).delete()


#: Of a store: what has to be 0 when nothing holds anything.
_NOTHING = (
    *("objects", "object_nbytes", "shared_nbytes", "spilled", "spilled_nbytes", "spill_file_nbytes"),
    *("deleted_but_pinned", "reserved", "pins", "waiting_creates", "waiting_gets", "fetches", "quarantined"),
)


def still_there(status: dict[str, Any]) -> list[str]:
    """What a cluster has that should have nothing: tasks, datasets, waits, and bytes that no lease explains."""
    words = [f"{name}: {status[name]}" for name in ("tasks", "datasets", "waits") if status[name]]
    if failures := status["scheduler"]["failures"]:
        words.append(f"the scheduler has failed at {failures} messages; see its log")
    for address, node in status["nodes"].items():
        store = node["store"]
        words += [f"{address}: {name} is {store[name]}" for name in _NOTHING if store.get(name, "not known")]
        if (used := store.get("used", 0)) != (leased := store.get("leased_nbytes", 0)):
            words.append(f"{address}: {used:,} bytes are used, of which {leased:,} are leased to processes")
    return words


def durable_left(place: str) -> list[str]:
    """What lies in a place for durable datasets after a sweep, when all are unpublished."""
    opened = open_place(place)
    swept = sweep(opened)
    words = [f"the publication {publication} is not over" for publication in swept.held_up_by]
    for folder in ("datasets", "objects", "writers", "sweeping"):
        words += [f"{folder}/{name}" for name in opened.names(folder)]
    return words
