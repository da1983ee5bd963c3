"""What the README shows works as it is shown."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
SCRIPTS = [block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "__main__" in block]


@pytest.mark.parametrize("number", range(len(SCRIPTS)))
def test_a_script_runs(tmp_path: Path, number: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPTS[number])
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    expected = re.findall(r"print\(.*# (.*)$", SCRIPTS[number], re.MULTILINE)
    assert not expected or result.stdout.splitlines() == expected
