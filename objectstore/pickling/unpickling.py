"""Unpickling what has exceptions in it whose classes don't take back what pickle gives them.

Pickle makes an exception by calling its class with its ``args``. A class whose ``__init__`` wants something else fails
at that, and with it all that the exception is part of. So a pickle that fails is read once more, and such exceptions
are made without a call of theirs. That costs nothing where nothing fails.
"""

from __future__ import annotations

import contextlib
import io
import pickle
from collections.abc import Iterable
from typing import Any, ClassVar

from holdfast.objectstore.pickling.exceptions import has_own_reduce, remake

#: What classes that are called with other arguments than they want raise.
REFUSALS = (TypeError, AttributeError, LookupError, ValueError)


def loads_again(data: bytes | memoryview, buffers: Iterable[Any] = ()) -> tuple[Any] | None:
    """The value of a pickle at which `pickle.loads` raised one of `REFUSALS`; None if that was for another reason."""
    reader = _RemakingUnpickler(io.BytesIO(data), buffers=buffers)
    with contextlib.suppress(Exception):
        value = reader.load()
        if reader.has_made:
            return (value,)
    return None


_Unpickler: Any = pickle._Unpickler


class _RemakingUnpickler(_Unpickler):  # type: ignore[misc]
    """Python's own unpickler, whose steps can be changed."""

    dispatch: ClassVar[dict[int, Any]] = dict(_Unpickler.dispatch)
    has_made = False

    def load_reduce(self) -> None:
        args = self.stack.pop()
        make = self.stack[-1]
        if isinstance(make, type) and issubclass(make, BaseException) and not has_own_reduce(make):
            self.has_made = True
            self.stack[-1] = remake(make, args)
        else:
            self.stack[-1] = make(*args)

    dispatch[pickle.REDUCE[0]] = load_reduce
