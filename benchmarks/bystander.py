"""A second client, in a process of its own: how long the scheduler lets it wait while another one is busy.

``python -m benchmarks.bystander ADDRESS`` asks the scheduler something, then has a short task of a higher priority run,
again and again, until its standard input ends. It says ``ready`` when it is connected, and at its end what it has seen,
as one line of JSON. The cluster's token is in its environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import NamedTuple

from benchmarks.functions import inc
from holdfast import Client, LocalCluster

_PAUSE_SECONDS = 0.005
#: Nothing has this name.
_NAME = "bystander"


class Look(NamedTuple):
    """One look at the cluster.

    Attributes
    ----------
    at : float
        ``time.monotonic()`` when it began.
    request_seconds, task_seconds : float
        Until the answer was there, and then until the result was.
    """

    at: float
    request_seconds: float
    task_seconds: float


class Bystander:
    """The process, seen from the one that starts it."""

    def __init__(self, cluster: LocalCluster) -> None:
        token = cluster.token
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.bystander", cluster.scheduler_address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "HOLDFAST_TOKEN": token.decode() if isinstance(token, bytes) else token},
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self._process.kill()
            self._process.wait()
            raise RuntimeError("the second client could not connect")

    def end(self) -> list[Look]:
        """Let it end; what it has seen."""
        output, _ = self._process.communicate()
        return [Look(*fields) for fields in json.loads(output)]


def _wait_for_end(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


def main() -> None:
    """Looks at the cluster until its standard input ends."""
    over = threading.Event()
    looks: list[Look] = []
    with Client(sys.argv[1]) as client:
        print("ready", flush=True)
        threading.Thread(target=_wait_for_end, args=(over,), daemon=True).start()
        while not over.wait(_PAUSE_SECONDS):
            began = time.monotonic()
            client.get_metadata(_NAME, default=None)  # which only the scheduler has to do with
            answered = time.monotonic()
            client.submit(inc, 1, pure=False, priority=1).result()
            looks.append(Look(began, answered - began, time.monotonic() - answered))
    print(json.dumps(looks))


if __name__ == "__main__":
    main()
