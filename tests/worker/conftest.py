from __future__ import annotations

import contextlib
import weakref

import pytest
from scripted_scheduler import TOKEN, ScriptedScheduler

from holdfast.cluster.comm.loops import LoopThread
from holdfast.cluster.worker import Worker
from holdfast.objectstore import StoreServer, connect


@pytest.fixture
def scheduler():
    with ScriptedScheduler() as scheduler:
        yield scheduler


@pytest.fixture
def server():
    with StoreServer(capacity="64 MiB") as server:
        yield server


@pytest.fixture
def store(server):
    with connect(server.socket_path, name="test") as store:
        # pytest keeps what a fixture yields until the test is forgotten, which is after the check for leaks.
        yield weakref.proxy(store)


@pytest.fixture
def start_worker(scheduler, server):
    """Starts workers in a loop of their own; returns the worker and the scheduler's view of it."""
    with contextlib.ExitStack() as stack:
        thread = LoopThread("workers")
        stack.callback(thread.close)

        def start(index=0, **options):
            worker = Worker(
                scheduler.address,
                token=TOKEN,
                node_address="tcp://127.0.0.1:1",
                store_socket=server.socket_path,
                index=index,
                name=f"host-{index}",
                **options,
            )
            thread.run(worker.start())
            stack.callback(lambda: thread.run(worker.close()))
            worker.thread = thread
            return worker, scheduler.peer(worker.address)

        yield start


@pytest.fixture
def peer(start_worker):
    """A worker with one thread, as the scheduler sees it."""
    return start_worker()[1]
