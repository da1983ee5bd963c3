"""Being another user, whom the system doesn't know: no entry in its table of users, no home."""

from __future__ import annotations

import itertools
import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

#: One of its own for each process that tests: what the user leaves in public places is that process's to look after.
USER = 50_000 + os.getpid() % 10_000
#: Where that user finds this repository.
SOURCE = "/mnt/source"
SUPPORT = f"{SOURCE}/tests/support"
_REPOSITORY = Path(__file__).parents[2]
_UNSHARE = ("unshare", "--mount", "--uts", "sh", "-c")
_BECOME = f"setpriv --reuid {USER} --regid {USER} --clear-groups"


def why_not() -> str:
    """Why nobody can be another user here; nothing if that can be."""
    probe = f"mount -t tmpfs none /mnt && {_BECOME} true"
    result = subprocess.run([*_UNSHARE, probe], capture_output=True, text=True)
    return "" if result.returncode == 0 else f"only root, and not in a sandbox, can be another user: {result.stderr}"


def popen(commands: Sequence[str], env: Mapping[str, str], *, setup: str = ":") -> subprocess.Popen[str]:
    """Start shell commands as the other user.

    Parameters
    ----------
    env
        All of their environment.
    setup
        Shell commands that root runs before, in a mount namespace of their own.
    """
    become = f"exec {_BECOME} sh -c {shlex.quote(chr(10).join(commands))}"
    root = "\n".join(["set -e", *_reachable(), setup, become])
    return subprocess.Popen(
        [*_UNSHARE, root], env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/"
    )


def run(commands: Sequence[str], env: Mapping[str, str], *, setup: str = ":", timeout: float = 120) -> str:
    """As `popen`, to the end: what the commands say."""
    process = popen(commands, env, setup=setup)
    try:
        said, _ = process.communicate(timeout=timeout)
    finally:
        process.kill()
        process.wait()
    return said


def left_behind() -> list[Path]:
    """The directories that the user's processes share in public places, there or not. They stay when these end."""
    return [Path(f"/tmp/holdfast-{USER}"), Path(f"/var/tmp/holdfast-{USER}"), Path(f"/tmp/holdfast-leftovers-{USER}")]


def _reachable() -> list[str]:
    """Commands that let everybody read the repository and the interpreter, in this mount namespace."""
    lines = ["mount -t tmpfs -o mode=755 none /mnt", f"mkdir {SOURCE}", f"mount --bind {_REPOSITORY} {SOURCE}"]
    closed: dict[Path, list[str]] = {}  # what is needed below each directory that others can't enter
    for needed in dict.fromkeys([sys.base_prefix, sys.prefix]):
        for parent in reversed(Path(needed).parents):
            if not parent.stat().st_mode & stat.S_IXOTH:
                closed.setdefault(parent, []).append(needed)
                break
    aside = {needed: f"/mnt/{number}" for number, needed in enumerate(itertools.chain(*closed.values()))}
    # All of it first: what lies in such a directory can't be seen any more once another one is in its place.
    for needed, place in aside.items():
        lines += [f"mkdir {place}", f"mount --bind {needed} {place}"]
    for directory, below in closed.items():
        lines.append(f"mount -t tmpfs -o mode=755 none {directory}")
        for needed in below:
            lines += [f"mkdir -p {needed}", f"mount --bind {aside[needed]} {needed}"]
    return lines
