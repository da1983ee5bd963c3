"""A client that reads slowly: what is written ahead for it has a limit, and what it hears in the end is right."""

from __future__ import annotations

import random

import pytest
from scheduler_harness import Cluster
from scheduler_peers import NODE, Peer, Setup

from holdfast.cluster.comm import connection as connection_module
from holdfast.cluster.comm.loops import run
from holdfast.cluster.scheduler.io.debts import Debts
from holdfast.cluster.scheduler.io.instruction_messages import REPORTS
from holdfast.cluster.scheduler.tasks import instructions as to_do

KEYS = 5_000
INLINE = b"i" * 2_000


class Ear:
    """What a client takes from reports: the rule of `holdfast.client.core.key_table`, for one key at a time."""

    def __init__(self):
        self.since = {}
        self.status = {}

    def hold(self, key, turn):
        self.since[key], self.status[key] = turn, "pending"

    def hear(self, report, turn):
        status = {to_do.ReportMemory: "memory", to_do.ReportErred: "erred", to_do.ReportPending: "pending"}.get(
            type(report), "cancelled"
        )
        for item in report.items:
            key = item[0] if status in ("memory", "erred") else item
            if key in self.since and self.since[key] <= turn and self.status[key] != "cancelled":
                self.status[key] = status


@pytest.mark.parametrize("seed", range(30))
def test_a_client_that_hears_late_knows_in_the_end_what_one_knows_that_hears_at_once(seed):
    chance = random.Random(seed)
    cluster = Cluster(hosts=2, workers=2)
    other = cluster.add_client("other")
    client = cluster.add_client("late")
    debts = Debts(client, cluster.state)
    at_once, late = Ear(), Ear()
    turn = 0
    owes = False
    apply = cluster._apply

    def hear(instruction):
        apply(instruction)
        if type(instruction) in REPORTS and instruction.peer == client:
            at_once.hear(instruction, turn)
            if owes or debts:
                debts.add(instruction, turn)
            else:
                late.hear(instruction, turn)

    cluster._apply = hear
    for _ in range(120):
        keys = [f"k{chance.randrange(8)}" for _ in range(chance.randrange(1, 4))]
        turn += 1
        choice = chance.randrange(9)
        if choice <= 1:
            for key in keys:
                if at_once.status.get(key) in (None, "cancelled"):
                    at_once.hold(key, turn)
                    late.hold(key, turn)
            cluster.submit(client, {key: [] for key in keys})
        elif choice == 2:
            for key in keys:
                at_once.since.pop(key, None), late.since.pop(key, None)
                at_once.status.pop(key, None), late.status.pop(key, None)
            cluster.release(client, *keys)
        elif choice == 3:
            cluster.submit(other, {key: [] for key in keys})
        elif choice == 4:
            cluster.handle(to_do_cancel(other, keys, force=True))
        elif choice == 5 and cluster.startable:
            cluster.finish(cluster.startable[0])
        elif choice == 6 and cluster.startable:
            cluster.err(cluster.startable[0])
        elif choice == 7 and len(cluster.state.hosts) == 2 and chance.random() < 0.3:
            cluster.remove_host(next(iter(cluster.state.hosts)))
            cluster.add_host()
            cluster.add_worker(next(reversed(cluster.state.hosts)))
        elif choice == 8:
            owes = not owes
            while not owes and debts:
                for report, said in debts.take(chance.randrange(1, 4), turn):
                    late.hear(report, said)
        cluster.drop_all()
    for report, said in debts.take(1_000_000, turn):
        late.hear(report, said)
    assert not debts
    assert late.status == at_once.status


def to_do_cancel(client, keys, *, force):
    from holdfast.cluster.scheduler.tasks import events

    return events.KeysCancelled(client, keys, force)


def test_what_is_kept_for_a_client_that_reads_nothing_has_a_limit_and_it_hears_of_all_when_it_reads(monkeypatch):
    monkeypatch.setattr(connection_module, "FULL_NBYTES", 256 << 10)

    async def main():
        async with Setup(validate=False) as setup:
            slow = await Peer.join(setup.scheduler, "client", id="slow")
            keys = [f"data-{number}" for number in range(KEYS)]
            ids = [number.to_bytes(16, "big") for number in range(KEYS)]
            entries = [(key, object_id, 2_000, "bytes", NODE, INLINE) for key, object_id in zip(keys, ids, strict=True)]
            awaited = [(*entry[:4], "tcp://gone:1", None) for entry in entries]
            setup.client.connection.send(("scattered", awaited, False, ""))
            setup.client.connection.send(("request", 1, "list-datasets", {}))
            await setup.client.next("reply")
            slow.connection.send(("want", keys))
            slow.connection.send(("request", 1, "list-datasets", {}))
            await slow.next("reply")
            assert len(setup.scheduler.state.clients["slow"].holds) == KEYS
            slow.connection.pause()
            setup.client.connection.send(("scattered", entries, False, ""))
            setup.client.connection.send(("request", 1, "list-datasets", {}))
            await setup.client.next("reply")
            assert len(setup.scheduler._peers["slow"].debts) > KEYS / 2
            ours = setup.scheduler._peers["slow"].connection
            assert ours.is_full
            assert ours._transport.get_write_buffer_size() < 3 << 20
            # Others are served meanwhile, and what changes takes no room.
            setup.client.connection.send(("cancel", keys[:100], True, None, ""))
            setup.client.connection.send(("request", 2, "list-datasets", {}))
            await setup.client.next("reply")
            assert len(setup.scheduler._peers["slow"].debts) <= KEYS
            slow.connection.send(("request", 3, "list-datasets", {}))  # not read before there is room
            slow.connection.resume()
            heard = {}
            await slow.next("reply")
            for operation, items, *_ in slow.messages:
                heard.update({item[0] if operation == "memory" else item: operation for item in items})
            # The last it was told of each is what became of it.
            assert heard == {**dict.fromkeys(keys, "memory"), **dict.fromkeys(keys[:100], "cancelled")}
            assert setup.scheduler._peers["slow"].debts is None
            slow.connection.close()

    run(main())


def test_what_is_owed_is_paid_in_the_same_steps_however_much_it_is():
    """A dictionary whose first entries have gone looks through the places of all of these for the next one."""
    cluster = Cluster(hosts=1, workers=1)
    client = cluster.add_client()
    debts = Debts(client, cluster.state)
    keys = [f"k{n}" for n in range(300_000)]
    debts.add(to_do.ReportCancelled(client, keys, "for a reason"), 1)
    debts.add(to_do.ReportCancelled(client, keys[:10], "for another one"), 2)
    assert len(debts) == len(keys)
    paid = [item for _ in range(0, len(keys), 500) for report, _ in debts.take(500, 2) for item in report.items]
    assert paid == keys
    assert not debts
