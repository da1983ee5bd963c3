"""Which of a million tasks have been seen, in little memory."""

from __future__ import annotations

_BITS = 16


class Serials:
    """A set of the serials of tasks. It keeps no task, and is gone in a moment however many there are.

    Examples
    --------
    >>> seen = Serials()
    >>> seen.add(3), seen.add(3), 3 in seen, 4 in seen
    (True, False, True, False)
    """

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: dict[int, bytearray] = {}

    def __contains__(self, serial: int) -> bool:
        part = self._parts.get(serial >> _BITS)
        return part is not None and bool(part[serial & (1 << _BITS) - 1])

    def add(self, serial: int) -> bool:
        """Enter a serial; whether it was not there."""
        part = self._parts.get(serial >> _BITS)
        if part is None:
            part = self._parts[serial >> _BITS] = bytearray(1 << _BITS)
        index = serial & (1 << _BITS) - 1
        is_new = not part[index]
        part[index] = 1
        return is_new
