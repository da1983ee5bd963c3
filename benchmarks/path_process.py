"""A process of a traced cluster: one of the product's modules, run as itself with its functions wrapped.

``python -m benchmarks.path_process DIRECTORY MODULE [ARGUMENT ...]`` does what ``python -m MODULE [ARGUMENT ...]``
does, and leaves in the directory what it has seen (`path_points`). Processes that it starts are traced likewise.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.path_points import Recorder, instrument
from holdfast.cluster.processes import forking, parent


def trace_children(directory: Path) -> None:
    """From now on the processes of a cluster that this process starts are traced."""

    def spawn(module: str, arguments: Sequence[str] = (), **options: Any) -> parent.SpawnedProcess:
        return parent.spawn("benchmarks.path_process", [str(directory), module, *arguments], **options)

    forking.spawn = spawn  # type: ignore[attr-defined]


def main() -> None:
    """Runs the module."""
    directory, module, *arguments = sys.argv[1:]
    recorder = Recorder()
    instrument(recorder)
    trace_children(Path(directory))
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        recorder.write(Path(directory))


if __name__ == "__main__":
    main()
