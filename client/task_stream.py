"""`get_task_stream`: what the tasks took that ran while a block of code did."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from holdfast.client import defaults
from holdfast.client.drivers.effects import Operation
from holdfast.client.operations import diagnostics


class get_task_stream:
    """Collect what each task takes that runs within a ``with`` block; with an asynchronous client, ``async with``.

    Parameters
    ----------
    client : Client, optional
        Default: the current one.
    plot : bool or "save"
        Whether to make a figure of bokeh's too; ``"save"`` writes it into a file.
    filename : str
        The file. Directories that are missing are made.

    Attributes
    ----------
    data : list of dict
        As of `Client.get_task_stream`, when the block is over.
    figure : Figure or None
        The figure, if it was asked for.

    Raises
    ------
    ImportError
        A plot needs bokeh: ``pip install holdfast[plots]``.

    Examples
    --------
    >>> from holdfast import get_task_stream
    >>> with get_task_stream() as stream:
    ...     _ = client.gather(client.map(str, range(5)))
    >>> len(stream.data)
    5
    """

    def __init__(self, client: Any = None, plot: bool | str = False, filename: str = "task-stream.html") -> None:
        self.data: list[dict[str, Any]] = []
        self.figure: Any = None
        self._core = defaults.current() if client is None else client._core
        self._plot = plot
        self._filename = filename
        self._start = 0.0

    def _begin(self) -> Operation[Self]:
        self._start = time.time()
        yield from diagnostics.task_stream(self._core, self._start, None, 0, False, "", None)
        return self

    def _end(self) -> Operation[None]:
        found = yield from diagnostics.task_stream(self._core, self._start, None, None, False, "", None)
        self.data.extend(found)
        if self._plot:
            self.figure = yield from diagnostics.plot_of_stream(self.data, self._plot, self._filename)

    def __enter__(self) -> Self:
        if self._core.driver.gives_awaitables:
            raise TypeError("with an asynchronous client use 'async with get_task_stream(client)'")
        self._core.driver.run(self._begin())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._core.driver.run(self._end())

    async def __aenter__(self) -> Self:
        await self._core.driver.run(self._begin())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._core.driver.run(self._end())
