"""What goes wrong: the other steps of a history."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from tests.simulator import recovery
from tests.simulator.host import Host
from tests.simulator.network import Link
from tests.simulator.process import Peer
from tests.simulator.world import World

#: How long something is cut off or stopped: sometimes it is taken up again, sometimes it has been given up by then.
SHORT, LONG = (0.01, 3.0), (10.0, 60.0)


class Fault(NamedTuple):
    """Where something goes wrong, and with which chances."""

    world: World
    chance: random.Random

    def seconds(self) -> float:
        return self.chance.uniform(*self.chance.choice([SHORT, SHORT, LONG]))

    def host(self) -> Host | None:
        hosts = list(self.world.hosts.values())
        return self.chance.choice(hosts) if hosts else None

    def later(self, do: Callable[[], None]) -> None:
        self.world.agenda.later(self.seconds(), do)


_FAULTS: dict[str, Callable[[Fault], None]] = {}


def faults() -> dict[str, Callable[[Fault], None]]:
    """All faults, by name."""
    return _FAULTS


def fault(function: Callable[[Fault], None]) -> Callable[[Fault], None]:
    """Declares a fault, by the name of its function."""
    _FAULTS[function.__name__] = function
    return function


@fault
def scheduler_dies(fault: Fault) -> None:
    recovery.restart(fault.world, fault.chance)


@fault
def worker_dies(fault: Fault) -> None:
    workers = fault.world.workers
    if workers:
        fault.chance.choice(workers).die("killed by signal 9")


@fault
def host_dies(fault: Fault) -> None:
    """An agent is killed, or its machine: then nobody closes its connection. Another host comes."""
    host = fault.host()
    if host is not None:
        if fault.chance.random() < 0.5 and host.link is not None:
            host.link.cut()
        host.die()
        fault.later(lambda: _come(fault.world))


def _come(world: World) -> None:
    world.add_host()


@fault
def client_dies(fault: Fault) -> None:
    """A client ends, in order or not, and another one comes."""
    clients = list(fault.world.clients.values())
    if clients:
        client = fault.chance.choice(clients)
        if fault.chance.random() < 0.3:
            client.link.cut()
        client.close()
        fault.world.add_client()


@fault
def worker_stops(fault: Fault) -> None:
    workers = fault.world.workers
    if workers:
        _stop(fault, fault.chance.choice(workers))


@fault
def agent_stops(fault: Fault) -> None:
    host = fault.host()
    if host is not None:
        _stop(fault, host)


@fault
def client_stops(fault: Fault) -> None:
    clients = list(fault.world.clients.values())
    if clients:
        _stop(fault, fault.chance.choice(clients))


def _stop(fault: Fault, peer: Peer) -> None:
    peer.stop()
    fault.later(peer.go_on)


@fault
def connection_breaks(fault: Fault) -> None:
    """A connection with the scheduler is cut, and mended later, in time or not."""
    links = [link for link in fault.world.scheduler.peers.values() if isinstance(link, Link)]
    if links:
        link = fault.chance.choice(links)
        link.cut()
        fault.later(link.mend)


@fault
def host_is_apart(fault: Fault) -> None:
    """A host can't be reached, nor anything on it."""
    host = fault.host()
    if host is None or host.is_apart:
        return
    host.is_apart = True
    links = [peer.link for peer in (host, *host.workers.values()) if peer.link is not None]
    links += [client.link for client in fault.world.clients.values() if client.where is host]
    for link in links:
        link.cut()

    def rejoin() -> None:
        host.is_apart = False
        for link in links:
            link.mend()

    fault.later(rejoin)


@fault
def object_is_damaged(fault: Fault) -> None:
    """A store loses an object, and nobody is told."""
    host = fault.host()
    if host is not None and host.store:
        host.lose(fault.chance.choice(list(host.store)))


@fault
def host_comes(fault: Fault) -> None:
    if len(fault.world.hosts) < 6:
        _come(fault.world)


@fault
def client_comes(fault: Fault) -> None:
    if len(fault.world.clients) < 6:
        fault.world.add_client()
