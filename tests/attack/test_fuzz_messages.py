"""Peers that have the token and say what they shouldn't: messages from the tables, with mistakes, and raw frames."""

from __future__ import annotations

import random
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from campaign import Campaign
from innocents import Innocents
from messages import Maker, as_received, wrong_messages

from holdfast import LocalCluster
from holdfast.cluster.comm import frames
from holdfast.cluster.comm.blocking import connect_blocking
from holdfast.cluster.errors import ConnectError, ProtocolError
from holdfast.cluster.protocol.client import REQUEST
from holdfast.cluster.protocol.opening import ROLES
from holdfast.cluster.protocol.requests import REQUESTS, SHUTDOWN
from holdfast.cluster.protocol.vocabularies import VOCABULARIES

#: By role: what a peer may say to the scheduler.
SAID = {spoken.speaker.removeprefix("a "): spoken for spoken in VOCABULARIES if spoken.hearer == "the scheduler"}
PATIENCE_SECONDS = 30.0
ASKED = {request.operation: request for request in REQUESTS}
HARMLESS = [operation for operation, request in ASKED.items() if request is not SHUTDOWN]


@pytest.fixture
def cluster():
    with LocalCluster(n_workers=2, threads_per_worker=1, object_store_memory="64 MB") as cluster:
        yield cluster


class Deck:
    """Gives one of several by chance; but each of them comes up before any comes up again."""

    def __init__(self, choices: Iterable[Any], chance: random.Random) -> None:
        self._choices = list(choices)
        self._chance = chance
        self._left: list[Any] = []

    def draw(self) -> Any:
        if not self._left:
            self._left = self._chance.sample(self._choices, len(self._choices))
        return self._left.pop()


class Attacker:
    """Makes messages as one of a role would send them.

    It never has the cluster shut down, and what it is right in concerns its own keys, objects and workers.
    """

    def __init__(self, role: str, chance: random.Random) -> None:
        self.role = role
        self.chance = chance
        self.number = 0
        self.node = ""
        self.maker = Maker(chance, self._choose)
        self.drawn: Counter[str] = Counter()  # messages and requests that were right
        self._messages = Deck(SAID[role], chance)
        self._requests = Deck(HARMLESS, chance)
        self.mistakes = [
            packed
            for message in SAID[role]
            for _ in range(2)
            for _, wrong in wrong_messages(message, self.maker.message(message))
            if (received := as_received(wrong)) is not None and not _passes(role, received)
            for packed in [b"".join(map(bytes, frames.pack([wrong])))]
            if len(packed) < 100_000 or chance.random() < 0.02
        ]

    def _choose(self, path: str):
        if path == "request.operation":
            return self._requests.draw()
        if path in ("worker.node", "node.address"):
            return self.node
        if path in ("worker.address", "exited.worker", "revoked.worker"):
            return f"{self.node}/{self.number}"
        if path == "client.id":
            return f"client-of-chance-{self.number}"
        if path.endswith(("seconds", "timeout")):
            return self.chance.uniform(0, 1)
        return None

    def info(self):
        self.number += 1
        return self.maker.value(ROLES[self.role].info, self.role)

    def right(self) -> bytes:
        message = self.maker.message(self._messages.draw())
        self.drawn[message[0]] += 1
        if (asked := REQUEST.fields_of(message)) is not None:
            number, operation, _ = asked
            arguments = self.maker.value(ASKED[operation].arguments, operation)
            message = REQUEST(number, operation, arguments)
            self.drawn[operation] += 1
        return b"".join(map(bytes, frames.pack([message])))

    def wrong(self) -> bytes:
        choice = self.chance.randrange(10)
        if choice == 0:
            return b"".join(map(bytes, frames.pack([("nonsense", 1)])))
        if choice == 1:
            return b"\xff" * 8 + self.chance.randbytes(100)
        if choice == 2:
            header = self.chance.choice((b"\xc1", b"\x91\x90", b"\x91\x91\x01", b"\xa1x", b"\x91\x91\xd4\x01\x00"))
            return len(header).to_bytes(4, "little") + bytes(4) + header
        return self.chance.choice(self.mistakes)


def _passes(role: str, message) -> bool:
    try:
        SAID[role].check(message)
    except ProtocolError:
        return False
    return True


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
    words = [message.operation for message in SAID[role]] + (HARMLESS if role == "client" else [])
    assert campaign.counts["messages"] < 40 * len(words) or attacker.drawn.keys() == set(words)
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
