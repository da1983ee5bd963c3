"""To which client a future belongs that is unpickled: the one that reads what it is in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from holdfast.client.core.core import Core

#: A core, or what gives the future of a key.
Bind = Core | Callable[[Any], Any]


class _Binding(threading.local):
    to: Bind | None = None


#: How futures are unpickled in this thread; `binding` sets it for a while.
bound = _Binding()


class binding:
    """Within it, in this thread, futures are unpickled for a client: for its core, or by ``bind(key)``."""

    def __init__(self, bind: Bind) -> None:
        self._bind = bind

    def __enter__(self) -> None:
        self._outer, bound.to = bound.to, self._bind

    def __exit__(self, *exc_info: object) -> None:
        bound.to = self._outer
