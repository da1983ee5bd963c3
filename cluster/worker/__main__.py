"""The worker's process: ``python -m holdfast.cluster.worker``. Started by a node agent."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path

from holdfast.cluster import dask_config
from holdfast.cluster.comm.loops import run
from holdfast.cluster.comm.tokens import add_token_option, token_of
from holdfast.cluster.processes import oom, run_directory
from holdfast.cluster.processes.child import add_process_options, serve, tell_at_work
from holdfast.cluster.worker import Worker, dask_scheduler, main_module
from holdfast.cluster.worker.ledger import WorkerLedger, leave_last_words
from holdfast.objectstore.sizes import format_size
from holdfast.objectstore.system.control_groups import tightest_memory_limit

logger = logging.getLogger(__name__)

#: How long the last ones on a host wait for a dead agent's directory to be theirs to remove.
SWEEP_SECONDS = 2.0

#: How the names of those threads begin that run what users have written.
_OF_USERS = ("holdfast-task-", "holdfast-errand-")

#: What signals threads that are forking had blocked before.
_masks: dict[int, set[int | signal.Signals]] = {}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m holdfast.cluster.worker", description="Run tasks of a cluster.")
    parser.add_argument("--scheduler", required=True, metavar="ADDRESS")
    parser.add_argument("--node", required=True, metavar="ADDRESS", help="the node agent's address")
    parser.add_argument("--store", required=True, metavar="PATH", help="the socket of this host's store")
    parser.add_argument("--index", required=True, type=int, metavar="N", help="the worker's number on its host")
    parser.add_argument("--name", required=True)
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--resources", type=json.loads, default=None, metavar="JSON")
    parser.add_argument("--preload", type=json.loads, default=(), metavar="JSON", help="what to run first, as pairs")
    parser.add_argument("--memory-limit", type=int, default=None, metavar="BYTES")
    add_token_option(parser)
    dask_config.add_option(parser)
    parser.add_argument("--ledger-fd", type=int, default=None, metavar="N", help="memory that the node agent reads")
    parser.add_argument("--prefix-lines", action="store_true", help="say of each line which task has printed it")
    add_process_options(parser)
    return parser.parse_args(arguments)


def main() -> int:
    options = parse_arguments()
    oom.be_killed_before_others(oom.WORKER)
    ledger = None
    if options.ledger_fd is not None:
        leave_last_words(options.ledger_fd, options.threads)
        ledger = WorkerLedger.of_descriptor(options.ledger_fd, options.threads)
    worker = Worker(
        options.scheduler,
        token=token_of(options),
        node_address=options.node,
        store_socket=options.store,
        index=options.index,
        name=options.name,
        nthreads=options.threads,
        resources=options.resources,
        memory_limit=options.memory_limit,
        preload=options.preload,
        own_process=True,
        on_joining=lambda: tell_at_work(options.ready_fd),
        ledger=ledger,
        prefixes_lines=options.prefix_lines,
    )
    dask_config.take_over(dask_config.given(options))
    dask_scheduler.take_over()
    main_module.take_over(worker.functions.known)
    os.register_at_fork(before=_hold_signals, after_in_parent=_release_signals, after_in_child=_forget_signals)
    # What is imported by now stays: the collector need not look at it again and again between tasks.
    gc.freeze()
    code = run(serve(worker, options, lambda: _ready(worker)))
    if options.lifeline_fd is not None and _at_end(options.lifeline_fd):
        _sweep_after_agent(Path(options.store).parent)
    if worker.reason is not None:
        code = 1
    if any(thread.daemon and thread.name.startswith(_OF_USERS) for thread in threading.enumerate()):
        # A task or an errand still runs, and the end of the interpreter would pull the modules from under it.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _ready(worker: Worker) -> dict[str, object]:
    """What is told of a worker that is ready; how much memory it may use goes to its log."""
    limit = tightest_memory_limit()
    own = "any number of bytes" if worker.memory_limit is None else format_size(worker.memory_limit)
    groups = "" if limit is None else f"; its control groups allow {format_size(limit.nbytes)} ({limit.file})"
    logger.info("%s may use %s by itself%s", worker.name, own, groups)
    return {"address": worker.address, "pid": os.getpid()}


def _forget_signals() -> None:
    """In a process that a task has forked: what is meant for it must not reach this worker, whose loop it shares."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _release_signals()


def _hold_signals() -> None:
    """In a thread that forks: what the child is sent before it has forgotten this worker's handlers waits for that."""
    _masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))


def _release_signals() -> None:
    mask = _masks.pop(threading.get_ident(), None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _at_end(pipe: int) -> bool:
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return bool(poll.poll(0))


def _sweep_after_agent(directory: Path) -> None:
    """Remove what an agent that was killed has left.

    The kernel closes a dead process's files one after the other, and the lock on its directory may be the last of
    them, a good while after the lifeline.
    """
    deadline = time.monotonic() + SWEEP_SECONDS
    run_directory.sweep()
    while directory.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
        run_directory.sweep()


if __name__ == "__main__":
    sys.exit(main())
