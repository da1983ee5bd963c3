"""The moves of a task: one method makes all of them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from scheduler_harness import Cluster

from holdfast.cluster import scheduler
from holdfast.cluster.scheduler.machine.validation import CheckedMoves
from holdfast.cluster.scheduler.tasks import diagram, events
from holdfast.cluster.scheduler.tasks.feed import Move
from holdfast.cluster.scheduler.tasks.groups import Group
from holdfast.cluster.scheduler.tasks.instructions import RunTasks
from holdfast.cluster.scheduler.tasks.model import Task
from holdfast.cluster.scheduler.tasks.origins import Origin
from holdfast.cluster.scheduler.tasks.states import FIRST, TRANSITIONS

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
    task = Task("x", 1, Group("x"), Origin("me", "me", {}, "", None))
    moves = CheckedMoves()
    moves.move(task, "ready")
    with pytest.raises(AssertionError, match=r"'x' ready.* can't move to 'forgotten'"):
        moves.move(task, "forgotten")
    assert task.state == "ready"


# -- each legal move, as it comes about

HOST, OTHER, THIRD = "tcp://host0:1", "tcp://host1:1", "tcp://host2:1"
SCENARIOS = {}


def brings(before, after, **options):
    """The decorated function does something by which task "x" moves so, on a cluster with these options."""

    def register(scenario):
        assert (before, after) not in SCENARIOS
        SCENARIOS[before, after] = scenario, options
        return scenario

    return register


@brings("released", "waiting")
def _(cluster):
    cluster.submit("client", {"d": (), "x": ["d"]})


@brings("released", "ready")
def _(cluster):
    cluster.submit("client", {"x": ()})


@brings("released", "no-worker")
def _(cluster):
    cluster.submit("client", {"x": ()}, workers=["nobody"])


@brings("released", "memory")
def _(cluster):
    cluster.scatter("client", "x", HOST)


@brings("released", "lost")
def _(cluster):
    cluster.scatter("client", "x", HOST)
    cluster.cut_off_host(HOST)


@brings("released", "erred", patience_seconds=0.0)
def _(cluster):
    cluster.scatter("client", "x", HOST)
    cluster.cut_off_host(HOST)


@brings("released", "forgotten")
def _(cluster):
    cluster.submit("client", {"x": ()})
    cluster.release("client", "x")


@brings("waiting", "processing")
def _(cluster):
    lined_up(cluster)


@brings("waiting", "ready")
def _(cluster):
    cluster.submit("client", {"d": (), "x": ["d"]})
    cluster.finish("d")


@brings("waiting", "no-worker")
def _(cluster):
    cluster.submit("client", {"d": ()})
    cluster.submit("client", {"x": ["d"]}, workers=["nobody"])
    cluster.finish("d")


@brings("waiting", "memory")
def _(cluster):
    cluster.submit("client", {"d": (), "x": ["d"]}, workers=[HOST])
    result_of_d = cluster.finish("d")
    cluster.finish("x")
    cluster.cut_off_host(HOST)
    cluster.away[HOST].remove(result_of_d)
    cluster.join_again(HOST)


@brings("waiting", "erred")
def _(cluster):
    cluster.submit("client", {"d": (), "x": ["d"]})
    cluster.err("d")


@brings("waiting", "released")
def _(cluster):
    cluster.submit("client", {"d": (), "x": ["d"]})
    cluster.release("client", "x")


@brings("no-worker", "ready")
def _(cluster):
    cluster.submit("client", {"x": ()}, workers=["host2"])
    cluster.add_host()
    cluster.add_worker(THIRD)


@brings("no-worker", "waiting")
def _(cluster):
    cluster.submit("client", {"d": ()}, workers=[HOST])
    cluster.finish("d")
    cluster.submit("client", {"x": ["d"]}, workers=["nobody"])
    cluster.remove_host(HOST)


@brings("no-worker", "memory")
def _(cluster):
    has_result_on(cluster, HOST)
    cluster.cut_off_host(HOST)
    cluster.join_again(HOST)


@brings("no-worker", "erred")
def _(cluster):
    cluster.submit("client", {"x": ()}, workers=["nobody"])
    cluster.now += 1_000.0
    cluster.handle(events.TimePassed())


@brings("no-worker", "released")
def _(cluster):
    cluster.submit("client", {"x": ()}, workers=["nobody"])
    cluster.release("client", "x")


@brings("ready", "processing")
def _(cluster):
    cluster.submit("client", {"x": ()})


@brings("ready", "no-worker")
def _(cluster):
    occupy(cluster)
    cluster.submit("client", {"x": ()}, workers=[HOST])
    cluster.remove_host(HOST)


@brings("ready", "waiting")
def _(cluster):
    cluster.submit("client", {"d": ()}, workers=[HOST])
    cluster.finish("d")
    occupy(cluster)
    cluster.submit("client", {"x": ["d"]}, workers=[OTHER])
    cluster.remove_host(HOST)


@brings("ready", "memory")
def _(cluster):
    has_result_on(cluster, HOST)
    cluster.state.tasks["x"].requirements = None
    occupy(cluster)
    cluster.cut_off_host(HOST)
    cluster.join_again(HOST)


@brings("ready", "released")
def _(cluster):
    occupy(cluster)
    cluster.submit("client", {"x": ()})
    cluster.release("client", "x")


@brings("processing", "memory")
def _(cluster):
    cluster.submit("client", {"x": ()})
    cluster.finish("x")


@brings("processing", "erred")
def _(cluster):
    cluster.submit("client", {"x": ()})
    cluster.err("x")


@brings("processing", "ready")
def _(cluster):
    cluster.submit("client", {"x": ()}, retries=1)
    cluster.err("x")


@brings("processing", "no-worker")
def _(cluster):
    cluster.submit("client", {"x": ()}, workers=[HOST])
    cluster.remove_host(HOST)


@brings("processing", "waiting")
def _(cluster):
    worker = lined_up(cluster)
    cluster.remove_worker(worker)


@brings("processing", "released")
def _(cluster):
    cluster.submit("client", {"x": ()})
    cluster.release("client", "x")


@brings("memory", "released")
def _(cluster):
    cluster.scatter("client", "x", HOST)
    cluster.release("client", "x")


@brings("lost", "memory")
def _(cluster):
    cluster.scatter("client", "x", HOST)
    cluster.cut_off_host(HOST)
    cluster.join_again(HOST)


@brings("lost", "erred")
def _(cluster):
    cluster.scatter("client", "x", HOST)
    cluster.cut_off_host(HOST)
    cluster.now += 10.0
    cluster.handle(events.TimePassed())


@brings("lost", "released")
def _(cluster):
    cluster.scatter("client", "x", HOST)
    cluster.cut_off_host(HOST)
    cluster.release("client", "x")


@brings("erred", "released")
def _(cluster):
    cluster.submit("client", {"x": ()})
    cluster.err("x")
    cluster.release("client", "x")


def lined_up(cluster):
    """Task "x" is sent to where the run is that it waits for; which worker that is."""
    cluster.submit("client", {"first": ()})
    cluster.finish("first", seconds=0.0001)
    cluster.submit("client", {"d": (), "x": ["d"]})
    assert cluster.state.tasks["x"].state == "processing"
    return cluster.running["x"]


def has_result_on(cluster, host):
    cluster.submit("client", {"x": ()}, workers=[host])
    cluster.finish("x")


def occupy(cluster):
    """Every worker has something to do, and room for nothing else."""
    cluster.submit("client", {("busy", number): () for number in range(len(cluster.state.workers))})


def test_every_legal_move_has_a_scenario():
    assert SCENARIOS.keys() == TRANSITIONS.keys()


@pytest.mark.parametrize("move", SCENARIOS, ids=" to ".join)
def test_it_comes_about(move):
    scenario, options = SCENARIOS[move]
    cluster = Cluster(hosts=2, workers=1, **{"patience_seconds": 5.0, **options})
    cluster.add_client()
    subscription = cluster.state.feed.subscribe()
    scenario(cluster)
    cluster.catch_up()
    changes = [each for batch in subscription.take().batches for each in batch.changes]
    moves = [each[1:3] for each in changes if isinstance(each, Move) and each.key == "x"]
    assert moves[0] == (None, FIRST)
    assert move in moves


def test_the_page_of_states_is_up_to_date():
    text = (Path(__file__).parents[2] / "docs" / "scheduler-states.md").read_text()
    assert text == diagram.page(), f"write it anew: python -m {diagram.__name__} > docs/scheduler-states.md"


def test_a_task_that_can_not_be_sent_fails_and_costs_its_worker_nothing(monkeypatch):
    cluster = Cluster(hosts=1)
    cluster.add_client()
    cluster.add_worker(HOST, resources={"GPU": 1.0})
    add = cluster.state.instructions.add

    def fail(kind, peer, item):
        if kind is RunTasks:
            raise OSError("no")
        add(kind, peer, item)

    with monkeypatch.context() as patched:
        patched.setattr(cluster.state.instructions, "add", fail)
        with pytest.raises(OSError, match="no"):
            cluster.submit("client", {"x": ()}, resources={"GPU": 1.0})
    cluster.submit("client", {"y": ()}, resources={"GPU": 1.0})  # which also looks at all invariants
    cluster.finish("y")
    assert cluster.state.tasks["x"].state == "erred"
