"""Starting processes that end with their parent, and being such a process.

Two pipes tie a child to the process that spawned it. Over the *ready pipe* the child says once, in one line of
JSON, that it can be used and how, or why it can't. The *lifeline* carries nothing: the parent keeps its write end,
and when the parent ends, however it ends, the kernel closes it, the child reads the end of the file, cleans up and
exits. So `kill -9` of a parent takes the whole tree with it. (`PR_SET_PDEATHSIG` would be shorter, but it follows the
*thread* that spawned the child, and it kills where the child should clean up.)
"""

from __future__ import annotations

import abc
import argparse
import asyncio
import contextlib
import faulthandler
import fcntl
import json
import logging
import os
import select
import signal
import subprocess
import sys
import sysconfig
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from holdfast.cluster.comm import tokens
from holdfast.cluster.processes import run_directory
from holdfast.objectstore.errors import HoldfastError

logger = logging.getLogger(__name__)

#: How long a server may take to close before its process ends without it.
CLOSE_SECONDS = 8.0
#: And how long the interpreter may take after that: threads that run tasks don't hold up the end.
EXIT_SECONDS = 4.0
LOG_FORMAT = "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
#: How much of a log a failure shows.
TAIL_NBYTES = 2000
#: The exit code of a node agent that has left its cluster for a reason of its own: it has lost the scheduler.
LEFT_EXIT_CODE = 3
#: What comes before the line on a ready pipe: an empty one.
_AT_WORK = b"\n"
#: What stands for the exit code of a process that ended when its parent, who alone is told, had died. No real one.
UNKNOWN_EXIT = 256


class Server(Protocol):
    """What `serve` runs."""

    finished: asyncio.Event  # made by start; set when the server has ended by itself

    async def start(self) -> Any: ...

    async def close(self) -> Any: ...


# -- in the child


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `serve` reads."""
    group = parser.add_argument_group("process")
    group.add_argument("--ready-fd", type=int, metavar="N", help="write one line of JSON to this descriptor when ready")
    group.add_argument("--lifeline-fd", type=int, metavar="N", help="exit when this descriptor reaches its end")
    group.add_argument("--log-file", type=Path, metavar="PATH", help="log to this file (default: standard error)")
    group.add_argument("--log-level", default="INFO", metavar="LEVEL", help="how much to log (default: INFO)")


def configure_logging(options: argparse.Namespace) -> None:
    """Log as the options of `add_process_options` say."""
    level = str(options.log_level).upper()
    logging.basicConfig(
        filename=options.log_file, level=int(level) if level.isdecimal() else level, format=LOG_FORMAT, force=True
    )


def default_signals() -> None:
    """Undo what this process may have inherited: signals that nobody hears, and children whose end nobody is told."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


async def serve(server: Server, options: argparse.Namespace, ready: Callable[[], dict[str, Any]]) -> int:
    """Run a server as this process: start it, say that it is ready, wait for a reason to end, close it.

    Reasons are SIGTERM, SIGINT, the end of the lifeline, and ``server.finished``. Closing takes `CLOSE_SECONDS`
    at most, and the process ends soon after this returns even if threads of it still run.

    Parameters
    ----------
    options:
        With those of `add_process_options`.
    ready:
        What to tell the parent once the server has started.

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
            await server.close()
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
    nowhere = open(os.devnull, "w")  # noqa: SIM115 - the watchdog's, until the end
    faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)


def _one_line(error: BaseException) -> str:
    text = str(error).strip()
    return text if text and isinstance(error, HoldfastError) else f"{type(error).__name__}: {text}".rstrip(": ")


def tell_at_work(fd: int | None) -> None:
    """Say on the ready pipe that this process begins to work for others, shortly before it is ready."""
    if fd is not None:
        with contextlib.suppress(BrokenPipeError):
            os.write(fd, _AT_WORK)


def tell_parent(fd: int | None, message: dict[str, Any]) -> None:
    """Say on the ready pipe how starting went, and close it. None: there is nobody to tell."""
    if fd is None:
        return
    # The parent may have gone or lost interest; the lifeline says so if it matters.
    with contextlib.suppress(BrokenPipeError):
        os.write(fd, json.dumps(message).encode() + b"\n")
    os.close(fd)


# -- in the parent

_children: weakref.WeakSet[ChildProcess] = weakref.WeakSet()


class ChildProcess(abc.ABC):
    """A process that ends with this one, and that says on a pipe how its start went.

    How its end is known depends on how it was started: by `spawn` here, or by a launcher
    (`cluster/processes/forking.py`).

    Attributes
    ----------
    name : str
        For messages to people.
    pid : int
    log_file : Path or None
    """

    def __init__(self, pid: int, name: str, log_file: Path | None, ready_fd: int, lifeline_fd: int) -> None:
        self.name = name
        self.pid = pid
        self.log_file = log_file
        self._ready_fd = ready_fd
        self._lifeline_fd = lifeline_fd
        self._log_start = log_file.stat().st_size if log_file is not None else 0
        self._said = b""
        _children.add(self)

    def __repr__(self) -> str:
        code = self.returncode
        return f"<{self.name}, pid {self.pid}, {'running' if code is None else describe_exit(code)}>"

    # -- until it is ready

    def wait_ready(self, timeout: float) -> dict[str, Any]:
        """Wait until the child says that it is ready; return what it says.

        Raises
        ------
        HoldfastError
            It could not start (its own words), died (the end of its log), or was not ready after ``timeout``
            seconds. A child that is late still runs: the caller kills it.
        """
        deadline = time.monotonic() + timeout
        while self._says_something(deadline - time.monotonic()):
            if self._read_ready():
                return self._answer()
        raise self._late(timeout)

    async def ready(self, timeout: float) -> dict[str, Any]:
        """`wait_ready` for those who live in an event loop."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    await readable(self._ready_fd)
                    if self._read_ready():
                        break
        except TimeoutError:
            while True:
                # Whoever waits may have been stopped meanwhile. What the child has said counts.
                if not self._says_something(0):
                    raise self._late(timeout) from None
                if self._read_ready():
                    break
        return self._answer()

    def _says_something(self, timeout: float) -> bool:
        """Whether there is something to read from it, or its end, within so many seconds; none may be left."""
        poll = select.poll()
        poll.register(self._ready_fd, select.POLLIN)
        return bool(poll.poll(max(0.0, timeout) * 1000))

    def _read_ready(self) -> bool:
        data = os.read(self._ready_fd, 1 << 16)
        self._said += data
        return not data or (self._said.endswith(b"\n") and self._said != _AT_WORK)

    def _answer(self) -> dict[str, Any]:
        self._close_ready_fd()
        if not self._said.strip():
            code = self.wait(5.0)
            ended = "closed its ready pipe without a word" if code is None else describe_exit(code)
            raise HoldfastError(f"{self.name} could not start: it {ended}{self.log_tail()}")
        answer: dict[str, Any] = json.loads(self._said)
        if "error" in answer:
            raise HoldfastError(f"{self.name} could not start: {answer['error']}")
        return answer

    @property
    def only_worked(self) -> bool:
        """Whether it has worked for others already, and said neither that it is ready nor why it can't be.

        If it has ended, that may have been the doing of those for which it worked.
        """
        return self._said == _AT_WORK

    def _late(self, timeout: float) -> HoldfastError:
        return HoldfastError(f"{self.name} (pid {self.pid}) was not ready after {timeout:g} s{self.log_tail()}")

    def log_tail(self) -> str:
        """The end of what it has logged, introduced and indented, or nothing."""
        if self.log_file is None:
            return ""
        with open(self.log_file, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            start = self._log_start if self._log_start <= end else 0  # after that, it was cut
            file.seek(max(start, end - TAIL_NBYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
        if not lines:
            return f" (nothing in its log, {self.log_file})"
        return f"; its log, {self.log_file}, ends with:\n" + "\n".join(f"    {line}" for line in lines)

    # -- its end

    @property
    @abc.abstractmethod
    def returncode(self) -> int | None:
        """None while it runs; negative: the signal that killed it."""

    @abc.abstractmethod
    def send_signal(self, number: int) -> None:
        """Send it a signal; nothing happens if it has ended."""

    @abc.abstractmethod
    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until it has ended; return its exit code, or None after ``timeout`` seconds."""

    @abc.abstractmethod
    async def exited(self) -> int:
        """Wait in an event loop until it has ended; return its exit code."""

    @abc.abstractmethod
    def open_pidfd(self) -> int:
        """A descriptor of it, for the caller to close; there is something to read when it has ended."""

    def terminate(self) -> None:
        """Ask it to close (SIGTERM), and have it go on for that if it is stopped."""
        self.send_signal(signal.SIGTERM)
        self.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self.send_signal(signal.SIGKILL)

    def stop(self, timeout: float) -> bool:
        """Ask it to close, wait, kill it when ``timeout`` seconds are over. Returns whether it closed itself."""
        self.terminate()
        if self.wait(timeout) is not None:
            return True
        self.kill()
        self.wait()
        return False

    def close(self) -> None:
        """Let go of the pipes. A child that still runs takes it as the end of its parent."""
        self._close_ready_fd()
        if self._lifeline_fd >= 0:
            os.close(self._lifeline_fd)
            self._lifeline_fd = -1

    def _close_ready_fd(self) -> None:
        if self._ready_fd >= 0:
            os.close(self._ready_fd)
            self._ready_fd = -1

    def __del__(self, suppress: Any = contextlib.suppress) -> None:  # at the interpreter's end modules are empty
        with suppress(AttributeError, OSError):
            self.close()

    def _forget(self) -> None:
        """In a fork of this process: it is the parent's child, whose end nobody here can wait for."""
        self.close()


class SpawnedProcess(ChildProcess):
    """A process that `spawn` started."""

    def __init__(
        self, popen: subprocess.Popen[bytes], name: str, log_file: Path | None, ready_fd: int, lifeline_fd: int
    ) -> None:
        super().__init__(popen.pid, name, log_file, ready_fd, lifeline_fd)
        self._popen = popen

    @property
    def returncode(self) -> int | None:
        return self._popen.poll()

    def send_signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def wait(self, timeout: float | None = None) -> int | None:
        try:
            code = self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        self.close()
        return code

    async def exited(self) -> int:
        if self.returncode is None:
            pidfd = self.open_pidfd()
            try:
                await readable(pidfd)
            finally:
                os.close(pidfd)
        code = self.wait()
        assert code is not None
        return code

    def open_pidfd(self) -> int:
        return os.pidfd_open(self.pid)

    def _forget(self) -> None:
        super()._forget()
        if self._popen.returncode is None:
            self._popen.returncode = 0


async def readable(fd: int) -> None:
    """Wait in an event loop until there is something to read from a descriptor, or its end."""
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    loop.add_reader(fd, arrived.set)
    try:
        await arrived.wait()
    finally:
        loop.remove_reader(fd)


def _forget_children() -> None:
    # A fork of this process must not keep its children alive. (One that execs does not, the pipes close by themselves.)
    for child in list(_children):
        child._forget()
    _children.clear()


os.register_at_fork(after_in_child=_forget_children)


def spawn(
    module: str,
    arguments: Sequence[str] = (),
    *,
    name: str | None = None,
    env: Mapping[str, str] | None = None,
    log_file: Path | None = None,
    pass_fds: Sequence[int] = (),
    new_session: bool = False,
    lifeline: bool = True,
) -> SpawnedProcess:
    """Start ``python -m module arguments`` with the options of `add_process_options`.

    The child runs in a process group of its own: a Ctrl-C in the terminal reaches the parent only, which decides
    what becomes of its children. It finds what is importable here.

    Parameters
    ----------
    name:
        For messages to people; the last part of the module's name if not given.
    env:
        Environment variables besides those of this process. The token is none of them.
    log_file:
        Appended to: what it logs and what it prints. Standard output and error are inherited if not given.
    pass_fds:
        Descriptors that it inherits, under the same numbers.
    new_session:
        Detach it from the terminal.
    lifeline:
        False: it goes on when this process ends.

    Returns
    -------
    SpawnedProcess
        At once; `ChildProcess.wait_ready` waits for it.
    """
    inherited_env = {name: value for name, value in os.environ.items() if name != tokens.VARIABLE}
    ready_read, ready_write = os.pipe()
    lifeline_read = lifeline_write = -1
    if lifeline:
        lifeline_read, lifeline_write = os.pipe()
    output = None
    try:
        command = [sys.executable, "-m", module, *arguments, "--ready-fd", str(ready_write)]
        inherited = [*pass_fds, ready_write]
        if lifeline:
            command += ["--lifeline-fd", str(lifeline_read)]
            inherited.append(lifeline_read)
        if log_file is not None:
            output = open_log(log_file)
        popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=inherited,
            env={**inherited_env, "PYTHONPATH": _import_path(), **(env or {})},
            start_new_session=new_session,
            process_group=None if new_session else 0,
        )
    except BaseException:
        os.close(ready_read)
        if lifeline:
            os.close(lifeline_write)
        raise
    finally:
        os.close(ready_write)
        if lifeline:
            os.close(lifeline_read)
        if output is not None:
            os.close(output)
    return SpawnedProcess(popen, name or module.rpartition(".")[2], log_file, ready_read, lifeline_write)


def require_pidfds() -> None:
    """Without descriptors of processes a cluster can't know which of its processes have ended.

    Raises
    ------
    HoldfastError
        The kernel, or the sandbox around this process, doesn't give them.
    """
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        raise HoldfastError(
            f"the kernel lets nobody watch processes (pidfd_open: {error.strerror}): Linux 5.3 or newer is needed, and "
            "a sandbox that passes the call on. LocalCluster(processes=False) does without"
        ) from None


def open_log(path: Path) -> int:
    """A descriptor that appends to a file, which is this user's alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def describe_exit(code: int) -> str:
    """``exited with code 1``, ``was killed by SIGKILL``."""
    if code == UNKNOWN_EXIT:
        return "ended, and what had started it could not say how"
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _import_path() -> str:
    """What this process can import and a fresh interpreter could not: a script's folder, a notebook's additions."""
    standard = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    standard |= {os.path.join(sysconfig.get_path("platstdlib"), "lib-dynload")}
    try:
        here = os.getcwd()
    except FileNotFoundError:  # it was removed
        here = ""
    entries = [os.path.join(here, entry) for entry in sys.path if isinstance(entry, str)]
    extra = [os.path.normpath(entry) for entry in entries if os.path.isabs(entry)]
    return os.pathsep.join(dict.fromkeys(e for e in extra if e not in standard and not e.endswith(".zip")))
