"""What a worker runs before its first task, since its maker wants it so: ``preload``.

Each is the name of a module, the path of a file that ends in ``.py``, or Python code. It is run once in the worker's
process. If it has a function ``dask_setup``, that is called with the worker, and ``dask_teardown`` when the worker
closes; both may be coroutines. A ``dask_setup`` that is a command of click gets the arguments that were given with it.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import os
import types
from collections.abc import Sequence
from typing import Any

from holdfast.objectstore.errors import HoldfastError

logger = logging.getLogger(__name__)

_SETUP, _TEARDOWN = "dask_setup", "dask_teardown"
#: A longer text is cut where it is named.
SHOWN_LENGTH = 80


class Preloads:
    """All that one worker is to run.

    Parameters
    ----------
    wanted
        Pairs of what is run, and its arguments.
    """

    def __init__(self, wanted: Sequence[tuple[str, Sequence[str]]]) -> None:
        self._wanted = list(wanted)
        self._modules: list[types.ModuleType] = []

    async def setup(self, worker: Any) -> None:
        """Run all of it, in order.

        Raises
        ------
        HoldfastError
            Something has failed; names it, and says how. What came before is torn down by `teardown`.
        """
        for text, arguments in self._wanted:
            try:
                module = _load(text)
                self._modules.append(module)
                await _call(getattr(module, _SETUP, None), worker, arguments)
            except (Exception, SystemExit) as error:
                shown = text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}…"
                raise HoldfastError(f"the preload {shown!r} failed: {type(error).__name__}: {error}") from error

    async def teardown(self, worker: Any) -> None:
        """Undo all of it, the last one first. What fails is logged."""
        while self._modules:
            module = self._modules.pop()
            try:
                await _call(getattr(module, _TEARDOWN, None), worker, ())
            except Exception:
                logger.exception("the teardown of the preload %s failed", module.__name__)


def _load(text: str) -> types.ModuleType:
    """Run what a text means."""
    if text.strip().endswith(".py") and "\n" not in text:
        name = os.path.basename(text).removesuffix(".py")
        spec = importlib.util.spec_from_file_location(name, text)
        if spec is None or spec.loader is None:
            raise ImportError(f"{text} can't be imported")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    if all(part.isidentifier() for part in text.split(".")):
        return importlib.import_module(text)
    module = types.ModuleType("preload")
    exec(compile(text, "<preload>", "exec"), module.__dict__)
    return module


async def _call(function: Any, worker: Any, arguments: Sequence[str]) -> None:
    if function is None:
        return
    if hasattr(function, "make_context"):  # a command of click
        context = function.make_context(_SETUP, list(arguments), allow_extra_args=False)
        result = function.callback(worker, *context.args, **context.params)
    else:
        result = function(worker)
    if inspect.isawaitable(result):
        await result
