"""``make bench-actors``: calls of actors' methods, beside those of distributed's and Ray's actors, and the ratios."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks import goals
from benchmarks.comparison import Comparison

ACTORS = Comparison(
    "bench-actors",
    "actor_workloads",
    (goals.SYSTEM, "distributed", "ray"),
    goals.ACTORS,
    ratios=("distributed", "ray"),
    suffix="_actors",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit status."""
    return ACTORS.run(ACTORS.parser(__doc__).parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
