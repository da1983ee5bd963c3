"""Names of a package that are imported when they are first used.

A process that needs one part of a package does not pay for the others: the scheduler, say, for numpy and pyarrow
because an error's class is the object store's.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy(
    namespace: dict[str, Any], exports: Mapping[str, str], instead: Mapping[str, str] = {}
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package.

    Parameters
    ----------
    namespace : dict
        The package's ``globals()``.
    exports : mapping
        The module of each name.
    instead : mapping, optional
        Names that somebody may look for and that the package doesn't have: what to do instead. The error says so.

    Examples
    --------
    A package does it with ``__getattr__, __dir__ = lazy(globals(), ...)``:

    >>> find, names = lazy({"__name__": "numbers_of_ours"}, {"sqrt": "math"})
    >>> names(), find("sqrt")(9)
    (['__name__', 'sqrt'], 3.0)
    """

    def getattribute(name: str) -> Any:
        module = exports.get(name)
        if module is None:
            way_out = instead.get(name)
            if way_out is None:
                raise AttributeError(f"module {namespace['__name__']!r} has no attribute {name!r}")
            text = f"{namespace['__name__']} has no {name}: {way_out}"
            # An import statement turns an AttributeError into an ImportError that doesn't have its text.
            imports = sys._getframe(1).f_code.co_name == "_handle_fromlist"
            raise ImportError(text, name=name) if imports else AttributeError(text, name=name)
        value = namespace[name] = getattr(importlib.import_module(module), name)
        return value

    return getattribute, lambda: sorted({*namespace, *exports})
