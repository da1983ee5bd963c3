"""How the state machine's instructions look on the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.cluster import protocol
from holdfast.cluster.comm.frames import raw, raw_values
from holdfast.cluster.protocol.limits import MAX_REASON_LENGTH
from holdfast.cluster.scheduler.tasks import instructions as to_do


def _run_entry(entry: to_do.RunEntry) -> tuple[Any, ...]:
    key, run_id, digest, payload, dependencies, private, serial = entry
    return (key, run_id, digest, raw(payload), dependencies, private, serial)


def _erred_entry(entry: to_do.ErredEntry) -> tuple[Any, ...]:
    key, raised, text = entry
    return (key, raised if isinstance(raised, str | tuple) else raw(raised), text)


def _call_entry(entry: to_do.CallEntry) -> tuple[Any, ...]:
    call, actor, caller, method, payload, dependencies = entry
    return (call, actor, caller, method, raw(payload), dependencies)


def _called_entry(entry: to_do.CalledEntry) -> tuple[Any, ...]:
    number, ok, value, stored, text, keys = entry
    return (number, ok, raw(value), stored, text, keys)


def _reply(instruction: to_do.Reply) -> tuple[Any, ...]:
    value = instruction.value
    if type(value) is dict:
        if "data" in value:
            value = {**value, "data": raw(value["data"])}
        elif "items" in value:
            value = {**value, "items": [(raw(data), keys) for data, keys in value["items"]]}
    return protocol.client.REPLY(instruction.request, instruction.ok, value)


def _outcome(instruction: to_do.TellOutcome) -> tuple[Any, ...]:
    outcome = instruction.outcome
    if type(value := outcome.get("value")) is dict:
        outcome = {"value": raw_values(value)}
    return protocol.client.PART(instruction.request, {instruction.address: outcome})


def message_of(instruction: to_do.Instruction, turn: int = 0) -> tuple[Any, ...]:
    """How an instruction looks on the wire. `REPORTS` carry the turn that the client has said last."""
    kind = type(instruction)
    return REPORTS[kind](instruction, turn) if kind in REPORTS else MESSAGES[kind](instruction)


#: By the class of an instruction that is no report: what makes the message.
MESSAGES: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    to_do.SendFunctions: lambda i: protocol.worker.FUNCTIONS_SENT([(digest, raw(blob)) for digest, blob in i.items]),
    to_do.ForgetFunctions: lambda i: protocol.worker.FUNCTIONS_FORGOTTEN(i.items),
    to_do.RunTasks: lambda i: protocol.worker.RUN_TASKS([_run_entry(entry) for entry in i.items]),
    to_do.TellHolding: lambda i: protocol.worker.HOLDING(i.items),
    to_do.TellTimed: lambda i: protocol.worker.TIMED(i.items),
    to_do.GrantResources: lambda i: protocol.worker.GRANTED(i.items),
    to_do.DropRuns: lambda i: protocol.worker.DROP(i.items),
    to_do.RunCalls: lambda i: protocol.worker.CALLS([_call_entry(entry) for entry in i.items]),
    to_do.DropCalls: lambda i: protocol.worker.DROP_CALLS(i.items),
    to_do.DropActors: lambda i: protocol.worker.DROP_ACTORS(i.items),
    to_do.ReportCalled: lambda i: protocol.client.CALLED([_called_entry(entry) for entry in i.items]),
    to_do.RevokeRuns: lambda i: protocol.node.REVOKE(i.worker, i.incarnation, i.run_ids),
    to_do.KillRuns: lambda i: protocol.node.KILL(i.worker, i.incarnation, i.run_ids, i.reason[:MAX_REASON_LENGTH]),
    to_do.TellRevoked: lambda i: protocol.worker.REVOKED(i.number, i.run_ids),
    to_do.CopyObjects: lambda i: protocol.node.COPY(i.items),
    to_do.DeleteObjects: lambda i: protocol.node.DELETE(i.items),
    to_do.ForgetObjects: lambda i: protocol.node.FORGET(i.items),
    to_do.DiscardResults: lambda i: protocol.worker.DISCARD(i.items),
    to_do.ReportKept: lambda i: protocol.client.KEPT(i.items),
    to_do.Warn: lambda i: protocol.client.WARNING(i.text[:MAX_REASON_LENGTH]),
    to_do.TellEvents: lambda i: protocol.client.EVENTS(i.topic, i.number, i.missed, i.events),
    to_do.Reply: _reply,
    to_do.ReplyPart: lambda i: protocol.client.PART(i.request, i.fragment),
    to_do.TellOutcome: _outcome,
    to_do.SendErrand: lambda i: protocol.errands.ERRAND(i.number, i.operation, raw_values(i.arguments)),
    to_do.AskForReport: lambda i: protocol.node.REPORT(),
    to_do.RestartWorkers: lambda i: protocol.node.RESTART_WORKERS(i.items),
    to_do.CloseNode: lambda i: protocol.node.CLOSE(),
    to_do.TellNodes: lambda i: protocol.client.NODES_CHANGED(i.more, i.fewer),
    to_do.AskForExit: lambda i: protocol.node.PARTED(i.worker, i.pid),
    to_do.AddWorkers: lambda i: protocol.node.ADD_WORKERS(i.items),
    to_do.RemoveWorkers: lambda i: protocol.node.REMOVE_WORKERS(i.items),
}

#: What became of keys. A client that reads slowly is owed these (`debts`), and nothing else.
REPORTS: dict[type, Callable[[Any, int], tuple[Any, ...]]] = {
    to_do.ReportMemory: lambda i, turn: protocol.client.MEMORY(i.items, turn),
    to_do.ReportErred: lambda i, turn: protocol.client.ERRED([_erred_entry(entry) for entry in i.items], turn),
    to_do.ReportPending: lambda i, turn: protocol.client.PENDING(i.items, turn),
    to_do.ReportCancelled: lambda i, turn: protocol.client.CANCELLED(i.items, i.reason, turn),
}
