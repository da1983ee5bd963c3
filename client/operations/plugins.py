"""Plugins that a client registers: see `Client.register_plugin`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Elsewhere, Operation
from holdfast.client.operations import running
from holdfast.client.operations.errands import Outcome, outcomes_of
from holdfast.client.packing.constants import Packed
from holdfast.client.packing.keys import check_text
from holdfast.client.raising import raise_in_operation
from holdfast.cluster import protocol
from holdfast.cluster.comm.frames import raw
from holdfast.cluster.failures.loading import load_exception

Statuses = dict[str, dict[str, str]]


def register(core: Core, kind: str, plugin: Any, name: str | None, idempotent: bool) -> Operation[Statuses]:
    """Register a plugin, and have it set up where it belongs."""
    name = name_of(plugin) if name is None else name
    check_name(name)
    packed: Packed = yield Elsewhere(lambda: running.pack(core, f"the plugin {name!r}", plugin))
    answers = yield Ask(
        core.session,
        protocol.requests.REGISTER_PLUGIN,
        kind=kind,
        name=name,
        call=raw(packed.data),
        keys=[future.key for future in packed.stored],
        idempotent=bool(idempotent),
    )
    del packed  # until here this client holds what the plugin is to hold
    return (yield from _statuses(core, answers))


def unregister(core: Core, kind: str, name: str) -> Operation[Statuses]:
    """Unregister a plugin, and have it taken down."""
    check_name(name)
    answers = yield Ask(core.session, protocol.requests.UNREGISTER_PLUGIN, kind=kind, name=name)
    return (yield from _statuses(core, answers))


def _statuses(core: Core, answers: Mapping[str, Any]) -> Operation[Statuses]:
    outcomes = yield from outcomes_of(core, answers, _outcome)
    for outcome in outcomes.values():
        if outcome.error is not None:
            raise_in_operation(outcome.error)
    return {address: {"status": "OK"} for address in outcomes}


def _outcome(answer: Mapping[str, Any]) -> Outcome:
    for name, raised, text in answer.get("failed", ()):
        error = load_exception(raised, text)[0]
        assert isinstance(error, Exception), "it was sent as the cause of one"
        error.add_note(f"Raised by the plugin {name!r}.")
        return Outcome(None, error)
    return Outcome(None, None)


def name_of(plugin: Any) -> str:
    """The name of a plugin that was given none: its own, or one that no other has."""
    name = getattr(plugin, "name", None)
    return name if isinstance(name, str) and name else f"{type(plugin).__name__}-{uuid.uuid4().hex}"


def check_name(name: Any) -> None:
    if not isinstance(name, str) or not name:
        raise TypeError(f"the name of a plugin is a text, not {name!r:.100}")
    check_text("the plugin", name)
