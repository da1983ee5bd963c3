"""Processes of a cluster are killed at random while it works: no result is wrong, nothing hangs, and work goes on.

Workers, page makers, fork servers and node agents of two hosts get SIGKILL. Three threads keep two clients busy, and
know what has to come out. What was scattered may be lost with its host, and only as an error that names it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable

import dask
import numpy as np
import psutil
import pytest
from campaign import Campaign
from pausing import processes_of
from waiting import until

from holdfast import Client, LocalCluster, ObjectLostError
from holdfast.cluster.processes import restarts

HOSTS, WORKERS = 2, 4
#: Of the kinds of processes, how often each is killed.
WEIGHTS = {"worker": 10, "page maker": 2, "fork server": 1, "node": 3}
#: And the module that each kind is shown to run.
MODULES = {"worker": "worker", "page maker": "node.page_maker", "fork server": "processes.fork_server", "node": "node"}
PATIENCE_SECONDS = 90.0
KEPT = 5


def square(x):
    return x * x


def fill(number):
    return np.full(50_000, number)


def total(arrays):
    return int(sum(int(array.sum()) for array in arrays))


class Load:
    """What one thread asks of a cluster, again and again, until it is told to stop."""

    def __init__(self, client: Client, campaign: Campaign, number: int) -> None:
        self.checked = 0
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self._client = client
        self._seed = campaign.random.randrange(1 << 30)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"load-{number}")

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        draw = np.random.default_rng(self._seed)
        operations: list[Callable[[int], bool]] = [
            self._submit, self._map, self._tree, self._persist, self._scatter, self._dataset,
        ]  # fmt: skip
        while not self._stop.is_set():
            operation = operations[draw.integers(len(operations))]
            number = int(draw.integers(1 << 20))
            try:
                right = operation(number)
            except TimeoutError:
                self._fail("hung", operation, number, "")
            except Exception as error:
                self._fail("wrong", operation, number, f"{type(error).__name__}: {error}")
            else:
                if not right:
                    self._fail("wrong", operation, number, "another value")
            self.counts["checked"] += 1
            self.checked += 1

    def _fail(self, how: str, operation: Callable[[int], bool], number: int, why: str) -> None:
        self.counts[how] += 1
        self.failures.append(f"{how}: {operation.__name__}({number}) {why}")

    def _submit(self, number: int) -> bool:
        return self._client.submit(square, number, pure=False).result(PATIENCE_SECONDS) == number * number

    def _map(self, number: int) -> bool:
        futures = self._client.map(square, range(number, number + 30), pure=False)
        return self._gather(futures) == [n * n for n in range(number, number + 30)]

    def _tree(self, number: int) -> bool:
        """Large results, read on whatever host, and read again by this client."""
        arrays = self._client.map(fill, range(number, number + 4), pure=False)
        sums = [self._client.submit(total, arrays[i : i + 2], pure=False) for i in (0, 2)]
        expected = [50_000 * (2 * number + 1), 50_000 * (2 * number + 5)]
        values = self._gather(arrays)
        return self._gather(sums) == expected and all((v == number + i).all() for i, v in enumerate(values))

    def _persist(self, number: int) -> bool:
        parts = [dask.delayed(fill, pure=False)(number + i) for i in range(4)]
        (whole,) = self._client.persist([dask.delayed(total, pure=False)(parts)])
        return self._client.compute(whole).result(PATIENCE_SECONDS) == 50_000 * (4 * number + 6)

    def _scatter(self, number: int) -> bool:
        data = np.arange(number, number + 20_000)
        future = self._client.scatter(data, hash=False)
        try:
            there = self._client.submit(np.sum, future, pure=False).result(PATIENCE_SECONDS)
            return there == data.sum() and np.array_equal(future.result(PATIENCE_SECONDS), data)
        except ObjectLostError as error:
            self.counts["lost"] += 1
            return future.key in str(error)

    def _dataset(self, number: int) -> bool:
        values = self._gather(self._client.get_dataset("kept"))
        return len(values) == KEPT and all((value == i).all() for i, value in enumerate(values))

    def _gather(self, futures):
        """Their values, waited for no longer than is patient."""
        return [future.result(PATIENCE_SECONDS) for future in futures]


def processes(cluster, kind):
    """The cluster's processes of a kind, started by the cluster or by the test."""
    mark = f"-m holdfast.cluster.{MODULES[kind]} "
    found = []
    for pid in sorted(processes_of(cluster)):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if mark in " ".join([*process.cmdline(), ""]):
                found.append(process)
    return found


def test_whatever_is_killed_work_goes_on(monkeypatch):
    monkeypatch.setattr(restarts, "MAX_PAUSE_SECONDS", 1.0)
    with (
        Campaign("kills", share=0.7) as campaign,
        LocalCluster(WORKERS, 1, n_hosts=HOSTS, object_store_memory="96 MB", silence_logs=logging.CRITICAL) as cluster,
        Client(cluster) as client,
        Client(cluster, attach=False, set_as_default=False) as remote,
    ):
        kept = client.map(fill, range(KEPT), pure=False)
        client.publish_dataset(kept, name="kept")
        with contextlib.ExitStack() as stack:
            loads = [stack.enter_context(Load(c, campaign, n)) for n, c in enumerate((client, client, remote))]
            while campaign.goes_on():
                for _ in range(campaign.random.choice((1, 1, 1, 2, 4))):
                    kill_one(cluster, campaign)
                before = [load.checked for load in loads]
                until(
                    lambda before=before: all(load.checked > n for load, n in zip(loads, before, strict=True)),
                    "work goes on",
                    2 * PATIENCE_SECONDS,
                )
                if failures := [failure for load in loads for failure in load.failures]:
                    pytest.fail("\n".join(failures))
        campaign.counts.update({"checked": 0, "wrong": 0, "hung": 0})
        for load in loads:
            campaign.counts.update(load.counts)
        assert not campaign.counts["wrong"]
        assert not campaign.counts["hung"]
        until(lambda: is_whole(cluster.describe()), "all hosts and workers are there again", PATIENCE_SECONDS)
        assert all((value == i).all() for i, value in enumerate(client.gather(kept)))
        del kept
        client.unpublish_dataset("kept")
        until(lambda: is_empty(cluster.describe()), "nothing is left of what was done")


def kill_one(cluster, campaign):
    (kind,) = campaign.random.choices(list(WEIGHTS), WEIGHTS.values())
    if there := processes(cluster, kind):
        campaign.random.choice(there).kill()
        campaign.counts[f"{kind}s killed"] += 1


def is_whole(status):
    nodes = status["nodes"].values()
    return len(nodes) == HOSTS and sum(len(node["workers"]) for node in nodes) == WORKERS and not status["restarting"]


def is_empty(status):
    return not status["tasks"] and not any(node["store"].get("objects", 1) for node in status["nodes"].values())
