"""How much memory this process may use, and what a store takes of it by default."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

from holdfast.objectstore.system import control_groups

_DEFAULT_SHARE = 0.3
_ADDRESSES_PER_BYTE = 4


def memory_limit() -> int:
    """The bytes of memory that this process may use.

    The machine's, or the least that its control groups allow, or as much as it may have addresses for (``ulimit -v``):
    every process maps the whole store.
    """
    limits = [_machine_memory()]
    if (in_groups := control_groups.memory_limit()) is not None:
        limits.append(in_groups)
    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
    if addresses != resource.RLIM_INFINITY:
        limits.append(addresses)
    return min(limits)


def available_memory() -> int:
    """The bytes of memory that could be taken now without pushing anything out that is in use."""
    available = _machine_memory()
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = min(available, 1024 * int(line.split()[1]))
                break
    in_groups = control_groups.available_memory()
    return available if in_groups is None else min(available, in_groups)


def address_span(capacity: int) -> int:
    """How many addresses the arena of a store of ``capacity`` bytes has: several for each byte, unless they're limited.

    (``ulimit -v``: every process maps the whole arena, to read and to write.)
    """
    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
    return capacity * (_ADDRESSES_PER_BYTE if addresses == resource.RLIM_INFINITY else 1)


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def default_capacity() -> int:
    """What a store takes when it isn't told: 30 % of the memory there is."""
    return int(memory_limit() * _DEFAULT_SHARE)
