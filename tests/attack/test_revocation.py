"""One process begins runs as fast as it can, another revokes them: each run has begun or is revoked, never both."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import revoked_worker
from campaign import Campaign

from holdfast.cluster.ledger import REVOKES, runs_max
from holdfast.cluster.node.ledger import AgentLedger

#: How long a run may go without a word. None is ever left.
HUNG_SECONDS = 60.0
AT_ONCE = 100

pytestmark = pytest.mark.skipif(not REVOKES, reason="nothing is revoked on this processor")


class Scheduler:
    """Sends runs to a worker's process, and revokes some of them through its ledger as the agent would."""

    def __init__(self, campaign, nthreads):
        self.random = campaign.random
        self.counts = campaign.counts
        self.nthreads = nthreads
        self.ledger = AgentLedger(1, nthreads)
        ours, theirs = socket.socketpair()
        command = [sys.executable, revoked_worker.__file__, *map(str, (theirs.fileno(), self.ledger.fd, nthreads))]
        self.process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno(), self.ledger.fd],
            env={**os.environ, "PYTHONPATH": str(Path(revoked_worker.__file__).parents[2])},
        )
        theirs.close()
        self.connection = Connection(ours.detach())
        self.run_ids = itertools.count(1)
        self.outstanding = {}  # that the worker has not said anything of
        self.known_begun = set()  # by the ledger
        self.revoked = set()
        self.untold = []  # revocations that the worker is yet to be told of
        self.heard = time.monotonic()

    def close(self):
        self.connection.send(("close",))
        assert self.process.wait(10) == 0
        self.connection.close()
        self.ledger.close()

    def send_runs(self):
        room = runs_max(self.nthreads) - len(self.outstanding)
        tasks = []
        for _ in range(min(room, self.random.randrange(1, AT_ONCE))):
            run_id = next(self.run_ids)
            behind = ()
            if self.outstanding and self.random.random() < 0.1:
                behind = (("key", next(reversed(self.outstanding)), None, ()),)
            tasks.append(("key", run_id, None, b"", behind, None, run_id))
            self.outstanding[run_id] = None
        if tasks:
            self.connection.send(("run", tasks))

    def hear(self, seconds):
        while self.connection.poll(seconds):
            seconds = 0
            what, run_id = self.connection.recv()
            self.heard = time.monotonic()
            if what == "begun":
                assert run_id not in self.revoked, f"run {run_id} was revoked, and has begun"
                assert run_id in self.outstanding, f"run {run_id} has begun twice"
                self.counts["begun"] += 1
            else:
                assert run_id not in self.known_begun, f"run {run_id} was said to have begun, and is {what}"
                self.counts[what] += run_id in self.outstanding
            self.outstanding.pop(run_id, None)  # one that misses a dependency may have been revoked meanwhile
        assert not self.outstanding or time.monotonic() - self.heard < HUNG_SECONDS, "runs are lost"

    def revoke(self):
        asked = list(self.outstanding)
        if self.random.random() < 0.5:
            asked = self.random.sample(asked, self.random.randrange(len(asked) + 1))
        number, revoked, begun = self.ledger.revoke(asked)
        assert sorted(revoked + begun) == sorted(asked)
        self.revoked.update(revoked)
        self.known_begun.update(begun)
        for run_id in revoked:
            del self.outstanding[run_id]
        self.counts["revoked"] += len(revoked)
        if number:
            self.counts["revocations"] += 1
            self.untold.append(("revoked", number, revoked))

    def tell(self):
        while self.untold:
            self.connection.send(self.untold.pop(0))

    def drop(self):
        if self.outstanding:
            run_ids = self.random.sample(list(self.outstanding), min(3, len(self.outstanding)))
            self.connection.send(("drop", run_ids))

    def stop(self):
        """Revoke from a process that is stopped wherever it was."""
        self.process.send_signal(signal.SIGSTOP)
        self.revoke()
        if self.random.random() < 0.5:
            self.tell()
        self.process.send_signal(signal.SIGCONT)
        self.counts["stops"] += 1

    def finish(self):
        self.tell()
        while self.outstanding:
            self.hear(1.0)


@pytest.mark.parametrize("nthreads", [1, 3])
def test_no_run_has_begun_and_is_revoked_and_none_is_neither(nthreads):
    with Campaign(f"revocation, {nthreads} threads", share=0.1) as campaign:
        scheduler = Scheduler(campaign, nthreads)
        try:
            steps = [scheduler.send_runs] * 6 + [lambda: scheduler.hear(0.001)] * 6 + [scheduler.revoke] * 2
            steps += [scheduler.tell] * 2 + [scheduler.drop, scheduler.stop]
            while campaign.goes_on():
                for _ in range(100):
                    campaign.random.choice(steps)()
                scheduler.finish()
                campaign.counts["checked"] = scheduler.counts["begun"] + scheduler.counts["revoked"]
            scheduler.finish()
            scheduler.hear(0)
            scheduler.close()
        finally:
            scheduler.process.kill()
            scheduler.process.wait()
    assert campaign.counts["begun"] > 0
    assert campaign.counts["revoked"] > 0
