"""Processes that a task forks, and that come back from it as if they were its worker."""

from __future__ import annotations

import os
import sys
import traceback


class Forks:
    """Tells a worker's process from its forks. Made in the worker's."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def is_worker(self) -> bool:
        """Whether this is the worker's process."""
        return os.getpid() == self._pid

    def end(self, error: BaseException | None) -> None:
        """In a fork that has come to the end of the task, end it; in the worker do nothing.

        The exit code is the one of a program that ends like this: with ``error``, or without if that is None.
        """
        if self.is_worker:
            return
        code: object = 0
        if isinstance(error, SystemExit):
            code = 0 if error.code is None else error.code
        elif error is not None:
            traceback.print_exception(error)
            code = 1
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code & 0xFF)
