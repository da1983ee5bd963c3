"""What a future is, as far as packing has to know: something with a key that says of itself that it is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeGuard


class FutureLike(Protocol):
    """A future of this package, of whichever client. Its class has a true ``_is_holdfast_future``."""

    @property
    def key(self) -> Any:
        """The key of the result that it stands for."""


#: Gives a client's own future of the key of one that is given; raises if there can't be one.
Own = Callable[[Any], FutureLike]


def is_future(value: object) -> TypeGuard[FutureLike]:
    """Whether it is a future of this package."""
    return is_future_class(type(value))


def is_future_class(kind: type) -> bool:
    """Whether objects of this class are futures of this package."""
    return getattr(kind, "_is_holdfast_future", False) is True
