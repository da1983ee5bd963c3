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


#: To what futures belong that are unpickled in this thread. What reads sets it for a while, and in plain words:
#:
#:     outer = bound.to
#:     bound.to = core
#:     try: ...
#:     finally: bound.to = outer
#:
#: An interrupt comes where a function begins. So a context manager would leave it set now and then, for good.
bound = _Binding()
