"""Classes of errors that stand for a task's, where the class of that isn't there.

Such a class is one of `RemoteError`, and of whatever the original is an error of that can be imported: handlers of
`OSError` or of a library's base class catch it. It shows the name and the words of the original, and has its
attributes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from holdfast.cluster.errors import RemoteError


class Substitute(RemoteError):
    """Base of these classes; their ``__init__`` is called by nobody."""

    #: What is sent of the class that it stands for, in case it's sent on.
    _original: Any = None

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> Any:
        from holdfast.cluster.raised import dump_exception, load_copy  # it imports this

        return load_copy, (dump_exception(self)[0],)


def substitute(name: str, original: Any, ancestors: Iterable[type[BaseException]]) -> type[Substitute]:
    """A class that stands for the class ``name``.

    Parameters
    ----------
    original
        Kept with the class.
    ancestors
        Classes that the original is one of, the nearest first. Those that it can't be one of as well are left out.
    """
    bases: list[type[BaseException]] = []
    made = _made(name, original, bases)
    for ancestor in ancestors:
        if not issubclass(ancestor, Exception) or issubclass(made, ancestor):
            continue
        try:
            made = _made(name, original, [*bases, ancestor])
        except Exception:  # two layouts, two metaclasses, a class that refuses to have others below it
            continue
        bases.append(ancestor)
    return made


def _made(name: str, original: Any, bases: list[type[BaseException]]) -> type[Substitute]:
    shown = f"RemoteError({name.rpartition('.')[2]})"
    names = {"__module__": "holdfast", "__qualname__": shown, "_original": original, "__doc__": f"Stands for {name}."}
    return type(shown, (Substitute, *bases), names)
