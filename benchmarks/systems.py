"""Running the systems that are compared: each one's workloads in a process of their own, one system at a time.

A system is a command that prints one JSON object a line (``figures.py``). Holdfast's is a module of this folder. A
peer's is a module of the folder ``peers``, run by the Python of an environment that has the peer.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from benchmarks.figures import Figure, parse
from benchmarks.peers import environments

REPOSITORY = Path(__file__).resolve().parent.parent
_TIMEOUT_SECONDS = 900
_TAIL_NBYTES = 2000


class SystemFailedError(Exception):
    """A system's workloads ended early, or printed no figures."""


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs one of this folder's modules."""
    return [sys.executable, "-m", f"benchmarks.{name}", *arguments]


def peer(name: str, progress: Callable[[str], None], suffix: str = "") -> list[str]:
    """The command that runs a peer, in its environment. ``suffix`` follows its name in that of its module.

    Raises
    ------
    UnavailableError
        If the environment isn't there and can't be made.
    """
    return [environments.interpreter(name, progress), "-W", "ignore", "-m", f"benchmarks.peers.{name}{suffix}"]


def measure(name: str, command: list[str], progress: Callable[[str], None]) -> list[Figure]:
    """Runs one system's workloads to their end.

    Parameters
    ----------
    name : str
        Whose figures are taken from what it prints.
    command : list of str
        Run in the repository's root.
    progress : callable
        Called with every line as it comes.

    Raises
    ------
    SystemFailedError
        If it failed, with the end of what it said.
    """
    figures = []
    # What is installed comes with its bytecode. What is run from a working tree gets it now, unless told not to.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile() as errors:
        # A session of its own, so that nothing of it is left when it's interrupted or doesn't end.
        with subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        ) as process:
            timer = threading.Timer(_TIMEOUT_SECONDS, _end, [process])
            timer.start()
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    progress(f"  {line.rstrip()}")
                    figure = parse(line)
                    if figure is not None and figure.system == name:
                        figures.append(figure)
                status = process.wait()
            finally:
                timer.cancel()
                _end(process)
                process.wait()
        if status != 0 or not figures:
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - _TAIL_NBYTES))
            said = errors.read().decode(errors="replace").strip()
            raise SystemFailedError(f"the workloads of {name} ended with status {status}:\n{said}")
    return figures


def _end(process: subprocess.Popen[str]) -> None:
    """Ends the process and what it has started and left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
