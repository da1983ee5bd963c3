"""The scheduler's process: the real state machine, and around it pretended sockets and timers.

What `cluster/scheduler/io` does is done here in short: who may join, what follows when a connection ends, which hosts
are silent, and when time has to pass.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from holdfast.cluster.journal import batches
from holdfast.cluster.journal.tables import Tables
from holdfast.cluster.naming import id_of_tasks
from holdfast.cluster.protocol.answers import merged
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.tasks import instructions as to_do
from holdfast.cluster.scheduler.tasks.decisions import Decisions
from holdfast.cluster.scheduler.watching import reading
from tests.simulator.client import Client, TasksClient, TasksOpened, TasksSaid
from tests.simulator.clock import stream
from tests.simulator.coordination import Coordination
from tests.simulator.invariants import WatchedState
from tests.simulator.network import GRACE_SECONDS, Closed, Link

if TYPE_CHECKING:
    from tests.simulator.host import Host
    from tests.simulator.worker import Worker
    from tests.simulator.world import World

#: A host that says nothing for this long is given up.
SILENCE_SECONDS = 30.0
#: Those that have not come back after this are not waited for.
RECOVERY_SECONDS = 10.0
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
        self.dies = "scheduler_dies" in world.profile.weights
        self._world = world
        self.state = self._made()
        self._requests = {request.operation for request in self.state.requests}
        self.peers: dict[str, Link | TasksClient] = {}
        self.handled = 0
        self.coordination = Coordination(world)
        self._agenda = world.agenda
        self._heard: dict[str, float] = {}  # when each host has said something
        self._wakes_at: float | None = None
        self._pause = stream(world.seed, "turns of the loop").random
        self._agenda.later(SILENCE_SECONDS / 10, self._look_for_silence)
        #: What it has written down, if it ever dies, and how many there were before it.
        self.tables = Tables()
        self.epoch = 1
        self.dies_next = False  # when it has handled one event more, and before anything follows from that
        self._put_off: list[tuple[Link, Any, int]] = []  # what tasks say before all are back
        self._unsure: list[tuple[Link, Any, int]] = []  # what workers say then, which counts as heard when all are

    def _made(self) -> WatchedState:
        return WatchedState(decisions=Decisions(self.dies), **self._world.profile.options)

    # -- another one takes its place

    @property
    def is_recovering(self) -> bool:
        return self.state.recovery is not None

    def listens_to(self, link: Link) -> bool:
        """Whether what a peer says is handled. Clients wait until all are back."""
        return link.role != "client" or not self.is_recovering

    def begin_again(self) -> None:
        """Another process takes the place of this one: it knows what is written down."""
        self.epoch += 1
        self.dies_next = False
        self.tables.sweep()
        for link, event, turn in reversed(self._unsure):
            link.unhear(event, turn)
        self._put_off.clear()
        self._unsure.clear()
        self.state = self._made()
        self.state.recover(self.tables, self.epoch)
        self.coordination.restarted()
        links = [link for link in self.peers.values() if isinstance(link, Link)]
        self.peers.clear()
        self._heard.clear()
        self._wakes_at = None
        for link in links:
            link.lose()
            if link.role == "worker" and not link.peer.is_alive:
                self._world.left(link.peer)  # which it has not heard
            link.is_over = link.is_over or link.role == "node"  # which joins anew
            link.peer.do(link.peer.lost_scheduler)
        epoch = self.epoch
        self._agenda.later(RECOVERY_SECONDS, self._recovered, epoch)
        self._agenda.later(0.0, self._look_whether_all_are_back)
        self._look_at_deadline()

    def _look_whether_all_are_back(self) -> None:
        recovery = self.state.recovery
        if recovery is not None and not recovery.awaited:
            self._recovered(self.epoch)

    def _recovered(self, epoch: int) -> None:
        if epoch != self.epoch or not self.is_recovering:
            return
        for worker in self._world.workers:
            if worker.address not in self.peers:
                self._world.left(worker)
        for host in self._world.hosts.values():
            known = self.state.hosts.get(host.address)
            if known is None or not known.is_ready:
                self._world.lost(host, host.store)
        self.handle(events.Recovered())
        put_off, self._put_off = self._put_off, []
        self._unsure.clear()
        for link, event, _ in put_off:
            if not link.is_over:
                self.heard(link, event)
        for link in list(self.peers.values()):
            if isinstance(link, Link):
                link.hear()
        self._agenda.later(GRACE_SECONDS["client"], self._part_with_missing, epoch)

    def _part_with_missing(self, epoch: int) -> None:
        if epoch == self.epoch:
            for client in list(self.state.clients):
                if client not in self.peers:
                    self.handle(events.ClientLeft(client))

    def client_rejoins(self, client: Client) -> bool:
        """A client looks for another scheduler; whether that knows it."""
        if client.id not in self.state.clients:
            return False
        self.peers[client.id] = client.link
        return True

    def worker_rejoins(self, worker: Worker) -> bool:
        """A worker looks for another scheduler; False if it has to try again."""
        host = self.state.hosts.get(worker.host.address)
        if host is None or not host.is_ready or worker.address in self.peers or worker.link is None:
            return False
        link = self.peers[worker.address] = worker.link
        link.is_lost = False
        self._joins(worker)
        return self.peers.get(worker.address) is link  # else it has died meanwhile

    def tasks_rejoin(self, tasks: TasksClient) -> bool:
        """The same for the tasks of a worker."""
        if tasks.id not in self.state.clients:
            return False
        self.peers[tasks.id] = tasks
        return True

    # -- the state machine

    def handle(self, event: events.Event) -> None:
        """Have the state machine handle an event, and do what it says."""
        self.handled += 1
        self.coordination.before(event)
        instructions = self.state.handle(event, self._agenda.now)
        if self.dies:
            self.tables.apply(batches.unpack(batches.packer().pack(self.state.decisions.take())))
            if self.dies_next:
                self.begin_again()
                return
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
        self._agenda.later(0.0, self._read, reading.answer(self.state, _AROUND, *asked), asked, [], self.epoch)

    def _read(
        self,
        steps: Generator[to_do.ReplyPart | None, None, to_do.Reply],
        asked: to_do.Answer,
        fragments: list[Any],
        epoch: int,
    ) -> None:
        """Make a step of an answer; the next one comes after what else happens now."""
        if asked.peer not in self.peers or epoch != self.epoch:
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
        self._agenda.later(0.0, self._read, steps, asked, fragments, epoch)

    def _check_saved(self, address: str) -> None:
        for task in self.state.hosts[address].objects:
            assert len(task.where) > 1 or task.inline is not None, f"{task!r} would be lost with its host"

    # -- what peers say

    def holds_back(self, link: Link, event: Any) -> bool:
        """Whether what a peer has said before isn't done, so that this has to wait."""
        return self.state.holds_back(event.tasks.id if type(event) is TasksSaid else link.name)

    def heard(self, link: Link, event: Any) -> None:
        """A peer has said something."""
        if self.peers.get(link.name) is not link:
            return
        if type(event) is Closed:
            link.end(event.reason)
            return
        if link.role == "worker" and self.is_recovering:
            self._unsure.append((link, event, 0))
        if type(event) in (TasksOpened, TasksSaid) and self.is_recovering:
            self._put_off.append((link, event, 0))
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
            if self.state.is_awaited(event.client):
                return
            self.coordination.before(event)
            self._answer(to_do.Answer(*event))
            return
        self.handle(event)
        if type(event) in (events.HostReady, events.RunsKept):
            self._look_whether_all_are_back()
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
        self._joins(worker)
        if self.is_recovering:
            link.say(events.RunsKept(worker.address, (), ()))
        return link

    def _joins(self, worker: Worker) -> None:
        self.handle(
            events.WorkerJoined(
                worker.address, worker.name, worker.host.address, worker.nthreads, worker.resources, worker.number
            )
        )

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
