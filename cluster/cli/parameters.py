"""What the values of options may be, and what they mean."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from holdfast.cluster.deploy.plan import cores
from holdfast.objectstore.sizes import parse_size

#: Of a resource; more is a mistake, and infinity as well.
MAX_AMOUNT = 1e18


class Size(click.ParamType):  # type: ignore[type-arg]  # it has none in older versions
    """A size in bytes, or a fraction of the memory. "auto" is the default."""

    name = "size"

    def __init__(self, *, or_none: bool = False) -> None:
        self._or_none = or_none

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = str(value).strip()
        if text == "auto":
            return None
        if self._or_none and text == "0":
            return text
        with contextlib.suppress(ValueError):
            if 0 < float(text) < 1:
                return float(text)
        try:
            return parse_size(value)
        except ValueError:
            none = ", and 0 for no limit" if self._or_none else ""
            self.fail(f"{value!r} is no size; one is, for example, 4GB, 512MiB or 0.25{none}.", param, ctx)


class Count(click.ParamType):  # type: ignore[type-arg]
    """A number from 1 on; "auto" is the default, and a negative one means so many fewer than there are cores, and 1."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = str(value).strip()
        if text == "auto":
            return None
        try:
            number = int(text)
        except ValueError:
            number = 0
        if number < 0:
            number += cores() + 1
        if number < 1:
            self.fail(f"{value!r} is no number from 1 on.", param, ctx)
        return number


class Resources(click.ParamType):  # type: ignore[type-arg]
    """Names with amounts: ``GPU=2 MEM=1e9``."""

    name = "resources"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, float]:
        found: dict[str, float] = {}
        for part in str(value).replace(",", " ").split():
            name, _, amount = part.partition("=")
            try:
                found[name] = float(amount)
            except ValueError:
                found = {}
            if not name or not 0 <= found.get(name, -1) <= MAX_AMOUNT:
                self.fail(f"{part!r} is no resource; one is, for example, GPU=2, several 'GPU=2 MEM=1e9'.", param, ctx)
        return found
