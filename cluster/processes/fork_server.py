"""The fork server: a process that forks the others of a cluster, so that they need not import anything: ``python -m
holdfast.cluster.processes.fork_server``.

An interpreter that starts spends a fifth of a second of processor time on what a worker imports, and holds what it has
imported in memory of its own. So one process imports it, once, and the others are forks of it: they are ready in
milliseconds, and share the pages that no process writes to. A fork is only as sound as what it is a copy of, so it
does nothing else:

* It has one thread, no event loop and no connection, and runs no code but the modules that it is asked for.
  What those keep for a process (which peers are connected, which ids are given out) is empty.
* What it has open, a fork closes first of all. Random numbers are drawn anew in each fork.
* It never looks for garbage: that writes to the pages of all objects, and no process would share them any longer.

Requests come over sockets that keep messages apart, the first from the process that started it.
`cluster/processes/forking.py`
sends them. A fork returns from `ForkServer.run` with its request, and is from there on a process as if it had been
started by itself. It is tied to the process that asked, by pipes that came with the request (see
`cluster/processes/child.py`), and not to the fork server, which only tells how it has ended, as only a parent can know.

The fork server ends with the process that started it. If it is killed alone, what it has forked goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from holdfast.cluster.processes.child import add_process_options, default_signals, tell_parent
from holdfast.cluster.processes.forking import DESCRIPTORS_MAX, REQUEST_NBYTES_MAX


class ForkServer:
    """Forks a process for each request.

    Parameters
    ----------
    requests:
        Where they come from, and where the answers go.
    lifeline_fd:
        It ends when this descriptor reaches its end.
    """

    def __init__(self, requests: socket.socket, lifeline_fd: int) -> None:
        self._lifeline_fd = lifeline_fd
        self._requests: dict[int, socket.socket] = {}
        self._exit_pipes: dict[int, tuple[int, int]] = {}  # by descriptor of a fork: its process id, and its pipe
        self._poll = select.poll()
        self._poll.register(lifeline_fd, select.POLLIN)
        self._listen(requests)

    def run(self) -> dict[str, Any] | None:
        """Serve until the end of the lifeline, and return None; in each fork, return its request."""
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._lifeline_fd:
                    return None
                if fd in self._exit_pipes:
                    self._tell_end(fd)
                elif (request := self._serve(self._requests[fd])) is not None:
                    return request

    def _listen(self, requests: socket.socket) -> None:
        self._requests[requests.fileno()] = requests
        self._poll.register(requests, select.POLLIN)

    def _serve(self, requests: socket.socket) -> dict[str, Any] | None:
        try:
            message, descriptors, _, _ = socket.recv_fds(
                requests, REQUEST_NBYTES_MAX, DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:  # the process that asked has ended, with an answer unread
            message = b""
        if not message:
            self._poll.unregister(requests)
            del self._requests[requests.fileno()]
            requests.close()
            return None
        request = json.loads(message)
        importlib.import_module(request["module"])
        if "arguments" not in request:  # a fork is still to come
            return None
        # What there is by now stays: the collectors of the forks need not look at it, and they share it.
        gc.freeze()
        try:
            if len(descriptors) != len(request["descriptors"]):  # the kernel drops those that there is no room for
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            pid = os.fork()
        except OSError as error:
            for fd in descriptors:
                os.close(fd)
            _answer(requests, {"errno": error.errno})
            return None
        given = dict(zip(request["descriptors"], descriptors, strict=True))
        exit_fd, requests_fd = given.pop("exit"), given.pop("requests", None)
        if pid == 0:
            os.close(exit_fd)
            if requests_fd is not None:
                os.close(requests_fd)
            self._let_go()
            return {**request, "descriptors": given}
        for fd in given.values():
            os.close(fd)
        if requests_fd is not None:
            self._listen(socket.socket(fileno=requests_fd))
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:  # no descriptor is left, so its end could not be seen
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(exit_fd)
            _answer(requests, {"errno": error.errno})
            return None
        self._exit_pipes[pidfd] = pid, exit_fd
        self._poll.register(pidfd, select.POLLIN)
        _answer(requests, {"pid": pid}, pidfd)
        return None

    def _tell_end(self, pidfd: int) -> None:
        """A fork has ended: say how."""
        pid, exit_fd = self._exit_pipes.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(BrokenPipeError):
            os.write(exit_fd, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(exit_fd)

    def _let_go(self) -> None:
        """In a fork: of everything that is the fork server's."""
        os.close(self._lifeline_fd)
        for requests in self._requests.values():
            requests.close()
        for pidfd, (_, exit_fd) in self._exit_pipes.items():
            os.close(pidfd)
            os.close(exit_fd)


def _answer(requests: socket.socket, answer: dict[str, int | None], *descriptors: int) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        socket.send_fds(requests, [json.dumps(answer).encode()], descriptors)


def become(request: dict[str, Any]) -> int:
    """Be the process that was asked for; returns its exit code."""
    gc.enable()
    os.setpgid(0, 0)
    # The kernel sends it to a process that is stopped when the fork server dies, and by default it kills. It is no use
    # to a process that ends by its lifeline. A handler, since programs that tasks start would inherit "ignored".
    signal.signal(signal.SIGHUP, _do_nothing)
    for variable, value in request["env"].items():
        if value is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = value
    descriptors = request["descriptors"]
    for name, standard in (("stdout", 1), ("stderr", 2)):
        if (fd := descriptors.pop(name, None)) is not None:
            os.dup2(fd, standard)
            os.close(fd)
    # Python draws new numbers by itself. Older versions of numpy import this at once.
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed()
    module = sys.modules[request["module"]]
    arguments = [*request["arguments"], *(str(word) for option in descriptors.items() for word in option)]
    sys.argv = [str(module.__file__), *arguments]
    show_as([sys.executable, "-m", module.__name__.removesuffix(".__main__"), *arguments])
    code: int = module.main()
    return code


def _do_nothing(number: int, frame: object) -> None:
    pass


def show_as(command: list[str]) -> None:
    """Have ``ps`` and the like show this process as if it had been started with a command, or as much as fits.

    What they show is the memory in which the kernel put the command line that this process, or the one that it is a
    fork of, was really started with. As long as its last byte is not zero, the kernel takes it for one text.
    """
    fields = Path("/proc/self/stat").read_bytes().rpartition(b") ")[2].split()
    start, end = int(fields[45]), int(fields[46])
    if start == 0:  # a kernel that doesn't tell
        return
    text = " ".join(command).encode(errors="replace")[: end - start - 2]
    ctypes.memmove(start, text.ljust(end - start - 1, b"\0") + b".", end - start)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m holdfast.cluster.processes.fork_server", description="Fork processes."
    )
    parser.add_argument("--requests-fd", type=int, required=True, metavar="N", help="where requests come from")
    add_process_options(parser)
    options = parser.parse_args()
    default_signals()
    tell_parent(options.ready_fd, {})
    for fd in (options.requests_fd, options.lifeline_fd):
        os.set_inheritable(fd, False)
    gc.disable()
    # jemalloc, which pyarrow carries along, would start a thread.
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    request = ForkServer(socket.socket(fileno=options.requests_fd), options.lifeline_fd).run()
    return 0 if request is None else become(request)


if __name__ == "__main__":
    sys.exit(main())
