"""`fire_and_forget`: tasks that run even if nobody waits for them."""

from __future__ import annotations

from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.futures.collections import futures_of
from holdfast.client.futures.future import Future
from holdfast.client.packing.foreign import check_no_foreign_future
from holdfast.cluster import protocol


def fire_and_forget(obj: Any) -> None:
    """Have tasks run even if all their futures are released, and their client is closed or dies.

    For tasks that matter by what they do: their results are not kept. A failure is in the scheduler's log. It returns
    at once, in every kind of client. `Client.cancel` with ``force=True`` ends them all the same.

    Parameters
    ----------
    obj : Future, dask collection, or nested container of these

    Raises
    ------
    TypeError
        There is no future in it.
    CancelledError
        A future was cancelled or released.
    ConnectError
        The connection with the scheduler is gone.

    Examples
    --------
    >>> import tempfile
    >>> from holdfast import fire_and_forget
    >>> fire_and_forget(client.submit(tempfile.gettempdir))
    """
    check_no_foreign_future(obj, "what is to run unattended")
    futures = [obj] if isinstance(obj, Future) else futures_of(obj)
    if not futures and not (isinstance(obj, list | tuple | set | frozenset | dict) and not obj):
        raise TypeError(f"fire_and_forget takes futures, or what has futures in it, not {obj!r:.100}")
    keys: dict[Core, dict[Any, None]] = {}
    for future in futures:
        future._check_held()
        future._core.session.check_open()
        keys.setdefault(future._core, {})[future.key] = None
    for core, its in keys.items():
        core.session.post(protocol.client.RUN_UNATTENDED(list(its)))
