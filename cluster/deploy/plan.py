"""What a cluster on this machine consists of: how many hosts, workers and threads, with how much memory."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.objectstore.sizes import format_size, parse_size
from holdfast.objectstore.system import control_groups, memory_limits
from holdfast.objectstore.system.memory_limits import default_capacity
from holdfast.objectstore.system.mounts import memory_kind

MAX_WORKERS = 1024
MAX_THREADS = 1024
#: What isn't given to stores and workers: so much of the memory and so many bytes more. An idle cluster and its client
#: take 100 MB of it, the kernel some, and a worker more than its limit until that is noticed.
RESERVED_SHARE = 0.1
RESERVED_NBYTES = 128 << 20
#: By default there are no more workers than can have so much each.
WORKER_NBYTES_MIN = 256 << 20
#: A worker that does nothing takes half as much: with a lower limit it would be killed again and again.
LIMIT_NBYTES_MIN = 64 << 20
#: Less is a size without its unit, by mistake.
CAPACITY_NBYTES_MIN = 64 << 10
#: What a store gets at least that isn't told how large it is to be, however much others have taken.
CAPACITY_NBYTES_LEAST = 64 << 20
#: To be said once by whatever has other machines reach a cluster.
BEYOND_THIS_MACHINE = (
    "Anybody on the network between its machines can read what this cluster sends, and can send in its name: use a "
    "network that you trust (see docs/security.md)"
)


@dataclass(frozen=True)
class NodePlan:
    """One node agent: a host of the cluster, or what stands for one.

    Attributes
    ----------
    host : str
        The address that its transfer port binds and that other hosts reach it by.
    memory_limit : int or None
        Bytes that each worker may use. None: any number.
    store_capacity : int
        Bytes of its object store.
    spill_directory : str or None
        Where it moves objects that don't fit. None: the first of the usual places that is on a disk.
    name : str or None
        None: this machine's name.
    indices : sequence of int or None
        The numbers of its workers. None: those from zero on.
    environment : dict or None
        Environment variables of its workers.
    preload : sequence of pairs
        What its workers run first, each with its arguments.
    """

    n_workers: int
    threads_per_worker: int
    store_capacity: int
    host: str = "127.0.0.1"
    memory_limit: int | None = None
    spill_directory: str | None = None
    resources: Mapping[str, float] | None = None
    name: str | None = None
    indices: Sequence[int] | None = None
    environment: Mapping[str, str] | None = None
    preload: Sequence[Sequence[Any]] = ()

    @property
    def numbers(self) -> list[int]:
        """The numbers of its workers."""
        return list(range(self.n_workers) if self.indices is None else self.indices)


def cores() -> int:
    """How many CPU cores this process may use: those it is bound to, or the least quota of its control groups."""
    count = len(os.sched_getaffinity(0))
    quota = control_groups.cpu_quota()
    return count if quota is None else max(1, min(count, math.ceil(quota)))


def workers_and_threads(
    n_workers: int | None,
    threads_per_worker: int | None,
    *,
    processes: bool = True,
    n_cores: int | None = None,
    workers_max: int = MAX_WORKERS,
) -> tuple[int, int]:
    """Fill in what was not asked for, so that workers × threads is about the number of cores.

    With neither given, a small machine gets a process for each core, so that no task waits for another's
    interpreter lock; a larger one about as many processes as threads in each. A number of workers that isn't given is
    at most ``workers_max``.

    Examples
    --------
    >>> workers_and_threads(None, None, n_cores=4), workers_and_threads(None, None, n_cores=32)
    ((4, 1), (8, 4))
    >>> workers_and_threads(None, None, n_cores=32, workers_max=2)
    (2, 16)
    >>> workers_and_threads(2, None, n_cores=8), workers_and_threads(None, 4, n_cores=8)
    ((2, 4), (2, 4))
    """
    n_cores = cores() if n_cores is None else n_cores
    if n_workers is None and threads_per_worker is None:
        n_workers = min(_processes_for(n_cores), workers_max) if processes else 1
    if n_workers is None:
        assert threads_per_worker is not None
        threads_per_worker = _count("threads_per_worker", threads_per_worker, MAX_THREADS)
        n_workers = max(1, min(n_cores // threads_per_worker, workers_max))
    n_workers = _count("n_workers", n_workers, MAX_WORKERS, least=0)
    if threads_per_worker is None:
        # Of a cluster without workers, those that come are as if it had begun with the usual number.
        usual = min(_processes_for(n_cores), workers_max) if processes else 1
        threads_per_worker = max(1, n_cores // (n_workers or usual))
    return n_workers, _count("threads_per_worker", threads_per_worker, MAX_THREADS)


def _processes_for(n_cores: int) -> int:
    if n_cores <= 4:
        return n_cores
    # The divisor of the number of cores that is nearest above its square root: 8 → 4 × 2, 12 → 4 × 3, 32 → 8 × 4.
    return min(n for n in range(1, n_cores + 1) if n_cores % n == 0 and n * n >= n_cores)


def _count(name: str, value: object, limit: int, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if not least <= value <= limit:
        raise ValueError(f"{name} must be from {least} to {limit}, not {value}")
    return value


def plan_nodes(
    n_workers: int | None = None,
    threads_per_worker: int | None = None,
    *,
    processes: bool = True,
    n_hosts: int = 1,
    host: str = "127.0.0.1",
    memory_limit: float | str | None = None,
    object_store_memory: float | str | None = None,
    spill_directory: str | os.PathLike[str] | None = None,
    resources: Mapping[str, float] | None = None,
    name: str | None = None,
    environment: Mapping[str, str] | None = None,
    preload: Sequence[Sequence[Any]] = (),
    taken_nbytes: int = 0,
) -> list[NodePlan]:
    """Check what was asked for and share it out over ``n_hosts`` hosts.

    By default they take of this machine's memory what ``taken_nbytes``, those of other stores, leave.

    Raises
    ------
    ValueError, TypeError
        Something can't be; names the argument, and what it may be.
    """
    n_hosts = _count("n_hosts", n_hosts, MAX_WORKERS)
    given = n_workers is not None
    capacity = store_capacity(object_store_memory, n_hosts, taken_nbytes)
    if spill_directory is not None:
        spill_directory = os.path.abspath(spill_directory)
    for_workers = max(0, _left_for_workers(n_hosts * capacity, spill_directory) - taken_nbytes)
    n_workers, threads_per_worker = workers_and_threads(
        n_workers, threads_per_worker, processes=processes, workers_max=max(1, for_workers // WORKER_NBYTES_MIN)
    )
    if n_hosts > n_workers > 0:
        if given:
            raise ValueError(f"n_hosts={n_hosts} hosts need a worker each, but n_workers is {n_workers}")
        n_workers = n_hosts
    limit: int | None
    if memory_limit in (None, "auto"):
        # Nothing limits a worker that is a part of this process.
        limit = (
            max(LIMIT_NBYTES_MIN, for_workers // (n_workers or max(1, cores() // threads_per_worker)))
            if processes
            else None
        )
    elif memory_limit in (0, "0"):
        limit = None
    else:
        limit = _at_least(memory_limit)
    if name is None and n_hosts > 1:
        name = socket.gethostname()
    each, more = divmod(n_workers, n_hosts)
    return [
        NodePlan(
            n_workers=each + (index < more),
            threads_per_worker=threads_per_worker,
            store_capacity=capacity,
            host=host,
            memory_limit=limit,
            spill_directory=spill_directory,
            resources=resources_of(resources),
            name=f"{name}-{index}" if n_hosts > 1 else name,
            environment=environment,
            preload=preload,
        )
        for index in range(n_hosts)
    ]


def _left_for_workers(stores_nbytes: int, spill_directory: str | None) -> int:
    """The bytes of memory that remain beside the stores, what they spill if that is memory too, and all else."""
    total = memory_limits.memory_limit()
    if spill_directory is not None and memory_kind(spill_directory):
        stores_nbytes *= 2
    return max(0, total - stores_nbytes - RESERVED_NBYTES - int(RESERVED_SHARE * total))


def _size(name: str, value: float | str | None, times: int = 1) -> int:
    available = memory_limits.memory_limit()
    if isinstance(value, bool):
        raise TypeError(f"{name} is a size, such as '4 GB', not {value}")
    if isinstance(value, float) and 0 < value <= 1:
        value = int(value * available)
    try:
        nbytes = parse_size(value)  # type: ignore[arg-type] # it says what it can't read
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{name}: {error}") from None
    if nbytes * times > available:
        asked = f"{times} × {format_size(nbytes)}" if times > 1 else format_size(nbytes)
        raise ValueError(f"{name}: {asked} is more than the {format_size(available)} of memory of this machine")
    return nbytes


def worker_memory(memory_limit: float | str | None, nthreads: int, *, processes: bool) -> int | None:
    """Bytes that one worker of a program that brings its workers about by itself may use; None: any number.

    With "auto", a process gets as much of what the object store leaves as it has of the cores.

    Raises
    ------
    ValueError
        It is no size, or one that no worker could start with.
    """
    if memory_limit == "auto":
        if not processes:
            return None
        share = _left_for_workers(default_capacity(), None) * nthreads // max(nthreads, cores())
        return max(LIMIT_NBYTES_MIN, share)
    if memory_limit in (None, 0, "0"):
        return None
    return _at_least(memory_limit)


def _at_least(memory_limit: float | str | None) -> int:
    nbytes = _size("memory_limit", memory_limit)
    if nbytes < LIMIT_NBYTES_MIN:
        raise ValueError(
            f"memory_limit: {format_size(nbytes)} is less than a worker takes to start, and it would be "
            f"killed: give {format_size(LIMIT_NBYTES_MIN)} at least, as in '2 GB', or 0 for no limit"
        )
    return nbytes


def store_capacity(nbytes: float | str | None, n_hosts: int = 1, taken_nbytes: int = 0) -> int:
    """The bytes of each of so many object stores, if they are to be this large; by default each gets its share of what
    other stores of this machine, of so many bytes together, leave.

    Raises
    ------
    ValueError
        It is no size, or too small or large a one.
    """
    if nbytes is None:
        left = max(0.0, 1 - taken_nbytes / memory_limits.memory_limit())
        return max(CAPACITY_NBYTES_LEAST if taken_nbytes else 1, int(default_capacity() * left) // n_hosts)
    capacity = _size("object_store_memory", nbytes, n_hosts)
    if capacity < CAPACITY_NBYTES_MIN:
        raise ValueError(
            f"object_store_memory: {format_size(capacity)} is too little for a store: give "
            f"{format_size(CAPACITY_NBYTES_MIN)} at least, as in '2 GB'"
        )
    return capacity


def resources_of(resources: Mapping[str, float] | None) -> dict[str, float] | None:
    """What a worker has of things that tasks can ask for, checked.

    Raises
    ------
    TypeError, ValueError
        It maps no names to amounts.
    """
    if not resources:
        return None
    if not isinstance(resources, Mapping):
        raise TypeError(f"resources must map names to numbers, as in {{'GPU': 1}}; {resources!r:.100} is no mapping")
    for resource, amount in resources.items():
        if not isinstance(resource, str) or isinstance(amount, bool) or not isinstance(amount, int | float):
            raise TypeError(f"resources must map names to numbers, not {resource!r} to {amount!r}")
        if amount < 0:
            raise ValueError(f"resources: {resource!r} can't be negative ({amount})")
    return dict(resources)
