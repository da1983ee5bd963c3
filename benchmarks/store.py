"""``make bench-store``: the object store's figures beside those of its peers, and what came of the goals."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks import goals
from benchmarks.comparison import Comparison

STORE = Comparison("bench-store", "store_workloads", ("floor", goals.SYSTEM, "plasma", "ray", "vineyard"), goals.STORE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit status."""
    return STORE.run(STORE.parser(__doc__).parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
