"""Why a future is in its state: what `Client.explain` gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from holdfast.cluster.notebook import card
from holdfast.cluster.tables import count, format_duration, size

#: How the states of an object in a store are called here.
_PLACES = {
    "sealed": "in memory",
    "moving": "in memory",
    "spilling": "in memory, on its way to disk",
    "spilled": "on disk",
}
_NAMES_SHOWN = 5
UNKNOWN = "The cluster knows no such key: it was never submitted, or nothing held it any more, and it was forgotten."


class Explanation:
    """What is known of a key, in words and in figures.

    Attributes
    ----------
    key : str or tuple
    state : str
        As the scheduler has it: ``"released"``, ``"waiting"``, ``"no-worker"``, ``"ready"``, ``"processing"``,
        ``"memory"``, ``"lost"``, ``"erred"``, or ``"unknown"``.
    why : list of str
        The reasons, one sentence each.
    owner : str
        What brought it: the name of a client.
    origin : dict
        What is known of that: the ``"client"``, its ``"user"``, ``"hostname"`` and ``"pid"``, the ``"call_site"``, and
        the ``"task"`` in which that was, if it was in one.
    call_site : str
        The line of a user's code that has brought it: ``"file:line in function"``; empty if it isn't known.
    holders : list of (str, str)
        What keeps it, by kind and name; of very many, the first 20.
    nbytes : int
        The size of its result in bytes; 0 without one.
    where : list of dict
        Where its result lies: ``"node"``, ``"name"`` of the host, ``"state"`` (``"in memory"`` or ``"on disk"``),
        ``"readers"``: the processes that look at it now.
    waits_for : list of (key, str)
        What it depends on and has no result, with the states; of very many, the first 20.
    figures : dict
        All that the scheduler has said.

    Examples
    --------
    >>> future = client.submit(pow, 2, 3)
    >>> _ = future.result()
    >>> client.explain(future)
    <Explanation: pow-... memory>
      ...
    """

    def __init__(self, key: Any, figures: Mapping[str, Any] | None, places: Mapping[str, Any]) -> None:
        self.key = key
        self.figures: dict[str, Any] = dict(figures or {})
        self.state: str = self.figures.get("state", "unknown")
        self.owner: str = self.figures.get("owner", "")
        self.origin: dict[str, Any] = dict(self.figures.get("origin") or {})
        self.call_site: str = self.origin.get("call_site", "")
        self.nbytes: int = self.figures.get("nbytes", 0)
        self.holders = [(kind, name) for kind, name in self.figures.get("holders", ())]
        self.waits_for = [(each, state) for each, state in self.figures.get("waits_for", ())]
        self.where = [
            {
                **host,
                "state": _PLACES.get((places.get(host["node"]) or {}).get("state", ""), "unknown"),
                "readers": list((places.get(host["node"]) or {}).get("readers", ())),
            }
            for host in self.figures.get("where", ())
        ]
        self.why = self._reasons() if figures else [UNKNOWN]

    # -- in words

    def _reasons(self) -> list[str]:
        of_states: dict[str, Callable[[], list[str]]] = {
            "memory": self._has_result,
            "processing": self._runs,
            "ready": self._is_queued,
            "waiting": self._waits,
            "no-worker": self._has_no_worker,
            "lost": self._is_lost,
            "erred": self._has_failed,
            "released": _is_kept,
        }
        return [*of_states[self.state](), *self._held()]

    def _has_result(self) -> list[str]:
        figures = self.figures
        age = f" for {format_duration(figures['seconds'])}" if figures["seconds"] is not None else ""
        lines = [f"Its result, a {figures['type'] or 'value'} of {size(self.nbytes)}, is there{age}."]
        for place in self.where:
            readers = f", and {_few(place['readers'])} looks at it now" if place["readers"] else ""
            state = place["state"] if place["state"] != "unknown" else "there"
            lines.append(f"It is {state} in the store of {place['name'] or place['node']} ({place['node']}){readers}.")
        if not self.where:
            lines.append("It is so small that it lies with the scheduler, and with the worker that made it.")
        if not figures["is_computed"]:
            lines.append("It is data that was brought, and can't be computed again.")
        return lines

    def _runs(self) -> list[str]:
        run = self.figures["run"]
        if run is None:
            return ["It is being run."]
        where = f"{run['name']} ({run['worker']})"
        if run["blocked"]:
            return [f"It runs on {where}, and waits there for tasks that it has submitted."]
        lines = []
        if run["begun"] or run["ahead"] < run["nthreads"]:
            lines.append(f"It runs on {where}.")
        else:
            lines.append(f"It was sent to {where}, where {count(run['ahead'], 'task')} came before it.")
        if run["condition"] != "running":
            lines.append(f"That worker hears nothing: it is {run['condition']}.")
        lines += self._behind()
        return lines

    def _behind(self) -> list[str]:
        return [f"It starts there when {self._tasks_waited_for()}."] if self.waits_for else []

    def _is_queued(self) -> list[str]:
        if held_up := self.figures["held_up"]:
            reasons = [f"{name} {what}" for name, what in held_up[:_NAMES_SHOWN]]
            return [f"It could run, but no worker takes it now: {'; '.join(reasons)}.", *self._required()]
        others = (self.figures["queued"] or 1) - 1
        line = f"It could run, and waits for a free thread, as do {count(others, 'other task')} of its kind."
        return [line, *self._required()]

    def _waits(self) -> list[str]:
        return [f"It waits until {self._tasks_waited_for()}.", *self._required()]

    def _tasks_waited_for(self) -> str:
        more = self.figures["n_waits_for"] - len(self.waits_for[:_NAMES_SHOWN])
        names = ", ".join(f"{key!r:.100} ({state})" for key, state in self.waits_for[:_NAMES_SHOWN])
        more_of_them = f" and {more:,} more" if more > 0 else ""
        return f"{names}{more_of_them} {'has' if len(self.waits_for) + max(more, 0) == 1 else 'have'} a result"

    def _has_no_worker(self) -> list[str]:
        reason, way_out = self.figures["no_worker"]
        return [f"It waits {reason}. So it is for {format_duration(self.figures['seconds'])}; {way_out}."]

    def _is_lost(self) -> list[str]:
        return [
            f"Its data went with a host {format_duration(self.figures['seconds'])} ago and can't be computed again. "
            "The host is awaited for a few seconds."
        ]

    def _has_failed(self) -> list[str]:
        key, text = self.figures["error"] or (self.key, "")
        first = text.strip().rpartition("\n")[2] or "an error"
        if key != self.key:
            return [f"{key!r:.100}, which it depends on, failed: {first:.500}"]
        return [f"It failed: {first:.500}"]

    def _required(self) -> list[str]:
        asked = self.figures["requirements"]
        if asked is None:
            return []
        names = f"on {' or '.join(asked['workers'][:_NAMES_SHOWN])}" if asked["workers"] else ""
        resources = " and ".join(f"{amount:g} {name}" for name, amount in asked["resources"].items())
        wanted = " with ".join(filter(None, (names or "on a worker", resources))) if resources else names
        return [f"It {'would rather run' if asked['loose'] else 'runs only'} {wanted}."] if wanted else []

    def _held(self) -> list[str]:
        figures = self.figures
        names = [f"the {kind} {name}" for kind, name in self.holders]
        more = figures["n_holders"] - len(names)
        if more > 0:
            names.append(f"{more:,} more")
        if figures["n_waiters"]:
            names.append(count(figures["n_waiters"], "task") + " that read it")
        lines = [f"It is kept by {_few(names)}."] if names else ["Nothing keeps it."]
        lines.append(f"It was brought by {self.owner}{_identity(self.origin)}{self._by_which_line()}.")
        if figures["deaths"]:
            lines.append(f"It is charged for the deaths of {count(figures['deaths'], 'worker')}.")
        if figures["retries"]:
            lines.append(f"It is retried {figures['retries']} more times if it fails.")
        return lines

    def _by_which_line(self) -> str:
        line = f", by the line {self.call_site}" if self.call_site else ""
        task = self.origin.get("task")
        return line if task is None else f"{line}, in the task {task!r:.200}"

    def __repr__(self) -> str:
        return "\n  ".join([f"<Explanation: {self.key!s:.200} {self.state}>", *self.why])

    def _repr_html_(self) -> str:
        rows: dict[str, object] = {"state": f"{self.state}: {self.figures.get('meaning', 'not known')}"}
        rows |= {str(number): line for number, line in enumerate(self.why, 1)}
        return card(f"{self.key!s:.200}", rows)


def _identity(about: Mapping[str, Any]) -> str:
    """`` (ada@host, process 123)``, as far as it is known."""
    place = "@".join([about[name] for name in ("user", "hostname") if about.get(name)])
    process = f"process {about['pid']}" if about.get("pid") else ""
    known = ", ".join(filter(None, (place, process)))
    return f" ({known})" if known else ""


def _is_kept() -> list[str]:
    return ["Nothing needs its result now. The scheduler knows how it is made, for what depends on it."]


def _few(names: list[str]) -> str:
    if len(names) > _NAMES_SHOWN:
        names = [*names[:_NAMES_SHOWN], f"{len(names) - _NAMES_SHOWN:,} more"]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
