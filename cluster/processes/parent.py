"""Starting processes that end with this one, and knowing how they are: `child.py` has the pipes between the two."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.cluster.processes.child import AT_WORK
from holdfast.cluster.processes.environment import environment
from holdfast.cluster.processes.log_files import Log, open_log
from holdfast.objectstore.errors import HoldfastError

#: How much of a log a failure shows.
TAIL_NBYTES = 2000
#: What stands for the exit code of a process that ended when its parent, which alone is told, had died. No real one.
UNKNOWN_EXIT = 256

_children: weakref.WeakSet[ChildProcess] = weakref.WeakSet()


class NotReadyError(HoldfastError):
    """A process was not ready in time. Whoever knows how to give it more says so."""


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

    def __init__(self, pid: int, name: str, log: Log | None, ready_fd: int, lifeline_fd: int) -> None:
        self.name = name
        self.pid = pid
        self.log_file = None if log is None else log.path
        self._ready_fd = ready_fd
        self._lifeline_fd = lifeline_fd
        self._log_start = 0 if log is None else log.start
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
        NotReadyError
            It was not ready after ``timeout`` seconds. It still runs: the caller kills it.
        HoldfastError
            It could not start (its own words), or died (the end of its log).
        """
        deadline = time.monotonic() + timeout
        while self._says_something(deadline - time.monotonic()):
            if self._read_ready():
                return self._answer()
        raise self._late(timeout)

    async def ready(self, timeout: float) -> dict[str, Any]:
        """`wait_ready` for code that lives in an event loop."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    await readable(self._ready_fd)
                    if self._read_ready():
                        break
        except TimeoutError:
            while True:
                # This process may have been stopped meanwhile. What the child has said counts.
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
        return not data or (self._said.endswith(b"\n") and self._said != AT_WORK)

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
        return self._said == AT_WORK

    def _late(self, timeout: float) -> NotReadyError:
        return NotReadyError(f"{self.name} (pid {self.pid}) was not ready after {timeout:.3g} s{self.log_tail()}")

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

    def kill_group(self) -> None:
        """End it at once, and the processes that it has started, as far as they are in its group still."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self.kill()

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
        fd, self._lifeline_fd = self._lifeline_fd, -1  # an interrupt in between must not have it closed twice
        if fd >= 0:
            os.close(fd)

    def _close_ready_fd(self) -> None:
        fd, self._ready_fd = self._ready_fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self, suppress: Any = contextlib.suppress) -> None:  # at the interpreter's end modules are empty
        with suppress(AttributeError, OSError):
            self.close()

    def _forget(self) -> None:
        """In a fork of this process: it is the parent's child, and this process can't wait for its end."""
        self.close()


class SpawnedProcess(ChildProcess):
    """A process that `spawn` started."""

    def __init__(
        self, popen: subprocess.Popen[bytes], name: str, log: Log | None, ready_fd: int, lifeline_fd: int
    ) -> None:
        super().__init__(popen.pid, name, log, ready_fd, lifeline_fd)
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
    ready_read, ready_write = os.pipe()
    lifeline_read = lifeline_write = -1
    if lifeline:
        lifeline_read, lifeline_write = os.pipe()
    output = log = None
    try:
        command = [sys.executable, "-m", module, *arguments, "--ready-fd", str(ready_write)]
        inherited = [*pass_fds, ready_write]
        if lifeline:
            command += ["--lifeline-fd", str(lifeline_read)]
            inherited.append(lifeline_read)
        if log_file is not None:
            output = open_log(log_file)
            log = Log(log_file, os.fstat(output).st_size)
        popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=inherited,
            env={**environment(), **(env or {})},
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
    return SpawnedProcess(popen, name or module.rpartition(".")[2], log, ready_read, lifeline_write)


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
