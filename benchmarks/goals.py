"""Goals: what Holdfast's figures have to reach, and what they're meant to.

Most are relative to another figure of the same run, because the same machine gives other absolute
figures on another day. A goal whose other figure wasn't measured is neither met nor missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from benchmarks.figures import Figures

SYSTEM = "holdfast"
WARM_FACTOR = 2  # warm copies run at several times the speed of cold ones


@dataclass(frozen=True)
class AtMost:
    """The figure is no more than ``limit``, in its own unit."""

    limit: float

    def judge(self, metric: str, figures: Figures) -> Verdict:
        """What came of it."""
        mine = figures.get(SYSTEM, metric)
        if mine is None:
            return Verdict(f"≤ {self.limit:g}", None, None)
        return Verdict(f"≤ {self.limit:g} {mine.unit}", None, mine.value <= self.limit)


@dataclass(frozen=True)
class Times:
    """The figure, a rate, is at least ``factor`` times that of another system, or of the best of several.

    ``metric`` is what is compared with, where it has another name; ``words`` describe it then. ``cold_metric`` names
    the other system's cold figure, where warm ones are to be compared: a median that isn't well above it has caught
    cold repeats, and a ratio to it would flatter.
    """

    factor: float
    systems: tuple[str, ...]
    metric: str | None = None
    words: str | None = None
    cold_metric: str | None = None

    def judge(self, metric: str, figures: Figures) -> Verdict:
        """What came of it."""
        mine = figures.get(SYSTEM, metric)
        other = figures.best(self.systems, self.metric or metric)
        text = f"≥ {self.factor:g} × {self.words or _whose(self.systems)}"
        if mine is None or other is None or not other.value:
            return Verdict(text, None, None)
        ratio = mine.value / other.value
        cold = figures.get(other.system, self.cold_metric) if self.cold_metric else None
        if cold is not None and other.value < WARM_FACTOR * cold.value:
            return Verdict(text, ratio, None, f"can't be said: {other.system} wasn't warm")
        return Verdict(text, ratio, ratio >= self.factor)


@dataclass(frozen=True)
class AtMostTimes:
    """The figure, a time, is at most ``factor`` times that of another system, or of the best of several.

    ``metric`` is what is compared with, where it has another name.
    """

    factor: float
    systems: tuple[str, ...]
    metric: str | None = None

    def judge(self, metric: str, figures: Figures) -> Verdict:
        """What came of it."""
        mine = figures.get(SYSTEM, metric)
        other = figures.best(self.systems, self.metric or metric)
        text = f"≤ {self.factor:g} × {_whose(self.systems)}"
        if mine is None or other is None or not other.value:
            return Verdict(text, None, None)
        ratio = mine.value / other.value
        return Verdict(text, ratio, ratio <= self.factor)


def _whose(systems: tuple[str, ...]) -> str:
    return systems[0] if len(systems) == 1 else "the best peer"


Condition: TypeAlias = AtMost | Times | AtMostTimes


@dataclass(frozen=True)
class Verdict:
    """A goal in words, the ratio that it's about if it's about one, and whether it was met; None: can't be said."""

    text: str
    ratio: float | None
    met: bool | None
    why_unknown: str = "not measured"

    def __str__(self) -> str:
        outcome = self.why_unknown if self.met is None else "met" if self.met else "SHORT"
        return f"{self.text}: {outcome}" if self.ratio is None else f"{self.text}: {_ratio(self.ratio)}, {outcome}"


def _ratio(ratio: float) -> str:
    """With enough digits for those far below one."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


@dataclass(frozen=True)
class Goal:
    """What is asked of one metric: what must be, and what is aimed at."""

    metric: str
    must: tuple[Condition, ...] = ()
    aim: tuple[Condition, ...] = ()


def plasma(factor: float, metric: str | None = None) -> Times:
    return Times(factor, ("plasma",), metric)


def ray(factor: float) -> Times:
    return Times(factor, ("ray",))


def warm_ray(factor: float) -> Times:
    return Times(factor, ("ray",), cold_metric="put_400mb_first")


def best_peer(factor: float) -> Times:
    return Times(factor, ("plasma", "ray"))


def floor(factor: float) -> Times:
    return Times(factor, ("floor",), "put_400mb_2_threads", "the two-thread floor")


def own_warm(factor: float) -> Times:
    return Times(factor, (SYSTEM,), "put_400mb", "warm")


#: The object store's. "Equal to warm" is taken as within 5 %: two medians of the same thing differ by that.
STORE = (
    Goal("put_400mb", must=(warm_ray(1.2), floor(0.7)), aim=(floor(0.9),)),
    Goal("put_400mb_first", must=(ray(5),), aim=(own_warm(0.95),)),
    Goal("get_400mb", must=(AtMost(0.15),), aim=(AtMost(0.05),)),
    Goal("get_400mb_first"),
    Goal("create_seal_400mb", must=(AtMost(0.2),)),
    Goal("put_8kb", must=(plasma(2),), aim=(plasma(5),)),
    Goal("get_8kb", must=(plasma(2),), aim=(plasma(4),)),
    Goal("get_8kb_other", must=(plasma(1.2, "get_8kb"),), aim=(plasma(3, "get_8kb"),)),
    Goal("put_200kb", must=(best_peer(2),), aim=(best_peer(4),)),
    Goal("get_200kb", must=(best_peer(2),), aim=(best_peer(4),)),
    Goal("read_by_4_memory", must=(AtMost(1.02),)),
    Goal("read_by_4_memory_store", must=(AtMost(1.02),)),
)


def best_of_dask(factor: float) -> AtMostTimes:
    return AtMostTimes(factor, ("distributed", "ray"))


def part_of_ray(factor: float, metric: str | None = None) -> AtMostTimes:
    return AtMostTimes(factor, ("ray",), metric)


def dask_threads(factor: float) -> AtMostTimes:
    return AtMostTimes(factor, ("floor",))


#: The cluster's, over every workload of the peers.
CLUSTER = (
    Goal("startup", must=(AtMostTimes(1.0, ("distributed",)),), aim=(AtMostTimes(0.5, ("distributed",)),)),
    Goal("map_gather_20k", must=(ray(8),), aim=(ray(20),)),
    Goal("submit_gather_5k", must=(ray(8),), aim=(ray(20),)),
    Goal("roundtrip", must=(part_of_ray(1 / 4),), aim=(part_of_ray(1 / 8),)),
    Goal("roundtrip_p99", must=(part_of_ray(1 / 4),), aim=(part_of_ray(1 / 8),)),
    Goal("chain_1k", must=(ray(4),), aim=(ray(10),)),
    Goal("put_400mb"),
    Goal("put_400mb_first"),
    Goal("get_400mb"),
    Goal("read_400mb"),
    Goal("write_400mb"),
    Goal("copy_400mb"),
    Goal("cross_worker_400mb", must=(part_of_ray(1 / 4),), aim=(AtMost(0.5),)),
    Goal("put_8kb"),
    Goal("get_8kb"),
    Goal("put_200kb"),
    Goal("get_200kb"),
    Goal("array_transpose_sum", must=(best_of_dask(0.7),), aim=(dask_threads(1.25),)),
    Goal("frame_groupby", must=(best_of_dask(0.7),), aim=(dask_threads(1.25),)),
    Goal("frame_shuffle", must=(best_of_dask(0.7),), aim=(dask_threads(1.25),)),
    Goal("broadcast_1gb_seconds", must=(part_of_ray(1 / 4),), aim=(AtMost(0.003),)),
    Goal("broadcast_1gb_as_ray_seconds", must=(part_of_ray(1 / 4, "broadcast_1gb_seconds"),)),
    Goal("broadcast_1gb_memory", must=(AtMost(1.03),)),
    Goal("scheduler_cpu_per_task", must=(AtMost(20),), aim=(AtMost(8),)),
    Goal("scheduler_cpu_per_task_tree"),
    Goal("scheduler_cpu_per_wait"),
)


def best_of_actors(factor: float) -> tuple[Condition, ...]:
    """A time is at most ``factor`` times that of the best peer."""
    return (AtMostTimes(factor, ("distributed", "ray")),)


def more_than_actors(factor: float) -> tuple[Condition, ...]:
    """A rate is at least ``factor`` times that of the best peer."""
    return (Times(factor, ("distributed", "ray")),)


#: Of actors: better than both peers in everything.
ACTORS = (
    Goal("actor_call", must=best_of_actors(1), aim=best_of_actors(0.5)),
    Goal("actor_call_p99", must=best_of_actors(1), aim=best_of_actors(0.5)),
    Goal("actor_calls", must=more_than_actors(1), aim=more_than_actors(2)),
    Goal("actor_call_100kb_argument", must=best_of_actors(1), aim=best_of_actors(0.5)),
    Goal("actor_call_100kb_result", must=best_of_actors(1), aim=best_of_actors(0.5)),
    Goal("actor_call_10mb_argument", must=best_of_actors(1), aim=best_of_actors(0.5)),
    Goal("actor_call_10mb_result", must=best_of_actors(1), aim=best_of_actors(0.5)),
    Goal("actor_calls_100kb", must=more_than_actors(1), aim=more_than_actors(2)),
    Goal("actor_calls_of_tasks", must=more_than_actors(1), aim=more_than_actors(2)),
)
