"""Keywords that dask's documentation gives to its `Client`, clusters, `Scheduler`, `Worker` and `Nanny`.

Most of them are parameters of ours, some by another name. Others ask for what is always so, and are taken with that
value. Any other value can have no effect. If a program works without it, a warning says why there is none: `NO_EFFECT`
has all of these. What must not be ignored, such as encryption, is refused, and the error says what to use instead.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from holdfast.cluster.comm.addresses import is_loopback
from holdfast.cluster.user_warnings import warn_user


class Known(NamedTuple):
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
    refused: bool = False


_NO_DASHBOARD = "there is no dashboard; 'holdfast status' and 'holdfast memory' show the cluster"
_SECURITY = "connections prove that they know the cluster's token, and are not encrypted; see docs/security.md"
_PROTOCOL = "all connections are TCP, or Unix sockets within a host; processes=False keeps a cluster in one process"
_PICKLE = "values travel as Arrow, pickle or cloudpickle, whichever fits; a class says how with __reduce__"
_STORES = "each host's object store moves to disk what doesn't fit: see object_store_memory and spill_directory"
_LOOP = "a blocking client has an event loop of its own, and an asynchronous one takes that which is running"
_AGENT = "the agent of a host starts workers again that die, for as long as it takes"
_CONNECTS = "a worker connects with the scheduler, and nothing connects with a worker"
_PLUGINS = "register plugins by a client (Client.register_plugin); workers that come later get them too"
_NO_CODE = "no code of yours runs in a scheduler's process; Client.register_plugin has some run beside it"
_CONFIG = "workers have what dask.config.set has set in this process before they were made"
_PROFILE = "workers take no profiles by themselves"
_CLASSES = "it can't be extended by classes; see preload, and Client.register_plugin"
_LIFETIME = "a worker runs until it is closed; Client.retire_workers and scale() close some without losing data"

_OF_BOTH = {
    "security": Known((None, False), _SECURITY, refused=True),
    "protocol": Known((None, "tcp", "tcp://"), _PROTOCOL, refused=True),
}
_OF_CLIENT = {
    **_OF_BOTH,
    "loop": Known((None,), _LOOP),
    "heartbeat_interval": Known((None,), "a client needs no heartbeats: the scheduler sees its connection end"),
    "serializers": Known((None,), _PICKLE),
    "deserializers": Known((None,), _PICKLE),
    "extensions": Known((None, ()), "a client can't be extended by classes"),
    "direct_to_workers": Known((None, True), "results never pass through the scheduler"),
    "connection_limit": Known((None, 512), "a client has one connection to each host"),
}
#: Of clusters, schedulers, workers and nannies: what is taken and has no effect, and why.
NO_EFFECT = {
    "loop": Known((None,), _LOOP),
    "dashboard": Known((None, False), _NO_DASHBOARD),
    "dashboard_address": Known((None, False, ""), _NO_DASHBOARD),
    "worker_dashboard_address": Known((None, False, ""), _NO_DASHBOARD),
    "diagnostics_port": Known((None, False), _NO_DASHBOARD),
    "services": Known((None, {}), _NO_DASHBOARD),
    "worker_services": Known((None, {}), _NO_DASHBOARD),
    "service_kwargs": Known((None, {}), _NO_DASHBOARD),
    "http_prefix": Known((None, "/"), _NO_DASHBOARD),
    "http_server_modules": Known((None,), _NO_DASHBOARD),
    "jupyter": Known((None, False), _NO_DASHBOARD),
    "memory_target_fraction": Known((None,), _STORES),
    "memory_spill_fraction": Known((None,), _STORES),
    "memory_pause_fraction": Known((None, 0.8), "a worker that uses more than 80 % of its memory_limit is paused"),
    "max_spill": Known((None, False), _STORES),
    "data": Known((None,), _STORES),
    "memory_terminate_fraction": Known((None,), "a worker that takes more than its memory_limit is ended"),
    "nanny": Known((None, True), _AGENT),
    "quiet": Known((None, True, False), _AGENT),
    "death_timeout": Known((None,), _AGENT),
    "reconnect": Known((None, True), _AGENT),
    "preload": Known((None, "", (), []), _NO_CODE),
    "preload_argv": Known((None, "", (), []), _NO_CODE),
    "preload_nanny": Known((None, (), []), _AGENT),
    "preload_nanny_argv": Known((None, (), []), _AGENT),
    "heartbeat_interval": Known((None,), "the agent of a host says every two seconds how it and its workers are"),
    "worker_port": Known((None, 0), _CONNECTS),
    "contact_address": Known((None,), _CONNECTS),
    "listen_address": Known((None,), _CONNECTS),
    "port": Known((None, 0), _CONNECTS),
    "scheduler_sni": Known((None,), _SECURITY),
    "plugins": Known((None, (), []), _PLUGINS),
    "extensions": Known((None, (), {}), _CLASSES),
    "executor": Known((None,), _CLASSES),
    "metrics": Known((None, {}), _CLASSES),
    "startup_information": Known((None, {}), _CLASSES),
    "profile_cycle_interval": Known((None,), _PROFILE),
    "low_level_profiler": Known((None, False), _PROFILE),
    "lifetime": Known((None,), _LIFETIME),
    "lifetime_stagger": Known((None,), _LIFETIME),
    "lifetime_restart": Known((None, False), _LIFETIME),
    "idle_timeout": Known((None,), "a cluster closes when it is told to"),
    "config": Known((None, {}), _CONFIG),
    "delete_interval": Known((None,), "what nothing needs any more is deleted at once"),
    "validate": Known((None, False), "only a scheduler checks itself: scheduler_kwargs={'validate': True}"),
    "transition_counter_max": Known((None, False), "there is nothing to count for a user"),
    "start": Known((None, True), "a cluster starts when it is made"),
}
#: Other names for parameters of `LocalCluster`.
_RENAMED = {
    "local_directory": "spill_directory",
    "ip": "host",
    "ncores": "threads_per_worker",
    "nthreads": "threads_per_worker",
}


def parameters_of(made: type) -> tuple[str, ...]:
    """The names of what can be given to a class."""
    return tuple(
        name
        for name, parameter in inspect.signature(made).parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    )


def of_client(given: Mapping[str, Any], *, starts_cluster: bool) -> dict[str, Any]:
    """What is left of a client's keywords for the cluster that it starts, if it does.

    Raises
    ------
    TypeError
        One of them has another value than it can have here; says what to use instead.
    """
    left = _OF_BOTH if starts_cluster else ()  # to the cluster, which knows who can reach it
    return {
        name: value
        for name, value in given.items()
        if not _is_taken(name, value, None if name in left and value is not None else _OF_CLIENT.get(name))
    }


def of_cluster(given: Mapping[str, Any], parameters: Collection[str]) -> dict[str, Any]:
    """What keywords of a cluster that are none of its ``parameters`` mean for these.

    Raises
    ------
    TypeError
        One is not known, or is given twice.
    """
    meant: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, value in given.items():
        parameter = _RENAMED.get(name)
        if parameter is None:
            others[name] = value
        elif value is not None:
            if parameter in meant:
                raise TypeError(f"{name} is another name for {parameter}, which is given twice")
            meant[parameter] = value
    without_effect("LocalCluster", others, parameters)
    return meant


def without_effect(whose: str, given: Mapping[str, Any], parameters: Collection[str]) -> None:
    """Take keywords that have no effect, with a warning for each that asks for something.

    Raises
    ------
    TypeError
        One is not known; names what is like it.
    """
    for name, value in given.items():
        if not _is_taken(name, value, NO_EFFECT.get(name)):
            raise unexpected(whose, name, parameters)


def check_security(security: Any, protocol: str | None, host: str) -> None:
    """Take what asks for encryption, with a warning, for a cluster that nobody beyond this machine can reach.

    Raises
    ------
    TypeError
        Others could reach it, and would read what is meant to be secret.
    """
    scheme = (protocol or "tcp").removesuffix("://")
    asked = f"security={security!r:.100}"
    if scheme in ("tls", "wss"):
        if not security:
            asked = f"protocol={protocol!r:.100}"
        security = security or protocol
    elif scheme not in ("tcp", "inproc"):
        warn_user(f"protocol={protocol!r:.100} has no effect: {_PROTOCOL}")
    if security in (None, False):
        return
    if not is_loopback(host):
        raise TypeError(f"{asked} can't be had for a cluster that others can reach: {_SECURITY}")
    warn_user(f"{asked} has no effect: nobody beyond this machine can reach the cluster; {_SECURITY}")


def unexpected(whose: str, name: str, parameters: Collection[str]) -> TypeError:
    """The error for an unknown keyword."""
    near = difflib.get_close_matches(name, [*parameters, *_RENAMED], 1)
    meant = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(parameters))}"
    return TypeError(f"{whose} got an unexpected keyword {name!r}{meant}")


def is_for_cluster(name: str) -> bool:
    """Whether a keyword is one of dask's cluster that is known here, by whatever name."""
    return name in NO_EFFECT or name in _RENAMED


def _is_taken(name: str, value: Any, known: Known | None) -> bool:
    if known is None:
        return False
    if not any(value is fit or (type(value) is type(fit) and value == fit) for fit in known.values):
        if known.refused:
            raise TypeError(f"{name}={value!r:.100} has no meaning here: {known.instead}")
        warn_user(f"{name}={value!r:.100} has no effect: {known.instead}")
    return True
