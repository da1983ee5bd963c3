"""Keys whose tasks have failed, and are to run again."""

from __future__ import annotations

from holdfast.client.core.core import Core
from holdfast.client.core.key_state import KeyState
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Operation
from holdfast.cluster import protocol


def retry_keys(core: Core, states: list[KeyState]) -> Operation[None]:
    """Have those that have failed computed again, and return when the scheduler has begun with that."""
    core.session.check_open()
    core.table.retry(states)
    yield Ask(core.session, protocol.requests.WHO_HAS, keys=[])
