"""Which hosts see the places where durable datasets lie, and work that is done there, step by step.

A *place* is a path or a URL. Hosts that read the same id in its marker see the same place, and others don't see it,
though they may have a directory of that name. All hosts are asked when there is first something to do in a place, and
those that come later when there is something to do again.

A *script* (`Script`) is what is to be done there: errands (`cluster/node/durable.py`), one after the other, each at any
host that sees the place. Each errand can be done twice, so one whose host was lost is given to another one.

===============  ===================================================================================================
a place is …     … and what becomes of a script
===============  ===================================================================================================
being looked at  it waits, for `LOOK_SECONDS` at most: a host may be stopped
seen             a host has its next errand
absent           if it is to write, a host makes the place. If it is to read, it ends: nothing is there
lost             it was seen before, and no host that is left sees it: it waits, for `HOST_SECONDS` at most
out of reach     no host could look, or make it: the script fails with what the last one has said
without hosts    it waits for one, for `HOST_SECONDS` at most
===============  ===================================================================================================
"""

from __future__ import annotations

import abc
from collections.abc import Generator, Mapping
from typing import Any, TypeAlias

from holdfast.cluster.journal.tables import Held
from holdfast.cluster.protocol.errands import SEE_PLACE, Errand
from holdfast.cluster.scheduler.parts.errands import Commission, Errands, Outcome
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.tasks.deadlines import Timed
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.model import Host, Task

#: Hosts that have not said after this whether they see a place are not waited for.
LOOK_SECONDS = 10.0
#: So long a script waits for a host.
HOST_SECONDS = 60.0
#: An errand that no host could take is offered again after this.
RETRY_SECONDS = 1.0
#: Errors that say nothing about the place, but about the host.
_OF_THE_HOST = ("ConnectError", "RuntimeError", "TimeoutError")

#: A step of a script: an errand with its arguments but for the place; or None, to wait for `Script.resume`.
Step: TypeAlias = tuple[Errand, Mapping[str, Any]] | None
Steps: TypeAlias = Generator[Step, Any, None]


class Failure(Exception):
    """A script has failed.

    Parameters
    ----------
    error, text
        The name of the error that a client raises, and its text.
    """

    def __init__(self, error: str, text: str) -> None:
        super().__init__(error, text)
        self.error = error
        self.text = text


class Script(Commission):
    """Something that is done in a place.

    Parameters
    ----------
    places
        Finds hosts for its errands.
    url
        The place.

    Attributes
    ----------
    writes
        Whether the place is made if it isn't there.
    """

    writes = False

    def __init__(self, places: Places, url: str) -> None:
        self.places = places
        self.url = url
        self.under_way: dict[int, str] = {}
        self.due: float | None = None  # how long it waits for a host
        self._steps: Steps | None = None
        self._next: Step = None
        self._value: Any = None
        self._waits = False  # for `resume`
        self._tried: set[str] = set()  # hosts that couldn't do this step; only asked for membership

    @abc.abstractmethod
    def steps(self) -> Steps:
        """What is to be done: each errand's value comes back, or `Failure` is raised."""

    @abc.abstractmethod
    def ended(self, failure: Failure | None) -> None:
        """It has come to its end."""

    @property
    def holder(self) -> Client | None:
        return None

    @property
    def is_waiting(self) -> bool:
        """Whether an errand of it waits for a host."""
        return self._next is not None and not self.under_way

    # -- for `Places`

    def begin(self) -> None:
        """The first step."""
        self._steps = self.steps()
        self._advance(None)

    def resume(self) -> None:
        """What it waits for may have come: it goes on, soon."""
        if self._waits:
            self.places.go_on(self)

    def go_on(self) -> None:
        """Take the next step, if it waits for none."""
        if self._waits:
            self._waits = False
            self._advance(None)

    def offer(self, hosts: list[str]) -> bool:
        """Have its errand done by one of these. Whether one could take it."""
        assert self._next is not None
        errand, arguments = self._next
        for address in hosts:
            if address not in self._tried:
                if not self.places.errands.send(self, errand, {"place": self.url, **arguments}, [address]):
                    self.due = None
                    return True
                self._tried.add(address)
        return False

    def came(self, address: str, outcome: Outcome) -> None:
        if "value" in outcome:
            self._advance(outcome["value"])
            return
        error, text = outcome.get("error", ("ProtocolError", "an object is no answer"))
        self._tried.add(address)
        if error in _OF_THE_HOST or (error == "DurableError" and self.places.has_other(self, address)):
            self.places.go_on(self)  # by another host
        else:
            self._advance(None, Failure(error, f"{address}: {text}"))

    def fail(self, failure: Failure) -> None:
        """No host can do its errand."""
        self._advance(None, failure)

    def absent(self) -> None:
        """There is no such place, and it doesn't write."""
        self._end(None)

    def rest(self) -> None:
        """Hosts that couldn't do its errand may try again."""
        self._tried.clear()

    def has_tried(self, address: str) -> bool:
        """Whether a host couldn't do its errand."""
        return address in self._tried

    def _advance(self, value: Any, failure: Failure | None = None) -> None:
        assert self._steps is not None
        self._next = None
        self._tried = set()
        self.due = None
        try:
            step = self._steps.send(value) if failure is None else self._steps.throw(failure)
        except StopIteration:
            self._end(None)
        except Failure as error:
            self._end(error)
        else:
            self._next = step
            if step is None:
                self._waits = True
            else:
                self.places.go_on(self)

    def _end(self, failure: Failure | None) -> None:
        if self._steps is not None:
            self._steps.close()
        self._next = None
        self._waits = False
        self.places.over(self)
        self.ended(failure)


class _View(Commission):
    """What is known of one place.

    Attributes
    ----------
    seen
        The hosts that see it, and the id that they read; None: it isn't there.
    failed
        Those that can't look, and why.
    """

    def __init__(self, places: Places, url: str) -> None:
        self._places = places
        self.url = url
        self.under_way: dict[int, str] = {}
        self.due: float | None = None
        self.making = ""  # the host that is to make it
        self.seen: dict[str, str | None] = {}
        self.failed: dict[str, str] = {}

    @property
    def holder(self) -> Client | None:
        return None

    def came(self, address: str, outcome: Outcome) -> None:
        made, self.making = self.making == address, "" if self.making == address else self.making
        if "value" in outcome and not (made and outcome["value"] is None):
            identity = outcome["value"]
            if identity is not None and not self.hosts(""):  # it was made: others may see it now, too
                self.seen = {}
            self.seen[address] = identity
            self.failed.pop(address, None)
        else:
            self.failed[address] = outcome["error"][1] if "error" in outcome else f"{address} could not make {self.url}"
        self._places.ask_to_follow_up()

    def forget(self, address: str) -> None:
        """A host is gone."""
        self.seen.pop(address, None)
        self.failed.pop(address, None)

    def hosts(self, first: str) -> list[str]:
        """Those that see the place: what was used before, or else, of several, the one that the first sees."""
        there = [address for address, identity in self.seen.items() if identity is not None]
        there.sort(key=lambda address: address != first)
        identity = self._places.known.get(self.url) or (self.seen[there[0]] if there else None)
        return [address for address in there if self.seen[address] == identity]


class _Lateness(Timed):
    """Hosts that don't say what they see, and scripts without a host."""

    __slots__ = ("_places",)

    def __init__(self, places: Places) -> None:
        super().__init__()
        self._places = places

    @property
    def due(self) -> float | None:
        return self._places.due

    def expire(self, now: float) -> None:
        self._places.ask_to_follow_up()


class Places(Part):
    """Has scripts done.

    Parameters
    ----------
    shared
        What all parts work with.
    errands
        Sends errands.
    host_id
        Of the host of the scheduler, which makes places if it can: it stays.
    """

    name = "places"

    def __init__(self, shared: Shared, errands: Errands, *, host_id: str = "") -> None:
        super().__init__(shared)
        self.errands = errands
        self._host_id = host_id
        #: The ids of the places that were used.
        self.known: dict[str, str] = {}
        self._views: dict[str, _View] = {}
        self._scripts: dict[Script, None] = {}
        self._ready: dict[Script, None] = {}  # to be looked at
        self._retry_at: float | None = None
        self._lateness = _Lateness(self)

    def begin(self, script: Script) -> None:
        """Have something done."""
        self._look_again(script.url)
        self._scripts[script] = None
        script.begin()

    def give_up(self, script: Script) -> None:
        """Nobody waits for a script any more, which only reads."""
        self.errands.drop(script)
        self.over(script)

    def go_on(self, script: Script) -> None:
        """A script has something to do."""
        self._ready[script] = None
        self.ask_to_follow_up()

    def over(self, script: Script) -> None:
        """A script has ended."""
        self._scripts.pop(script, None)
        self._ready.pop(script, None)

    def hosts_of(self, url: str) -> list[Host]:
        """The hosts that are known to see a place."""
        view = self._views.get(url)
        hosts = self.shared.hosts
        return [] if view is None else [hosts[address] for address in view.hosts(self._first()) if address in hosts]

    def has_other(self, script: Script, address: str) -> bool:
        """Whether another host that sees the place has not tried the errand of a script."""
        return any(host.address != address and not script.has_tried(host.address) for host in self.hosts_of(script.url))

    @property
    def has_hosts(self) -> bool:
        """Whether there is a host that could look at a place."""
        return any(self._usable())

    # -- what happens

    def host_ready(self, host: Host) -> None:
        for script in self._scripts:
            self.go_on(script)

    def host_left(self, host: Host) -> None:
        for view in self._views.values():
            view.forget(host.address)
        if self._scripts:
            self.ask_to_follow_up()

    @property
    def due(self) -> float | None:
        """When something is looked at again."""
        dues = [view.due for view in self._views.values() if view.due is not None]
        dues += [script.due for script in self._scripts if script.due is not None]
        if self._retry_at is not None:
            dues.append(self._retry_at)
        return min(dues, default=None)

    def follow_up(self) -> None:
        now = self.shared.now
        if self._retry_at is not None and self._retry_at <= now:
            self._retry_at = None
            for script in self._scripts:
                script.rest()
        for view in self._views.values():
            if view.due is not None and (view.due <= now or not view.under_way):
                view.due = None
        ready, self._ready = self._ready, {}
        for script in ready:
            if script in self._scripts:
                script.go_on()
        for script in list(self._scripts):
            if script.is_waiting:
                self._see_to(script)
        self.shared.deadlines.watch(self._lateness)

    # -- steps

    def _usable(self) -> list[Host]:
        return [host for host in self.shared.hosts.values() if host.is_ready and not host.leaving]

    def _first(self) -> str:
        """The host of the scheduler, if it is one."""
        return next((host.address for host in self._usable() if host.description.get("host_id") == self._host_id), "")

    def _see_to(self, script: Script) -> None:
        usable = [host.address for host in self._usable()]
        if not usable:
            self._wait_for_host(script, f"there has been no host for {HOST_SECONDS:g} s that could open {script.url}")
            return
        view = self._views.get(script.url)
        if view is None:
            view = self._views[script.url] = _View(self, script.url)
        if self._look(view, usable):
            return
        there = [address for address in view.hosts(self._first()) if address in usable]
        if there:
            identity = view.seen[there[0]]
            assert identity is not None
            if script.url not in self.known:
                self.known[script.url] = identity
                self.note(script.url, identity)
            if not script.offer(there):
                self._try_later(script)
        elif script.url in self.known:  # and no other one is to be made in its stead
            text = f"there has been no host for {HOST_SECONDS:g} s that sees {script.url} as it was. Bring it back"
            way = "(is its disk mounted?), or name another place: publish_dataset(durable=), HOLDFAST_DURABLE"
            self._wait_for_host(script, f"{text} {way}")
        elif any(address in view.seen for address in usable):
            if not script.writes:
                script.absent()
            elif not view.under_way:
                self._make(script, view, usable)
        else:
            why = next((view.failed[address] for address in usable if address in view.failed), "no host answers")
            view.failed.clear()  # so that the next script has them look again
            script.fail(Failure("DurableError", why))

    def _look(self, view: _View, usable: list[str]) -> bool:
        """Have hosts look that have not, or that saw nothing there before. Whether they are waited for."""
        asked = set(view.under_way.values())
        unasked = [address for address in usable if not {address} & (asked | view.seen.keys() | view.failed.keys())]
        if unasked:
            for address, outcome in self.errands.send(view, SEE_PLACE, {"place": view.url}, unasked).items():
                view.failed[address] = outcome["error"][1]
            view.due = self.shared.now + LOOK_SECONDS
        return view.due is not None and not view.hosts(self._first())

    def _make(self, script: Script, view: _View, usable: list[str]) -> None:
        """Have the place made by the first host that can."""
        first = self._first()
        able = sorted((a for a in usable if view.seen.get(a, "") is None and a not in view.failed), key=first.__ne__)
        if able:
            view.making = able[0]
            self.errands.send(view, SEE_PLACE, {"place": view.url, "create": True}, [able[0]])
            return
        why = next((view.failed[address] for address in usable if address in view.failed), "no host could make it")
        view.failed.clear()
        view.seen.clear()
        script.fail(Failure("DurableError", why))

    def _look_again(self, url: str) -> None:
        """A place that was not there may have been made meanwhile, by another cluster."""
        view = self._views.get(url)
        if view is not None and not view.hosts("") and not view.under_way:
            del self._views[url]

    def _try_later(self, script: Script) -> None:
        self._wait_for_host(script, f"no host has answered for {HOST_SECONDS:g} s that could use {script.url}")
        if self._retry_at is None:
            self._retry_at = self.shared.now + RETRY_SECONDS

    def _wait_for_host(self, script: Script, text: str) -> None:
        if script.due is None:
            script.due = self.shared.now + HOST_SECONDS
        elif script.due <= self.shared.now:
            script.fail(Failure("DurableError", text))

    def recover(self, entries: Mapping[Any, Held], tasks: Mapping[int, Task]) -> None:
        self.known = {url: entry.value for url, entry in entries.items()}

    def check(self) -> None:
        self.shared.deadlines.check([self._lateness])
        assert self._ready.keys() <= self._scripts.keys()
        for url, view in self._views.items():
            assert view.url == url
