"""What a task gets to see of the results that it depends on.

A dependency is read when the arguments refer to it, not before: they may want an item of it only, and of a dictionary
of frames the store then reads nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from holdfast.objectstore import Store, decode
from holdfast.objectstore.codecs.flat import TAG_PICKLE
from holdfast.objectstore.errors import DecodeError, StoreClosedError, StoreError, StoreFullError, UnreadableError

#: How long a dependency may take to come from another host.
FETCH_TIMEOUT_SECONDS = 300.0
#: How long an object that no host is known to have is waited for: its seal may be on its way.
LATE_SEAL_SECONDS = 1.0


class Missing(Exception):
    """A dependency can't be read anywhere."""

    def __init__(self, key: Any, object_id: bytes) -> None:
        self.key = key
        self.object_id = object_id


class Dependencies(Mapping[Any, Any]):
    """The values of a task's dependencies, by key. Holds those that were asked for as a whole.

    Parameters
    ----------
    store
        Where they are read.
    dependencies
        As they stand in a ``run`` message: ``(key, object id, inline or None, node addresses)`` each.
    private
        Whether the task gets private copies of the pages that it writes to. Small values, which come with the message,
        are its own in any case.

    Attributes
    ----------
    private : bool
    failed : bool
        Whether asking for one has raised something.
    shares : bool
        Whether the task was given a view of memory that it shares with others, and can't write to.
    """

    def __init__(self, store: Store, dependencies: tuple[tuple[Any, ...], ...], *, private: bool) -> None:
        self._store = store
        self._entries = {key: (object_id, inline, nodes) for key, object_id, inline, nodes in dependencies}
        self.private = private
        self._values: dict[Any, Any] = {}
        self.failed = False
        self.shares = False

    @property
    def count_read(self) -> int:
        """How many were asked for as a whole."""
        return len(self._values)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._entries)

    def __getitem__(self, key: Any) -> Any:
        """A value.

        Raises
        ------
        Missing
            It can't be read anywhere.
        Exception
            What decoding it raises, or a store that has no room for it or is gone.
        """
        if key not in self._values:
            self._values[key] = self._read(key)
        return self._values[key]

    def forget(self) -> None:
        """Let go of all values, also where something holds this object still.

        A module that was imported to unpickle the task may keep an error of its import, as some do of an optional
        import that has failed. Such an error keeps all frames from there down to the task's, and these this.
        """
        self._values.clear()

    def item(self, key: Any, item: Any) -> Any:
        """What a value has at ``item``. Raises as above, or what looking for it does, with a note that says where."""
        return self._read(key, (item,))

    def _read(self, key: Any, item: tuple[Any] | None = None) -> Any:
        """A value or, if ``item`` holds a key, what it has at that."""
        object_id, inline, nodes = self._entries[key]
        timeout = FETCH_TIMEOUT_SECONDS if nodes else LATE_SEAL_SECONDS
        try:
            if inline is not None:
                shows_nothing = inline[0] == TAG_PICKLE  # of its bytes: most small values don't
                value = decode(inline if shows_nothing else memoryview(bytearray(inline)))
                return value if item is None else value[item[0]]
            private = self.private
            self.shares = not private
            if item is None:
                return self._store.get(object_id, timeout=timeout, writable=private, sources=nodes)
            return self._store.get_item(object_id, item[0], timeout=timeout, writable=private, sources=nodes)
        except BaseException as error:
            self.failed = True
            if isinstance(error, StoreError) and not isinstance(error, (StoreFullError, StoreClosedError, DecodeError)):
                raise Missing(key, object_id) from None  # not here, and no host could give it
            if isinstance(error, UnreadableError):
                what = f"the result of {key!r:.200}, which the task depends on"
                cause = error.__cause__
                raise UnreadableError(what, error.type_name, cause or error, "on the task's worker") from cause
            if item is not None:
                error.add_note(f"while item {item[0]!r} of the result of {key!r} was taken")
            raise
