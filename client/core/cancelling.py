"""Keys that are not wanted any more."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

from holdfast.client.core.core import Core
from holdfast.client.core.key_state import KeyState
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Operation
from holdfast.cluster import protocol
from holdfast.cluster.errors import CancelledError
from holdfast.cluster.failures.links import shortened
from holdfast.cluster.protocol.limits import MAX_NAME_LENGTH

#: Names each cancelling that kills to the scheduler, for one client as for all.
_numbers = itertools.count(1)


class Manner(NamedTuple):
    """How keys are cancelled: also for others, also where they run already, and why, in the words of a user."""

    force: bool = False
    kill: bool = False
    reason: str = ""


def manner_of(force: Any, kill: Any, reason: Any, msg: Any) -> Manner:
    """The arguments of `Client.cancel`.

    Raises
    ------
    TypeError
        One of them is not what it should be; names it.
    """
    for name, text in (("reason", reason), ("msg", msg)):
        if text is not None and not isinstance(text, str):
            raise TypeError(f"{name} is a text that says why something is cancelled, not {text!r:.200}")
    said = ". ".join(filter(None, (reason, msg)))
    return Manner(bool(force), bool(kill), shortened(said, MAX_NAME_LENGTH))


def cancel_keys(core: Core, states: list[KeyState], manner: Manner) -> Operation[None]:
    """Cancel keys, and return when the scheduler has: what is submitted afterwards is made anew.

    Raises
    ------
    RuntimeError
        All are cancelled, but some of them run on, since they can't be killed.
    """
    keys = list(dict.fromkeys(state.key for state in states))
    if not keys:
        return
    table, session = core.table, core.session
    with table.lock:
        session.check_open()
        number = next(_numbers) if manner.kill else None
        session.post(protocol.client.CANCEL(keys, manner.force, number, manner.reason))
    try:
        # An answer comes after everything that the cancelling brought about.
        if number is None:
            yield Ask(session, protocol.requests.WHO_HAS, keys=[])
        else:
            yield Ask(session, protocol.requests.AWAIT_KILLS, kill=number)
    finally:
        with table.lock:
            live = [state.key for state in states if table.states.get(state.key) is state]
            why = f"{manner.reason and ': '}{manner.reason}"
            table.cancelled(live, CancelledError(f"cancelled by {core.name or core.id}{why}"))
