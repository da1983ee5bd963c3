"""Classes of errors that stand for a task's, where the class of that isn't there.

Such a class is one of `RemoteError`, and of whatever the original is an error of that can be imported: handlers of
`OSError` or of a library's base class catch it. It shows the name and the words of the original, and has its
attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from holdfast.cluster.errors import RemoteError
from holdfast.objectstore.pickling.exceptions import args_of


class Substitute(RemoteError):
    """Base of these classes. Its errors have what the original said as their argument."""

    #: What is sent of the class that it stands for, in case it's sent on.
    _original: Any = None
    _why = ""

    def __str__(self) -> str:
        return f"{self._words} ({self._why})"

    @property
    def _words(self) -> str:
        return "".join(map(str, args_of(self)))


def substitute(
    name: str,
    original: Any,
    why: str,
    ancestors: Iterable[type[BaseException]],
    reduce: Callable[[Substitute], Any],
) -> type[Substitute]:
    """A class that stands for the class ``name``.

    Parameters
    ----------
    original
        Kept with the class.
    why
        It is needed.
    ancestors
        Classes that the original is one of, the nearest first. Those that it can't be one of as well are left out.
    reduce
        How an error of the class is pickled: its ``__reduce__``.
    """
    shown = f"RemoteError({name.rpartition('.')[2]})"
    names = {
        "__module__": "holdfast",
        "__qualname__": shown,
        "__doc__": f"Stands for {name}.",
        "_original": original,
        "_why": why,
        "__reduce__": reduce,
    }
    bases: tuple[type[BaseException], ...] = (Substitute,)
    made: type[Substitute] = type(shown, (Substitute,), dict(names))
    for ancestor in ancestors:
        if not issubclass(ancestor, Exception) or issubclass(made, ancestor):
            continue
        try:
            extended: Any = type(shown, (*bases, ancestor), dict(names))
        except Exception:  # two layouts, two metaclasses, a class that refuses to have others below it
            continue
        if isinstance(extended, type) and issubclass(extended, Substitute):
            bases, made = (*bases, ancestor), extended
    return made
