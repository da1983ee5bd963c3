"""What a user has set of dask's configuration, for the workers of a cluster that this process starts.

What is in dask's files and in the environment the workers read for themselves. What was set since, with
``dask.config.set``, is handed down in a descriptor: it may hold credentials, and programs that tasks start inherit an
environment. Each value is pickled by itself, so that one that can't be leaves the others. If nothing was set, nothing
is handed down, and no worker imports dask for it.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import pickle
import sys
from collections.abc import Iterator
from typing import Any

logger = logging.getLogger(__name__)

#: The option of a process that is started with a descriptor of it.
OPTION = "--dask-config-fd"
MAX_NBYTES = 1 << 20
#: What dask calls its own distributed scheduler, in ``compute(scheduler="distributed")``.
SCHEDULER_NAMES = ("distributed", "dask.distributed")
#: What means something in the process only that has set it: what computes there, and what it would connect to.
_NOT_FOR_WORKERS = frozenset({"scheduler", "get", "pool", "scheduler-address", "scheduler_address"})
_ABSENT = object()


def what_was_set() -> bytes:
    """What this process has set, pickled; empty if it has set nothing.

    Raises
    ------
    ValueError
        It is too much.
    """
    config = sys.modules.get("dask.config")
    if config is None:
        return b""
    from holdfast.cluster.protocol import payloads

    read: dict[str, Any] = {}
    config.refresh(config=read)
    found = []
    for path, value in _differences(config.config, read, ()):
        if path[0] in _NOT_FOR_WORKERS:
            continue
        try:
            found.append((path, payloads.dumps(value)))
        except Exception as error:  # pickling runs a user's code, which may raise anything
            logger.warning(
                "workers don't get %r of dask's configuration: it can't be pickled: %s", ".".join(path), error
            )
    data = pickle.dumps(found) if found else b""
    if len(data) > MAX_NBYTES:
        raise ValueError(
            f"what was set of dask's configuration takes {len(data):,} bytes, and workers can be given {MAX_NBYTES:,}: "
            "keep large data elsewhere"
        )
    return data


def _differences(here: dict[Any, Any], there: dict[Any, Any], path: tuple[str, ...]) -> Iterator[tuple[Any, Any]]:
    for name, value in list(here.items()):
        other = there.get(name, {} if isinstance(value, dict) and value else _ABSENT)
        if isinstance(value, dict) and isinstance(other, dict):
            yield from _differences(value, other, (*path, str(name)))
        elif value is not other and not _are_equal(value, other):
            yield (*path, str(name)), value


def _are_equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:  # of an array, for one
        return False


def take_over(data: bytes) -> None:
    """Set what another process had set."""
    if not data:
        return
    import dask.config  # for those only that are given something

    for path, value in pickle.loads(data):
        try:
            found = pickle.loads(value)
        except Exception:  # it may need a module that is not here
            logger.warning("%r of dask's configuration can't be read here", ".".join(path), exc_info=True)
            continue
        settings = dask.config.config
        for name in path[:-1]:
            inner = settings.get(name)
            if not isinstance(inner, dict):
                inner = settings[name] = {}
            settings = inner
        settings[path[-1]] = found


@contextlib.contextmanager
def handed_down(data: bytes) -> Iterator[dict[str, int]]:
    """A descriptor of it, by the option with which it is to be given to a process; nothing if there is nothing."""
    if not data:
        yield {}
        return
    fd = os.memfd_create("holdfast-dask-config")
    try:
        os.write(fd, data)
        yield {OPTION: fd}
    finally:
        os.close(fd)


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that `given` reads."""
    parser.add_argument(OPTION, type=int, metavar="N", help="read here what was set of dask's configuration")


def given(options: argparse.Namespace) -> bytes:
    """What this process was started with."""
    fd = options.dask_config_fd
    if fd is None:
        return b""
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    os.close(fd)
    return data
