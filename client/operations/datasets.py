"""Published datasets: collections and futures that have a name in the cluster and outlive their publisher.

What is published is a recipe (`recipes.py`): a pickle that the scheduler never looks into, and the keys that the
dataset holds from then on.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Elsewhere, Operation
from holdfast.client.futures.future import Future
from holdfast.client.futures.holding import hold_all
from holdfast.client.operations.recipes import Recipe, load, pack
from holdfast.client.packing.describing import Parts, describe, is_grave, lacking
from holdfast.client.packing.keys import check_text, wire_key
from holdfast.cluster import protocol
from holdfast.cluster.comm.frames import raw
from holdfast.cluster.errors import DatasetNotFoundError
from holdfast.cluster.protocol.limits import MAX_DATASET_NAME_NBYTES, MAX_REPLICAS
from holdfast.cluster.protocol.shapes import key_nbytes
from holdfast.cluster.user_warnings import warn_user
from holdfast.objectstore.durable.opening import normal_url
from holdfast.objectstore.errors import UnreadableError


class _NoDefault:
    """Stands for a default that was not given."""

    def __repr__(self) -> str:
        return "<an error>"


NO_DEFAULT: Any = _NoDefault()


def wire_name(name: Any) -> Any:
    """The name of a dataset, as messages carry it: equal to the one given, made of builtin types only.

    Raises
    ------
    TypeError
        It can't be a name.
    ValueError
        It is empty, or too long.
    """
    if name is None or name is False or name is True:
        raise TypeError(f"the name of a dataset is a text, a number or a tuple of these, not {name!r}")
    if isinstance(name, str):
        if not name:
            raise ValueError("the name of a dataset has a character at least, and this one is empty")
        check_text("the dataset", name)
    try:
        wire = wire_key(name)
    except TypeError:
        raise TypeError(f"the name of a dataset is a text, a number or a tuple of these, not {name!r:.200}") from None
    except ValueError as error:
        raise ValueError(str(error).replace("can't be a key", "can't be the name of a dataset")) from None
    nbytes = key_nbytes(wire)
    if nbytes > MAX_DATASET_NAME_NBYTES:
        raise ValueError(
            f"{name!r:.40}… can't be the name of a dataset: it takes {nbytes:,} bytes, and a name may take "
            f"{MAX_DATASET_NAME_NBYTES:,}"
        )
    return wire


def named(args: tuple[Any, ...], name: Any, by_keyword: dict[str, Any]) -> dict[Any, Any]:
    """The datasets that a call of `Client.publish_dataset` gives, by their names."""
    if not args and not by_keyword:
        raise ValueError("publish a dataset with name=, or several by keyword: publish_dataset(flights=frame)")
    for mistyped in (keyword for keyword, value in by_keyword.items() if isinstance(value, bool)):
        if near := difflib.get_close_matches(mistyped, ("durable", "override"), 1, cutoff=0.8):
            raise TypeError(
                f"there is no option {mistyped!r}: {near[0]}= may be meant. A dataset of that name is published with "
                f"publish_dataset({by_keyword[mistyped]}, name={mistyped!r})"
            )
    if not args:
        if name is not None:
            raise ValueError("name= is for a dataset that is given without one")
        return dict(by_keyword)
    if name is None:
        raise ValueError("a dataset needs a name: publish_dataset(frame, name='flights')")
    wire = wire_name(name)
    if wire in by_keyword:
        raise ValueError(f"two datasets of one call have the name {name!r}")
    return {wire: args[0] if len(args) == 1 else list(args), **by_keyword}


def place_named(durable: Any) -> str | None:
    """The place that ``durable=`` names: None for no place, an empty text for the cluster's.

    Raises
    ------
    TypeError, ValueError
        It names none.
    """
    if durable is None or durable is False:
        return None
    if durable is True:
        return ""
    if not isinstance(durable, (str, os.PathLike)):
        raise TypeError(
            f"durable is True, or a directory, or a URL such as 's3://bucket/published', not {durable!r:.200}"
        )
    return normal_url(durable)


def publish(
    core: Core, named: Mapping[Any, Any], override: bool, durable: Any = None, copies: int | None = None
) -> Operation[None]:
    """Publish datasets: all of them, or none."""
    for name in named:
        wire_name(name)
    place = place_named(durable)
    if copies is not None and (isinstance(copies, bool) or not isinstance(copies, int)):
        raise TypeError(f"copies is a number of hosts, not {copies!r:.200}")
    if copies is not None and not 1 <= copies <= MAX_REPLICAS:
        raise ValueError(f"copies is a number of hosts from 1 to {MAX_REPLICAS:,}, not {copies}")
    packed: dict[Any, tuple[Recipe, dict[str, Any]]] = yield Elsewhere(
        lambda: {name: _pack(core, name, data) for name, data in named.items()}
    )
    datasets = [(name, raw(recipe.data), list(recipe.held), about) for name, (recipe, about) in packed.items()]
    further = _in_place(place)
    if copies is not None:
        further["copies"] = copies
    yield Ask(core.session, protocol.requests.PUBLISH, datasets=datasets, override=bool(override), **further)
    del packed  # until here this client holds what the datasets are to hold


def _in_place(place: str | None) -> dict[str, Any]:
    return {} if place is None else {"durable": place}


def _pack(core: Core, name: Any, data: Any) -> tuple[Recipe, dict[str, Any]]:
    parts = Parts()
    recipe = pack(core, f"the dataset {name!r}", data, on_part=parts)
    return recipe, describe(data, parts, has_futures=recipe.has_futures)


def unpublish(core: Core, names: Sequence[Any], durable: Any = None) -> Operation[None]:
    """See `Client.unpublish_dataset`."""
    place = _in_place(place_named(durable))
    for name in [wire_name(name) for name in names]:
        yield Ask(core.session, protocol.requests.UNPUBLISH, name=name, **place)


def names(core: Core, durable: Any = None) -> Operation[tuple[Any, ...]]:
    """The names of all datasets."""
    return tuple((yield Ask(core.session, protocol.requests.LIST_DATASETS, **_in_place(place_named(durable)))))


def descriptions(core: Core, durable: Any = None) -> Operation[dict[Any, dict[str, Any]]]:
    """What is known of all datasets, by name."""
    return dict((yield Ask(core.session, protocol.requests.DESCRIBE_DATASETS, **_in_place(place_named(durable)))))


def get(core: Core, names: Sequence[Any], default: Any = NO_DEFAULT, durable: Any = None) -> Operation[Any]:
    """Published datasets, on futures of this client: one, or a tuple of several."""
    if not names:
        raise TypeError("get_dataset takes the name of a dataset, or several")
    if any(name is None for name in names[1:]):
        raise TypeError("get_dataset takes names; a default is given by its own: get_dataset(name, default=None)")
    wire_names = [wire_name(name) for name in names]
    place = _in_place(place_named(durable))
    found = []
    for name in wire_names:
        found.append((yield from _get(core, name, default, place)))
    return found[0] if len(found) == 1 else tuple(found)


def _get(core: Core, name: Any, default: Any, place: Mapping[str, Any]) -> Operation[Any]:
    try:
        answer = yield Ask(core.session, protocol.requests.GET_DATASET, name=name, **place)
    except DatasetNotFoundError:
        if default is NO_DEFAULT:
            raise
        return default
    # The scheduler counts this client as a holder of these keys from its answer on. Saying that it wants them as well
    # is needed where it let go of one of them in the meantime, and has the results announced.
    held = hold_all(core, answer["keys"])
    held.update((key, held[here]) for key, here in answer.get("renamed", ()))
    return (yield Elsewhere(lambda: _load(core, name, answer["data"], held, answer["about"])))


def _load(core: Core, name: Any, data: Any, held: Mapping[Any, Future], about: Mapping[str, Any]) -> Any:
    try:
        value = load(core, f"the dataset {name!r}", data, held)
    except UnreadableError as error:
        if other := lacking(about):
            error.args = (f"{error}. It was published with {', '.join(other)}",)
        raise
    if is_grave(about):
        warn_user(
            f"the dataset {name!r} was published with {', '.join(lacking(about))}: what it is made of may be "
            "unreadable here",
            RuntimeWarning,
        )
    return value
