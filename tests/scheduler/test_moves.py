"""The moves of a task: one method makes all of them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from holdfast.cluster import scheduler
from holdfast.cluster.scheduler.machine.validation import CheckedMoves
from holdfast.cluster.scheduler.tasks.model import Group, Task

ROOT = Path(scheduler.__file__).parent if scheduler.__file__ else Path(next(iter(scheduler.__path__)))


def test_nothing_but_moves_changes_the_state_of_a_task():
    changes = []
    for path in sorted(ROOT.rglob("*.py")):
        for where in _functions_that_set_a_state(ast.parse(path.read_text())):
            changes.append((path.relative_to(ROOT).as_posix(), where))
    assert changes == [
        ("io/server.py", "Scheduler.__init__"),  # its own state machine
        ("tasks/model.py", "Task.__init__"),
        ("tasks/moves.py", "Moves.move"),
    ]


def _functions_that_set_a_state(tree):
    def visit(node, names):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names = (*names, node.name)
        stores = isinstance(node, ast.Attribute) and node.attr == "state" and isinstance(node.ctx, (ast.Store, ast.Del))
        sets = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr")
        if stores or (sets and any(isinstance(arg, ast.Constant) and arg.value == "state" for arg in node.args)):
            yield ".".join(names)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, names)

    return visit(tree, ())


def test_an_illegal_move_is_an_error():
    task = Task("x", Group("x"), "me")
    moves = CheckedMoves()
    moves.move(task, "ready")
    with pytest.raises(AssertionError, match=r"'x' ready.* can't move to 'forgotten'"):
        moves.move(task, "forgotten")
    assert task.state == "ready"
