"""Raising the error of a task where its result is asked for.

A user who sees the error looks for two places: the line that asked, and where the task failed. So the frames in
between, of this package, are taken out. And the error says what it was raised in the handling of, in the task: raising
it anew while another one is handled here doesn't change that.

A method that reads results for a user is decorated with `hides_own_frames`; what calls `raise_as_it_was` may be as deep
below it as it likes. Where calls count, the method has the same lines itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar, cast

from holdfast.objectstore.pickling.exceptions import context_of, set_context, set_trace, trace_of

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_MAX_LINKS = 1000


class CarriedError(Exception):
    """A `StopIteration` that a task raised, on its way out of a generator, which can't raise it."""

    def __init__(self, error: StopIteration) -> None:
        super().__init__(error)
        self.error = error


def raise_in_operation(error: BaseException) -> NoReturn:
    """`raise_as_it_was`, in a generator."""
    if issubclass(type(error), StopIteration):  # it may answer nothing that it is asked
        raise CarriedError(cast("StopIteration", error))
    raise_as_it_was(error)


def raise_as_it_was(error: BaseException) -> NoReturn:
    """Raise an error that was made for this, with the context that it has."""
    context = context_of(error)
    try:
        raise error
    except BaseException:
        if context is not None:
            _put_below(context, context_of(error))
            set_context(error, context)
        raise
    finally:
        del error, context  # its traceback has this frame


def hide_own_frames(error: BaseException) -> None:
    """Take the frames down to that of `raise_as_it_was` out of the traceback, if that has raised it.

    An ``except`` clause that calls this and ends with ``raise`` adds no other one.
    """
    trace = trace_of(error)
    while trace is not None:
        if trace.tb_frame.f_code is raise_as_it_was.__code__:
            set_trace(error, trace.tb_next)
            return
        trace = trace.tb_next


def hides_own_frames(method: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """A method whose errors of tasks have the frames of its caller and of the task, and none in between."""

    @functools.wraps(method)
    def called(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            return method(*args, **kwargs)
        except BaseException as error:
            hide_own_frames(error)
            raise

    return called


def _put_below(context: BaseException, handled: BaseException | None) -> None:
    """Say of the end of a chain that it was raised in the handling of what is being handled here."""
    if handled is None or handled is context:
        return
    known = {id(context)}
    last = context
    while (following := context_of(last)) is not None:
        if following is handled or id(following) in known or len(known) > _MAX_LINKS:
            return
        known.add(id(following))
        last = following
    if last is not handled:
        set_context(last, handled)
