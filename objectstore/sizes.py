"""Sizes in bytes, as people write and read them."""

from __future__ import annotations

import contextlib
import os
import re
import resource
from pathlib import Path

from holdfast.objectstore.system import control_groups

_UNITS = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_PATTERN = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]*)\s*")
_DEFAULT_SHARE = 0.3
_ADDRESSES_PER_BYTE = 4


def parse_size(text: int | str) -> int:
    """The number of bytes that ``text`` names.

    Parameters
    ----------
    text : int or str
        A number of bytes, or a number with a unit: ``"4 GB"`` (10^9), ``"512MiB"`` (2^20), ``"1.5k"``.

    Raises
    ------
    ValueError
        If it can't be read, or isn't at least one byte.

    Examples
    --------
    >>> parse_size("4 GB"), parse_size("1.5KiB")
    (4000000000, 1536)
    """
    if isinstance(text, str):
        match = _PATTERN.fullmatch(text)
        unit = _UNITS.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise ValueError(f"{text!r} is not a size: write it like '4 GB', '512MiB' or 1073741824")
        nbytes = int(float(match[1]) * unit)
    else:
        nbytes = int(text)
    if nbytes < 1:
        raise ValueError(f"a size of {text!r} is not at least one byte")
    return nbytes


def format_size(nbytes: float) -> str:
    """``nbytes`` for people, with decimal units.

    Examples
    --------
    >>> format_size(812), format_size(1_234_567_890)
    ('812 B', '1.2 GB')
    """
    if nbytes < 1000:
        return f"{int(nbytes)} B"
    for unit in ("kB", "MB", "GB"):
        nbytes /= 1000
        if nbytes < 999.95:
            return f"{nbytes:.1f} {unit}"
    return f"{nbytes / 1000:.1f} TB"


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
