"""What the options of a `LocalCluster` mean for its scheduler and its workers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.cluster.deploy import keywords
from holdfast.cluster.deploy.blocked_handlers import requests_of
from holdfast.cluster.durations import seconds
from holdfast.cluster.user_warnings import warn_user
from holdfast.objectstore.errors import HoldfastError

LOOPBACK = "127.0.0.1"
#: Environment variables are handed down in a message of limited size.
MAX_ENVIRONMENT_LENGTH = 32 << 10
_OF_SCHEDULER = (
    "allowed_failures",
    "blocked_handlers",
    "host",
    "no_worker_timeout",
    "no_workers_timeout",
    "port",
    "scheduler_file",
    "validate",
    "worker_ttl",
)


def scheduler_options(given: Mapping[str, Any] | None, blocked_handlers: list[str] | None) -> dict[str, Any]:
    """What is said of the scheduler, as options of `holdfast.cluster.scheduler.io.server.Scheduler`.

    Parameters
    ----------
    given
        ``scheduler_kwargs``. ``host``, ``port`` and ``scheduler_file`` stay what they are.
    blocked_handlers
        Beside those that are given there.

    Raises
    ------
    TypeError, ValueError
        There is no such option, or it can't be so.

    Examples
    --------
    >>> scheduler_options({"allowed_failures": 0, "worker_ttl": "1 minute"}, None)
    {'max_failures': 1, 'silence_timeout': 60.0}
    """
    wanted = dict(given or {})
    others = {name: value for name, value in wanted.items() if name not in _OF_SCHEDULER}
    keywords.without_effect("scheduler_kwargs", others, _OF_SCHEDULER)
    options: dict[str, Any] = {name: wanted[name] for name in ("host", "port") if wanted.get(name) is not None}
    if (file := wanted.get("scheduler_file")) is not None:
        options["scheduler_file"] = Path(file)
    if blocked := requests_of(blocked_handlers) | requests_of(wanted.get("blocked_handlers")):
        options["blocked_requests"] = blocked
    if (failures := wanted.get("allowed_failures")) is not None:
        if isinstance(failures, bool) or not isinstance(failures, int) or failures < 0:
            raise ValueError(f"allowed_failures is a whole number from 0 on, not {failures!r:.100}")
        options["max_failures"] = failures + 1
    for name, option in (
        ("worker_ttl", "silence_timeout"),
        ("no_worker_timeout", "no_worker_timeout"),
        ("no_workers_timeout", "no_worker_timeout"),
    ):
        if (value := seconds(wanted.get(name))) is not None:
            if value <= 0:
                raise ValueError(f"{name} is a time above zero, not {value!r}")
            options[option] = float(value)
    if wanted.get("validate"):
        options["validate"] = True
    return options


def given_once(meant: Mapping[str, Any], parameter: str, value: Any) -> Any:
    """What was given for a parameter, by its own name or by one of dask's (``meant``).

    Raises
    ------
    TypeError
        It was given by both.

    Examples
    --------
    >>> given_once({"threads_per_worker": 2}, "threads_per_worker", None)
    2
    """
    if parameter in meant and value is not None:
        raise TypeError(f"{parameter} is given twice, once by another name")
    return meant.get(parameter, value)


def address_to_listen_on(host: str | None, interface: str | None) -> str:
    """An address of this machine: that of a network interface, if one is given; by default of no other machine's reach.

    Raises
    ------
    TypeError, ValueError
        Both are given, or there is no such interface.

    Examples
    --------
    >>> address_to_listen_on(None, None), address_to_listen_on("0.0.0.0", None)
    ('127.0.0.1', '0.0.0.0')
    """
    if interface is None:
        return host or LOOPBACK
    if host:
        raise TypeError("give host or interface, and not both")
    from holdfast.cluster.deploy.interfaces import address_of_interface  # which hardly anybody needs

    return address_of_interface(interface)


def checked_port(port: Any) -> int:
    """The port of a scheduler.

    Raises
    ------
    ValueError
        It is none.
    """
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port < 65536:
        raise ValueError(f"scheduler_port must be from 0 (any free port) to 65535, not {port!r:.100}")
    return port


def log_level(level: int | str | None) -> int:
    """The number of a level of logging; of a false value that of INFO.

    Raises
    ------
    ValueError
        There is no such level.

    Examples
    --------
    >>> log_level("error"), log_level(False)
    (40, 20)
    """
    if not level:
        return logging.INFO
    found = logging.getLevelNamesMapping().get(level.upper()) if isinstance(level, str) else level
    if not isinstance(found, int):
        raise ValueError(
            f"silence_logs is a level of logging, such as 'WARNING' or logging.WARNING, not {level!r:.100}"
        )
    return int(found)


def works_in_processes(processes: bool | None, worker_class: Any, protocol: str | None) -> bool:
    """Whether the parts of a cluster are processes of their own.

    Raises
    ------
    TypeError
        It is to have workers of a class of one's own.
    """
    wanted = processes is None or bool(processes)
    if protocol is not None and protocol.removesuffix("://") == "inproc":
        wanted = False
    if worker_class is None:
        return wanted
    name = worker_class if isinstance(worker_class, str) else getattr(worker_class, "__qualname__", "")
    ours = isinstance(worker_class, str) or getattr(worker_class, "__module__", "").startswith("holdfast.")
    last = name.rpartition(".")[2]
    if not ours or last not in ("Nanny", "Worker"):
        raise TypeError(
            f"worker_class={worker_class!r:.100}: a LocalCluster has workers of the classes Worker and Nanny; "
            "SpecCluster takes others, and preload= runs code of yours in each worker"
        )
    return last == "Nanny"


def environment_of(variables: Mapping[str, str] | None, *, processes: bool = True) -> dict[str, str]:
    """Environment variables for worker processes, checked. Workers of this process have its own.

    Raises
    ------
    ValueError, HoldfastError
        They can't be, or are too many.
    """
    found = {str(name): str(value) for name, value in (variables or {}).items()}
    for name, value in found.items():
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"{name!r:.100} can't be an environment variable")
    if sum(len(name) + len(value) for name, value in found.items()) > MAX_ENVIRONMENT_LENGTH:
        raise HoldfastError(f"the environment of a worker has at most {MAX_ENVIRONMENT_LENGTH:,} characters")
    if found and not processes:
        warn_user("env has no effect: the workers are parts of this process, and have its environment")
        return {}
    return found


def preloads_of(preload: Any, preload_argv: Any = None) -> list[tuple[str, list[str]]]:
    """Pairs of what is to be run and its arguments, of what dask's keywords say.

    Parameters
    ----------
    preload
        One text, or several.
    preload_argv
        The arguments: of all, or for each of them a list of its own.

    Examples
    --------
    >>> preloads_of("numpy"), preloads_of(["a", "b"], [["--x"], []])
    ([('numpy', [])], [('a', ['--x']), ('b', [])])
    """
    texts = [preload] if isinstance(preload, str) else list(preload or ())
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"preload has names of modules, paths or code as text, not {preload!r:.100}")
    arguments = [preload_argv] if isinstance(preload_argv, str) else list(preload_argv or ())
    if not any(isinstance(each, (list, tuple)) for each in arguments):
        return [(text, [str(each) for each in arguments]) for text in texts]
    if len(arguments) != len(texts):
        raise ValueError(f"preload_argv has {len(arguments)} lists of arguments for {len(texts)} preloads")
    return [(text, [str(item) for item in each]) for text, each in zip(texts, arguments, strict=True)]
