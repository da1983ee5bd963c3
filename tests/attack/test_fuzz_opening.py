"""A stranger, which hasn't proved anything, says anything at all, to the scheduler's port and to a node's."""

from __future__ import annotations

import random
import socket
import struct

import pytest
from campaign import Campaign
from innocents import Innocents
from messages import Maker

from holdfast import LocalCluster
from holdfast.cluster.comm import frames
from holdfast.cluster.comm.addresses import parse_address
from holdfast.cluster.comm.strangers import GREETING
from holdfast.cluster.protocol.opening import HELLO, MAGIC, PROTOCOL_VERSION, ROLES

PATIENCE_SECONDS = 30.0


@pytest.fixture
def cluster():
    with LocalCluster(n_workers=2, threads_per_worker=1, object_store_memory="64 MB") as cluster:
        yield cluster


def anything(chance: random.Random, depth: int = 0):
    """A value of MessagePack's."""
    kinds = [None, True, -1, 1 << 63, 0.5, float("nan"), "", "hello", MAGIC, "x" * 5000, b"", chance.randbytes(32), ()]
    if depth < 4:
        kinds.append([anything(chance, depth + 1) for _ in range(chance.randrange(6))])
        kinds.append({str(anything(chance, 9))[:9]: anything(chance, depth + 1) for _ in range(chance.randrange(4))})
    return chance.choice(kinds)


def hello(chance: random.Random):
    """A hello in which something may be wrong, the proof always is."""
    role = chance.choice(list(ROLES))
    right = {"hello.magic": MAGIC, "hello.protocol": PROTOCOL_VERSION, "hello.role": role}
    maker = Maker(chance, right.get)
    parts = [*maker.message(HELLO)[:-1], maker.value(ROLES[role].info, role)]
    for _ in range(chance.randrange(3)):
        where = chance.randrange(len(parts) + 1)
        choice = chance.randrange(3)
        if choice == 0:
            parts[where : where + 1] = [anything(chance)]
        elif choice == 1:
            parts.insert(where, anything(chance))
        else:
            del parts[where : where + 1]
    return parts


def stream(chance: random.Random) -> bytes:
    """What a stranger sends that is not one of us, or not quite."""
    packed = b"".join(map(bytes, frames.pack([hello(chance)])))
    choice = chance.randrange(7)
    if choice == 0:
        return chance.randbytes(chance.randrange(1, 3000))
    if choice == 1:
        return struct.pack("<II", chance.choice((0, 1, 1 << 16, 1 << 31)), chance.choice((0, 1, 1 << 16, 1 << 31)))
    if choice == 2:
        return packed[: chance.randrange(len(packed))]
    if choice == 3:
        damaged = bytearray(packed)
        for _ in range(chance.randrange(1, 6)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        return bytes(damaged)
    if choice == 4:
        many = [[anything(chance)] if chance.random() < 0.3 else hello(chance) for _ in range(3)]
        return b"".join(map(bytes, frames.pack(many)))
    return packed


def test_what_is_said_before_the_opening_costs_nobody_anything(cluster):
    with (
        Campaign("fuzzing before the opening", share=0.2) as campaign,
        Innocents(cluster, campaign.counts) as innocents,
    ):
        targets = [cluster.scheduler_address, *innocents.nodes]
        while campaign.goes_on() and not innocents.failed:
            chance = campaign.random
            with socket.create_connection(parse_address(chance.choice(targets)), PATIENCE_SECONDS) as sock:
                try:
                    if chance.random() < 0.8:
                        sock.sendall(GREETING)
                        assert sock.recv(1000)  # its hello
                    sock.sendall(stream(chance))
                    sock.shutdown(socket.SHUT_WR)
                    while sock.recv(1 << 16):
                        pass
                    campaign.counts["refused"] += 1
                except OSError:  # the other end has hung up already
                    campaign.counts["refused"] += 1
            campaign.counts["connections"] += 1
    assert campaign.counts["refused"] == campaign.counts["connections"] > 0
    assert campaign.counts["innocent operations checked"] > 0
