"""Times that people give, in seconds or as text."""

from __future__ import annotations

import os

#: How long all others wait for a scheduler that has ended to be followed by another one.
SCHEDULER_TIMEOUT_VARIABLE = "HOLDFAST_SCHEDULER_TIMEOUT"
SCHEDULER_TIMEOUT_SECONDS = 60.0


def seconds(timeout: float | str | None) -> float | None:
    """A timeout in seconds: a number, None for none, or text such as ``"500 ms"``.

    Raises
    ------
    ValueError
        The text is no time; says what is one.

    Examples
    --------
    >>> seconds("500 ms"), seconds(3)
    (0.5, 3)
    """
    if timeout is None or isinstance(timeout, (int, float)):
        return float(timeout) if isinstance(timeout, bool) else timeout
    from dask.utils import parse_timedelta  # only now: most programs give numbers, and dask takes a while to import

    try:
        return float(parse_timedelta(timeout, default="s"))
    except (AttributeError, LookupError, TypeError, ValueError):
        raise ValueError(
            f"the timeout {timeout!r:.200} is no time: give seconds, as 5 or 0.5, or text as '500 ms'"
        ) from None


def scheduler_timeout() -> float:
    """For how many seconds a scheduler that has ended is waited for: ``HOLDFAST_SCHEDULER_TIMEOUT``, or 60. 0: not.

    Raises
    ------
    ValueError
        The variable is no time.
    """
    found = seconds(os.environ.get(SCHEDULER_TIMEOUT_VARIABLE) or SCHEDULER_TIMEOUT_SECONDS)
    assert found is not None
    if found < 0:
        raise ValueError(f"{SCHEDULER_TIMEOUT_VARIABLE} is a time from 0 on, not {found:g}")
    return found
