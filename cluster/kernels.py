"""IPython kernels in the processes of a cluster: to look into a worker, or at the scheduler, from a console.

A kernel runs in a thread of its own with an event loop of its own. It writes no file: what one has to know to connect
goes to the client. ipykernel is optional, so it is imported when a kernel is started.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
from collections.abc import Mapping
from typing import Any

from holdfast.cluster.comm.addresses import parse_address

START_SECONDS = 30.0
_PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")

_starting = threading.Lock()
_started: dict[str, Any] = {}


def start_on_worker(dask_worker: Any) -> dict[str, Any]:
    """Start a kernel in a worker, where ``worker`` is that, and say how to connect with it."""
    if not dask_worker.own_process:
        raise RuntimeError("a worker within another process can't have a kernel of its own: use processes=True")
    return start(parse_address(dask_worker.node_address)[0], {"worker": dask_worker, "dask_worker": dask_worker})


def start_on_scheduler(dask_scheduler: Any) -> dict[str, Any]:
    """Start a kernel beside the scheduler, where ``scheduler`` is the view of that, and say how to connect with it."""
    host = parse_address(dask_scheduler.address)[0]
    return start(host, {"scheduler": dask_scheduler, "dask_scheduler": dask_scheduler})


def start(host: str, names: Mapping[str, Any]) -> dict[str, Any]:
    """Start a kernel that listens at this host, unless this process has one. Returns how to connect with it.

    Raises
    ------
    ImportError
        There is no ipykernel here; says how to get it.
    """
    with _starting:
        if not _started:
            _started.update(_start(host, dict(names)))
        return dict(_started)


def _start(host: str, names: dict[str, Any]) -> dict[str, Any]:
    try:
        kernelapp: Any = importlib.import_module("ipykernel.kernelapp")
    except ImportError as error:
        text = f"a kernel needs ipykernel where it runs, and it can't be imported there ({error})"
        raise ImportError(f"{text}: pip install 'holdfast[ipython]'") from error

    class App(kernelapp.IPKernelApp):  # type: ignore[misc]
        """A kernel that leaves its process as it is."""

        def init_signal(self) -> None:
            pass  # signals are the process's

        def init_crash_handler(self) -> None:
            pass

        def write_connection_file(self, **kwargs: Any) -> None:
            pass

        def log_connection_info(self) -> None:
            pass

    begun = threading.Event()
    outcome: dict[str, Any] = {}

    def run() -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        try:
            app: Any = App(ip=host, user_ns=names)
            ours = sys.stdout, sys.stderr
            try:
                app.initialize([])
                streams = sys.stdout, sys.stderr
            finally:
                _write_to(ours)
            # What is printed while a cell runs goes to the console, and all else where it went before.
            app.shell.events.register("pre_run_cell", lambda info: _begin(streams, app.shell.parent_header))
            app.shell.events.register("post_run_cell", lambda result: _end(streams, ours))
            app.shell.history_manager.enabled = False
            outcome.update({port: getattr(app, port) for port in _PORTS})
            outcome["key"] = app.session.key.decode()
            outcome["signature_scheme"] = app.session.signature_scheme
        except BaseException as error:  # whatever ipykernel raises
            outcome["error"] = error
            return
        finally:
            begun.set()
        app.start()

    threading.Thread(target=run, name="holdfast-errand-kernel", daemon=True).start()
    if not begun.wait(START_SECONDS):
        raise TimeoutError(f"the kernel has not started after {START_SECONDS:g} s")
    if "error" in outcome:
        raise outcome["error"]
    return {"ip": host, "transport": "tcp", "kernel_name": "", **outcome}


def _begin(streams: tuple[Any, Any], parent: Any) -> None:
    """What is printed belongs to this message from now on."""
    for stream in streams:
        stream.set_parent(parent)
    _write_to(streams)


def _end(streams: tuple[Any, Any], ours: tuple[Any, Any]) -> None:
    for stream in streams:
        stream.flush()
    _write_to(ours)


def _write_to(streams: tuple[Any, Any]) -> None:
    sys.stdout, sys.stderr = streams
