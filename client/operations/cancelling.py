"""What is not wanted any more: `Client.cancel`."""

from __future__ import annotations

from typing import Any

from holdfast.client.core.cancelling import Manner, cancel_keys
from holdfast.client.core.core import Core
from holdfast.client.drivers.effects import Operation
from holdfast.client.futures.collections import futures_of, listed
from holdfast.client.futures.future import Future
from holdfast.cluster.errors import CancelledError, ConnectError


def cancel(core: Core, futures: Any, manner: Manner) -> Operation[None]:
    """See `Client.cancel`."""
    if isinstance(futures, Future):
        found = [futures]
    else:
        futures = listed(futures, "cancel")
        try:
            found = futures_of(futures)
        except CancelledError:
            found = futures_of(futures, skip_cancelled=True)
    of_cores: dict[Core, list[Future]] = {}
    for future in found:
        future._check_held()
        of_cores.setdefault(future._core, []).append(future)
    for each, its in of_cores.items():
        if each is core or each.session.ended is None:
            try:
                yield from cancel_keys(each, [future._state for future in its], manner)
            except ConnectError:
                if each is core or not (each.closed or each.session.ended):
                    raise  # another one has ended just now, and holds nothing any more
