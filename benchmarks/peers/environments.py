"""The environments of the peers: made when they're missing, kept for the next run.

An environment is made anew when its requirements have changed. One that was interrupted has no list of its
requirements, and isn't used.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

VARIABLE = "PEERS_HOME"
_DEFAULT = "~/.cache/holdfast-peers"
_TAIL_NBYTES = 1000

_DASK = ("dask[array,dataframe]==2026.8.0", "distributed==2026.8.0", "psutil")
#: The name of an environment, and what is installed into it.
REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "distributed": _DASK,
    "ray": ("ray==2.60.0", "dask[array,dataframe]", "psutil"),
    "plasma": ("pyarrow==11.0.0", "numpy<2"),
    "vineyard": ("vineyard==0.24.2", "pyarrow==17.0.0", "numpy<2", "pandas<2.3", "setuptools"),
}
#: The environments of those that have none of their own name.
_SHARED = {"floor": "distributed"}


class UnavailableError(Exception):
    """A peer's environment can't be made."""


def interpreter(peer: str, progress: Callable[[str], None]) -> str:
    """The Python of a peer's environment, which is made if it isn't there.

    Parameters
    ----------
    peer : str
        A module of this folder.
    progress : callable
        Called with a line before an environment is made, which takes minutes.

    Raises
    ------
    UnavailableError
        If the environment can't be made, with the end of what was said about it. It's so without a network, and where
        a peer has no package for this version of Python.
    """
    name = _SHARED.get(peer, peer)
    place = Path(os.environ.get(VARIABLE) or _DEFAULT).expanduser() / name
    wanted = "\n".join(REQUIREMENTS[name])
    finished = place / "requirements.txt"
    python = place / "bin" / "python"
    if not (finished.exists() and finished.read_text() == wanted and python.exists()):
        progress(f"making the environment of {peer} in {place}")
        try:
            shutil.rmtree(place, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(place)])
            _run([str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *REQUIREMENTS[name]])
            finished.write_text(wanted)
        except OSError as error:
            raise UnavailableError(_message(peer, place, str(error))) from None
        except subprocess.CalledProcessError as error:
            said = error.output.decode(errors="replace").strip()[-_TAIL_NBYTES:]
            raise UnavailableError(_message(peer, place, said)) from None
    return str(python)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _message(peer: str, place: Path, reason: str) -> str:
    return (
        f"{peer} can't be installed into {place} ({VARIABLE} names another place; --without-peers measures Holdfast "
        f"alone):\n{reason}"
    )
