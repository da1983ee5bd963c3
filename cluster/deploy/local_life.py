"""How the parts of a `LocalCluster` begin and end: apart from the cluster, so that its garbage can be ended.

Whatever goes wrong while they begin, also an interrupt, nothing of them is left. While they run, a run directory says
where they are, so that ``holdfast status`` finds them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.cluster import protocol
from holdfast.cluster.deploy.ask import ask
from holdfast.cluster.deploy.plan import NodePlan
from holdfast.cluster.deploy.runner import Runner
from holdfast.cluster.processes.parent import NotReadyError
from holdfast.cluster.processes.run_directory import RunDirectory

if TYPE_CHECKING:
    from holdfast.cluster.deploy.cluster_processes import LocalProcesses
    from holdfast.cluster.deploy.in_process import LocalThreads

CLOSE_TIMEOUT_SECONDS = 10.0


class LocalLife:
    """Begins once, and ends once.

    Parameters
    ----------
    runner
        The loop of the cluster's object, whose thread ends first.
    parts
        Scheduler, agents and workers.
    token
        Of the cluster.
    scheduler_file
        Where it is written how the scheduler is reached, if that is wanted.
    """

    def __init__(
        self, runner: Runner, parts: LocalProcesses | LocalThreads, token: bytes, scheduler_file: Path | None
    ) -> None:
        self._runner = runner
        self._parts = parts
        self._token = token
        self._scheduler_file = scheduler_file
        self._directory: RunDirectory | None = None
        self._has_begun = False
        self._has_file = False
        self._ending = threading.RLock()

    def begin(self, host: str, port: int, plans: Sequence[NodePlan], patience: float) -> None:
        """Start all of it, and wait until it is ready.

        Raises
        ------
        HoldfastError, OSError, TimeoutError
            A part of it could not start in so many seconds. Nothing is left.
        """
        self._has_begun = True
        try:
            self._directory = RunDirectory.create("local")
            self._parts.start_cluster(host, port, plans, patience, state_directory=self._directory.path / "state")
            self._tell()
            self._parts.keep(self._tell)
            if self._scheduler_file is not None:
                self._write_file(self._scheduler_file)
        except BaseException as error:
            self.end(CLOSE_TIMEOUT_SECONDS)
            if isinstance(error, NotReadyError):
                late = f"All of it has {patience:g} s to start; timeout= gives it more"
                raise NotReadyError(f"{error}\n{late}") from None
            raise

    def _tell(self) -> None:
        """Say in the run directory how it is; from then on also in the thread that keeps the agents."""
        if self._directory is not None:
            self._directory.write_info(self._parts.describe())

    def _write_file(self, file: Path) -> None:
        from holdfast.cluster.deploy.scheduler_file import write_scheduler_file  # which most clusters don't have

        write_scheduler_file(file, ask(self._parts.scheduler_address, protocol.requests.INFO, token=self._token))
        self._has_file = True

    def end(self, patience: float) -> None:
        """Stop all of it and wait until it is gone; kill what has not stopped after so many seconds. Twice is no error.

        In a fork of the process that made it this does nothing. If it is interrupted, what is left is killed.
        """
        if os.getpid() != self._parts.owner_pid or not self._has_begun:
            return
        if self._runner.is_current:
            # A collection of garbage can run in any thread, this loop's too, and it can't wait for itself.
            threading.Thread(target=self.end, args=(patience,), name="holdfast-cluster-close").start()
            return
        with self._ending:  # whoever calls this returns when it is over
            try:
                try:
                    self._runner.close(max(1.0, patience))
                finally:
                    self._parts.stop(patience)
            finally:
                if self._has_file and self._scheduler_file is not None:
                    self._scheduler_file.unlink(missing_ok=True)
                if self._directory is not None:
                    self._directory.close()
