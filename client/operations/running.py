"""Functions that are called where somebody else is: `Client.run` and its like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Elsewhere, Operation
from holdfast.client.futures.future import Future
from holdfast.client.operations.errands import Outcome, have_done
from holdfast.client.operations.information import nthreads
from holdfast.client.operations.storing import constants
from holdfast.client.packing.constants import REFUSALS, Packed
from holdfast.client.packing.options import names_of_workers
from holdfast.client.raising import raise_in_operation
from holdfast.cluster import protocol
from holdfast.cluster.comm.frames import raw
from holdfast.cluster.failures.loading import load_exception
from holdfast.cluster.protocol.errands import ASSISTANT, RUN, RUN_ON_NANNY, RUN_ON_SCHEDULER, Errand
from holdfast.objectstore import decode

ON_ERROR = ("raise", "return", "ignore")


def run(
    core: Core,
    errand: Errand,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    workers: Any = None,
    wait: bool = True,
    on_error: str = "raise",
) -> Operation[dict[str, Any] | None]:
    """Call a function at each of those that are meant; what it has returned there, by address."""
    if not callable(function):
        raise TypeError(f"the first argument is something that can be called, not {function!r:.200}")
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error is one of {', '.join(map(repr, ON_ERROR))}, not {on_error!r:.100}")
    names = None if workers is None else names_of_workers(workers)
    what = f"{getattr(function, '__qualname__', function)!s:.200} with its arguments"
    packed: Packed = yield Elsewhere(lambda: pack(core, what, (function, args, dict(kwargs))))
    outcomes = yield from have_done(core, errand, names, decoded=outcome_of, waits=bool(wait), **said_of(packed))
    del packed  # until here this client holds the data among the arguments
    return results_of(outcomes, on_error) if wait else None


def pack(core: Core, what: str, value: Any) -> Packed:
    """What is sent of a value: its pickle, and futures of the data in it that is large.

    Raises
    ------
    TypeError
        It can't be pickled.
    """
    try:
        with core.stores.batch():
            return constants(core).pack(value)
    except REFUSALS:
        raise
    except Exception as error:  # pickling runs a user's code
        raise TypeError(f"{what} can't be pickled, so it can't be sent: {error}") from error


def said_of(packed: Packed) -> dict[str, Any]:
    """The arguments of an errand that say what was packed."""
    dependencies = []
    for future in packed.stored:
        assert isinstance(future, Future)
        location = future._state.location
        assert location is not None, "it was stored by this client"
        dependencies.append((future.key, bytes(location.object_id), location.inline, location.nodes))
    return {"call": raw(packed.data), "dependencies": dependencies}


def outcome_of(called: Mapping[str, Any]) -> Outcome:
    """What a function has returned, or what it has raised, with its traceback."""
    if "raised" in called:
        error = load_exception(called["raised"], called["text"])[0]
        assert isinstance(error, Exception), "it was sent as the cause of one"
        return Outcome(None, error)
    return Outcome(decode(called["result"]), None)


def results_of(outcomes: Mapping[str, Outcome], on_error: str) -> dict[str, Any]:
    """Results, and what ``on_error`` says of errors."""
    results = {}
    for address, outcome in outcomes.items():
        if outcome.error is None:
            results[address] = outcome.value
        elif on_error == "raise":
            raise_in_operation(outcome.error)
        elif on_error == "return":
            results[address] = outcome.error
    return results


def run_on_scheduler(
    core: Core, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], wait: bool
) -> Operation[Any]:
    """See `Client.run_on_scheduler`."""
    results = yield from run(core, RUN_ON_SCHEDULER, function, args, kwargs, wait=wait)
    return None if results is None else results[ASSISTANT]


def list_tasks(core: Core) -> Operation[list[Any]]:
    """All tasks of the cluster, as `requests.LIST_TASKS` says."""
    return list((yield Ask(core.session, protocol.requests.LIST_TASKS))["tasks"])


def list_clients(core: Core) -> Operation[dict[str, str]]:
    """The names of all clients, by id."""
    return dict((yield Ask(core.session, protocol.requests.LIST_CLIENTS)))


def run_on_workers(
    core: Core, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], **options: Any
) -> Operation[dict[str, Any] | None]:
    """See `Client.run`."""
    return run(core, RUN, function, args, kwargs, **options)


def run_on_nannies(
    core: Core,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    workers: Any = None,
    **options: Any,
) -> Operation[dict[str, Any] | None]:
    """See `Client.run`. It runs once on each host, and what it returns is that of all workers there that are meant."""
    results = yield from run(core, RUN_ON_NANNY, function, args, kwargs, workers=workers, **options)
    if results is None:
        return None
    meant = sorted((yield from nthreads(core, workers)))
    return {worker: results[host] for worker in meant if (host := worker.rpartition("/")[0]) in results}
