"""What warns of an end that comes is an error, wherever code of ours does it."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

CATEGORIES = [DeprecationWarning, PendingDeprecationWarning, FutureWarning]


@pytest.mark.parametrize("category", CATEGORIES)
def test_code_of_ours_that_warns_fails_here(category: type[Warning]) -> None:
    with pytest.raises(category):
        warnings.warn_explicit("old", category, "session.py", 1, module="holdfast.client.core.session")


@pytest.mark.parametrize("category", CATEGORIES)
def test_code_of_ours_that_warns_fails_in_the_processes_that_tests_start(category: type[Warning]) -> None:
    warn = "import warnings; warnings.warn_explicit('old', {}, 'file.py', 1, module='{}')"

    def run(module: str) -> int:
        return subprocess.run(
            [sys.executable, "-c", warn.format(category.__name__, module)], stderr=subprocess.DEVNULL
        ).returncode

    assert run("holdfast.cluster.worker.worker") == 1
    assert run("somebody.else") == 0
