"""New processes in the places of workers."""

from __future__ import annotations

from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Operation
from holdfast.client.operations.moving import REPLY_SECONDS, limited
from holdfast.client.packing.options import names_of_workers
from holdfast.cluster import protocol

#: How long a restart may take.
RESTART_SECONDS = 60.0


def restart(core: Core, timeout: float | None, wait_for_workers: bool) -> Operation[Any]:
    """See `Client.restart`."""
    patience = limited(timeout, RESTART_SECONDS)
    yield Ask(
        core.session,
        protocol.requests.RESTART,
        patience + REPLY_SECONDS,
        timeout=patience,
        wait_for_workers=bool(wait_for_workers),
    )
    return core.client


def restart_workers(
    core: Core, workers: Any, timeout: float | None, raise_for_error: bool
) -> Operation[dict[str, str]]:
    """See `Client.restart_workers`."""
    patience = limited(timeout, RESTART_SECONDS)
    answer: dict[str, str] = yield Ask(
        core.session,
        protocol.requests.RESTART_WORKERS,
        patience + REPLY_SECONDS,
        workers=names_of_workers(workers),
        timeout=patience,
    )
    late = [address for address, status in answer.items() if status == "timed out"]
    if late and raise_for_error:
        shown = ", ".join(late[:5]) + (f" and {len(late) - 5} more" if len(late) > 5 else "")
        raise TimeoutError(f"{shown}: not there again within {patience:g} s")
    return dict(answer)
