"""What a pickle can only name is pickled by value: whatever a script defined in ``__main__``, a lambda, a local class.

cloudpickle does that for functions and classes.
"""

from __future__ import annotations

from types import CodeType
from typing import Any

import cloudpickle

#: What newer versions of cloudpickle write for the name of a file.
_NO_FILE = "<dynamic-code>"


def _reduce_code(code: CodeType) -> tuple[Any, ...]:
    """What cloudpickle makes of code, with the name of its file: a traceback finds the source by that."""
    make, arguments, *rest = cloudpickle.Pickler.dispatch_table[CodeType](code)
    return (make, tuple(code.co_filename if a == _NO_FILE else a for a in arguments), *rest)


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's pickler, which keeps the names of files."""

    dispatch_table = cloudpickle.Pickler.dispatch_table.new_child({CodeType: _reduce_code})
