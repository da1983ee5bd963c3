"""Which process the kernel kills when memory runs out: workers before node agents, and those before the scheduler.

The kernel kills the process that weighs most: its memory, in thousandths of what there is, plus its ``oom_score_adj``.
Children inherit that, and any process may raise its own, but only a privileged one may lower it. So a process raises
its own when it begins. With a worker goes what it was running, and another one is started; with an agent goes all that
its store holds; with the scheduler, the cluster.

The pages of a store count for each process that has them mapped, though none of them is free before all of these
processes have ended. A store has 30 % of the memory if nothing else was asked for, so the page maker and an agent that
has moved all of it weigh 300 without any memory of their own. A worker weighs more than that.
"""

from __future__ import annotations

import logging
from pathlib import Path

logger = logging.getLogger(__name__)

WORKER = 800
AGENT = 100
MAX_SCORE_ADJ = 1000
_FILE = Path("/proc/self/oom_score_adj")


def be_killed_before_others(by: int) -> None:
    """Raise this process's ``oom_score_adj`` by so much, at most to `MAX_SCORE_ADJ`. Nothing happens if it can't be."""
    try:
        inherited = int(_FILE.read_text())
        raised = min(MAX_SCORE_ADJ, inherited + by)
        if raised > inherited:
            _FILE.write_text(str(raised))
    except (OSError, ValueError) as error:  # no /proc, or a read-only one
        logger.debug("can't raise the weight of this process: %s", error)
