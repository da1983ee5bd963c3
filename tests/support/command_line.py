"""Running the ``holdfast`` command in tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import psutil

from holdfast.cluster.processes import run_directory

SMALL = ("--workers", "1", "--threads", "1", "--object-store-memory", "64MB")


def holdfast(*arguments: str, code: int = 0, **env: str) -> str:
    """Run a command; return what it said. It never says it with a traceback."""
    result = subprocess.run(
        [sys.executable, "-m", "holdfast", *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, **env},
    )
    said = result.stdout + result.stderr
    assert result.returncode == code, said
    # A log's tail may have one; what the command says itself may not.
    assert not re.search(r"^Traceback", said, re.MULTILINE), said
    return said


def address_in(said: str) -> str:
    match = re.search(r"tcp://[\d.]+:\d+", said)
    assert match, said
    return match[0]


def services() -> list[dict[str, Any]]:
    return [*run_directory.running("head"), *run_directory.running("host")]


def descendants() -> list[psutil.Process]:
    return [child for service in services() for child in psutil.Process(service["pid"]).children(recursive=True)]
