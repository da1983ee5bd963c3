"""Weather data, published for everyone and kept: each session is a process of its own.

Give a path to keep the picture that is drawn: python examples/iris/demo.py weather.png
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from holdfast import LocalCluster

HERE = Path(__file__).parent


def main(picture: str = "") -> None:
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="holdfast-iris-") as folder:
        place = Path(folder, "published")
        with LocalCluster(n_workers=2, threads_per_worker=1, durable=place) as cluster:
            step("the first session loads, publishes and ends")
            session("publish.py", cluster.scheduler_address)
            step("the scheduler is killed; another one goes on where it was")
            os.kill(cluster.scheduler_pid, signal.SIGKILL)
            step("another session lists, gets, explores, plots and compares")
            session("explore.py", cluster.scheduler_address, picture or str(Path(folder, "weather.png")))
        step("the cluster has ended; another one with the same place for durable datasets begins")
        with LocalCluster(n_workers=2, threads_per_worker=1, durable=place) as cluster:
            session("explore.py", cluster.scheduler_address)
    print(f"\nDone in {time.perf_counter() - begun:.1f} s.")


def step(text: str) -> None:
    print(f"\n— {text}", flush=True)


def session(name: str, *arguments: str) -> None:
    """Run a script in a process of its own; end if it fails."""
    subprocess.run([sys.executable, str(HERE / name), *arguments], check=True, timeout=120)


if __name__ == "__main__":
    main(*sys.argv[1:])
