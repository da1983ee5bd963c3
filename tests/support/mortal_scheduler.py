"""A scheduler's process with a journal, which is killed and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys

TOKEN = "t" * 32


class MortalScheduler:
    """One scheduler after the other, at one address.

    Parameters
    ----------
    path
        Its state directory.
    keeps_port
        Whether its socket is listened to while no scheduler is there, as that of a supervised one is.
    options
        Further ones of the command line.
    """

    def __init__(self, path, *options, keeps_port=False, environment=()):
        self._options = ["--state-directory", str(path), "--recovery-timeout", "0.2", *options]
        self._environment = {**os.environ, "HOLDFAST_TOKEN": TOKEN, **dict(environment)}
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._socket.getsockname()[1]}"
        if keeps_port:
            self._socket.listen(64)
        self._keeps_port = keeps_port
        self._process = None

    def __enter__(self):
        self.begin()
        return self

    def __exit__(self, *exc_info):
        self.kill()
        self._socket.close()

    def begin(self):
        """Start one."""
        command = [sys.executable, "-m", "holdfast.cluster.scheduler", *self._options]
        if self._keeps_port:
            fd = self._socket.fileno()
            self._process = subprocess.Popen(
                [*command, "--listen-fd", str(fd)], pass_fds=[fd], env=self._environment, start_new_session=True
            )
        else:
            port = self.address.rpartition(":")[2]
            self._process = subprocess.Popen([*command, "--port", port], env=self._environment, start_new_session=True)

    def kill(self):
        """End it as nothing could foresee."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def restart(self):
        self.kill()
        self.begin()
