"""What kind of cluster a seed gives, and what happens in it how often.

Much is left out of each: a fault that a retry hides, or an order of events that another operation always breaks up,
shows in a cluster where that other one does not happen ("swarm testing").
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Profile:
    """A kind of cluster.

    Attributes
    ----------
    hosts, workers, nthreads, clients
        How many hosts there are at first, workers of each, threads of each worker, clients.
    latency, jitter
        What a message takes, and how much longer it may take, in seconds.
    pause
        Seconds between two steps, on average.
    task_seconds
        What a task takes, at most.
    inline
        How many of all results are small.
    capacity
        How many objects a store has room for.
    weights
        How often each step happens, against the others. What is not in it never does.
    options
        Of the state machine.
    """

    hosts: int = 2
    workers: int = 2
    nthreads: int = 1
    clients: int = 2
    latency: float = 0.0002
    jitter: float = 0.001
    pause: float = 0.2
    task_seconds: float = 0.5
    inline: float = 0.5
    capacity: int = 10_000
    weights: dict[str, float] = field(default_factory=dict)
    options: dict[str, float] = field(default_factory=dict)


#: How many of all steps are a death of the scheduler, if it is to die often.
OFTEN = 0.03


def drawn(chance: random.Random, operations: Iterable[str], faults: Iterable[str], *, often: bool = False) -> Profile:
    """The profile of a seed. ``operations`` are the steps that there are for clients.

    If the scheduler is to die often, it does so in each seed, and often; otherwise the seed says it.
    """
    kept = chance.choice([0.3, 0.6, 1.0])
    weights = {name: chance.choice([0.5, 1.0, 4.0]) for name in operations if chance.random() < kept}
    for name in ("submit", "release", "gather"):  # without which nothing much happens
        weights[name] = chance.choice([2.0, 6.0, 12.0])
    rate = chance.choice([0.0, 0.05, 0.2, 0.5]) * sum(weights.values())
    chosen = [name for name in faults if chance.random() < chance.choice([0.2, 0.7])]
    weights |= {name: rate * chance.choice([0.3, 1.0]) / len(chosen) for name in chosen if rate}
    if often:
        weights["scheduler_dies"] = OFTEN * sum(weights.values())
    return Profile(
        hosts=chance.choice([1, 2, 2, 3, 5]),
        workers=chance.choice([0, 1, 1, 2, 3]),
        nthreads=chance.choice([1, 1, 2, 4]),
        clients=chance.choice([1, 2, 3, 5]),
        latency=chance.choice([0.00005, 0.0002, 0.005]),
        jitter=chance.choice([0.0, 0.001, 0.02, 0.5]),
        pause=chance.choice([0.01, 0.1, 0.5, 2.0]),
        task_seconds=chance.choice([0.002, 0.05, 0.5, 5.0]),
        inline=chance.choice([0.0, 0.5, 0.9]),
        capacity=chance.choice([10_000, 10_000, 60]),
        weights=weights,
        options={
            "follow_up_limit": chance.choice([1, 3, 2_000]),
            "patience_seconds": chance.choice([0.0, 5.0]),
            "no_worker_timeout": 30.0,
            "max_failures": 3,
            "publish_seconds": 5.0,
        },
    )
