"""Keys that are not wanted any more."""

from __future__ import annotations

from holdfast.client.core.core import Core
from holdfast.client.core.key_state import KeyState
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Operation
from holdfast.cluster import protocol
from holdfast.cluster.errors import CancelledError


def cancel_keys(core: Core, states: list[KeyState], force: bool) -> Operation[None]:
    """Cancel keys, and return when the scheduler has: what is submitted afterwards is made anew."""
    keys = list(dict.fromkeys(state.key for state in states))
    if not keys:
        return
    table, session = core.table, core.session
    with table.lock:
        session.check_open()
        session.post(protocol.client.CANCEL(keys, force))
    # An answer comes after everything that the cancelling brought about.
    yield Ask(session, protocol.requests.WHO_HAS, keys=[])
    with table.lock:
        live = [state.key for state in states if table.states.get(state.key) is state]
        table.cancelled(live, CancelledError(f"cancelled by {core.name or core.id}"))
