"""What the topics of a client's methods have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.client.core.core import Core
from holdfast.client.drivers.effects import Operation
from holdfast.client.drivers.kinds import check_kind
from holdfast.cluster.instead import raise_no_attribute


class Face:
    """A face of a core, which the methods of all topics work with."""

    #: None in an asynchronous client that was not opened yet.
    _core_or_none: Core | None = None

    @property
    def _core(self) -> Core:
        core = self._core_or_none
        if core is None:
            raise RuntimeError(
                "this asynchronous client is not open: a coroutine opens it, 'await client' or 'async with client'; "
                "outside of coroutines leave asynchronous=True out"
            )
        return core

    if not TYPE_CHECKING:  # a checker of types is to find what there is not

        def __getattr__(self, name: str) -> Any:
            raise_no_attribute("a client", name, self)

    def _check_kind(self, asynchronous: bool | None) -> None:
        """Raise a ValueError if a call asks for another kind of client than this one is in this thread."""
        check_kind(self._core.driver, asynchronous)

    def _run(self, operation: Operation[Any]) -> Any:
        """What an operation gives; in an asynchronous client an awaitable of that."""
        return self._core.driver.run(operation)
