"""`progress`: shows how far futures are, and all that they need.

What is known here of the futures is counted here. Of what is not done the scheduler is asked now and then: how many
tasks are still to run for it. It is asked the less often the longer it takes to answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.core.key_state import ERROR, PENDING, KeyState
from holdfast.client.core.waits import Ask, Ready
from holdfast.client.drivers.effects import Operation
from holdfast.client.futures.bars import Bar, Group, NotebookBar, Tally, TextBar
from holdfast.client.futures.collections import futures_of
from holdfast.client.futures.future import Future
from holdfast.client.futures.holding import adopting
from holdfast.client.packing.foreign import check_no_foreign_future
from holdfast.cluster import protocol
from holdfast.cluster.durations import seconds
from holdfast.cluster.errors import ConnectError
from holdfast.cluster.key_prefixes import prefix_of
from holdfast.cluster.protocol.requests.futures import MAX_FAILURES
from holdfast.cluster.protocol.shapes import in_slices

#: Keys that are asked about with one request, and how much they may take.
MAX_ASKED = 10_000
MAX_ASKED_NBYTES = 16 << 20
#: An answer may take this share of the time.
ASKING_SHARE = 0.05

GroupBy = Callable[[Any], Any]


def progress(
    *futures: Any,
    notebook: bool | None = None,
    multi: bool = True,
    complete: bool = True,
    group_by: str | GroupBy = "prefix",
    width: int = 40,
    interval: float | str = "100 ms",
) -> Any:
    """Show how far futures are, and all tasks that they still need.

    In a terminal it shows a line that changes, until all are done; elsewhere, as in a file, nothing. In a notebook it
    returns at once, with a widget for the end of a cell. Failed tasks are named, and not raised.

    Parameters
    ----------
    *futures : Future, dask collection, or nested container of these
        A persisted collection stands for its futures.
    notebook : bool, optional
        Whether this is a notebook. Default: is found out.
    multi : bool
        Whether to show the groups of tasks by themselves too.
    complete : bool
        Whether to count those as well that are done already.
    group_by : "prefix" or callable
        By what tasks are grouped: by the prefix of their keys, or by what the callable makes of a key. A callable is
        called here, so that only the futures themselves are counted.
    width : int
        Of the bar in a terminal, in characters.
    interval : float or str
        How often it changes at most, in seconds or as text.

    Returns
    -------
    In a terminal None, when all are done; with futures of an asynchronous client: await it. In a notebook a widget.

    Raises
    ------
    TypeError
        There is no future among them.
    ValueError
        ``group_by`` is none of these.
    CancelledError
        One of them was cancelled.

    Examples
    --------
    >>> from holdfast import progress
    >>> futures = client.map(pow, range(10), [2] * 10)
    >>> progress(futures)
    """
    check_no_foreign_future(futures, "something whose progress is to be shown")
    found = futures_of(list(futures))
    if not found:
        if any(not isinstance(each, list | tuple | set | frozenset | dict) for each in futures):
            raise TypeError(f"progress takes futures, or what has futures in it, not {futures!r:.100}")
        return None
    if not callable(group_by) and group_by != "prefix":
        raise ValueError(f"group_by is 'prefix', or a function of a key, not {group_by!r:.100}")
    pause = seconds(interval) or 0.0
    core = found[0]._core
    driver = core.driver
    group_of = group_by if callable(group_by) else None
    if not (_in_notebook() if notebook is None else notebook):
        return driver.run(_showing(core, found, TextBar(width, multi=multi), complete, group_of, pause))
    bar = NotebookBar(multi=multi)
    showing = _showing(core, found, bar, complete, group_of, pause)
    if driver.gives_awaitables:
        asyncio.ensure_future(driver.run(showing)).add_done_callback(asyncio.Future.exception)
    else:
        threading.Thread(target=_run_quietly, args=(core, showing), name="holdfast-progress", daemon=True).start()
    return bar


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def _run_quietly(core: Core, showing: Operation[None]) -> None:
    with contextlib.suppress(ConnectError):  # the client was closed, and with it ends what it shows
        core.driver.run(showing)


def _showing(
    core: Core, futures: list[Future], bar: Bar, complete: bool, group_of: GroupBy | None, pause: float
) -> Operation[None]:
    """Show how far futures are until all are done."""
    own = []
    for future in futures:
        own.append(future if future._core is core else (yield from adopting(core, future)))
    states = list({future._state: None for future in own if complete or not future.done()})
    counting = _Counting(core, states, group_of)
    try:
        over = False
        while not over:
            started = time.monotonic()
            yield from counting.count()
            bar.show(counting.tally)
            asking = time.monotonic() - started
            over = yield Ready(core.session, states, max(pause, asking / ASKING_SHARE))
        yield from counting.count()
    finally:
        bar.end(counting.tally)


class _Counting:
    """Counts how far states are, and what the scheduler says that they need."""

    def __init__(self, core: Core, states: list[KeyState], group_of: GroupBy | None) -> None:
        self.tally = Tally()
        self._core = core
        self._states = states
        self._group_of = group_of
        self._totals: Counter[str] = Counter()  # the most that there were

    def count(self) -> Operation[None]:
        """Count anew."""
        name_of = self._group_of or prefix_of
        done: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        active: Counter[str] = Counter()
        pending = []
        for state in self._states:
            name = str(name_of(state.key))
            if state.status == PENDING:
                pending.append(state.key)
                active[name] += self._group_of is not None
            elif state.status == ERROR:
                failed[name] += 1
                self._note_failure(state)
            else:
                done[name] += 1
        if self._group_of is None:
            for keys in in_slices(pending, MAX_ASKED, MAX_ASKED_NBYTES):
                answer = yield Ask(self._core.session, protocol.requests.PROGRESS, keys=list(keys))
                for name, counts in answer["counts"].items():
                    done[name] += counts["memory"]
                    failed[name] += counts["erred"]
                    active[name] += counts["waiting"] + counts["processing"]
        names = {*done, *failed, *active, *self._totals}
        for name in names:
            self._totals[name] = max(self._totals[name], done[name] + failed[name] + active[name])
        self.tally.groups = [
            Group(name, total - failed[name] - active[name], failed[name], total)
            for name, total in self._totals.most_common()
        ]

    def _note_failure(self, state: KeyState) -> None:
        failures = self.tally.failures
        if state.failure is not None and state.key not in failures and len(failures) < MAX_FAILURES:
            _, text = state.failure
            lines = [line for line in text.splitlines() if line.strip() and not line.startswith("Raised by task")]
            failures[state.key] = lines[-1].strip() if lines else ""
