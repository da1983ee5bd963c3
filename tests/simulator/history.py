"""One seed from its beginning to its end."""

from __future__ import annotations

import random
import traceback
from collections.abc import Collection
from dataclasses import dataclass, field

from holdfast.cluster.protocol import requests
from holdfast.cluster.scheduler.machine.validation import validate_state
from tests.simulator.clock import stream
from tests.simulator.faults import Fault, faults
from tests.simulator.network import Link
from tests.simulator.oracle import Wrong
from tests.simulator.profile import Profile, drawn
from tests.simulator.trace import Trace
from tests.simulator.workload import NAMES, OPERATIONS, Step
from tests.simulator.world import World

#: How many steps a history has, if nobody says.
STEPS = 225
#: After the last fault everything has to come to an end within this. The longest limits are those of hosts that are
#: silent, of tasks that no worker may run, and of what a client waits for.
HEAL_SECONDS = 200.0
#: How often it is looked whether it has.
LOOK_SECONDS = 2.0


@dataclass
class Outcome:
    """What a history has come to.

    Attributes
    ----------
    seed
        Of the history.
    events
        How many events the state machine has handled.
    seconds
        How much time has passed in it.
    reads
        How many values were read.
    steps
        How often each step was done.
    failure
        What went wrong; empty if nothing has.
    signature
        The same for two failures that are probably the same.
    at
        When it went wrong.
    """

    seed: int
    events: int = 0
    seconds: float = 0.0
    reads: int = 0
    steps: dict[str, int] = field(default_factory=dict)
    failure: str = ""
    signature: str = ""
    at: float = 0.0


class History:
    """A history.

    Parameters
    ----------
    seed
        Which one.
    steps
        How many steps it has.
    keep
        The numbers of the steps that are done; None: all of them.
    with_faults
        Whether anything goes wrong.
    often
        Whether the scheduler dies often.
    profile
        What kind of cluster it is; None: the seed says it.
    trace
        Is told what happens.
    """

    def __init__(
        self,
        seed: int,
        *,
        steps: int = STEPS,
        keep: Collection[int] | None = None,
        with_faults: bool = True,
        often: bool = False,
        profile: Profile | None = None,
        trace: Trace | None = None,
    ) -> None:
        chance = stream(seed, "steps")
        self._faults = faults() if with_faults else {}
        self.profile = profile or drawn(stream(seed, "profile"), OPERATIONS, self._faults, often=often)
        self.outcome = Outcome(seed)
        self._seed = seed
        self._trace = trace
        names, weights = list(self.profile.weights), list(self.profile.weights.values())
        self.plan: list[tuple[int, float, str]] = []  # number, time and name of each step
        time = 1.0
        for number in range(steps):
            time += chance.expovariate(1.0 / self.profile.pause)
            name = chance.choices(names, weights)[0]
            if keep is None or number in keep:
                self.plan.append((number, time, name))
        self._end = time
        self.world: World | None = None

    def run(self) -> Outcome:
        """Let it happen. What goes wrong is in the outcome."""
        outcome = self.outcome
        try:
            self._run()
        except Exception as error:
            outcome.failure = "".join(traceback.format_exception(error))
            frame = traceback.extract_tb(error.__traceback__)[-1]
            outcome.signature = f"{type(error).__name__} at {frame.filename.rpartition('/')[2]}:{frame.lineno}"
            if isinstance(error, Wrong):
                outcome.signature += f" {''.join(c for c in str(error) if c.isalpha() or c == ' ')[-40:]}"
        world = self.world
        if world is not None:
            outcome.at = outcome.seconds = world.agenda.now
            outcome.events = world.scheduler.handled
            outcome.reads = world.reads
        return outcome

    def _run(self) -> None:
        world = self.world = World(self._seed, self.profile, self._trace)
        for number, time, name in self.plan:
            world.agenda.run(time)
            self._step(world, number, name)
        world.agenda.run(max(world.agenda.now, self._end) + 1.0)
        self._heal(world)
        self._check_settled(world)
        self._let_go(world)
        self._check_empty(world)

    def _step(self, world: World, number: int, name: str) -> None:
        chance = random.Random(f"{self._seed}/{number}")
        if self._trace is not None:
            self._trace.step(world.agenda.now, f"step {number}: {name}")
        self.outcome.steps[name] = self.outcome.steps.get(name, 0) + 1
        if name in self._faults:
            self._faults[name](Fault(world, chance))
            return
        clients = [client for client in world.clients.values() if not client.is_stopped]
        if clients:
            OPERATIONS[name](Step(world, chance.choice(clients), chance))

    def _note(self, text: str) -> None:
        if self._trace is not None and self.world is not None:
            self._trace.step(self.world.agenda.now, text)

    def _heal(self, world: World) -> None:
        """Nothing goes wrong any more, and everything that waits for something comes to its end."""
        self._note("healing")
        agenda = world.agenda
        for link in list(world.scheduler.peers.values()):
            if isinstance(link, Link):
                link.mend()
        for host in world.hosts.values():
            host.is_apart = False
        world.heal()
        for peer in [*world.hosts.values(), *world.workers, *world.clients.values()]:
            peer.go_on()
        deadline = agenda.now + HEAL_SECONDS
        why = ""
        while agenda.now < deadline:
            agenda.run(agenda.now + LOOK_SECONDS)
            world.heal()
            why = world.unsettled()
            if not why:
                return
            if agenda.now > deadline - HEAL_SECONDS / 2:
                world.replace_barred()
            client = next(iter(world.clients.values()))
            for name in NAMES:
                if world.scheduler.coordination.waits_without_end("wait-for-event", name):
                    client.ask(requests.SET_EVENT(name=name))
                if world.scheduler.coordination.waits_without_end("get", name):
                    client.ask(requests.CLOSE_QUEUE(name=name))
        raise Wrong(f"it does not come to an end: {why}")

    def _check_settled(self, world: World) -> None:
        self._note("settled")
        agenda = world.agenda
        for client in world.clients.values():
            for key in list(client.table):
                client.read(key)
        deadline = agenda.now + HEAL_SECONDS
        while agenda.now < deadline:
            agenda.run(agenda.now + LOOK_SECONDS)
            for client in world.clients.values():
                for key in list(client.table):
                    client.read(key)
            unread = [
                key
                for client in world.clients.values()
                for key, state in client.table.items()
                if state.status == "pending" or (state.status == "finished" and not state.is_read)
            ]
            if not unread and not world.unsettled():
                break
        else:
            raise Wrong(f"these can't be read: {unread[:5]}; {world.unsettled()}")
        state = world.scheduler.state
        validate_state(state)
        for address, host in world.hosts.items():
            known = {task.object_id: task for task in state.hosts[address].objects}
            for object_id, task in known.items():  # a small result may have gone with its worker, before it was stored
                if object_id not in host.store and object_id not in host.damaged and task.inline is None:
                    raise Wrong(f"{address} is said to have the result of {task!r}, and has not")
            unknown = host.store.keys() - known
            if world.scheduler.epoch > 1:  # a client may be about to tell of what it has brought, until it leaves
                unknown = {each for each in unknown if host.owners.get(each) not in state.clients}
            if unknown:
                raise Wrong(f"{address} has {len(unknown)} objects that nobody knows of")

    def _let_go(self, world: World) -> None:
        self._note("letting go")
        agenda = world.agenda
        client = world.add_client()
        agenda.run(agenda.now + LOOK_SECONDS)
        for name in NAMES:
            client.ask(requests.UNPUBLISH(name=name))
            client.ask(requests.CLOSE_QUEUE(name=name))
            client.ask(requests.DELETE_VARIABLE(name=name))
            for kind in ("worker", "nanny"):
                client.ask(requests.UNREGISTER_PLUGIN(kind=kind, name=name))
        agenda.run(agenda.now + 10.0)
        for client in list(world.clients.values()):
            client.close()
        agenda.run(agenda.now + 10.0)

    def _check_empty(self, world: World) -> None:
        state = world.scheduler.state
        validate_state(state)
        left = {
            "tasks": list(state.tasks)[:5],
            "earlier generations": list(state.life.generations.earlier)[:5],
            "results": list(state.life.results.table)[:5],
            "clients": [client for client in state.clients.values() if client.worker is None],
            "functions": [] if state.clients else list(state.life.functions.table),  # the tasks of workers have some
            "waits": list(state.waits)[:5],
            "objects": [list(host.store)[:5] for host in world.hosts.values() if host.store],
            "small results": [list(worker.young)[:5] for worker in world.workers if worker.young],
            "runs": [worker.keys for worker in world.workers if worker.keys],
            "actors": [worker.address for worker in world.workers if worker.has_actors],
            "open requests": list(world.scheduler.coordination.open)[:5],
        }
        left = {what: those for what, those in left.items() if those}
        if left:
            raise Wrong(f"everybody has left, and there is still {left}")
