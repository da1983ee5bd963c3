"""How many workers some memory or some cores are."""

from __future__ import annotations

import math
from typing import NamedTuple

from holdfast.objectstore.sizes import parse_size


class WorkerSize(NamedTuple):
    """What each new worker of a cluster has.

    Attributes
    ----------
    nthreads : int or None
        None, or 0: it is not known.
    nbytes : int or None
        Of memory; as ``nthreads``.
    """

    nthreads: int | None
    nbytes: int | None

    def at_least(self, n: int | None, memory: float | str | None, cores: float | None) -> int | None:
        """The least number of workers that is ``n``, and has so much memory and so many cores; None if none is given.

        Raises
        ------
        ValueError
            It is no amount, or it is not known how much a worker has.

        Examples
        --------
        >>> WorkerSize(2, 10**9).at_least(1, "4.5 GB", 3)
        5
        """
        numbers = [] if n is None else [n]
        if memory is not None:
            numbers.append(math.ceil(parse_size(memory, least=0) / _known(self.nbytes, "memory")))
        if cores is not None:
            numbers.append(math.ceil(_cores(cores) / _known(self.nthreads, "cores")))
        return max(numbers, default=None)

    def at_most(self, n: float | None, memory: float | str | None, cores: float | None) -> float | None:
        """The largest number of workers that is not more than ``n``, memory and cores; None if none is given.

        Raises
        ------
        ValueError
            As of `at_least`; or not even one worker would fit.

        Examples
        --------
        >>> WorkerSize(2, 10**9).at_most(10, "4.5 GB", 7)
        3
        """
        numbers = [] if n is None else [n]
        if memory is not None:
            numbers.append(
                _fitting("maximum_memory", memory, parse_size(memory, least=0), _known(self.nbytes, "memory"))
            )
        if cores is not None:
            numbers.append(_fitting("maximum_cores", cores, _cores(cores), _known(self.nthreads, "cores")))
        return min(numbers, default=None)


def _fitting(name: str, given: float | str, amount: float, each: int) -> int:
    if 0 < amount < each:
        raise ValueError(f"{name}={given!r} is less than one worker has, so there could be none: give more, or 0")
    return math.floor(amount / each)


def _cores(cores: float) -> float:
    if isinstance(cores, bool) or not isinstance(cores, (int, float)) or not 0 <= cores < math.inf:
        raise ValueError(f"cores are a number from 0 on, not {cores!r:.100}")
    return cores


def _known(each: int | None, what: str) -> int:
    if not each:
        raise ValueError(f"this cluster can't be scaled by {what}: it is not known how much of that a worker has")
    return each
