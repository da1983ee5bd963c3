"""A cluster whose connections are cut: proxies stand between the scheduler and its peers, and between the stores."""

from __future__ import annotations

import random
import threading
from collections import Counter

import pytest
from cutting_proxy import CuttingProxy

from holdfast import LocalCluster
from holdfast.cluster.comm.loops import LoopThread
from holdfast.cluster.node import NodeAgent
from holdfast.cluster.transfer import pool

#: A connection with the scheduler lives for so many bytes, and one between stores.
SCHEDULER_NBYTES = (500, 16_000)
STORE_NBYTES = (10_000, 3_000_000)


class World:
    """A cluster of two hosts, of which the far one and the client are behind proxies.

    Parameters
    ----------
    chance
        Decides the fates of connections.
    cluster
        The near host.
    monkeypatch
        Puts proxies before the stores.
    scheduler_nbytes
        How many bytes a connection with the scheduler lives for; None: until the test cuts it.
    """

    def __init__(
        self,
        chance: random.Random,
        cluster: LocalCluster,
        monkeypatch: pytest.MonkeyPatch,
        scheduler_nbytes: tuple[int, int] | None = SCHEDULER_NBYTES,
    ) -> None:
        self._chance = chance
        self.cluster = cluster
        self.links = {
            name: CuttingProxy(cluster.scheduler_address, chance, scheduler_nbytes) for name in ("client", "node")
        }
        self._stores: dict[str, CuttingProxy] = {}
        self._lock = threading.Lock()
        self._connect = pool.connect_blocking
        monkeypatch.setattr(pool, "connect_blocking", self._connect_by_proxy)

    def __enter__(self) -> World:
        for link in self.links.values():
            link.__enter__()
        self._thread = LoopThread("the far host")
        self.agent = NodeAgent(
            self.links["node"].address,
            token=self.cluster.token,
            n_workers=2,
            store_capacity=256 << 20,
            name="far",
        )
        self._thread.run(self.agent.start(), timeout=60)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.calm()
        self._thread.run(self.agent.close(), timeout=30)
        self._thread.close()
        for link in [*self.links.values(), *self._stores.values()]:
            link.__exit__(None, None, None)

    def calm(self) -> None:
        """Cut nothing more."""
        for link in [*self.links.values(), *self._stores.values()]:
            link.calm()

    @property
    def cuts(self) -> Counter[str]:
        cuts: Counter[str] = Counter()
        for name, link in self.links.items():
            cuts[f"cuts of a {name}'s"] += sum(link.cuts.values())
        for link in self._stores.values():
            cuts["cuts between stores"] += sum(link.cuts.values())
        return cuts

    def _connect_by_proxy(self, address, **options):
        with self._lock:
            link = self._stores.get(address)
            if link is None:
                link = self._stores[address] = CuttingProxy(address, self._chance, STORE_NBYTES)
                link.__enter__()
        return self._connect(link.address, **options)
