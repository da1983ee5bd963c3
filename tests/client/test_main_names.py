"""What scripts, notebooks and modules that are run define in ``__main__`` can be used in tasks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import script_of_names

SCRIPT = Path(script_of_names.__file__)
TIMEOUT_SECONDS = 100

ANSWERS = {
    "function with a cache": "2",
    "recursive function with a cache": "6765",
    "parameters of a cache": "({'maxsize': 3, 'typed': True}, 'cached')",
    "new type": "3",
    "new type itself": "3",
    "new type as a result": "__main__.UserId",
    "type variables": "['T', 'P', 'Ts']",
    "named tuple": "Point(x=1, y=2)",
    "method of a named tuple": "8",
    "enumeration": "(True, <Color.GREEN: 2>)",
    "flag": "<Access.READ|WRITE: 3>",
    "dataclass": "User(id=3, tags=[], name='nobody')",
    "fields of a dataclass": "[('id', True), ('tags', True), ('name', False)]",
    "frozen dataclass": "Frozen(x=3)",
    "protocol": "True",
    "abstract class": "True",
    "generic class": "3",
    "cached property": "'square of 2'",
    "method with a cache": "9",
    "static method": "4",
    "class method": "1",
    "generic method": "(6, 'by anything')",
    "generic function": "'a number after anything'",
    "generic function by a class": "('a square of 2', 'What it is.')",
    "decorated function": "-3",
    "what is decorated": "-3",
    "partial": "-4",
    "static function": "-3",
    "one of its kind": "'nothing there'",
    "one of its kind as a result": "ABSENT",
    "generator": "6",
    "context manager": "3",
    "pickled by the task": "True",
    "an error": "7",
}
PROCESSES = {
    "pool with an initializer": "[10, 11]",
    **{
        f"pool, {method}": "([0, 1, 4], [User(id=1, tags=[], name='renamed')])"
        for method in ("fork", "spawn", "forkserver")
    },
    **{f"executor, {method}": "[1, 2, 3]" for method in ("fork", "spawn", "forkserver")},
    **{f"process, {method}": "User(id=1, tags=[], name='renamed')" for method in ("fork", "spawn", "forkserver")},
}


def run(cluster, command, *wanted, stdin=None, folder=None):
    token = cluster.token.decode() if isinstance(cluster.token, bytes) else cluster.token
    paths = os.pathsep.join(path for path in (folder, os.getcwd(), os.environ.get("PYTHONPATH")) if path)
    done = subprocess.run(
        [sys.executable, *command, cluster.scheduler_address, token, *wanted],
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def of_script(cluster):
    return run(cluster, [str(SCRIPT)], "tasks", "processes")


@pytest.mark.parametrize("name", [*ANSWERS, *PROCESSES])
def test_in_a_script(of_script, name):
    assert of_script["answers"][name] == {**ANSWERS, **PROCESSES}[name]


def test_keys_are_the_same_in_each_process(cluster, of_script):
    assert run(cluster, [str(SCRIPT)])["keys"] == of_script["keys"]


def test_in_a_program_without_a_file(cluster):
    with SCRIPT.open() as source:
        assert run(cluster, ["-"], "tasks", stdin=source)["answers"] == ANSWERS


def test_on_the_command_line(cluster):
    assert run(cluster, ["-c", SCRIPT.read_text()], "tasks")["answers"] == ANSWERS


def test_in_a_module_of_a_package_that_is_run(cluster, tmp_path):
    package = tmp_path / "some_package"
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copy(SCRIPT, package / "program.py")
    answers = run(cluster, ["-m", "some_package.program"], "tasks", folder=str(tmp_path))["answers"]
    assert answers == ANSWERS
