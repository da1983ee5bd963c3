"""Times that people give, in seconds or as text."""

from __future__ import annotations


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
