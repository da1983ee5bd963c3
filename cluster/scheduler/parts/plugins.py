"""Plugins: what is registered, as bytes, and that each worker has it before its first task.

A plugin is sent by an errand to all that are there when it is registered, and to each that comes later. A worker that
comes gets all of them in one errand, in the order in which they were registered, and is being *prepared* until it has
answered: it counts as a worker and gets no task (`revocation.prepare`). A host that comes gets those for hosts in the
same way. Until it has answered, its workers are being prepared too, and only then they get the plugins for workers.

What fails on those that are there is told to the client that registers. What fails on one that comes later has no
client to tell: it is an event of the topic `TOPIC`, and in the log of the worker. The worker is used all the same.

Another scheduler knows which processes are prepared, and prepares no one twice.

Data that is too large to be sent lies in stores, and the plugin holds it as a dataset does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from holdfast.cluster.journal.tables import Held
from holdfast.cluster.protocol.errands import (
    ASSISTANT,
    SET_UP_NANNY_PLUGINS,
    SET_UP_PLUGINS,
    SET_UP_SCHEDULER_PLUGINS,
    TAKE_DOWN_NANNY_PLUGIN,
    TAKE_DOWN_PLUGIN,
    TAKE_DOWN_SCHEDULER_PLUGIN,
    Errand,
)
from holdfast.cluster.protocol.records import record_of
from holdfast.cluster.protocol.requests import REGISTER_PLUGIN, UNREGISTER_PLUGIN
from holdfast.cluster.scheduler.parts.copies import Copies
from holdfast.cluster.scheduler.parts.errands import Errands, Outcome, Reporting
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.parts.successors import Successors
from holdfast.cluster.scheduler.parts.topics import Topics
from holdfast.cluster.scheduler.parts.waits import Refusal
from holdfast.cluster.scheduler.placing.revocation import Revocation
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.model import Holder, HolderDescription, Host, Task, Worker
from holdfast.cluster.scheduler.tasks.names import Key, Payload
from holdfast.cluster.scheduler.tasks.wording import some

#: How many plugins there may be of each kind, and how much all of them may take that are not in stores.
MAX_PLUGINS = 256
MAX_NBYTES = 64 << 20
#: Where events tell of plugins that have failed.
TOPIC = "plugins"

#: Those for whom there are plugins.
KINDS = ("worker", "scheduler", "nanny")
#: What sets plugins of a kind up, and what takes one down.
_ERRANDS: dict[str, tuple[Errand, Errand]] = {
    "worker": (SET_UP_PLUGINS, TAKE_DOWN_PLUGIN),
    "scheduler": (SET_UP_SCHEDULER_PLUGINS, TAKE_DOWN_SCHEDULER_PLUGIN),
    "nanny": (SET_UP_NANNY_PLUGINS, TAKE_DOWN_NANNY_PLUGIN),
}
#: A process beside the scheduler or an agent is started again for its plugins so often, if it ends before they are set
#: up; and a worker, if a plugin wants that each time.
MAX_STARTS = 3


class Plugin(Holder):
    """A registered plugin: bytes that only those read that it is for, and the data that it holds."""

    __slots__ = ("_on_end", "call", "name")

    kind: ClassVar[str] = "plugin"

    def __init__(self, kind: str, name: str, call: Payload, on_end: Callable[[Task], None]) -> None:
        super().__init__((kind, name))
        self.name = name
        self.call = call
        self._on_end = on_end

    def ended(self, task: Task) -> None:
        self._on_end(task)

    @property
    def copies(self) -> int:
        return 2

    def describe(self) -> HolderDescription:
        return HolderDescription(self.kind, repr(self.name))

    def entry(self) -> tuple[Any, ...]:
        """How it is sent."""
        dependencies = [
            (task.key, task.object_id or bytes(16), task.inline, [host.address for host in task.where])
            for task in self.holds
        ]
        return self.name, self.call, dependencies


class Plugins(Part):
    """Keeps plugins.

    Parameters
    ----------
    shared
        What all parts work with.
    errands
        Sends them.
    copies
        Sees to the second copies of their data.
    topics
        Where failures are told.
    revocation
        Knows which workers get tasks.
    successors
        Has workers make room for others.
    """

    name = "plugins"

    def __init__(
        self,
        shared: Shared,
        errands: Errands,
        copies: Copies,
        topics: Topics,
        revocation: Revocation,
        successors: Successors,
    ) -> None:
        super().__init__(shared)
        self.requests = {REGISTER_PLUGIN: self._register, UNREGISTER_PLUGIN: self._unregister}
        self.registered: dict[str, dict[str, Plugin]] = {kind: {} for kind in KINDS}
        self._errands = errands
        self._copies = copies
        self._topics = topics
        self._revocation = revocation
        self._successors = successors
        self.events = {events.NannyLeft: self._nanny_left, events.RestartWanted: self._restart_wanted}
        self._preparations: dict[Worker, Reporting] = {}
        self._host_preparations: dict[Host, Reporting] = {}
        self._starts: dict[str, int] = {}  # of the processes beside scheduler and agents, since they had their plugins
        self._restarts: dict[str, int] = {}  # of workers, since one of that address had its plugins and went on
        self._prepared_before: dict[str, Any] = {}  # of an earlier scheduler: the incarnations, by address
        errands.on_assistant_left = self._assistant_left

    def holders(self) -> Iterable[Holder]:
        for plugins in self.registered.values():
            yield from plugins.values()

    # -- requests

    def _register(
        self,
        client: Client,
        request: int,
        kind: str,
        name: str,
        call: Payload,
        keys: Sequence[Key] = (),
        idempotent: bool = False,
    ) -> None:
        plugins = self._of(kind)
        if idempotent and name in plugins:
            self.answer(client, request, {})
            return
        self._demand_room(plugins, name, call)
        tasks = self.shared.life.generations.tasks
        if gone := [key for key in keys if key not in tasks]:
            text = f"the plugin {name!r} can't be registered: {some(map(repr, gone))} was cancelled or released"
            raise Refusal("CancelledError", text)
        set_up, _ = _ERRANDS[kind]
        addresses = self._errands.addresses(set_up, None)
        self._errands.demand_room_for(client, len(addresses))
        old = plugins.get(name)
        plugin = plugins[name] = self._keep(kind, name, call, [tasks[key] for key in keys])
        self._copies.hold_lineage(plugin)
        self.note((kind, name), call, plugin)
        self._copies.urge([plugin])
        if old is not None:
            self._let_go(old)
        self._errands.begin(client, request, set_up, {"plugins": [plugin.entry()]}, addresses)

    def _demand_room(self, plugins: dict[str, Plugin], name: str, call: Payload) -> None:
        if name not in plugins and len(plugins) >= MAX_PLUGINS:
            raise Refusal("ValueError", f"{MAX_PLUGINS:,} plugins are registered, and no more may be: unregister some")
        nbytes = len(call) + sum(len(plugin.call) for plugin in plugins.values() if plugin.name != name)
        if nbytes > MAX_NBYTES:
            text = f"the plugins would take {nbytes:,} bytes, and {MAX_NBYTES:,} may be: unregister some"
            raise Refusal("ValueError", text)

    def _keep(self, kind: str, name: str, call: Payload, tasks: Iterable[Task]) -> Plugin:
        plugin = Plugin(kind, name, call, self._copies.look_at)
        for task in tasks:
            self.shared.life.holding.hold(plugin, task)
        return plugin

    def _unregister(self, client: Client, request: int, kind: str, name: str) -> None:
        plugins = self._of(kind)
        has_begun = self.shared.replies.has_begun(client.id, request)
        if name not in plugins and not has_begun:
            there = f"there are {some(map(repr, plugins), 20)}" if plugins else "there are none"
            raise Refusal("ValueError", f"no {kind} plugin {name!r} is registered; {there}")
        _, take_down = _ERRANDS[kind]
        addresses = self._errands.addresses(take_down, None)
        self._errands.demand_room_for(client, len(addresses))
        if not has_begun:  # in an earlier scheduler
            self._let_go(plugins.pop(name))
            self.note_gone((kind, name))
            self.shared.replies.begin(client.id, request)
        self._errands.begin(client, request, take_down, {"name": name}, addresses)

    def _of(self, kind: str) -> dict[str, Plugin]:
        if kind not in self.registered:
            raise Refusal("ValueError", f"there are plugins for {' and '.join(KINDS)}, and not for {kind!r:.80}")
        return self.registered[kind]

    def _let_go(self, plugin: Plugin) -> None:
        self.shared.life.holding.let_go(plugin)
        self._copies.let_go(plugin)

    # -- those that come later

    def host_joined(self, host: Host) -> None:
        entries = self._entries("nanny")
        if not entries or self._was_prepared(host):
            self.note(("prepared", host.address), host.incarnation)
        else:
            preparation = Reporting(lambda address, outcome: self._host_prepared(host, outcome))
            self._host_preparations[host] = preparation
            self._errands.send(preparation, SET_UP_NANNY_PLUGINS, {"plugins": entries, "first": True}, [host.address])

    def _was_prepared(self, peer: Host | Worker) -> bool:
        """Whether an earlier scheduler has prepared this very process."""
        before = self._prepared_before.pop(peer.address, None)
        return before is not None and before == peer.incarnation

    def host_left(self, host: Host) -> None:
        self.note_gone(("prepared", host.address))
        self._starts.pop(host.address, None)

    def worker_left(self, worker: Worker) -> None:
        self.note_gone(("prepared", worker.address))
        if not self._successors.is_awaited(worker.address):
            self._restarts.pop(worker.address, None)

    def _restart_wanted(self, event: events.RestartWanted) -> None:
        """A plugin wants another process in the place of a worker, since what it has set up needs one."""
        worker = self.shared.workers.get(event.worker)
        if worker is None:
            return
        restarts = self._restarts.get(worker.address, 0)
        if restarts >= MAX_STARTS:
            text = f"the worker wants to start again ({event.reason}), and did so {restarts} times in a row: it goes on"
            self._note(worker.address, "", text)
            return
        self._restarts[worker.address] = restarts + 1
        self._successors.replace([worker])

    def _host_prepared(self, host: Host, outcome: Outcome) -> None:
        """A host that has come has its plugins, or those of them that have not failed."""
        del self._host_preparations[host]
        if self.shared.hosts.get(host.address) is not host:
            return  # it has left meanwhile
        self.note(("prepared", host.address), host.incarnation)
        self._note_failures(host.address, outcome)
        for worker in list(host.workers):
            if not self._prepare(worker):
                self._is_prepared(worker)

    def worker_joined(self, worker: Worker) -> None:
        was_prepared = self._was_prepared(worker)
        if worker.host in self._host_preparations or (not was_prepared and self._prepare(worker)):
            self._revocation.prepare(worker, True)
        else:
            self.note(("prepared", worker.address), worker.incarnation)

    def _prepare(self, worker: Worker) -> bool:
        """Have a worker set up its plugins; whether there are any."""
        entries = self._entries("worker")
        if entries:
            preparation = Reporting(lambda address, outcome: self._prepared(worker, outcome))
            self._preparations[worker] = preparation
            said = {"plugins": entries, "first": True}
            self._errands.send(preparation, SET_UP_PLUGINS, said, [worker.address])
        return bool(entries)

    def _entries(self, kind: str) -> list[tuple[Any, ...]]:
        return [plugin.entry() for plugin in self.registered[kind].values()]

    def _prepared(self, worker: Worker, outcome: Outcome) -> None:
        """A worker that has come has its plugins, or those of them that have not failed."""
        del self._preparations[worker]
        if self.shared.workers.get(worker.address) is not worker:
            return  # it has left meanwhile
        self.note(("prepared", worker.address), worker.incarnation)
        self._note_failures(worker.address, outcome)
        self._is_prepared(worker)

    def _is_prepared(self, worker: Worker) -> None:
        if not worker.ending:
            self._restarts.pop(worker.address, None)
        self._revocation.prepare(worker, False)
        self._errands.release(worker.address)

    def _note_failures(self, where: str, outcome: Outcome) -> None:
        if "value" in outcome:
            for name, _, text in outcome["value"].get("failed", ()):
                self._note(where, name, text)
        else:
            self._note(where, "", outcome["error"][1])

    def _assistant_left(self) -> None:
        self._restore_plugins("scheduler", ASSISTANT, "the process beside the scheduler")

    def _nanny_left(self, event: events.NannyLeft) -> None:
        if event.host in self.shared.hosts:
            self._restore_plugins("nanny", event.host, f"the nanny of the host at {event.host}")

    def _restore_plugins(self, kind: str, address: str, process: str) -> None:
        """A process beside another one has died, and its plugins are to be set up in one that takes its place."""
        entries = self._entries(kind)
        if not entries:
            return
        starts = self._starts.get(address, 0)
        if starts >= MAX_STARTS:
            self._note(address, "", f"{process} has ended {starts} times with its plugins")
            return
        self._starts[address] = starts + 1
        set_up, _ = _ERRANDS[kind]
        again = {"again": True} if kind == "nanny" else {}
        self._errands.send(Reporting(self._restored), set_up, {"plugins": entries, **again}, [address])

    def _restored(self, address: str, outcome: Outcome) -> None:
        """A process beside another one has its plugins again, or has died once more."""
        if "value" in outcome:
            self._starts.pop(address, None)
            self._note_failures(address, outcome)

    def _note(self, where: str, name: str, text: str) -> None:
        what = {"action": "plugin-failed", "plugin": name, "worker": where, "text": text}
        self._topics.log((TOPIC, "all", where), record_of(what))

    # -- the rest

    def recover(self, entries: Mapping[Any, Held], tasks: Mapping[int, Task]) -> None:
        for (kind, name), entry in entries.items():
            if kind == "prepared":
                self._prepared_before[name] = entry.value
                continue
            held = [tasks[serial] for serial in entry.holds]
            self.registered[kind][name] = self._keep(kind, name, entry.value, held)

    def recovered(self) -> None:
        for address in self._prepared_before:
            self.note_gone(("prepared", address))
        self._prepared_before.clear()
        for plugin in self.holders():
            self._copies.hold_lineage(plugin)
        self._copies.urge(self.holders())

    def check(self) -> None:
        for plugins in self.registered.values():
            assert len(plugins) <= MAX_PLUGINS
            for name, plugin in plugins.items():
                assert plugin.name == name
        for worker, preparation in self._preparations.items():
            assert worker.preparing
            assert preparation.under_way, f"{worker!r} would never be prepared"
        for host, host_preparation in self._host_preparations.items():
            assert host_preparation.under_way, f"{host!r} would never be prepared"
        for worker in self.shared.workers.values():
            assert worker.preparing == (worker in self._preparations or worker.host in self._host_preparations)
        assert self._starts.keys() <= {ASSISTANT, *self.shared.hosts}
        assert self._restarts.keys() <= {worker.address for worker in self._successors.there}
