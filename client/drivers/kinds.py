"""The kind of client that a call asks for, as calls of dask may with ``asynchronous=``.

A client is of one kind in each thread, so this can ask for that one, and for no other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])


def check_kind(driver: Any, asynchronous: bool | None) -> None:
    """Raise a ValueError if ``asynchronous`` is not what the client of this driver is in this thread."""
    if asynchronous is not None and bool(asynchronous) != driver.gives_awaitables:
        kind = "an asynchronous" if driver.gives_awaitables else "a blocking"
        raise ValueError(f"asynchronous={asynchronous!r} is not what this client is: it is {kind} one here")


def takes_its_kind(method: Method) -> Method:
    """A method that takes ``asynchronous=`` too, with what the client is in that thread."""

    @functools.wraps(method)
    def taking(self: Any, *args: Any, asynchronous: bool | None = None, **kwargs: Any) -> Any:
        check_kind(self._core.driver, asynchronous)
        return method(self, *args, **kwargs)

    return cast("Method", taking)
