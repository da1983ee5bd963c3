"""The interrupts that tests try, tried themselves."""

from __future__ import annotations

import sys

from tests.support.interrupts import Interrupt


def _raise_lookup_error() -> None:
    raise LookupError


def _with_a_handler() -> int:
    try:
        return int(_raise_lookup_error() or 1)  # type: ignore[func-returns-value]
    except LookupError:
        return len("handled")


def test_after_an_interrupt_no_exception_is_being_handled():
    """At the first operation of a handler nobody looks for signals: CPython would never leave the handler there."""
    places = []
    for at in range(1, 50):
        interrupt = Interrupt(__name__, at)
        try:
            with interrupt.armed():
                _with_a_handler()
        except KeyboardInterrupt:
            places.append(interrupt.where)
        assert sys.exc_info() == (None, None, None)
        if interrupt.where is None:
            break
    assert len(places) >= 3, places
    assert interrupt.where is None
