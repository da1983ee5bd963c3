"""``make bench``: Holdfast through every workload of the peers. ``make bench-peers``: the peers too, and the ratios."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks import goals
from benchmarks.cluster_workloads import WORKLOADS
from benchmarks.comparison import Comparison

CLUSTER = Comparison(
    "bench-peers",
    "cluster_workloads",
    ("floor", goals.SYSTEM, "distributed", "ray", "plasma"),
    goals.CLUSTER,
    ratios=("distributed", "ray"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit status."""
    parser = CLUSTER.parser(__doc__)
    parser.add_argument(
        "--workloads", nargs="+", choices=list(WORKLOADS), metavar="NAME",
        help=f"run Holdfast through these only (the peers run all): {', '.join(WORKLOADS)}",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if options.workloads and options.write_docs:
        print("--write-docs needs a run of all workloads", file=sys.stderr)
        return 2
    return CLUSTER.run(options, ["--only", *options.workloads] if options.workloads else [])


if __name__ == "__main__":
    sys.exit(main())
