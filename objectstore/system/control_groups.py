"""What this process's control groups let it have: memory and processors.

A process is in one group of each hierarchy, and a group is in another one; a limit of any of them holds. Slurm, systemd
and Kubernetes set limits on groups in the middle, and the process's own group has none. So the group is looked up in
``/proc/self/cgroup``, and where its hierarchy is mounted in ``/proc/self/mountinfo``, and all folders from the mount
down to it are read.

There are two versions. In version 2 one hierarchy, ``0::/path``, has all controllers; in version 1 each has its own,
``4:memory:/path``; in between, some controllers are in one and some in the other. A version that has nothing to do with
a controller has no files of it, so both are read.

A container may see less than the whole: the mount shows a part of the hierarchy, from a root on. Then the folders from
that root on are all that can be looked at. Version 1 tells more: a group knows the tightest memory limit above it.

Each function takes the folder that ``proc`` and the mounts are looked for in, so that other hosts can be pretended.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from holdfast.objectstore.system.mounts import parse


def memory_limit(root: str = "") -> int | None:
    """The bytes of memory that this process's groups may have together with all that is in them; None: any number.

    A limit from which on the kernel only slows processes down (``memory.high``) counts like one that it kills for: what
    a store takes can't be given up for it.
    """
    tightest = tightest_memory_limit(root)
    return None if tightest is None else tightest.nbytes


class Limit(NamedTuple):
    """A limit, and where it stands.

    Attributes
    ----------
    nbytes
        Of memory.
    file
        That sets it.
    """

    nbytes: int
    file: str


def tightest_memory_limit(root: str = "") -> Limit | None:
    """The least of all limits of memory, and the file that it is from; None: there is none."""
    limits = [limit for folder in _folders(root, "memory") for limit in _memory_limits(folder)]
    return min(limits, default=None)


def memory_kills(root: str = "") -> dict[str, int]:
    """How often the kernel has killed processes for want of memory in each of this process's groups, by its folder.

    What counts is where the processes were, not whose limit it was.
    """
    found = {}
    for folder in _folders(root, "memory"):
        for line in _text(folder, "memory.events" if folder.is_unified else "memory.oom_control").splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill" and value.isdecimal():
                found[folder.path] = int(value)
    return found


def available_memory(root: str = "") -> int | None:
    """The bytes that this process's groups could take now without reclaiming what is in use; None: any number."""
    available = []
    for folder in _folders(root, "memory"):
        limit = _memory_limit(folder)
        if limit is not None:
            used = _number(folder, "memory.current" if folder.is_unified else "memory.usage_in_bytes")
            cache = _stat(folder).get("inactive_file" if folder.is_unified else "total_inactive_file", 0)
            available.append(max(0, limit - (used or 0) + cache))
    return min(available, default=None)


def cpu_quota(root: str = "") -> float | None:
    """How many processors' time this process's groups may use; None: that of all."""
    quotas = []
    for folder in _folders(root, "cpu"):
        if folder.is_unified:
            quota, _, period = _text(folder, "cpu.max").partition(" ")
        else:
            quota, period = _text(folder, "cpu.cfs_quota_us"), _text(folder, "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):  # not "max", nor -1
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


#: From here on a number is no limit: version 1 always has one, by default the largest number that it knows.
_UNLIMITED = 1 << 60


class _Folder(NamedTuple):
    """A group: its folder, and whether that is one of version 2."""

    path: str
    is_unified: bool


def _memory_limit(folder: _Folder) -> int | None:
    """A group's own, without that of the groups above it."""
    names = ("memory.max", "memory.high") if folder.is_unified else ("memory.limit_in_bytes",)
    numbers = [number for name in names if (number := _number(folder, name)) is not None]
    return min((number for number in numbers if number < _UNLIMITED), default=None)


def _memory_limits(folder: _Folder) -> Iterator[Limit]:
    for name in ("memory.max", "memory.high") if folder.is_unified else ("memory.limit_in_bytes",):
        number = _number(folder, name)
        if number is not None and number < _UNLIMITED:
            yield Limit(number, f"{folder.path}/{name}")
    above = None if folder.is_unified else _stat(folder).get("hierarchical_memory_limit")
    if above is not None:
        yield Limit(above, f"{folder.path}/memory.stat")


def _stat(folder: _Folder) -> dict[str, int]:
    found = {}
    for line in _text(folder, "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if value.isdecimal() and int(value) < _UNLIMITED:
            found[name] = int(value)
    return found


def _number(folder: _Folder, name: str) -> int | None:
    text = _text(folder, name)
    return int(text) if text.isdecimal() else None


def _text(folder: _Folder, name: str) -> str:
    return _read(f"{folder.path}/{name}")


def _read(file: str) -> str:
    """What is in a file; nothing if it can't be read. Without buffers: the store asks while it makes pages."""
    try:
        with open(file, "rb", buffering=0) as opened:
            return opened.read().decode(errors="replace").strip()
    except OSError:
        return ""


def _folders(root: str, controller: str) -> list[_Folder]:
    """Of this process's group with a controller, and of those above it, as far as they can be seen; outermost first."""
    return _folders_of(root, controller, _read(f"{root}/proc/self/cgroup"))


@functools.lru_cache(maxsize=16)
def _folders_of(root: str, controller: str, groups: str) -> list[_Folder]:
    mounts = parse(_read(f"{root}/proc/self/mountinfo"))
    found: dict[_Folder, None] = {}
    for line in groups.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        for mount in mounts:
            is_unified = number == "0" and mount.kind == "cgroup2"
            is_its = mount.kind == "cgroup" and controller in controllers.split(",") and controller in mount.options
            if is_unified or is_its:
                paths = _down_to(f"{root}{mount.point}", mount.root, group)
                found |= dict.fromkeys(_Folder(path, is_unified) for path in paths)
    return list(found)


def _down_to(top: str, root: str, group: str) -> Iterator[str]:
    """The folders from the top of a mount down to a group, or only the top if the group isn't seen below it.

    Parameters
    ----------
    top, root : str
        Where the mount is, and which group it shows there.
    """
    yield top
    try:
        below = PurePosixPath(group).relative_to(root).parts
    except ValueError:
        return
    if ".." not in below:  # beside or above the namespace that the mount was made in
        for depth in range(len(below)):
            yield "/".join([top, *below[: depth + 1]])
