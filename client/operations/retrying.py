"""Another try for what has failed: `Client.retry`."""

from __future__ import annotations

from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.core.key_state import KeyState
from holdfast.client.core.retrying import retry_keys
from holdfast.client.drivers.effects import Operation
from holdfast.client.futures.collections import futures_of, listed
from holdfast.client.futures.future import Future


def retry(core: Core, futures: Any) -> Operation[None]:
    """See `Client.retry`."""
    found = [futures] if isinstance(futures, Future) else futures_of(listed(futures, "retry"))
    of_cores: dict[Core, dict[KeyState, None]] = {core: {}}
    for future in found:
        future._check_held()
        of_cores.setdefault(future._core, {})[future._state] = None
    for each, states in of_cores.items():
        if states or each is core:
            yield from retry_keys(each, list(states))
