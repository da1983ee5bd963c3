"""Sizes in bytes, as people write and read them."""

from __future__ import annotations

import re

_UNITS = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_PATTERN = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]*)\s*")


def parse_size(text: float | str, *, least: int = 1) -> int:
    """The number of bytes that ``text`` names.

    Parameters
    ----------
    text : int, float or str
        A number of bytes, or a number with a unit: ``"4 GB"`` (10^9), ``"512MiB"`` (2^20), ``"1.5k"``.
    least : int
        The least number of bytes that it may be.

    Raises
    ------
    ValueError
        If it can't be read, or is less.

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
    if nbytes < least:
        raise ValueError(f"a size of {text!r} is not at least {'one byte' if least == 1 else f'{least:,} bytes'}")
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
