"""Writes the page that draws the states of a task.

``python -m holdfast.cluster.scheduler.tasks.diagram > docs/scheduler-states.md`` makes it anew, from the tables in
`states`. A test fails when the page is out of date.
"""

from __future__ import annotations

from holdfast.cluster.scheduler.tasks.states import ACTIVE, FIRST, STATES, TRANSITIONS, State

_HEAD = """\
# The states of a task in the scheduler

This page is made of the tables in `cluster/scheduler/tasks/states.py`, by
`python -m holdfast.cluster.scheduler.tasks.diagram > docs/scheduler-states.md`. One method makes every move
(`cluster/scheduler/tasks/moves.py`). The tests check that each move is in the table below, and that each move of the
table comes about (`tests/scheduler/test_moves.py`).
"""


def page() -> str:
    """The page, in Markdown."""
    lines = [_HEAD, "```mermaid", "stateDiagram-v2"]
    lines += [f"    {_name(state)} : {state}" for state in STATES]
    lines += [f"    [*] --> {_name(FIRST)}"]
    lines += [f"    {_name(before)} --> {_name(after)}" for before, after in TRANSITIONS]
    lines += [f"    {_name(state)} --> [*]" for state in STATES if all(state != before for before, _ in TRANSITIONS)]
    lines += ["```", "", "| state | a task in it |", "|---|---|"]
    lines += [f"| {state} | {meaning} |" for state, meaning in STATES.items()]
    active = [f"`{state}`" for state in STATES if state in ACTIVE]
    lines += ["", f"In {', '.join(active[:-1])} and {active[-1]} a task needs the results of its dependencies.", ""]
    lines += ["| from | to | when |", "|---|---|---|"]
    lines += [f"| {before} | {after} | {when} |" for (before, after), when in TRANSITIONS.items()]
    return "\n".join(lines) + "\n"


def _name(state: State) -> str:
    """A state's name where no hyphen may be."""
    return state.replace("-", "_")


if __name__ == "__main__":
    print(page(), end="")
