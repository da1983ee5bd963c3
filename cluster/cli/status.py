"""``holdfast status``."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import click

from holdfast.cluster import protocol
from holdfast.cluster.cli.find import address_option, ask_cluster, restarting_here, scheduler_here
from holdfast.cluster.cli.screen import Screen
from holdfast.cluster.tables import (
    MISSING,
    count,
    format_duration,
    percent,
    share,
    shorten,
    size,
    table,
    terminal_width,
)

#: A host that is there says something every two seconds, and when this command asks.
SILENT_SECONDS = 5.0
#: So many waiting tasks are listed, and so many requests.
LISTED = 10
#: The states of tasks that wait for something.
WAITING = ("waiting", "no-worker", "ready", "lost")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option(
    "--watch",
    type=click.FloatRange(0.1, 3600),
    is_flag=False,
    flag_value=2.0,
    metavar="[SECONDS]",
    help="Show the status again every so many seconds (default: 2) until Ctrl-C; with --json, a line each time.",
)
@address_option
def status(as_json: bool, watch: float | None, address: str | None) -> None:
    """Show a cluster's hosts, workers, object stores and tasks.

    A worker is "running" if it hears what it is told, with or without tasks. One that hears nothing is "computing" if
    it uses a processor, as in a long call into C, "blocked" if it does not, and "stopped" if the system lets it do
    nothing (SIGSTOP, a debugger). The status then says for how long.

    A worker or host that has died is listed below with the number of deaths, and how and when the last one was.

    Of tasks that wait, and of requests of clients that wait (for items of a queue, a lock, workers and the like), some
    are listed with what they wait for; --json has more of them.

    \b
    Examples:
      holdfast status
      holdfast status --watch
      holdfast status --address 10.0.0.1:8786 --json
    """
    if watch is None:
        click.echo(_look(as_json, address))
        return
    screen = Screen()
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            began = time.monotonic()
            text = _look(as_json, address)
            if as_json:
                click.echo(text)
            else:
                screen.show(text)
            time.sleep(max(0.0, began + watch - time.monotonic()))


def _look(as_json: bool, address: str | None) -> str:
    report = ask_cluster(address, protocol.requests.STATUS)
    # This command itself is a client while it asks.
    report["clients"] = max(0, (report.get("clients") or 0) - 1)
    here = report["scheduler"]["address"]
    report["restarting"] = restarting_here(here)
    report["scheduler_place"] = scheduler_here(here)
    return json.dumps(report, default=str) if as_json else render(report, terminal_width())


def render(report: dict[str, Any], width: int | None = None) -> str:
    """A status report for people, with tables in lines of ``width`` characters if that is given."""
    scheduler = report.get("scheduler") or {}
    nodes = report.get("nodes") or {}
    workers = sum(len(node.get("workers") or {}) for node in nodes.values())
    threads = sum(w.get("nthreads") or 0 for node in nodes.values() for w in (node.get("workers") or {}).values())
    line = f"Cluster at {scheduler.get('address', '?')}"
    if scheduler.get("started"):
        line += f", up {format_duration(time.time() - scheduler['started'])}"
    if scheduler.get("version"):
        line += f", holdfast {scheduler['version']}"
    blocks = [
        line,
        ", ".join(
            [
                count(len(nodes), "host"),
                count(workers, "worker"),
                count(threads, "thread"),
                count(report.get("clients") or 0, "client"),
            ]
        ),
    ]
    blocks[1] = "\n".join([blocks[1], *_scheduler(scheduler, report.get("scheduler_place"))])
    blocks += [_host(address, node, width) for address, node in nodes.items()]
    blocks += [_absent(host) for host in report.get("absent") or ()]
    blocks += [f"Host {_restarts(place)}" for place in report.get("restarting") or ()]
    tasks = {state: number for state, number in (report.get("tasks") or {}).items() if number}
    blocks.append("Tasks: " + (", ".join(f"{number:,} {state}" for state, number in tasks.items()) or "none"))
    for unplaced in report.get("unplaced") or ():
        number = unplaced.get("tasks") or 0
        blocks[-1] += f"\n  {count(number, 'task')} {'waits' if number == 1 else 'wait'} {unplaced.get('reason')}"
    if waiting := _waiting_tasks(report, width):
        blocks[-1] += f"\n{waiting}"
    if waits := _waits(report, width):
        blocks.append(waits)
    datasets = report.get("datasets") or []
    names = ", ".join(shorten(str(name), 60) for name in datasets[:20]) + (", …" if len(datasets) > 20 else "")
    blocks.append("Datasets: " + "\n".join([names or "none", *_one_copy(report.get("one_copy") or {})]))
    return "\n".join(blocks[:2]) + "\n\n" + "\n\n".join(blocks[2:])


def _scheduler(scheduler: dict[str, Any], place: dict[str, Any] | None) -> list[str]:
    """What is to be known of a scheduler with which not all is as ever."""
    lines = []
    if place is not None and (died := _restarts({**place, "name": "Scheduler"})):
        lines.append(died)
    if scheduler.get("recovering"):
        lines.append("Scheduler: goes on where another one has ended, and waits for hosts and workers")
    journal = scheduler.get("journal") or {}
    if journal.get("stuck"):
        lines.append(f"Journal: nothing goes on until it can be written: {journal['stuck']}")
    elif journal.get("full"):
        lines.append(f"Journal: disk full: new work is refused until there is room in {journal.get('directory')}")
    if damage := journal.get("damage"):
        lines.append(
            f"Journal: damaged; nothing that it can't account for is deleted ('holdfast state verify "
            f"{journal.get('directory')}'):"
        )
        lines += [f"  {each}" for each in damage]
    return lines


def _waiting_tasks(report: dict[str, Any], width: int | None) -> str:
    """Some of the tasks that wait, and how many more there are."""
    tasks = (report.get("waiting") or [])[:LISTED]
    rows = [[shorten(str(task.get("key")), 60), task.get("state"), task.get("for")] for task in tasks]
    if not rows:
        return ""
    lines = [table(["task", "state", "waits"], rows, width=width)]
    states = report.get("tasks") or {}
    more = sum(states.get(state) or 0 for state in WAITING) - len(rows)
    return "\n".join([*lines, *([f"  … and {count(more, 'more task')}"] if more > 0 else [])])


def _waits(report: dict[str, Any], width: int | None) -> str:
    """What clients wait for, besides results."""
    waits = (report.get("waits") or [])[:LISTED]
    number = report.get("n_waits") or len(waits)
    if not waits:
        return ""
    rows = [
        [
            shorten(str(wait.get("client")), 60),
            wait.get("what"),
            "until then" if wait.get("seconds_left") is None else f"{format_duration(wait['seconds_left'])} more",
        ]
        for wait in waits
    ]
    lines = [f"Requests that wait: {number:,}", table(["client", "waits for", "at most"], rows, width=width)]
    more = number - len(rows)
    return "\n".join([*lines, *([f"  … and {more:,} more"] if more > 0 else [])])


def _one_copy(datasets: dict[str, dict[str, Any]]) -> list[str]:
    """The datasets with data that has fewer copies than it is to have, and what goes with the host that has it."""
    lines = []
    for name, figures in list(datasets.items())[:20]:
        nbytes, lost = figures.get("nbytes") or 0, figures.get("lost_nbytes") or 0
        what = f"{size(lost or nbytes)} of {shorten(str(name), 60)}"
        what += " in one host's store only, lost if that dies" if lost else " with fewer copies than it is to have"
        lines.append(f"  {what}: {figures.get('reason')}")
    if len(datasets) > 20:
        lines.append(f"  and data of {count(len(datasets) - 20, 'more dataset')}")
    return lines


def _runs(worker: dict[str, Any]) -> str:
    """How many tasks it has, those apart that wait for others."""
    runs = str(worker.get("processing", MISSING))
    return f"{runs} + {worker['blocked']:,} blocked" if worker.get("blocked") else runs


def _condition(worker: dict[str, Any]) -> str:
    """What its process is doing, and since when if that is nothing that others would hear of."""
    condition = worker.get("condition")
    if condition is None:
        return MISSING
    if condition == "running":
        return "paused: it is near its memory limit" if worker.get("paused") else "running"
    return f"{condition} for {format_duration(worker.get('seconds'))}"


def _absent(host: dict[str, Any]) -> str:
    """A host that was given up, and may come back."""
    ago = format_duration(host.get("seconds"))
    return (
        f"Host {host.get('hostname', '?')} ({host.get('address', '?')}): given up {ago} ago: {host.get('reason')}\n"
        "  It is in the cluster again, with all that it has, when it is heard of again."
    )


def _host(address: str, node: dict[str, Any], width: int | None) -> str:
    store = node.get("store") or {}
    lines = [f"Host {node.get('hostname', '?')} ({address})"]
    if (silent := node.get("silent_seconds") or 0.0) >= SILENT_SECONDS:
        lines[0] += f": nothing heard of it for {format_duration(silent)}; what follows is older"
    if agent := _restarts({**node, "name": "node agent", "state": "running"}):
        lines.append(f"  {agent}")
    text = share(store.get("used"), store.get("capacity"))
    if store.get("objects") is not None:
        text += f", {count(store['objects'], 'object')}"
    if store.get("spilled_nbytes"):
        text += f", {size(store['spilled_nbytes'])} on disk"
    if store.get("waiting_creates"):
        text += f"; {store['waiting_creates']:,} more waiting for room"
    lines.append(f"  object store: {text}")
    if store.get("spill_error"):
        lines.append(f"  nothing more can be moved to disk: {store['spill_error']}")
    if limit := node.get("memory"):
        lines.append(f"  memory: {size(limit.get('nbytes'))} for all processes, by {limit.get('file')}")
    rows = [
        [
            worker.get("name") or name,
            worker.get("nthreads", MISSING),
            size(worker.get("memory")),
            percent(worker.get("cpu")),
            _runs(worker),
            _condition(worker),
        ]
        for name, worker in sorted((node.get("workers") or {}).items(), key=lambda named: (len(named[0]), named[0]))
    ]
    if rows:
        lines.append(
            table(["worker", "threads", "memory", "cpu", "tasks", "state"], rows, right=(1, 2, 3, 4), width=width)
        )
    else:
        lines.append("  no workers")
    lines += [f"  {line}" for line in map(_restarts, (node.get("places") or {}).values()) if line]
    return "\n".join(lines)


def _restarts(place: dict[str, Any]) -> str:
    """What becomes of a process that doesn't run, or that others ran before; nothing of one that has always run."""
    state, deaths = place.get("state"), place.get("deaths") or 0
    if state == "running" and not deaths:
        return ""
    words = f"{place.get('name', '?')}: {state}"
    if state == "down":
        words += f", next start in {format_duration(place.get('next_start_seconds'))}"
    if deaths:
        ago = place.get("last_death_seconds")
        when = "" if ago is None else f" {format_duration(ago)} ago"
        words += f"; died {count(deaths, 'time')}, last{when}: {place.get('last_death')}"
    return words
