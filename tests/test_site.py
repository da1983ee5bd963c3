"""The documentation site: it builds without a warning, and what its pages show works as it is shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from documents import BLOCK, run_python

REPOSITORY = Path(__file__).parent.parent
DOCS = REPOSITORY / "docs"


def pages() -> dict[str, list[str]]:
    """The pages that show Python, and the blocks of each."""
    found = {}
    for path in sorted(DOCS.rglob("*.md")):
        blocks = [code for language, code in BLOCK.findall(path.read_text()) if language == "python"]
        if blocks:
            found[str(path.relative_to(DOCS))] = blocks
    return found


PAGES = pages()


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_are_one_script(page: str, tmp_path: Path) -> None:
    run_python("\n\n".join(PAGES[page]), tmp_path)


def test_pages_that_are_to_have_examples_have_some() -> None:
    how_to = {f"how-to/{path.name}" for path in (DOCS / "how-to").iterdir()}
    assert {"index.md", "from-dask.md", *how_to} <= set(PAGES)


def test_every_page_is_in_the_menu() -> None:
    menu = set(re.findall(r"[\w/-]+\.md", (REPOSITORY / "mkdocs.yml").read_text()))
    assert menu == {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}


def test_it_builds_without_a_warning(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=110,
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    reference = (tmp_path / "reference" / "client" / "index.html").read_text()
    assert 'id="holdfast.client.client.Client.submit"' in reference
