"""``python -m holdfast.cluster.scheduler``: a scheduler process, for ``holdfast start --head`` and `LocalCluster`.

The fork server imports this module, and forks. What the scheduler alone needs is imported by its own process, while the
fork server goes on with what agents and workers need. What these need as well is imported here, once for all of them.
"""

from __future__ import annotations

import gc
import sys

from holdfast.cluster import versions
from holdfast.cluster.comm import connecting, listening, loops, tokens  # noqa: F401
from holdfast.cluster.failures import dumping  # noqa: F401
from holdfast.cluster.processes import child  # noqa: F401

# It takes some milliseconds to find the versions, and all that is forked from here on knows them.
versions.own()


def main() -> int:
    gc.disable()  # nothing of what is imported is garbage
    from holdfast.cluster.scheduler.io import process

    gc.freeze()
    gc.enable()
    return process.main()


if __name__ == "__main__":
    sys.exit(main())
