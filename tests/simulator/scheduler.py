"""The scheduler's process: the real state machine, and around it pretended sockets and timers.

What `cluster/scheduler/io` does is done here in short: who may join, what follows when a connection ends, which hosts
are silent, and when time has to pass.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from holdfast.cluster.naming import id_of_tasks
from holdfast.cluster.protocol.answers import merged
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks import instructions as to_do
from holdfast.cluster.scheduler.watching import reading
from tests.simulator.client import Client, TasksClient, TasksOpened, TasksSaid
from tests.simulator.clock import stream
from tests.simulator.coordination import Coordination
from tests.simulator.invariants import WatchedState
from tests.simulator.network import Closed, Link

if TYPE_CHECKING:
    from tests.simulator.host import Host
    from tests.simulator.worker import Worker
    from tests.simulator.world import World

#: A host that says nothing for this long is given up.
SILENCE_SECONDS = 30.0
#: A process that could not join tries again after this.
RETRY_SECONDS = 0.1
_CHANGES_PLACES = {events.HostJoined, events.HostLeft, events.PlacesChanged}
#: What only the server knows, which nothing here asks for.
_AROUND = reading.Surroundings(
    describe=dict,
    silences=dict,
    silence=lambda client: (None, False),
    absent=list,
    joined=lambda peer: {},
    profile=lambda start, stop: {},
    story=lambda keys: iter(()),
)


class Scheduler:
    """The scheduler.

    Attributes
    ----------
    state
        The state machine.
    peers
        The connections that have joined, by the names of their peers.
    handled
        How many events the state machine has handled.
    """

    def __init__(self, world: World) -> None:
        self.state = WatchedState(**world.profile.options)
        self._requests = {request.operation for request in self.state.requests}
        self.peers: dict[str, Link | TasksClient] = {}
        self.handled = 0
        self.coordination = Coordination(world)
        self._world = world
        self._agenda = world.agenda
        self._heard: dict[str, float] = {}  # when each host has said something
        self._wakes_at: float | None = None
        self._pause = stream(world.seed, "turns of the loop").random
        self._agenda.later(SILENCE_SECONDS / 10, self._look_for_silence)

    # -- the state machine

    def handle(self, event: events.Event) -> None:
        """Have the state machine handle an event, and do what it says."""
        self.handled += 1
        self.coordination.before(event)
        instructions = self.state.handle(event, self._agenda.now)
        if self._world.trace is not None:
            self._world.trace.event(self._agenda.now, event, instructions)
        for instruction in instructions:
            if type(instruction) is to_do.Answer:
                self._answer(instruction)
                continue
            if type(instruction) is to_do.Reply:
                self.coordination.replied(instruction)
            elif type(instruction) is to_do.Disconnect:
                self._disconnect(instruction.peer)
                continue
            elif type(instruction) is to_do.CloseNode:
                self._check_saved(instruction.peer)
            link = self.peers.get(instruction.peer)
            if link is not None:
                link.tell(instruction)
        if type(event) in _CHANGES_PLACES and not any(host.places for host in self.state.hosts.values()):
            self._world.oracle.cause("NoWorkerError", None)
        self._look_at_deadline()

    def _look_at_deadline(self) -> None:
        due = self.state.next_deadline
        if due is None or (self._wakes_at is not None and self._wakes_at <= due):
            return
        now = self._agenda.now
        # Between two turns of the loop others get a word in.
        self._wakes_at = due
        self._agenda.at(due if due > now else now + 0.001 * self._pause(), self._time_passed, due)

    def _time_passed(self, due: float) -> None:
        if due == self._wakes_at:  # else an earlier one has come in between
            self._wakes_at = None
            self.handle(events.TimePassed())

    def _answer(self, asked: to_do.Answer) -> None:
        """Answer a request that only reads the state."""
        self._agenda.later(0.0, self._read, reading.answer(self.state, _AROUND, *asked), asked, [])

    def _read(
        self,
        steps: Generator[to_do.ReplyPart | None, None, to_do.Reply],
        asked: to_do.Answer,
        fragments: list[Any],
    ) -> None:
        """Make a step of an answer; the next one comes after what else happens now."""
        if asked.peer not in self.state.clients:
            return
        try:
            part = next(steps)
        except StopIteration as end:
            reply = end.value._replace(value=merged([*fragments, end.value.value]))
            self.coordination.replied(reply)
            self.peers[asked.peer].tell(reply)
            return
        if part is not None:
            fragments.append(part.fragment)
        self._agenda.later(0.0, self._read, steps, asked, fragments)

    def _check_saved(self, address: str) -> None:
        for task in self.state.hosts[address].objects:
            assert len(task.where) > 1 or task.inline is not None, f"{task!r} would be lost with its host"

    # -- what peers say

    def heard(self, link: Link, event: Any) -> None:
        """A peer has said something."""
        if self.peers.get(link.name) is not link:
            return
        if type(event) is Closed:
            link.end(event.reason)
            return
        if type(event) is TasksOpened:
            self._tasks_open(event.tasks)
            return
        if type(event) is TasksSaid:
            if self.peers.get(event.tasks.id) is event.tasks:
                event.tasks.heard = event.turn
                self.handle(event.event)
            return
        if link.role == "node":
            self._heard[link.name] = self._agenda.now
        if type(event) is events.Requested and event.operation not in self._requests:
            self.coordination.before(event)
            self._answer(to_do.Answer(*event))
            return
        self.handle(event)
        if type(event) is events.WorkerExited:
            worker = self.peers.get(event.worker)
            if isinstance(worker, Link) and worker.is_cut and worker.peer.number == event.incarnation:
                worker.end("its process has ended")

    def is_cut_off(self, link: Link, is_cut: bool) -> None:
        """A connection has broken, or goes on."""
        if link.role == "worker" and self.peers.get(link.name) is link:
            self.handle(events.WorkerCutOff(link.name, is_cut))

    # -- joining

    def node_connects(self, host: Host) -> Link | None:
        """A host wants to join; None if it has to try again."""
        former = self.peers.get(host.address)
        if isinstance(former, Link):
            former.end("it connects anew", may_live=True)
        link = self.peers[host.address] = Link(self._world, host.address, "node", host)
        self._heard[host.address] = self._agenda.now
        self.handle(events.HostJoined(host.address, host.describe()))
        return link

    def worker_connects(self, worker: Worker) -> Link | None:
        """A worker wants to join; None if it has to try again."""
        host = self.state.hosts.get(worker.host.address)
        if host is None or not host.is_ready:
            return None
        former = self.peers.get(worker.address)
        if isinstance(former, Link) and former.is_cut:
            former.end("another one has come in its place")
        if worker.address in self.peers:
            return None
        link = self.peers[worker.address] = Link(self._world, worker.address, "worker", worker)
        self.handle(
            events.WorkerJoined(
                worker.address, worker.name, worker.host.address, worker.nthreads, worker.resources, worker.number
            )
        )
        return link

    def client_connects(self, client: Client) -> Link:
        """A client joins."""
        link = self.peers[client.id] = Link(self._world, client.id, "client", client)
        self.handle(events.ClientJoined(client.id, client.id))
        return link

    def _tasks_open(self, tasks: TasksClient) -> None:
        """The tasks of a worker have begun to be a client."""
        if tasks.worker.address not in self.state.workers:
            return
        self.peers[tasks.id] = tasks
        self.handle(events.ClientJoined(tasks.id, "tasks", tasks.worker.address))

    # -- leaving

    def left(self, link: Link, reason: str, *, may_live: bool) -> None:
        """A connection has ended: all has been handled that had come by it."""
        if self.peers.get(link.name) is not link:
            return
        del self.peers[link.name]
        if link.role == "node":
            self._heard.pop(link.name, None)
            for worker in list(self.state.hosts[link.name].workers):
                self.peers.pop(id_of_tasks(worker.address), None)
                other = self.peers.pop(worker.address, None)
                if isinstance(other, Link):
                    self._world.left(other.peer)
                    other.end(f"its node left: {reason}")
            host = self._world.hosts.get(link.name)
            if host is not None:  # it lives, and nobody here knows
                self._world.lost(host, host.store)
            self.handle(events.HostLeft(link.name, reason, may_live))
        elif link.role == "worker":
            self.peers.pop(id_of_tasks(link.name), None)
            self._world.left(link.peer)
            self.handle(events.WorkerParted(link.name, reason, link.peer.number))
        else:
            self.handle(events.ClientLeft(link.name))

    def _disconnect(self, name: str) -> None:
        link = self.peers.get(name)
        if isinstance(link, Link):
            link.end("it was told to")

    def _look_for_silence(self) -> None:
        for address, heard in list(self._heard.items()):
            link = self.peers.get(address)
            if isinstance(link, Link) and self._agenda.now - heard > SILENCE_SECONDS:
                link.end("it has said nothing", may_live=True)
        self._agenda.later(SILENCE_SECONDS / 10, self._look_for_silence)
