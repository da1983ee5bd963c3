"""What a process that is started here finds in its environment."""

from __future__ import annotations

import os
import sys
import sysconfig

#: The cluster's token (`cluster/comm/tokens.py`). No process inherits it: programs that tasks start would, too.
TOKEN_VARIABLE = "HOLDFAST_TOKEN"


def environment() -> dict[str, str]:
    """This process's environment without the token. ``PYTHONPATH`` names all that is importable here."""
    inherited = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
    return {**inherited, "PYTHONPATH": _import_path()}


def _import_path() -> str:
    """What this process can import and a fresh interpreter could not: a script's folder, a notebook's additions."""
    standard = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    standard |= {os.path.join(sysconfig.get_path("platstdlib"), "lib-dynload")}
    try:
        here = os.getcwd()
    except FileNotFoundError:  # it was removed
        here = ""
    entries = [os.path.join(here, entry) for entry in sys.path if isinstance(entry, str)]
    extra = [os.path.normpath(entry) for entry in entries if os.path.isabs(entry)]
    return os.pathsep.join(dict.fromkeys(e for e in extra if e not in standard and not e.endswith(".zip")))
