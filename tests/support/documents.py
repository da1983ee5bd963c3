"""Code that documents show, as it is run by tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

#: With its language: "python", or "" for commands and what they print.
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def run_python(code: str, directory: Path) -> str:
    """Run a script in a directory; it prints what the comments behind its prints say."""
    script = directory / "script.py"
    script.write_text(code)
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=90, cwd=directory)
    assert result.returncode == 0, f"{code}\n{result.stderr}"
    assert result.stderr == "", f"{code}\n{result.stderr}"
    expected = re.findall(r"print\(.*# (.*)$", code, re.MULTILINE)
    assert not expected or result.stdout.splitlines() == expected
    assert result.stdout or "print(" not in code
    return result.stdout
