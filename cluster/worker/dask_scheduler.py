"""What computes dask's collections in a worker's process: the cluster.

dask asks its configuration what computes; or a task says it, by dask's name for its own distributed scheduler:
``compute(scheduler="distributed")``. Both stand in modules of dask's, which are changed just after their import. So a
worker whose tasks never use dask doesn't import it.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from holdfast.cluster.dask_config import SCHEDULER_NAMES

#: How dask shuffles and rechunks: by tasks, which other hosts see the results of. Without its own distributed it would
#: go through files of this host.
_METHODS = {"dataframe.shuffle.method": "tasks", "array.rechunk.method": "tasks"}


def take_over() -> None:
    """From now on, dask computes on the cluster, unless a task chooses another scheduler."""
    for name, change in (("dask.config", _set), ("dask.base", _name)):
        if name in sys.modules:
            change(sys.modules[name])
        else:
            sys.meta_path.insert(0, _Finder(name, change))


class _Scheduler:
    """Computes dask graphs, and persists collections where there is a client to do so."""

    def __call__(self, dsk: Any, keys: Any, **kwargs: Any) -> Any:
        """Compute a dask graph (`holdfast.client.in_task.get`)."""
        # The client builds on the cluster, so the worker imports it only when a task has use for it.
        from holdfast.client import in_task

        return in_task.get(dsk, keys, **kwargs)

    @property
    def persist(self) -> Any:
        """The method of the task's client. dask asks for it: else it would bring all that it persists into the task.

        Raises
        ------
        AttributeError
            This thread runs no task: dask keeps the values here then.
        """
        from holdfast.client import in_task  # as there

        task = in_task.running_task()
        if task is None:
            raise AttributeError("only a task's own thread has a client that persists")
        return task.core().client.persist

    def __reduce__(self) -> str:
        return "get"


get = _Scheduler()


def _set(config: ModuleType) -> None:
    if config.get("scheduler", None) is None:
        config.set(scheduler=get)
    for name, method in _METHODS.items():
        if config.get(name, None) in (None, "p2p"):
            config.set({name: method})


class _Named:
    """What dask's names for its own distributed scheduler mean: the client of the task."""

    def __call__(self, dsk: Any, keys: Any, **kwargs: Any) -> Any:
        """Compute a dask graph (`holdfast.client.defaults.named`)."""
        from holdfast.client import in_task  # as in `_Scheduler`

        return in_task.named(dsk, keys, **kwargs)

    @property
    def persist(self) -> Any:
        """As that of `holdfast.client.defaults.named`."""
        from holdfast.client import in_task  # as in `_Scheduler`

        return in_task.named.persist


def _name(base: ModuleType) -> None:
    base.named_schedulers.update(dict.fromkeys(SCHEDULER_NAMES, _Named()))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds a module once, as others would, with a loader that changes it when it is there."""

    def __init__(self, name: str, change: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._change = change

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._change)
        return spec


class _Loader(importlib.abc.Loader):
    """Loads a module as another loader does, and changes it then."""

    def __init__(self, loader: Any, change: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._change = change

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._change(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # what tools ask of a loader, such as the source
