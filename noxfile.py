"""`make test-all`: the tests on each Python that the project promises and this machine has.

nox looks for interpreters on the PATH; those that pyenv and uv have installed are put there first.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import nox

nox.needs_version = ">=2024.4"
nox.options.error_on_missing_interpreters = False

PLACES = ["~/.pyenv/versions/*/bin", "~/.local/share/uv/python/*/bin"]
PROJECT = tomllib.loads(Path("pyproject.toml").read_text())["project"]
PROMISED = [
    version
    for classifier in PROJECT["classifiers"]
    if (version := classifier.removeprefix("Programming Language :: Python :: ")) != classifier
]

home = Path.home()
found = [str(path) for place in PLACES for path in home.glob(place.removeprefix("~/"))]
os.environ["PATH"] = os.pathsep.join([*found, os.environ["PATH"]])


@nox.session(python=PROMISED)
def tests(session: nox.Session) -> None:
    """The tests, or what of pytest's arguments follows ``--``."""
    session.install("--editable", ".[test]")
    session.run("python", "-m", "pytest", "--numprocesses", "auto", "--dist", "worksteal", *session.posargs)
