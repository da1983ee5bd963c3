"""What calls are given: timeouts, and arguments that stand in the place of others."""

from __future__ import annotations

from typing import Any

from dask.base import is_dask_collection
from dask.utils import parse_timedelta

from holdfast.client.packing.futures import is_future


def seconds(timeout: float | str | None) -> float | None:
    """A timeout in seconds: a number, None for none, or text such as ``"500 ms"``."""
    if timeout is None or isinstance(timeout, (int, float)):
        return timeout
    try:
        return float(parse_timedelta(timeout, default="s"))
    except (LookupError, ValueError):
        raise ValueError(
            f"the timeout {timeout!r} is no time: give seconds, as 5 or 0.5, or text as '500 ms'"
        ) from None


def check_in_one(call: str, option: Any) -> None:
    """Raise a TypeError if something to work on stands in the place of an option, as in ``wait(x, y)``."""
    if option is None or type(option) in (str, bool, int, float):  # as nearly always
        return
    several = option if isinstance(option, (list, tuple, set)) else (option,)
    if any(is_future(one) or is_dask_collection(one) for one in several):
        raise TypeError(f"{call} takes one argument for all that it is about: write {call}([x, y]), not {call}(x, y)")
