"""A process of a cluster under a probe: one of the product's modules, run as itself while something watches it.

``python -m benchmarks.probed_process PROBE DIRECTORY MODULE [ARGUMENT ...]`` does what ``python -m MODULE [ARGUMENT
...]`` does, and leaves in the directory what the probe has seen. Processes that it starts are under the probe likewise.
PROBE is the name of a module of these benchmarks with a function ``attach()``. It puts the process under the probe,
and gives the function that writes what was seen into a directory.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from holdfast.cluster.processes import forking, parent


def probe_children(probe: str, directory: Path) -> None:
    """From now on the processes of a cluster that this process starts are under the probe of that name."""

    def spawn(module: str, arguments: Sequence[str] = (), **options: Any) -> parent.SpawnedProcess:
        return parent.spawn("benchmarks.probed_process", [probe, str(directory), module, *arguments], **options)

    forking.spawn = spawn  # type: ignore[attr-defined]


def main() -> None:
    """Runs the module."""
    probe, directory, module, *arguments = sys.argv[1:]
    write: Callable[[Path], None] = importlib.import_module(probe).attach()
    probe_children(probe, Path(directory))
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        write(Path(directory))


if __name__ == "__main__":
    main()
