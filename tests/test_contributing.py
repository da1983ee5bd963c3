"""CONTRIBUTING.md is true: the targets are there, and all checks check the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parent.parent
MAKEFILE = (REPOSITORY / "Makefile").read_text()
PAGES = ("CONTRIBUTING.md", "README.md", "SECURITY.md", "docs/performance.md", "docs/architecture.md")


def recipe(target: str) -> list[str]:
    """The commands of a target of the Makefile."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)*)", MAKEFILE, re.MULTILINE)
    assert found, f"no target {target}"
    return [line.strip() for line in found[1].splitlines()]


@pytest.mark.parametrize("page", PAGES)
def test_targets_that_are_named_are_there(page: str) -> None:
    text = (REPOSITORY / page).read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z][a-z0-9-]+)", text, re.MULTILINE))
    targets = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, re.MULTILINE))
    assert named - targets == set()
    assert named


def test_every_target_is_explained_by_make() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    explained = set(re.findall(r'@echo "make ([a-z0-9-]+) ', MAKEFILE))
    assert set(phony.split()) - {"help"} == explained


def test_hooks_before_a_commit_check_what_make_lint_checks() -> None:
    configuration = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in configuration["repos"]] == ["local"], "others need a network"
    entries = [hook["entry"] for repo in configuration["repos"] for hook in repo["hooks"]]
    for command in recipe("lint"):
        program, *arguments = command.replace("$(BIN)", ".venv/bin").split()
        checked = " ".join([program, *(argument for argument in arguments if argument != ".")])
        assert any(entry.startswith(checked) for entry in entries), command


def test_continuous_integration_runs_lint_then_types_then_tests() -> None:
    script = (REPOSITORY / ".ci" / "run").read_text()
    assert "set -euo pipefail" in script
    assert re.findall(r"^make --no-print-directory (\w+)$", script, re.MULTILINE) == ["lint", "types", "test"]


def test_every_tier_shares_the_tests_among_processes() -> None:
    (options,) = re.findall(r"^PARALLEL \?= (.*)$", MAKEFILE, re.MULTILINE)
    for target in ("test", "test-fast"):
        assert "$(PARALLEL)" in recipe(target)[0]
    for_all_pythons = (REPOSITORY / "noxfile.py").read_text()
    for option in options.split():
        assert f'"{option}"' in for_all_pythons
