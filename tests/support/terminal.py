"""A command in a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from types import TracebackType

DEADLINE_SECONDS = 60.0


class Terminal:
    """Runs ``holdfast ARGUMENTS`` in a terminal of so many columns and rows; use it as a context.

    Attributes
    ----------
    shown : str
        What the command has written, with the codes that move the cursor.
    """

    def __init__(self, *arguments: str, columns: int = 80, rows: int = 24) -> None:
        self.shown = ""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "holdfast", *arguments],
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env=environment,
                start_new_session=True,
            )
        finally:
            os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def read_until(self, text: str, times: int = 1) -> None:
        """Wait until the command has written a text so often."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self.shown.count(text) < times:
            assert self._read(deadline), f"{text!r} was not shown {times} times: {self.shown}"

    def interrupt(self) -> int:
        """Press Ctrl-C; the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self._read(deadline):
            continue
        return self._process.wait(DEADLINE_SECONDS)

    def _read(self, deadline: float) -> bool:
        if not select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self._ours, 1 << 16)
        except OSError:  # nobody has the other end any more
            return False
        self.shown += data.decode().replace("\r\n", "\n")
        return bool(data)
