"""IPython kernels in the cluster: started, and what a notebook has of them: magics and consoles."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.drivers.effects import Elsewhere, Operation
from holdfast.client.operations import running
from holdfast.cluster import kernels

#: How long the answer of a kernel to a line is waited for.
EXECUTE_SECONDS = 3600.0

Info = dict[str, Any]


def start_on_workers(
    core: Core, workers: Any, magic_names: Any, qtconsole: bool, qtconsole_args: Sequence[str] | None
) -> Operation[dict[str, Info]]:
    """See `Client.start_ipython_workers`."""
    found = yield from running.run_on_workers(core, kernels.start_on_worker, (), {}, workers=workers)
    infos: dict[str, Info] = found or {}
    for name, info in zip(names_of_magics(magic_names, len(infos)), infos.values(), strict=False):
        register_magic(name, info)
    if qtconsole:
        for info in infos.values():
            yield Elsewhere(lambda info=info: open_console(info, qtconsole_args))  # type: ignore[misc]
    return infos


def start_on_scheduler(
    core: Core, magic_name: str | None, qtconsole: bool, qtconsole_args: Sequence[str] | None
) -> Operation[Info]:
    """See `Client.start_ipython_scheduler`."""
    info: Info = yield from running.run_on_scheduler(core, kernels.start_on_scheduler, (), {}, True)
    if magic_name == "scheduler_if_ipython":
        magic_name = "scheduler" if _shell() is not None else None
    if magic_name:
        register_magic(magic_name, info)
    if qtconsole:
        yield Elsewhere(lambda: open_console(info, qtconsole_args))
    return info


def names_of_magics(magic_names: Any, count: int) -> list[str]:
    """The names of so many magics: a star in a name stands for the number of each.

    Examples
    --------
    >>> names_of_magics("w_*", 2)
    ['w_0', 'w_1']
    """
    if not magic_names:
        return []
    if isinstance(magic_names, str):
        if "*" in magic_names:
            return [magic_names.replace("*", str(number)) for number in range(count)]
        magic_names = [magic_names]
    names = list(magic_names)
    if len(names) != count:
        raise ValueError(f"{len(names)} magic_names for {count} workers: 'w_*' has a name for each")
    return names


def register_magic(name: str, info: Mapping[str, Any]) -> None:
    """Have ``%name code`` and ``%%name`` run code in a kernel.

    Raises
    ------
    RuntimeError
        This is no IPython session.
    """
    shell = _shell()
    if shell is None:
        raise RuntimeError("magics are for IPython, and this is no session of it: use the connection info")
    shell.register_magic_function(_magic(info), magic_kind="line_cell", magic_name=name)


def _magic(info: Mapping[str, Any]) -> Callable[..., None]:
    def magic(line: str, cell: str | None = None) -> None:
        execute(info, line if cell is None else cell)

    return magic


def execute(info: Mapping[str, Any], code: str) -> None:
    """Run code in a kernel, and show here what it shows."""
    jupyter_client: Any = importlib.import_module("jupyter_client")  # comes with ipykernel
    client = jupyter_client.BlockingKernelClient()
    client.load_connection_info(dict(info))
    client.start_channels()
    try:
        client.wait_for_ready(timeout=kernels.START_SECONDS)
        client.execute_interactive(code, timeout=EXECUTE_SECONDS)
    finally:
        client.stop_channels()


def open_console(info: Mapping[str, Any], arguments: Sequence[str] | None) -> None:
    """Open a Qt console of a kernel."""
    handle, path = tempfile.mkstemp(prefix="holdfast-kernel-", suffix=".json")
    with os.fdopen(handle, "w") as file:
        json.dump(dict(info), file)
    command = ["jupyter", "qtconsole", "--existing", path, *(arguments or ())]
    try:
        subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        os.unlink(path)
        raise FileNotFoundError("there is no 'jupyter' here: pip install qtconsole") from None


def _shell() -> Any:
    """The IPython session of this process; None without one."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()
