"""What clients may not ask of a scheduler, by the names that dask or Holdfast has for it."""

from __future__ import annotations

from collections.abc import Iterable

#: dask's names of handlers that have another name here, or are several requests. Functions of clients are run by
#: errands, those for workers and those beside the scheduler, now and for workers that come later.
_OURS = {
    "adaptive_target": ("adaptive-target",),
    "broadcast": ("errand", "stand"),
    "close": ("shutdown",),
    "identity": ("info",),
    "ncores": ("nthreads",),
    "publish_delete": ("unpublish",),
    "publish_get": ("get-dataset",),
    "publish_list": ("list-datasets",),
    "publish_put": ("publish",),
    "run_function": ("errand", "stand"),
    "terminate": ("shutdown",),
}


def requests_of(handlers: Iterable[str] | None) -> frozenset[str]:
    """The requests that these names mean. A name that means none is that of something which can't be asked anyway.

    Raises
    ------
    TypeError
        They are no names.

    Examples
    --------
    >>> sorted(requests_of(["run_function", "who_has"]))
    ['errand', 'stand', 'who-has']
    """
    if isinstance(handlers, str):
        raise TypeError(f"blocked_handlers is a list of names, not the text {handlers!r:.100}")
    found: set[str] = set()
    for name in handlers or ():
        if not isinstance(name, str):
            raise TypeError(f"blocked_handlers has names, and {name!r:.100} is none")
        found.update(_OURS.get(name, (name.replace("_", "-"),)))
    return frozenset(found)
