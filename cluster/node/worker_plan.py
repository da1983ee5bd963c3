"""What a worker of this host is to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class WorkerPlan:
    """One worker that a host keeps.

    Attributes
    ----------
    index : int
        Its number on its host, which no other worker of the host has or had.
    name : str
        What tasks and people call it by.
    nthreads : int
        How many tasks it runs at once.
    memory_limit : int or None
        Bytes of memory of its own that its process may use; None: any number.
    resources : dict
        What it has of things that tasks can ask for.
    environment : dict
        Environment variables of its process, besides those of the agent.
    preload : sequence of (str, sequence of str)
        What it runs when it starts, with the arguments of each (`worker/preloading.py`).
    in_process : bool
        Whether it runs in the process and the event loop of its agent.
    """

    index: int
    name: str
    nthreads: int = 1
    memory_limit: int | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    preload: Sequence[tuple[str, Sequence[str]]] = ()
    in_process: bool = False

    def __post_init__(self) -> None:
        if self.nthreads < 1:
            raise ValueError(f"a worker needs at least one thread, not {self.nthreads}")

    @property
    def all_resources(self) -> dict[str, float]:
        """What tasks can ask of it: its resources, and its memory."""
        memory = {} if self.memory_limit is None else {"memory": float(self.memory_limit)}
        return {**memory, **self.resources}
