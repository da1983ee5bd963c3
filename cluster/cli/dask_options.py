"""Options of ``dask scheduler`` and ``dask worker`` that ``holdfast start`` takes and that have no effect here.

Those that have one are other names of its own options. An option that asks for what must not be ignored, such as
encryption, is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from holdfast.cluster.deploy.keywords import NO_EFFECT
from holdfast.objectstore.errors import HoldfastError

_PREFIX = "dask_"
#: Options with a value, and the keyword of dask's classes that each is.
_VALUES = {
    "--contact-address": "contact_address",
    "--dashboard-address": "dashboard_address",
    "--dashboard-prefix": "http_prefix",
    "--death-timeout": "death_timeout",
    "--idle-timeout": "idle_timeout",
    "--lifetime": "lifetime",
    "--lifetime-stagger": "lifetime_stagger",
    "--listen-address": "contact_address",
    "--nanny-port": "worker_port",
    "--preload-nanny": "preload_nanny",
    "--use-xheaders": "dashboard",
    "--worker-port": "worker_port",
}
#: Pairs of options without one.
_FLAGS = {
    "--dashboard/--no-dashboard": "dashboard",
    "--jupyter/--no-jupyter": "jupyter",
    "--lifetime-restart/--no-lifetime-restart": "lifetime_restart",
    "--nanny/--no-nanny": "nanny",
    "--reconnect/--no-reconnect": "reconnect",
    "--show/--no-show": "dashboard",
}
_SECURITY = "connections prove that they know the cluster's token, and are not encrypted; see docs/security.md"
#: What can't be had, and what there is instead.
_REFUSED = {
    "--protocol": "all connections are TCP",
    "--tls-ca-file": _SECURITY,
    "--tls-cert": _SECURITY,
    "--tls-key": _SECURITY,
    "--worker-class": "workers can't be extended by classes; --preload runs code of yours in each worker",
}


def _name(option: str) -> str:
    return _PREFIX + option.partition("/")[0].removeprefix("--").replace("-", "_")


def take_dask_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, hidden from its help. It hands what it is given by them to `explain`."""
    for option in (*_VALUES, *_REFUSED):
        command = click.option(option, _name(option), hidden=True)(command)
    for option in _FLAGS:
        command = click.option(option, _name(option), default=None, hidden=True)(command)
    return command


def explain(given: dict[str, Any]) -> None:
    """Say of each option that was given why it has no effect.

    Raises
    ------
    HoldfastError
        One of them asks for what can't be had.
    """
    for option, reason in _REFUSED.items():
        value = given.get(_name(option))
        if value is not None and (option, value) != ("--protocol", "tcp"):
            raise HoldfastError(f"{option} {value} can't be had: {reason}")
    for option, keyword in {**_VALUES, **_FLAGS}.items():
        value = given.get(_name(option))
        known = NO_EFFECT[keyword]
        if value is not None and value not in known.values:
            shown = option if option in _VALUES else option.split("/")[0 if value else 1]
            click.echo(f"{shown} has no effect: {known.instead}.", err=True)
