"""Being a process that ends with its parent.

Two pipes tie a child to the process that wanted it (`parent.py`). Over the *ready pipe* the child says once, in one
line of JSON, that it can be used and how, or why it can't. The *lifeline* carries nothing: the parent keeps its write
end, and when the parent ends, however it ends, the kernel closes it, the child reads the end of the file, cleans up and
exits. So `kill -9` of a parent takes the whole tree with it. (`PR_SET_PDEATHSIG` would be shorter, but it follows the
*thread* that started the child, and it kills where the child should clean up.)
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import fcntl
import json
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from holdfast.cluster.processes import kept_logs, run_directory
from holdfast.objectstore.errors import HoldfastError

logger = logging.getLogger(__name__)

#: How long a server may take to close before its process ends without it.
CLOSE_SECONDS = 8.0
#: And how long the interpreter may take after that: threads that run tasks don't hold up the end.
EXIT_SECONDS = 4.0
#: The exit code of a node agent that has left its cluster for a reason of its own: it has lost the scheduler.
LEFT_EXIT_CODE = 3
#: What comes before the line on a ready pipe: an empty one.
AT_WORK = b"\n"


class Server(Protocol):
    """What `serve` runs."""

    finished: asyncio.Event  # made by start; set when the server has ended by itself

    async def start(self) -> Any: ...

    async def close(self) -> Any: ...


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `serve` reads."""
    group = parser.add_argument_group("process")
    group.add_argument("--ready-fd", type=int, metavar="N", help="write one line of JSON to this descriptor when ready")
    group.add_argument("--lifeline-fd", type=int, metavar="N", help="exit when this descriptor reaches its end")
    group.add_argument("--log-file", type=Path, metavar="PATH", help="log to this file (default: standard error)")
    group.add_argument("--log-level", default="INFO", metavar="LEVEL", help="how much to log (default: INFO)")


def configure_logging(options: argparse.Namespace) -> None:
    """Log as the options of `add_process_options` say."""
    said = str(options.log_level).upper()
    level = int(said) if said.isdecimal() else said
    logging.basicConfig(filename=options.log_file, level=level, format=kept_logs.LOG_FORMAT, force=True)
    kept_logs.keep_all()


def default_signals() -> None:
    """Undo what this process may have inherited: signals that it doesn't hear, and children whose end it isn't told."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


async def serve(
    server: Server,
    options: argparse.Namespace,
    ready: Callable[[], dict[str, Any]],
    *,
    abandon: Callable[[], Awaitable[Any]] | None = None,
) -> int:
    """Run a server as this process: start it, say that it is ready, wait for a reason to end, close it.

    Reasons are SIGTERM, SIGINT, the end of the lifeline, and ``server.finished``. Closing takes `CLOSE_SECONDS`
    at most, and the process ends soon after this returns even if threads of it still run.

    Parameters
    ----------
    options:
        With those of `add_process_options`.
    ready:
        What to tell the parent once the server has started.
    abandon:
        What is done in the place of `Server.close` when the lifeline has ended, if that is to be something else.

    Returns
    -------
    int
        The exit code: 0 when it ended as asked for or by itself, 1 when it could not start or not close.
    """
    configure_logging(options)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    orphaned = asyncio.Event()

    def stop_because(reason: str) -> None:
        logger.info("stopping: %s", reason)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_because, signal.Signals(number).name)
    if options.ready_fd is not None:
        os.set_inheritable(options.ready_fd, False)
    if options.lifeline_fd is not None:
        os.set_inheritable(options.lifeline_fd, False)

        def lifeline_ended() -> None:
            loop.remove_reader(options.lifeline_fd)
            orphaned.set()
            stop_because("the parent process ended")

        loop.add_reader(options.lifeline_fd, lifeline_ended)
        _go_on_at_end(options.lifeline_fd)

    code = 0
    starting = asyncio.ensure_future(server.start())
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait([starting], timeout=CLOSE_SECONDS)
        tell_parent(options.ready_fd, {"error": "it was told to stop while it started"})
    elif (error := starting.exception()) is not None:
        code = 1
        if not isinstance(error, HoldfastError):
            logger.error("starting failed", exc_info=error)
        tell_parent(options.ready_fd, {"error": _one_line(error)})
    else:
        tell_parent(options.ready_fd, ready())
        finished = asyncio.ensure_future(server.finished.wait())
        await asyncio.wait([finished, stopping], return_when=asyncio.FIRST_COMPLETED)
        finished.cancel()
    stopping.cancel()

    _exit_after(CLOSE_SECONDS + EXIT_SECONDS)
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await (server.close() if abandon is None or not orphaned.is_set() else abandon())
    except TimeoutError:
        logger.error("closing took longer than %g s; exiting without", CLOSE_SECONDS)
        code = 1
    except Exception:
        logger.exception("closing failed")
        code = 1
    if orphaned.is_set():
        # A parent that was killed could not clean up after itself.
        run_directory.sweep()
    _exit_after(EXIT_SECONDS)
    return code


def _go_on_at_end(pipe: int) -> None:
    """If this process is stopped when a pipe reaches its end, have it go on: it has to see that, and to end."""
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGCONT)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)


def _exit_after(seconds: float) -> None:
    """End this process then, whatever its threads are doing and holding: the watchdog is not one of Python's."""
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)  # the watchdog's, until the end
    faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)


def _one_line(error: BaseException) -> str:
    text = str(error).strip()
    return text if text and isinstance(error, HoldfastError) else f"{type(error).__name__}: {text}".rstrip(": ")


def tell_at_work(fd: int | None) -> None:
    """Say on the ready pipe that this process begins to work for others, shortly before it is ready."""
    if fd is not None:
        with contextlib.suppress(BrokenPipeError):
            os.write(fd, AT_WORK)


def tell_parent(fd: int | None, message: dict[str, Any]) -> None:
    """Say on the ready pipe how starting went, and close it. None: there is no parent to tell."""
    if fd is None:
        return
    # The parent may have gone or lost interest; the lifeline says so if it matters.
    with contextlib.suppress(BrokenPipeError):
        os.write(fd, json.dumps(message).encode() + b"\n")
    os.close(fd)
