"""The end of a `SpecCluster` that nobody closes: because it is garbage, or because Python ends."""

from __future__ import annotations

import logging
import threading

from holdfast.cluster.deploy.runner import Runner
from holdfast.cluster.deploy.spec_correction import Correction
from holdfast.cluster.deploy.spec_parts import SpecParts

logger = logging.getLogger(__name__)

#: How long its parts may take to end.
CLOSE_SECONDS = 20.0


def end(runner: Runner, correction: Correction, parts: SpecParts) -> None:
    """Close what a cluster has left that is garbage, or that this process ends with."""
    if not parts.are_of_this_process or not runner.is_begun:
        return
    if runner.is_current:
        # A collection of garbage can run in any thread, this loop's too, and it can't wait for itself.
        threading.Thread(target=end, args=(runner, correction, parts), name="holdfast-cluster-close").start()
        return
    try:
        runner.run(_end_in_loop(runner, correction, parts), CLOSE_SECONDS)
    except Exception:
        logger.exception("closing a cluster failed")
    finally:
        runner.close()


async def _end_in_loop(runner: Runner, correction: Correction, parts: SpecParts) -> None:
    try:
        await runner.cancel()
        await correction.cancel()
    finally:
        await parts.close()
