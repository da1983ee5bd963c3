"""Errands: what workers and nodes do for this client beside their tasks, and what each of them has answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from holdfast.client.core.core import Core
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Operation
from holdfast.client.futures.holding import hold_all
from holdfast.client.futures.reading import read
from holdfast.client.raising import CarriedError
from holdfast.cluster import protocol
from holdfast.cluster.errors import error_named
from holdfast.cluster.protocol.errands import Errand

#: The scheduler answers in time; this is for one that does not.
_GRACE_SECONDS = 10.0


class Outcome(NamedTuple):
    """What an errand has come to at one of those that were asked.

    Attributes
    ----------
    value : object
        As it came, or as it was read from the store.
    error : Exception or None
        Why there is no value.
    """

    value: Any
    error: Exception | None


def have_done(
    core: Core,
    errand: Errand,
    names: Sequence[str] | None = None,
    timeout: float | None = None,
    decoded: Callable[[Any], Outcome] | None = None,
    **arguments: Any,
) -> Operation[dict[str, Outcome]]:
    """Have workers or nodes do something; what each has come to, by its address.

    Parameters
    ----------
    errand
        What they are to do. Its definition says whether it is for workers or nodes.
    names
        Those that are meant, by names or addresses of them, of their hosts or their workers. None: all that there are.
    timeout
        In seconds. Those that take longer have a TimeoutError for their outcome.
    decoded
        ``decoded(answer)``: what the answer to the errand stands for. One that lies in a store is the value itself.
    **arguments
        Of the errand.

    Raises
    ------
    ValueError
        A name is none of the cluster; lists those that there are.
    RuntimeError
        There is too much to do already.
    """
    operation, said = errand(**arguments)
    wait = None if timeout is None else timeout + _GRACE_SECONDS
    answers = yield Ask(
        core.session,
        protocol.requests.ERRAND,
        wait,
        operation=operation,
        arguments=said,
        names=None if names is None else list(names),
        timeout=timeout,
    )
    return (yield from outcomes_of(core, answers, decoded))


def outcomes_of(
    core: Core, answers: Mapping[str, Any], decoded: Callable[[Any], Outcome] | None = None
) -> Operation[dict[str, Outcome]]:
    """What errands have come to, of the answer to a request that has them done."""
    held = hold_all(core, [answer["key"] for answer in answers.values() if "key" in answer])
    outcomes = {}
    for address, answer in sorted(answers.items()):
        try:
            if "error" in answer:
                outcomes[address] = Outcome(None, error_named(*answer["error"]))
            elif "key" in answer:
                outcomes[address] = Outcome((yield from read(core, held[answer["key"]]._state)), None)
            else:
                value = answer["value"]
                outcomes[address] = Outcome(value, None) if decoded is None else decoded(value)
        except CarriedError as carried:
            outcomes[address] = Outcome(None, carried.error)
        except Exception as failure:  # its host has left, or it can't be read here
            outcomes[address] = Outcome(None, failure)
    return outcomes
