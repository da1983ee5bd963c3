"""The part of a worker that begins runs, as a process of its own: ``python revoked_worker.py SOCKET LEDGER NTHREADS``.

It reads over a socket what a scheduler would send, and says of each run that it has begun or misses a dependency. A run
does nothing, so that beginning one is most of what happens here.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from multiprocessing.connection import Connection

from holdfast.cluster.worker.ledger import WorkerLedger
from holdfast.cluster.worker.threads import TaskThreads
from holdfast.cluster.worker.waiting_runs import WaitingRuns


async def main(socket: int, fd: int, nthreads: int) -> None:
    sys.setswitchinterval(1e-6)  # threads overtake each other everywhere
    connection = Connection(socket)
    sending = threading.Lock()

    def say(what: str, run_id: int) -> None:
        with sending:
            connection.send((what, run_id))

    def run(task) -> None:
        say("begun", task[1])
        waiting_runs.ended(task[1], (b"object", None))

    threads = TaskThreads(
        nthreads,
        contextlib.nullcontext,
        run,
        lambda waits: False,
        lambda: None,
        WorkerLedger.of_descriptor(fd, nthreads),
        "task",
    )
    waiting_runs = WaitingRuns(threads.submit, lambda outcome: say("missing", outcome[1][1]))

    def read() -> None:
        while True:
            match connection.recv():
                case ("run", tasks):
                    waiting_runs.add(tasks)
                case ("drop", run_ids):
                    for run_id in waiting_runs.drop(run_ids, threads.drop):
                        say("dropped", run_id)
                case ("revoked", number, run_ids):
                    waiting_runs.drop(run_ids, threads.revoke)
                    threads.confirm(number)
                case ("close",):
                    return

    await asyncio.to_thread(read)
    threads.stop()
    assert await threads.join(10)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
