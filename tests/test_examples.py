"""The examples run as their pages say, and leave nothing behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from documents import BLOCK

REPOSITORY = Path(__file__).parent.parent
PAGES = {"iris": "weather.md", "s3": "s3.md"}


def run(example: str, *arguments: str, folder: Path) -> str:
    """Run an example where it has a folder for temporary files; what it has printed."""
    result = subprocess.run(
        [sys.executable, str(REPOSITORY / "examples" / example / "demo.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    assert "Traceback" not in result.stderr
    assert list(folder.iterdir()) == []
    return result.stdout


@pytest.mark.timeout(300)
def test_weather_data_with_iris(tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    printed = run("iris", str(tmp_path / "weather.png"), folder=tmp_path / "temporary")
    assert (tmp_path / "weather.png").read_bytes().startswith(b"\x89PNG")
    assert re.findall(r"(\d+) means in .* s, (\d+) of them not as", printed) == [("81", "0")] * 4
    assert printed.count("models: recipe, 80 cubes") == printed.count("models_in_memory: persisted, 80 cubes") == 2


@pytest.mark.timeout(300)
def test_csv_files_in_s3(tmp_path: Path) -> None:
    printed = run("s3", folder=tmp_path)
    assert printed.count("datasets: negative_accounts") == printed.count("in all: -1500") == 2
    assert len(re.findall(r"Edith +-500", printed)) == 3


@pytest.mark.parametrize("example", PAGES)
def test_what_a_page_shows_is_in_the_scripts(example: str) -> None:
    scripts = "".join(path.read_text() for path in (REPOSITORY / "examples" / example).glob("*.py"))
    blocks = BLOCK.findall((REPOSITORY / "docs" / "examples" / PAGES[example]).read_text())
    lines = [line for language, code in blocks if language == "py" for line in code.splitlines()]
    assert lines
    assert [line for line in lines if line.strip() not in scripts] == []
