"""What is mounted where: the kernel's table of this process's mounts, ``/proc/self/mountinfo``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

_ESCAPED = re.compile(r"\\([0-7]{3})")
#: Kinds of file systems whose files are memory.
_MEMORY_KINDS = {"tmpfs", "ramfs", "devtmpfs", "rootfs", "hugetlbfs"}
#: Kinds that only one host at a time can have mounted. Of others, or unknown ones, several may.
_KINDS_OF_ONE_HOST = _MEMORY_KINDS | {
    *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "reiserfs", "overlay"),
}


class Mount(NamedTuple):
    """One mount.

    Attributes
    ----------
    device : str
        ``major:minor`` of the file system, as of `os.stat`.
    root : str
        What of the file system is seen here: ``/`` for all of it.
    point : str
        Where it is seen.
    kind : str
        The file system's type: ``ext4``, ``tmpfs``.
    options : list of str
        Those of the file system.
    """

    device: str
    root: str
    point: str
    kind: str
    options: list[str]


def parse(table: str) -> list[Mount]:
    """The mounts in a text that is like ``/proc/self/mountinfo``; lines that can't be read are left out."""
    found = []
    for line in table.splitlines():
        # 36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/sda1 rw,errors=continue
        place, _, system = line.partition(" - ")
        words, kind = place.split(" "), system.split(" ")
        if len(words) >= 5 and len(kind) >= 2:
            found.append(Mount(words[2], _unescaped(words[3]), _unescaped(words[4]), kind[0], kind[-1].split(",")))
    return found


def memory_kind(path: str) -> str | None:
    """The type of file system at ``path``, if its files are memory; None: they are on a disk, or it is not known.

    Parameters
    ----------
    path : str
        It need not exist yet; then what it would be made in counts.
    """
    return next(iter(_kinds(path) & _MEMORY_KINDS), None)


def is_of_one_host(path: str) -> bool:
    """Whether no other host can have the file system at ``path`` mounted. False also if it is not known."""
    kinds = _kinds(path)
    return bool(kinds) and kinds <= _KINDS_OF_ONE_HOST


def _kinds(path: str) -> set[str]:
    place = Path(path).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        number = place.stat().st_dev
        table = Path("/proc/self/mountinfo").read_text()
    except OSError:
        return set()
    device = f"{os.major(number)}:{os.minor(number)}"
    return {mount.kind for mount in parse(table) if mount.device == device}


def _unescaped(path: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), path)
