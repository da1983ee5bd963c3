"""What the figures were measured on and with, read from the system."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

LIBRARIES = ("numpy", "pyarrow", "msgpack", "dask")


def describe() -> str:
    """A few lines of Markdown: processor, memory, kernel, Python, libraries."""
    memory = psutil.virtual_memory().total / (1 << 30)
    libraries = ", ".join(f"{name} {found}" for name in LIBRARIES if (found := _version(name)))
    return "\n".join(
        [
            f"* {_cpu_model()}, {os.cpu_count()} cores, {memory:.1f} GiB of memory",
            f"* {platform.system()} {platform.release()}",
            f"* Python {platform.python_version()}, Holdfast {_version('holdfast')}; {libraries}",
        ]
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
