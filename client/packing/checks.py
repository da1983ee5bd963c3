"""Arguments of calls that stand in the place of others, or have no effect here."""

from __future__ import annotations

from typing import Any

from dask.base import is_dask_collection

from holdfast.client.packing.futures import is_future
from holdfast.cluster.user_warnings import warn_user

#: Arguments that dask's client knows, and why they have no effect here.
_WITHOUT_EFFECT = {
    "fifo_timeout": "tasks of one priority run in the order in which they are submitted",
    "direct": "results never pass through the scheduler, unless they are small",
    "loop": "it is its client that has a loop (client=)",
    "maxsize": "a variable has one value",
    "scheduler_rpc": "it asks the scheduler by its client (client=)",
}


def check_in_one(call: str, option: Any) -> None:
    """Raise a TypeError if something to work on stands in the place of an option, as in ``wait(x, y)``."""
    if option is None or type(option) in (str, bool, int, float):  # as nearly always
        return
    several = option if isinstance(option, (list, tuple, set)) else (option,)
    if any(is_future(one) or is_dask_collection(one) for one in several):
        raise TypeError(f"{call} takes one argument for all that it is about: write {call}([x, y]), not {call}(x, y)")


def warn_without_effect(argument: str, value: Any) -> None:
    """Warn that an argument has no effect, and why."""
    warn_user(f"{argument}={value!r:.100} has no effect: {_WITHOUT_EFFECT[argument]}")
