"""Durable copies of objects, as texts that stand where addresses of nodes would: one more place to bring them from."""

from __future__ import annotations

from typing import NamedTuple

_BEGINNING = "durable:"


class DurableCopy(NamedTuple):
    """An object in a place for durable datasets.

    Attributes
    ----------
    digest
        Its SHA-256, which names it there.
    nbytes
        Its size.
    checksum
        Its XXH3, as 16 hexadecimal digits.
    place
        The path or URL of the place.

    Examples
    --------
    >>> copy = DurableCopy("ab12", 3, "0f", "s3://bucket/published")
    >>> copy.source
    'durable:ab12:3:0f:s3://bucket/published'
    >>> DurableCopy.of(copy.source) == copy, DurableCopy.of("tcp://10.0.0.1:4000") is None
    (True, True)
    """

    digest: str
    nbytes: int
    checksum: str
    place: str

    @property
    def source(self) -> str:
        """The text that stands for it."""
        return f"{_BEGINNING}{self.digest}:{self.nbytes}:{self.checksum}:{self.place}"

    @classmethod
    def of(cls, source: str) -> DurableCopy | None:
        """What a text stands for; None if it is something else, such as the address of a node."""
        if not source.startswith(_BEGINNING):
            return None
        digest, nbytes, checksum, place = source[len(_BEGINNING) :].split(":", 3)
        return cls(digest, int(nbytes), checksum, place)
