"""Times that people give, in seconds or as text."""

from __future__ import annotations

import math
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
    return seconds_of_variable(SCHEDULER_TIMEOUT_VARIABLE, SCHEDULER_TIMEOUT_SECONDS)


def seconds_of_variable(variable: str, default: float, *, most: float = math.inf) -> float:
    """The time that a variable of the environment says, in seconds or as text such as ``1 minute``.

    Raises
    ------
    ValueError
        It is no time, or one below 0 or above ``most``; names the variable.
    """
    text = os.environ.get(variable)
    if not text:
        return default
    try:
        found = seconds(text)
    except ValueError:
        found = None
    if found is None or not (0 <= found <= most and math.isfinite(found)):
        limit = f"from 0 to {most:g} s" if math.isfinite(most) else "from 0 on"
        raise ValueError(
            f"{variable} is {text!r:.80}, and has to be a time {limit}: seconds, as 5 or 0.5, or text as '500 ms'"
        )
    return found
