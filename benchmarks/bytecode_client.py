"""The client of `bytecodes`: ``python -m benchmarks.bytecode_client DIRECTORY TASKS`` runs so many single tasks.

It counts, and so do all processes of its cluster; each leaves in the directory what it has counted.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks.bytecode_counter import Counter
from benchmarks.functions import inc
from benchmarks.memory import settled_pss
from benchmarks.probed_process import probe_children
from holdfast import Client, LocalCluster

#: After each task: what comes of it is over before the next one begins, and never shares a message with that.
_PAUSE_SECONDS = 0.02


def main() -> None:
    """Runs the tasks."""
    directory, tasks = Path(sys.argv[1]), int(sys.argv[2])
    counter = Counter()
    counter.start()
    probe_children("benchmarks.bytecode_counter", directory)
    with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster) as client:
        settled_pss()  # until then the store makes pages ready, which is no cost of these tasks
        counter.forget()  # how long that takes differs
        for number in range(tasks):
            client.submit(inc, number, pure=False).result()
            time.sleep(_PAUSE_SECONDS)
    counter.write(directory)


if __name__ == "__main__":
    main()
