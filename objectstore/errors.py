"""The errors of the object store, and the base of every error that Holdfast raises itself."""

from __future__ import annotations


class HoldfastError(Exception):
    """Base of all errors that Holdfast raises about itself (a task's own errors are raised as they are)."""


class StoreError(HoldfastError):
    """Something is wrong with the object store or with the connection to it."""


class StoreClosedError(StoreError):
    """The store, or this connection to it, is closed."""


class ObjectNotFoundError(StoreError, KeyError):
    """The store holds no object with this id."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class StoreFullError(StoreError, MemoryError):
    """There is no room for an object, and nothing that could be given up for it."""


class SpillError(StoreError):
    """An object that was moved to disk can't be had back, or none can be moved there; the text says why."""


class DecodeError(StoreError):
    """The bytes are not an encoded object, or they are damaged."""


class ProtocolError(StoreError):
    """The other end of a connection said something that the protocol doesn't allow; the connection is closed."""
