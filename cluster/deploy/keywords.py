"""Keywords that dask's documentation gives to its `Client` and `LocalCluster`, and what becomes of them here.

Some have another name here. Others ask for what is always so, and are taken with that value. Any other value can have
no effect. If a program works without it, a warning says why there is none. Else the value is refused, and the error
says what to use instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from holdfast.cluster.user_warnings import warn_user


class _Known(NamedTuple):
    """A keyword that is no parameter here.

    Attributes
    ----------
    values
        With one of these it asks for what is so anyway.
    instead
        What to use instead of another value, or why it has no effect.
    refused
        Whether another value is refused. Else there is a warning.
    """

    values: tuple[Any, ...]
    instead: str
    refused: bool = True


_BLOCKS = "a LocalCluster blocks while it starts: Client(..., asynchronous=True) starts one without blocking the loop"
_NO_DASHBOARD = "there is no dashboard: 'holdfast status' and 'holdfast memory' show the cluster; leave it out"
_SECURITY = "connections prove that they know the cluster's token, and are not encrypted; see docs/security.md"
_PROTOCOL = "all connections are TCP, or Unix sockets within a host; processes=False keeps a cluster in one process"
_PICKLE = "values travel as Arrow, pickle or cloudpickle, whichever fits; a class says how with __reduce__"
_WORKERS = "workers are processes of one kind; what each of them is to do first can be a task"
_STORES = "each host's object store moves to disk what doesn't fit: see object_store_memory and spill_directory"
_LOOP = "a blocking client has an event loop of its own, and an asynchronous one takes that which is running"
_STARTED = "Holdfast's agents start their workers again, and decide by themselves when to give up"

#: Of both: `Client` hands what it does not know itself to the cluster that it starts.
_OF_BOTH = {
    "security": _Known((None, False), _SECURITY),
    "protocol": _Known((None, "tcp", "tcp://"), _PROTOCOL),
}
_OF_CLIENT = {
    **_OF_BOTH,
    "scheduler_file": _Known((None,), "give the address that is in the file, or set HOLDFAST_ADDRESS"),
    "loop": _Known((None,), _LOOP, refused=False),
    "heartbeat_interval": _Known(
        (None,), "a client needs no heartbeats: the scheduler sees its connection end", refused=False
    ),
    "serializers": _Known((None,), _PICKLE, refused=False),
    "deserializers": _Known((None,), _PICKLE, refused=False),
    "extensions": _Known((None, ()), "a client can't be extended by classes", refused=False),
    "direct_to_workers": _Known((None, True), "results never pass through the scheduler", refused=False),
    "connection_limit": _Known((None, 512), "a client has one connection to each host", refused=False),
}
_OF_CLUSTER = {
    **_OF_BOTH,
    "loop": _Known((None,), _LOOP, refused=False),
    "asynchronous": _Known((False, None), _BLOCKS),
    "dashboard": _Known((None, False), _NO_DASHBOARD),
    "dashboard_address": _Known((None, False, ""), _NO_DASHBOARD),
    "worker_dashboard_address": _Known((None, False, ""), _NO_DASHBOARD),
    "diagnostics_port": _Known((None, False), _NO_DASHBOARD),
    "services": _Known((None,), _NO_DASHBOARD),
    "worker_services": _Known((None,), _NO_DASHBOARD),
    "service_kwargs": _Known((None,), _NO_DASHBOARD),
    "memory_target_fraction": _Known((None,), _STORES),
    "memory_spill_fraction": _Known((None,), _STORES),
    "memory_pause_fraction": _Known((None,), _STORES),
    "memory_terminate_fraction": _Known((None,), "memory_limit= is what a worker is killed above"),
    "interface": _Known((None,), "give the interface's address as host="),
    "worker_class": _Known((None,), _WORKERS),
    "preload": _Known((None, (), []), _WORKERS),
    "preload_argv": _Known((None, (), []), _WORKERS),
    "preload_nanny": _Known((None, (), []), _WORKERS),
    "plugins": _Known((None, (), []), _WORKERS),
    "nanny": _Known((None, True), _STARTED),
    "death_timeout": _Known((None,), _STARTED),
    "lifetime": _Known((None,), _STARTED),
    "start": _Known((None, True), "a cluster starts when it is made"),
    "env": _Known((None, {}), "set os.environ before: the workers have the environment of the process that makes them"),
    "blocked_handlers": _Known((None,), "which messages there are is no matter of configuration"),
    "scheduler_kwargs": _Known((None, {}), "the scheduler has no parameters beside the cluster's"),
    "scheduler_sync_interval": _Known((None, 1), "the cluster is told what changes when it does"),
}
#: Other names for parameters of `LocalCluster`.
_RENAMED = {
    "local_directory": "spill_directory",
    "ip": "host",
    "ncores": "threads_per_worker",
    "nthreads": "threads_per_worker",
}


def of_client(given: Mapping[str, Any]) -> dict[str, Any]:
    """What is left of a client's keywords for the cluster that it starts.

    Raises
    ------
    TypeError
        One of them has another value than it can have here; says what to use instead.
    """
    return {name: value for name, value in given.items() if not _is_taken(name, value, _OF_CLIENT.get(name))}


def of_cluster(given: Mapping[str, Any], parameters: Collection[str]) -> dict[str, Any]:
    """What keywords of a cluster that are none of its ``parameters`` mean for these.

    Raises
    ------
    TypeError
        One is not known, or has another value than it can have here; says what to use instead.
    """
    meant: dict[str, Any] = {}
    for name, value in given.items():
        parameter = _RENAMED.get(name)
        if parameter is not None:
            if parameter in meant:
                raise TypeError(f"{name} is another name for {parameter}, which is given twice")
            meant[parameter] = value
        elif not _is_taken(name, value, known := _OF_CLUSTER.get(name)):
            assert known is None
            raise unexpected("LocalCluster", name, parameters)
    return meant


def unexpected(whose: str, name: str, parameters: Collection[str]) -> TypeError:
    """The error for an unknown keyword."""
    near = difflib.get_close_matches(name, [*parameters, *_RENAMED], 1)
    meant = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(parameters))}"
    return TypeError(f"{whose} got an unexpected keyword {name!r}{meant}")


def is_for_cluster(name: str) -> bool:
    """Whether a keyword is one of dask's cluster that is known here, by whatever name."""
    return name in _OF_CLUSTER or name in _RENAMED


def _is_taken(name: str, value: Any, known: _Known | None) -> bool:
    if known is None:
        return False
    if not any(value is fit or (type(value) is type(fit) and value == fit) for fit in known.values):
        if known.refused:
            raise TypeError(f"{name}={value!r:.100} has no meaning here: {known.instead}")
        warn_user(f"{name}={value!r:.100} has no effect: {known.instead}")
    return True
