"""What workers, nodes and the scheduler tell of what they do: stacks, logs, profiles, records of tasks."""

from __future__ import annotations

import logging
import pickle
import time
import warnings
from collections.abc import Iterable
from typing import Any

from holdfast.client import plots
from holdfast.client.core.core import Core
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Elsewhere, Operation
from holdfast.client.futures.collections import futures_of
from holdfast.client.operations.errands import have_done
from holdfast.client.operations.information import keys_named
from holdfast.client.operations.records import subscribe, unsubscribe
from holdfast.client.packing.options import names_of_workers
from holdfast.cluster import protocol
from holdfast.cluster.durations import seconds
from holdfast.cluster.errors import ConnectError
from holdfast.cluster.processes import profiling
from holdfast.cluster.protocol.errands import (
    CALL_STACKS,
    FORWARD_LOGS,
    NODE_LOGS,
    PROFILE,
    RECORD_TASKS,
    TASK_STREAM,
    WORKER_LOGS,
    Errand,
)

logger = logging.getLogger(__name__)

#: Marks a record that was forwarded, as `cluster/worker/log_forwarding.py` does.
FORWARDED = "holdfast_forwarded"
#: How long a worker has to answer. One that is in a long call into C, or stopped, has to say nothing.
ANSWER_SECONDS = 10.0


def _answers(core: Core, errand: Errand, workers: Any, /, **arguments: Any) -> Operation[dict[str, Any]]:
    """What each of the workers answers. One that has left isn't there; one that is late is warned of."""
    names = None if workers is None else names_of_workers(workers)
    outcomes = yield from have_done(core, errand, names, ANSWER_SECONDS, **arguments)
    answers, late = {}, []
    for address, outcome in outcomes.items():
        if outcome.error is None:
            answers[address] = outcome.value
        elif isinstance(outcome.error, TimeoutError):
            late.append(address)
        elif not isinstance(outcome.error, ConnectError):
            raise outcome.error
    if late:
        warnings.warn(
            f"{', '.join(late)} did not answer within {ANSWER_SECONDS:g} s, and what is shown is without it: 'holdfast "
            "status' shows whether it is stopped, or keeps the interpreter to itself",
            RuntimeWarning,
            stacklevel=2,
        )
    return answers


def call_stack(core: Core, futures: Any, keys: Any) -> Operation[dict[str, dict[Any, tuple[str, ...]]]]:
    """See `Client.call_stack`."""
    wanted: set[Any] | None = None
    if futures is not None or keys is not None:
        wanted = {future.key for future in futures_of(futures)} if futures is not None else set()
        wanted.update(keys_named(keys) if keys is not None else ())
    answers = yield from _answers(core, CALL_STACKS, None)
    found = {
        address: {key: tuple(frames) for key, frames in tasks if wanted is None or key in wanted}
        for address, tasks in answers.items()
    }
    return {address: tasks for address, tasks in found.items() if tasks}


# -- logs


def scheduler_logs(core: Core, n: int | None) -> Operation[tuple[tuple[str, str], ...]]:
    """See `Client.get_scheduler_logs`."""
    answer = yield Ask(core.session, protocol.requests.SCHEDULER_LOGS, n=_number("n", n))
    return tuple([(level, text) for level, text in answer["lines"]])


def forward_logging(core: Core, logger_name: str | None, level: Any) -> Operation[None]:
    """See `Client.forward_logging`."""
    number = _level(level)
    if logger_name is not None and not isinstance(logger_name, str):
        raise TypeError(f"logger_name is the name of a logger, or None for the root's, not {logger_name!r:.100}")
    topic = _topic_of(core, logger_name)
    said = {"topic": topic, "logger": logger_name, "level": number}
    yield from subscribe(core, topic, _log_here, _warn_of_missed)
    yield from stand(core, topic, FORWARD_LOGS, {**said, "on": True}, {**said, "on": False})
    yield from _answers(core, FORWARD_LOGS, None, **said, on=True)


def unforward_logging(core: Core, logger_name: str | None) -> Operation[None]:
    """See `Client.unforward_logging`."""
    topic = _topic_of(core, logger_name)
    if topic not in core.session.subscriptions:
        raise ValueError(f"the logger {logger_name or 'root'!r} is not forwarded to this client")
    yield Ask(core.session, protocol.requests.WITHDRAW, name=topic)
    yield from unsubscribe(core, topic)


def _topic_of(core: Core, logger_name: str | None) -> str:
    return f"forward-logging/{core.id}/{logger_name or ''}"


def _level(level: Any) -> int:
    number = logging.getLevelName(level.upper()) if isinstance(level, str) else level
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ValueError(f"a level is a number, or a name such as 'INFO', not {level!r:.100}")
    return number


def _log_here(event: tuple[float, dict[str, Any]]) -> None:
    """Log here what was logged in a worker."""
    record = logging.makeLogRecord({**event[1], FORWARDED: True})
    here = logging.getLogger(record.name)
    if here.isEnabledFor(record.levelno):
        here.handle(record)


def _warn_of_missed(missed: int) -> None:
    logger.warning("%d lines of workers' logs were missed: there were more than could be forwarded", missed)


def worker_logs(core: Core, n: int | None, workers: Any, nanny: bool) -> Operation[dict[str, Any]]:
    """See `Client.get_worker_logs`."""
    answers = yield from _answers(core, NODE_LOGS if nanny else WORKER_LOGS, workers, n=_number("n", n))
    return {address: tuple([(level, text) for level, text in lines]) for address, lines in answers.items()}


def _number(name: str, n: Any) -> int | None:
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 0):
        raise ValueError(f"{name} is a number from 0 on, or None for all, not {n!r:.100}")
    return n


# -- profiles


def profile(
    core: Core,
    key: str | None,
    start: Any,
    stop: Any,
    workers: Any,
    merge_workers: bool,
    plot: bool | str,
    filename: str | None,
    server: bool,
    scheduler: bool,
) -> Operation[Any]:
    """See `Client.profile`."""
    if key is not None and not isinstance(key, str):
        raise TypeError(f"key is the prefix of keys, such as 'inc', not {key!r:.100}")
    if filename is None and plot == "save":
        filename = "holdfast-profile.html"
    if (plot or filename) and not merge_workers:
        raise ValueError("a plot is of all workers together: leave merge_workers=False out")
    begin, end = _moment(start), _moment(stop)
    state: Any
    if scheduler:
        answer = yield Ask(core.session, protocol.requests.SCHEDULER_PROFILE, start=begin, stop=end)
        state = answer["profile"]
    else:
        states = yield from _answers(core, PROFILE, workers, key=key, start=begin, stop=end, server=bool(server))
        read = yield Elsewhere(lambda: {worker: pickle.loads(data) for worker, data in states.items()})
        state = profiling.merged(read.values()) if merge_workers else read
    if not plot and not filename:
        return state
    figure = yield Elsewhere(lambda: _figure(plots.of_profile(state), filename, "Profile"))
    return state, figure


def _figure(figure: Any, filename: str | None, title: str, resources: Any = None) -> Any:
    if filename:
        plots.save(figure, filename, title, resources)
    return figure


def _moment(moment: Any) -> float | None:
    """A time, in seconds since 1970, or so long ago as a text says."""
    if moment is None:
        return None
    if isinstance(moment, str):
        ago = seconds(moment)
        return time.time() - (ago or 0.0)
    if isinstance(moment, bool) or not isinstance(moment, (int, float)) or not 0 <= moment <= 1e18:
        raise ValueError(f"a time is in seconds since 1970, or a text like '10 s' for so long ago, not {moment!r:.100}")
    return float(moment)


# -- records of tasks


def stand(core: Core, name: str, errand: Errand, arguments: dict[str, Any], undo: dict[str, Any]) -> Operation[None]:
    """Have workers do an errand that join from now on, until this client leaves."""
    yield Ask(
        core.session,
        protocol.requests.STAND,
        name=name,
        operation=errand.operation,
        arguments=arguments,
        undo=undo,
    )


def task_stream(
    core: Core, start: Any, stop: Any, count: int | None, plot: bool | str, filename: str, resources: Any
) -> Operation[Any]:
    """See `Client.get_task_stream`."""
    begin, end = _moment(start), _moment(stop)
    limit = None if begin is not None and end is not None else _number("count", count)
    yield from stand(
        core, "record-tasks", RECORD_TASKS, {"client": core.id, "on": True}, {"client": core.id, "on": False}
    )
    answers = yield from _answers(core, TASK_STREAM, None, client=core.id, start=begin, stop=end, count=limit)
    records = yield Elsewhere(lambda: _records(answers))
    if limit is not None:
        records = records[len(records) - limit :] if limit else ()
    if not plot:
        return records
    return records, (yield from plot_of_stream(records, plot, filename, resources))


def plot_of_stream(
    records: Iterable[dict[str, Any]], plot: bool | str, filename: str, resources: Any = None
) -> Operation[Any]:
    """A figure of records; with ``plot="save"`` written into a file, too."""
    where = filename if plot == "save" else None
    return (yield Elsewhere(lambda: _figure(plots.of_task_stream(list(records)), where, "Task stream", resources)))


def _records(answers: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    found = [{**record, "worker": worker} for worker, data in answers.items() for record in pickle.loads(data)]
    return tuple(sorted(found, key=_ended))


def _ended(record: dict[str, Any]) -> float:
    stop: float = record["startstops"][-1]["stop"]
    return stop
