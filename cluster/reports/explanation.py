"""Why a future is in its state, and what keeps its result: what `Client.explain` and ``holdfast explain`` show."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from holdfast.cluster.notebook import card
from holdfast.cluster.reports import phrases
from holdfast.cluster.reports.places import PLACES
from holdfast.cluster.tables import count, format_duration, size

_NAMES_SHOWN = 5
#: Of lines, however narrow a terminal is.
_NARROWEST = 20
#: Of a key that there is not.
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
    holders : list of dict
        What keeps it, by ``"kind"`` and ``"name"``. A client also has its ``"user"``, ``"hostname"`` and ``"pid"``, and
        ``"silent_seconds"``: for how long it has said nothing. Of very many, the first 20.
    nbytes : int
        The size of its result in bytes; 0 without one.
    age : float or None
        For how many seconds the result is there; None without one.
    where : list of dict
        Where copies of its result lie: ``"node"``, ``"name"`` of the host, ``"state"`` (``"in memory"`` or
        ``"on disk"``), ``"readers"``: the processes that look at it now.
    running : dict or None
        Of a task that runs: for how many ``"seconds"``, and the ``"line"`` of the program where it is.
    actor : dict or None
        Of the handle of an actor: the ``"name"`` of its class, the ``"worker"`` where it lives, how many ``"calls"`` of
        how many ``"callers"`` have no answer yet, and how many of these are ``"held_up"`` by what they depend on.
    waits_for : list of (key, str)
        What it depends on and has no result, with the states; of very many, the first 20.
    near : list
        Of a key that is unknown: some that may be meant.
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

    def __init__(
        self,
        key: Any,
        figures: Mapping[str, Any],
        places: Mapping[str, Any],
        running: Mapping[str, Any] | None = None,
    ) -> None:
        self.figures: dict[str, Any] = dict(figures)
        self.key = self.figures.get("key", key)
        self.state: str = self.figures.get("state", "unknown")
        self.owner: str = self.figures.get("owner", "")
        self.origin: dict[str, Any] = dict(self.figures.get("origin") or {})
        self.call_site: str = self.origin.get("call_site", "")
        self.nbytes: int = self.figures.get("nbytes", 0)
        self.age: float | None = self.figures["seconds"] if self.state == "memory" else None
        self.holders: list[dict[str, Any]] = [dict(each) for each in self.figures.get("holders", ())]
        self.waits_for = [(each, state) for each, state in self.figures.get("waits_for", ())]
        self.running = None if running is None else dict(running)
        self.actor: dict[str, Any] | None = self.figures.get("actor")
        self.near: list[Any] = list(self.figures.get("near", ()))
        self.where = [
            {
                **host,
                "state": PLACES.get((places.get(host["node"]) or {}).get("state", ""), "unknown"),
                "readers": list((places.get(host["node"]) or {}).get("readers", ())),
            }
            for host in self.figures.get("where", ())
        ]
        self.why = self._is_unknown() if self.state == "unknown" else self._reasons()

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data, as ``holdfast explain --json`` prints it.

        Examples
        --------
        >>> future = client.submit(pow, 2, 3)
        >>> _ = future.result()
        >>> client.explain(future).as_dict()["state"]
        'memory'
        """
        figures = {name: value for name, value in self.figures.items() if name != "n_near"}
        object_id = figures.get("object_id")
        return {
            **figures,
            "key": self.key,
            "object_id": None if object_id is None else bytes(object_id).hex(),
            "state": self.state,
            "why": self.why,
            "age": self.age,
            "where": self.where,
            "running": self.running,
            "near": self.near,
        }

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
        age = f" for {format_duration(self.age)}" if self.age is not None else ""
        copies = f", in {len(self.where):,} copies" if len(self.where) > 1 else ""
        what = ", ".join(filter(None, (figures["type"], size(self.nbytes))))
        lines = [f"Its result ({what}) is there{age}{copies}."]
        for place in self.where:
            look = "looks" if len(place["readers"]) == 1 else "look"
            readers = f", and {phrases.few(place['readers'])} {look} at it now" if place["readers"] else ""
            state = place["state"] if place["state"] != "unknown" else "there"
            lines.append(f"It is {state} in the store of {place['name'] or place['node']} ({place['node']}){readers}.")
        if not self.where:
            lines.append("It is so small that it lies with the scheduler, and with the worker that made it.")
        if self.actor is not None:
            lines.append(self._lives())
        if not figures["is_computed"]:
            lines.append("It is data that was brought, and can't be computed again.")
        return lines

    def _lives(self) -> str:
        """Where the actor is, and what it has to do."""
        actor = self.actor
        assert actor is not None
        text = f"The actor {actor['name']} lives on {actor['worker_name']} ({actor['worker']})"
        calls, held_up = actor["calls"], actor["held_up"]
        if not calls:
            return f"{text}; no call of it is under way."
        verb = "has" if calls == 1 else "have"
        text = f"{text}; {count(calls, 'call')} of {count(actor['callers'], 'client')} {verb} no answer yet"
        waits = "waits" if held_up == 1 else "wait"
        return f"{text}, of which {held_up:,} {waits} for what they depend on." if held_up else f"{text}."

    def _runs(self) -> list[str]:
        run = self.figures["run"]
        if run is None:
            return ["It is being run."]
        where = f"{run['name']} ({run['worker']})"
        since = "" if self.running is None else f" for {format_duration(self.running['seconds'])}"
        if run["blocked"]:
            return [f"It runs on {where}{since}, and waits there for tasks that it has submitted.", *self._is_at()]
        lines = []
        if self.running is not None or run["begun"] or run["ahead"] < run["nthreads"]:
            lines += [f"It runs on {where}{since}.", *self._is_at()]
        else:
            lines.append(f"It was sent to {where}, where {count(run['ahead'], 'task')} came before it.")
        if run["condition"] != "running":
            lines.append(f"That worker hears nothing: it is {run['condition']}.")
        lines += self._behind()
        return lines

    def _is_at(self) -> list[str]:
        line = self.running and self.running.get("line")
        return [f"It is at {line}."] if line else []

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

    def _is_unknown(self) -> list[str]:
        lines = [UNKNOWN]
        if self.near:
            names = [f"{key!r:.200}" for key in self.near[:_NAMES_SHOWN]]
            more = self.figures["n_near"] - len(names)
            names += [f"{more:,} more"] if more > 0 else []
            lines.append(f"Is one of these meant: {phrases.few(names, len(names))}?")
        return lines

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
        names = [phrases.holder(each) for each in self.holders[:_NAMES_SHOWN]]
        more = figures["n_holders"] - len(names)
        if more > 0:
            names.append(f"{more:,} more")
        if figures["n_waiters"]:
            names.append(count(figures["n_waiters"], "task") + " that read it")
        lines = [f"It is kept by {phrases.few(names, len(names))}."] if names else ["Nothing keeps it."]
        about = phrases.identity(self.origin)
        lines.append(f"It was brought by {self.owner}{about and f' ({about})'}{self._by_which_line()}.")
        if figures["deaths"]:
            lines.append(f"It is charged for the deaths of {count(figures['deaths'], 'worker')}.")
        if figures["retries"]:
            lines.append(f"It is retried {figures['retries']} more times if it fails.")
        return lines

    def _by_which_line(self) -> str:
        line = f", by the line {self.call_site}" if self.call_site else ""
        task = self.origin.get("task")
        return line if task is None else f"{line}, in the task {task!r:.200}"

    @property
    def is_known(self) -> bool:
        """Whether the cluster knows the key.

        Examples
        --------
        >>> client.explain("none of mine").is_known
        False
        """
        return self.state != "unknown"

    def render(self, *, width: int | None = None) -> str:
        """The sentences for people, in lines of so many characters if that is given.

        Examples
        --------
        >>> print(client.explain("none of mine").render(width=60))
        none of mine: unknown
          ...
        """
        title = f"{self.key!s:.200}: {self.state}"
        if width is None:
            return "\n  ".join([title, *self.why])
        lines = [
            textwrap.fill(line, max(_NARROWEST, width), initial_indent="  ", subsequent_indent="    ")
            for line in self.why
        ]
        return "\n".join([title, *lines])

    def __repr__(self) -> str:
        return "\n  ".join([f"<Explanation: {self.key!s:.200} {self.state}>", *self.why])

    def _repr_html_(self) -> str:
        rows: dict[str, object] = {"state": f"{self.state}: {self.figures.get('meaning', 'not known')}"}
        rows |= {str(number): line for number, line in enumerate(self.why, 1)}
        return card(f"{self.key!s:.200}", rows)


def _is_kept() -> list[str]:
    return ["Nothing needs its result now. The scheduler knows how it is made, for what depends on it."]
