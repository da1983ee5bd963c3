"""Having processes forked: the side of the processes that ask the fork server (`cluster/processes/fork_server.py`).

A request is a message with descriptors. The message names the module whose ``main`` the fork is to run, its arguments,
environment variables, and what each descriptor is: an option of the module's, or one of

``exit``
    where the fork server says how the fork has ended;
``stdout``, ``stderr``
    what becomes the fork's standard output and error: a log, or those of the process that asks;
``requests``
    where the fork server takes requests from, too, from now on: the other end goes to the fork, with an option.

The answer is the process id of the fork with a descriptor of that process, or the number of an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import select
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.cluster.processes.log_files import Log, open_log
from holdfast.cluster.processes.parent import (
    UNKNOWN_EXIT,
    ChildProcess,
    NotReadyError,
    SpawnedProcess,
    describe_exit,
    readable,
    require_pidfds,
    spawn,
)
from holdfast.objectstore.errors import HoldfastError

logger = logging.getLogger(__name__)

MODULE = "holdfast.cluster.processes.fork_server"
NAME = "the fork server"
REQUEST_NBYTES_MAX = 64 << 10
DESCRIPTORS_MAX = 16
#: How long the fork server may take to import what a fork needs, and to fork.
FORK_TIMEOUT_SECONDS = 60.0
#: And to say how one has ended, when it has.
REPORT_SECONDS = 1.0
_ANSWER_NBYTES_MAX = 1024
#: Numeric libraries start a thread per core in each process, unless they are told otherwise. The cluster's own threads
#: are meant to fill the cores. A user who has set these has said what they want.
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class Forker:
    """A way to a fork server; it is started when there is none yet, or none any more.

    Not for more than one thread at a time.

    Parameters
    ----------
    requests:
        The way to one that another process has started.
    env:
        Environment variables, besides those of this process, for one that is started here, and for what it forks.
    log_file:
        Where one that is started here logs. Standard error is inherited if not given.
    """

    def __init__(
        self,
        requests: socket.socket | None = None,
        *,
        env: Mapping[str, str] | None = None,
        log_file: Path | None = None,
    ) -> None:
        self._requests = requests
        self._env = {variable: os.environ.get(variable, "1") for variable in ONE_THREAD} | dict(env or {})
        self._log_file = log_file
        self._process: SpawnedProcess | None = None
        self._one_by_one = asyncio.Lock()

    def prepare(self, module: str) -> None:
        """Have a module imported that will be asked for; don't wait for it."""
        with contextlib.suppress(ConnectionError):  # the next fork will tell
            self._running().send(json.dumps({"module": module}).encode())

    def fork(self, module: str, arguments: Sequence[str], name: str, timeout: float, **options: Any) -> ForkedProcess:
        """Have a process forked; return as soon as it is there.

        Parameters
        ----------
        module:
            With a function ``main`` that reads the options in ``sys.argv``, those of `add_process_options` among
            them, and returns the exit code.
        name:
            For messages to people.
        options:
            Those of `_Request`.

        Raises
        ------
        OSError
            There is no room for another process.
        HoldfastError
            The fork server could not start, has died, or has not answered after ``timeout`` seconds.
        """
        with _Request(module, arguments, name, **options) as request:
            try:
                requests = self._running()
                request.send(requests)
                if not _is_readable(requests.fileno(), timeout):
                    raise NotReadyError(f"{name} was not ready after {timeout:.3g} s")
                return request.answer(requests)
            except ConnectionError:
                raise HoldfastError(f"{name} could not start: {self._last_words()}") from None

    async def fork_async(self, module: str, arguments: Sequence[str], name: str, **options: Any) -> ForkedProcess:
        """`fork` for code that lives in an event loop, and for long: if the fork server has died, one is started."""
        async with self._one_by_one:
            for _ in range(2):
                with _Request(module, arguments, name, **options) as request:
                    requests = self._running()
                    try:
                        request.send(requests)
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(FORK_TIMEOUT_SECONDS):
                                await readable(requests.fileno())
                        # This process may have been stopped meanwhile: an answer that is there counts.
                        if not _is_readable(requests.fileno(), 0):
                            raise TimeoutError
                    except ConnectionError:
                        pass
                    except BaseException as error:
                        # Its answer is still to come, and must not be taken for the answer to another request.
                        self.close()
                        if isinstance(error, TimeoutError):
                            raise HoldfastError(f"{name} could not start: {NAME} does not answer") from None
                        raise
                    else:
                        with contextlib.suppress(ConnectionError):
                            return request.answer(requests)
                    last_words = self._last_words()
                    logger.warning("%s", last_words)
                    self.close()
            raise HoldfastError(f"{name} could not start: {last_words}")

    def close(self) -> None:
        """End it, if it was started here, after what it has forked, whose ends could not be seen without it.

        Twice is no error.
        """
        if self._process is not None:
            self._process.stop(0)  # nothing is lost by that
            self._process = None
        if self._requests is not None:
            self._requests.close()
            self._requests = None

    def _running(self) -> socket.socket:
        if self._requests is None:
            require_pidfds()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                try:
                    self._process = spawn(
                        MODULE,
                        ["--requests-fd", str(theirs.fileno())],
                        name=NAME,
                        env=self._env,
                        log_file=self._log_file,
                        pass_fds=[theirs.fileno()],
                    )
                except BaseException:
                    ours.close()
                    raise
            self._requests = ours
        return self._requests

    def _last_words(self) -> str:
        if self._process is None:
            return f"{NAME} has died"
        code = self._process.wait(REPORT_SECONDS)
        return f"{NAME} {'has died' if code is None else describe_exit(code)}{self._process.log_tail()}"


class _Request:
    """A request and its pipes.

    Parameters
    ----------
    env:
        Environment variables besides those of the fork server; None for a value: one that the fork does not get.
    log_file:
        Appended to: what the fork logs and what it prints. It gets this process's standard output and error if not
        given.
    pass_fds:
        Descriptors that the fork gets, by the options that it gets them with.
    may_fork:
        Give it a way to the fork server as well, with the option ``--forker-fd``.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        name: str,
        *,
        env: Mapping[str, str | None] | None = None,
        log_file: Path | None = None,
        pass_fds: Mapping[str, int] | None = None,
        may_fork: bool = False,
    ) -> None:
        self._name = name
        self._log: Log | None = None
        with contextlib.ExitStack() as undo:
            self._ours = ours = undo.enter_context(contextlib.ExitStack())
            self._theirs = theirs = undo.enter_context(contextlib.ExitStack())
            self._exit_fd, exit_write = _pipe(ours, theirs)
            self._ready_fd, ready_write = _pipe(ours, theirs)
            lifeline_read, self._lifeline_fd = _pipe(theirs, ours)
            descriptors = {"exit": exit_write, "--ready-fd": ready_write, "--lifeline-fd": lifeline_read}
            descriptors |= pass_fds or {}
            if may_fork:
                pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                descriptors |= {
                    option: theirs.enter_context(end).fileno()
                    for option, end in zip(("requests", "--forker-fd"), pair, strict=True)
                }
            if log_file is None:
                descriptors |= {name: fd for name, fd in (("stdout", 1), ("stderr", 2)) if _is_open(fd)}
            else:
                log = open_log(log_file)
                theirs.callback(os.close, log)
                self._log = Log(log_file, os.fstat(log).st_size)
                descriptors |= {"stdout": log, "stderr": log}
            self._descriptors = list(descriptors.values())
            content = {"module": module, "arguments": list(arguments), "env": dict(env or {})}
            self._message = json.dumps({**content, "descriptors": list(descriptors)}).encode()
            if len(self._message) > REQUEST_NBYTES_MAX:
                raise HoldfastError(
                    f"{name} could not start: its arguments have {len(self._message)} bytes, "
                    f"{REQUEST_NBYTES_MAX} are the most that there may be"
                )
            undo.pop_all()

    def __enter__(self) -> _Request:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._theirs.close()
        self._ours.close()

    def send(self, requests: socket.socket) -> None:
        socket.send_fds(requests, [self._message], self._descriptors)

    def answer(self, requests: socket.socket) -> ForkedProcess:
        """Receive the answer. Raises ConnectionError if the fork server has died."""
        message, received, _, _ = socket.recv_fds(requests, _ANSWER_NBYTES_MAX, 1, socket.MSG_CMSG_CLOEXEC)
        if not message:
            raise ConnectionResetError
        answer = json.loads(message)
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        (pidfd,) = received
        self._ours.pop_all()
        return ForkedProcess(
            answer["pid"], self._name, self._log, self._ready_fd, self._lifeline_fd, pidfd, self._exit_fd
        )


def _pipe(readers: contextlib.ExitStack, writers: contextlib.ExitStack) -> tuple[int, int]:
    read, write = os.pipe()
    readers.callback(os.close, read)
    writers.callback(os.close, write)
    return read, write


class ForkedProcess(ChildProcess):
    """A process that a fork server forked.

    It is the fork server's child. Here it is known by a descriptor, so that no signal can reach another process that
    was given the same id, and how it has ended comes over a pipe.
    """

    def __init__(
        self, pid: int, name: str, log: Log | None, ready_fd: int, lifeline_fd: int, pidfd: int, exit_fd: int
    ) -> None:
        super().__init__(pid, name, log, ready_fd, lifeline_fd)
        self._pidfd = pidfd
        self._exit_fd = exit_fd
        self._code: int | None = None

    @property
    def returncode(self) -> int | None:
        if self._code is None and _is_readable(self._pidfd, 0):
            self._end()
        return self._code

    def send_signal(self, number: int) -> None:
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def wait(self, timeout: float | None = None) -> int | None:
        if self._code is None:
            if not _is_readable(self._pidfd, timeout):
                return None
            self._end()
        self.close()
        return self._code

    async def exited(self) -> int:
        if self._code is None:
            await readable(self._pidfd)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPORT_SECONDS):
                    await readable(self._exit_fd)
        code = self.wait()
        assert code is not None
        return code

    def open_pidfd(self) -> int:
        return os.dup(self._pidfd)

    def _end(self) -> None:
        """The process has ended. The fork server is told of that at the same time as this process."""
        said = os.read(self._exit_fd, 16) if _is_readable(self._exit_fd, REPORT_SECONDS) else b""
        self._set_code(int(said) if said else UNKNOWN_EXIT)

    def _set_code(self, code: int) -> None:
        self._code = code
        os.close(self._pidfd)
        os.close(self._exit_fd)

    def _forget(self) -> None:
        super()._forget()
        if self._code is None:
            self._set_code(UNKNOWN_EXIT)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _is_readable(fd: int, timeout: float | None) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout is None else max(0.0, timeout) * 1000))
