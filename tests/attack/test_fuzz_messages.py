"""Peers that have the token and say what they shouldn't: messages from the tables, with mistakes, and raw frames."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest
from campaign import Campaign
from innocents import Innocents
from speaking import Speaker

from holdfast import LocalCluster
from holdfast.cluster.comm import frames
from holdfast.cluster.comm.blocking import connect_blocking
from holdfast.cluster.errors import ConnectError
from holdfast.cluster.protocol.opening import ROLES
from holdfast.cluster.protocol.requests import RESTART, SHUTDOWN
from holdfast.cluster.protocol.vocabularies import VOCABULARIES

#: By role: what a peer may say to the scheduler.
SAID = {role: spoken for spoken in VOCABULARIES if (role := spoken.speaker.removeprefix("a ")) in ROLES}
PATIENCE_SECONDS = 30.0


@pytest.fixture
def cluster():
    with LocalCluster(n_workers=2, threads_per_worker=1, object_store_memory="64 MB") as cluster:
        yield cluster


class Attacker(Speaker):
    """Makes messages as one of a role would send them.

    It never has the cluster shut down or restarted, and what it is right in concerns its own keys, objects and workers.
    """

    def __init__(self, role: str, chance: random.Random) -> None:
        self.role = role
        self.number = 0
        self.node = ""
        super().__init__(SAID[role], chance, self._choose, avoids=[RESTART, SHUTDOWN])

    def _choose(self, path: str):
        if path in ("worker.node", "node.address"):
            return self.node
        if path in ("worker.address", "exited.worker", "revoked.worker"):
            return f"{self.node}/{self.number}"
        if path == "client.id":
            return f"client-of-chance-{self.number}"
        if path.endswith(("seconds", "timeout")):
            return self.maker.chance.uniform(0, 1)
        return None

    def info(self):
        self.number += 1
        return self.maker.value(ROLES[self.role].info, self.role)


def rounds(attacker: Attacker, chance: random.Random) -> Iterator[bytes]:
    """What one connection says: some of it right, and its last word wrong."""
    for _ in range(chance.randrange(6)):
        yield attacker.right()
    yield attacker.wrong()


@pytest.mark.parametrize("role", SAID)
def test_a_peer_that_says_what_it_should_not_costs_nobody_but_itself(cluster, role):
    with Campaign(f"fuzzing as a {role}", share=0.15) as campaign, Innocents(cluster, campaign.counts) as innocents:
        chance = campaign.random
        attacker = Attacker(role, chance)
        home = None
        number = 0
        while campaign.goes_on() and not innocents.failed:
            number += 1
            attacker.node = f"tcp://127.0.0.1:{1 + number % 1000}"
            if role == "worker" and home is None:
                home = _home(cluster, attacker.node)
            try:
                sock, _ = connect_blocking(
                    cluster.scheduler_address, token=cluster.token, role=role, info=attacker.info(), timeout=10
                )
            except ConnectError:  # its opening was not right in the end: two names that are one, say
                campaign.counts["openings refused"] += 1
                home = _close(home)
                continue
            with sock:
                sock.settimeout(PATIENCE_SECONDS)
                try:
                    for said in rounds(attacker, chance):
                        sock.sendall(said)
                        campaign.counts["messages"] += 1
                    while sock.recv(1 << 20):
                        pass
                except ConnectionError:
                    pass
                campaign.counts["peers refused"] += 1
            home = _close(home)
    assert campaign.counts["peers refused"] > 0
    assert campaign.counts["messages"] < 40 * len(attacker.words) or attacker.drawn.keys() == attacker.words
    assert campaign.counts["innocent operations checked"] > 0


def _home(cluster, node: str) -> socket.socket:
    """A node for workers to belong to."""
    info = {"address": node, "hostname": "home", "capacity": 1, "incarnation": "only"}
    sock, _ = connect_blocking(cluster.scheduler_address, token=cluster.token, role="node", info=info, timeout=10)
    sock.sendall(b"".join(frames.pack([("ready",)])))
    return sock


def _close(sock: socket.socket | None) -> None:
    if sock is not None:
        sock.close()
