"""A scheduler that says what it should not: its client, worker or node parts with it, and nothing else comes of it."""

from __future__ import annotations

import contextlib
import logging
import random

import pytest
from agents import Host
from campaign import Campaign
from scripted_scheduler import TOKEN, ScriptedScheduler
from speaking import Speaker
from waiting import until

from holdfast import Client
from holdfast.cluster.comm.loops import LoopThread
from holdfast.cluster.errors import CancelledError, ConnectError
from holdfast.cluster.node import scheduler_link
from holdfast.cluster.protocol import client, node, worker
from holdfast.cluster.worker import Worker
from holdfast.objectstore import StoreServer

NODE = "tcp://127.0.0.1:1"
#: Of what is right: nothing that takes seconds, no names of hosts to look up, and no pickle by chance.
HARMLESS = {
    "run.runs.payload": b"",
    "run.runs.dependencies": (),
    "functions.functions.blob": b"",
    "copy.objects.nodes": (),
    "parted.pid": 1,
}


@pytest.fixture
def scheduler():
    with ScriptedScheduler() as scheduler:
        yield scheduler


@pytest.fixture(autouse=True)
def _quiet(caplog):
    """Nobody keeps the errors that are logged, and with these what had to be closed."""
    caplog.set_level(logging.CRITICAL, "holdfast")


def tell(scheduler: ScriptedScheduler, peer, speaker: Speaker, chance: random.Random, counts) -> None:
    """Say something to a peer, the last of it wrong; return when the peer has hung up."""
    said = [speaker.right() for _ in range(chance.randrange(8))] + [speaker.wrong()]
    scheduler.send_raw(peer, b"".join(said))
    scheduler.wait(lambda: peer.gone, "it hangs up")
    counts["messages"] += len(said)
    counts["schedulers parted with"] += 1


def all_was_said(speaker: Speaker, campaign: Campaign) -> bool:
    return campaign.counts["messages"] < 40 * len(speaker.words) or speaker.drawn.keys() == speaker.words


@pytest.mark.filterwarnings("ignore::UserWarning")  # which a scheduler says
def test_a_client_fails_what_it_waits_for(scheduler):
    with Campaign("fuzzing a client", share=0.1) as campaign:
        chance = campaign.random
        speaker = Speaker(client.TO_CLIENT, chance, HARMLESS.get, avoids=[client.CLOSING])
        while campaign.goes_on():
            with Client(scheduler.address, token=TOKEN, set_as_default=False) as user:
                peer = scheduler.wait(lambda: scheduler.peers and scheduler.peers[-1], "it connects")
                future = user.submit(abs, -1)
                tell(scheduler, peer, speaker, chance, campaign.counts)
                with pytest.raises((ConnectError, CancelledError)):
                    future.result(20)
            scheduler.peers.clear()
    assert campaign.counts["messages"] > 0
    assert all_was_said(speaker, campaign)


def test_a_worker_ends(scheduler):
    with (
        Campaign("fuzzing a worker", share=0.1) as campaign,
        StoreServer(capacity="16 MiB") as server,
        contextlib.closing(LoopThread("workers")) as thread,
    ):
        chance = campaign.random
        speaker = Speaker(worker.TO_WORKER, chance, HARMLESS.get, avoids=[worker.CLOSE])
        number = 0
        while campaign.goes_on():
            number += 1
            its = {"node_address": NODE, "store_socket": server.socket_path, "index": number, "name": f"host-{number}"}
            one = Worker(scheduler.address, token=TOKEN, **its)
            thread.run(one.start())
            try:
                tell(scheduler, scheduler.peer(one.address), speaker, chance, campaign.counts)
                thread.run(one.finished.wait(), timeout=20)
                assert "connection to the scheduler was lost" in one.reason
            finally:
                thread.run(one.close())
            scheduler.peers.clear()
        assert server.stats()["pins"] == 0
    assert campaign.counts["messages"] > 0
    assert all_was_said(speaker, campaign)


def test_a_node_connects_anew(scheduler, monkeypatch):
    monkeypatch.setattr(scheduler_link, "MAX_PAUSE_SECONDS", 0.01)
    with Campaign("fuzzing a node", share=0.1) as campaign, contextlib.ExitStack() as stack:
        chance = campaign.random
        host = Host(scheduler, stack)
        speaker = Speaker(node.TO_NODE, chance, HARMLESS.get, avoids=[node.CLOSE])
        while campaign.goes_on():
            peer = scheduler.peer(host.address, role="node")
            scheduler.message(peer, node.READY.operation)
            tell(scheduler, peer, speaker, chance, campaign.counts)
            scheduler.peers.remove(peer)
            assert host.agent.reason is None
        until(lambda: host.store_stats()["objects"] == 0, "new workers have warmed up, and left nothing")
    assert campaign.counts["messages"] > 0
    assert all_was_said(speaker, campaign)
