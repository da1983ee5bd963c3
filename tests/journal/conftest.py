"""A state directory, and what writes to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.cluster.journal.directory import StateDirectory
from holdfast.cluster.journal.recovery import recover
from holdfast.cluster.journal.writer import Writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def write(path: Path) -> Callable[..., None]:
    """``write(*batches)``: a scheduler begins, writes these, and ends."""

    def write(*batches: Any, **options: Any) -> None:
        with StateDirectory.open(path) as directory:
            recovered = recover(directory)
            writer = Writer(directory, recovered.next_file, recovered.next_batch, reserve_nbytes=0, **options)
            try:
                for batch in batches:
                    writer.append(batch)
            finally:
                writer.close()

    return write
