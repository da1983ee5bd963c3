"""`Client.gather`: the results of futures, in the place of these."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.core.key_state import KeyState
from holdfast.client.drivers.effects import Operation
from holdfast.client.futures.future import Future
from holdfast.client.futures.holding import adopting
from holdfast.client.futures.reading import read_many
from holdfast.client.operations.queues import fed_by, is_queue
from holdfast.client.packing.foreign import check_no_foreign_future
from holdfast.client.raising import hide_own_frames

_SKIPPED = object()
_CONTAINERS = (list, tuple, set, frozenset)


def gather(core: Core, futures: Any, errors: str = "raise", writable: bool | None = None) -> Operation[Any]:
    """Replace the futures in a nested container by their results; see `Client.gather`."""
    if errors not in ("raise", "skip"):
        raise ValueError(f"errors is 'raise' or 'skip', not {errors!r}")
    if is_queue(futures):
        return fed_by(core, [futures], lambda core, items: _read(core, items, errors, writable))
    if isinstance(futures, Iterator):
        if not core.driver.gives_awaitables:
            return _each(core, futures, errors, writable)
        return iter((yield from _gather(core, list(futures), errors, writable)) or ())
    return (yield from _gather(core, futures, errors, writable))


def _gather(core: Core, futures: Any, errors: str, writable: bool | None) -> Operation[Any]:
    found: dict[Future, None] = {}
    _find(futures, found)
    states: dict[KeyState, None] = {}
    adopted: dict[Future, Future] = {}
    for future in found:
        if future._core is core:
            future._check_held()
            states[future._state] = None
        else:
            mine = adopted[future] = yield from adopting(core, future)
            states[mine._state] = None
    values = yield from read_many(core, states, skip=errors == "skip", writable=writable)
    for future, mine in adopted.items():
        if id(mine._state) in values:
            values[id(future._state)] = values[id(mine._state)]
    result = _fill(futures, values)
    return None if result is _SKIPPED else result


def _read(core: Core, items: tuple[Any, ...], errors: str, writable: bool | None) -> list[Any]:
    given: list[Any] = core.driver.run(_gather(core, list(items), errors, writable))
    return given


def _each(core: Core, futures: Iterator[Any], errors: str, writable: bool | None) -> Iterator[Any]:
    try:
        for item in futures:
            yield core.driver.run(gather(core, item, errors, writable))
    except BaseException as error:
        hide_own_frames(error)
        raise


def _find(value: Any, found: dict[Future, None]) -> None:
    if isinstance(value, Future):
        found[value] = None
    elif isinstance(value, _CONTAINERS):
        for item in value:
            _find(item, found)
    elif isinstance(value, dict):
        for item in value.values():
            _find(item, found)
    else:
        check_no_foreign_future(value, "something that is to be gathered")


def _fill(value: Any, values: dict[int, Any]) -> Any:
    if isinstance(value, Future):
        return values.get(id(value._state), _SKIPPED)
    if isinstance(value, _CONTAINERS):
        items = [item for part in value if (item := _fill(part, values)) is not _SKIPPED]
        if hasattr(value, "_fields") and len(items) == len(value):
            return type(value)(*items)
        return type(value)(items) if not hasattr(value, "_fields") else tuple(items)
    if isinstance(value, dict):
        filled = [(key, _fill(item, values)) for key, item in value.items()]
        kept = [(key, item) for key, item in filled if item is not _SKIPPED]
        return dict(kept) if type(value) is dict else _like(value, kept)
    return value


def _like(value: dict[Any, Any], items: list[tuple[Any, Any]]) -> dict[Any, Any]:
    copy = value.copy()  # a defaultdict or OrderedDict stays what it is
    copy.clear()
    copy.update(items)
    return copy
