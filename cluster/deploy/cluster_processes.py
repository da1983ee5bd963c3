"""The processes of a cluster on this machine: a scheduler, node agents and, through those, workers."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.cluster import dask_config
from holdfast.cluster.comm import tokens
from holdfast.cluster.comm.addresses import format_address
from holdfast.cluster.comm.listening import bound_socket
from holdfast.cluster.deploy.keeper import AgentKeeper, AgentPlace
from holdfast.cluster.deploy.plan import NodePlan
from holdfast.cluster.deploy.scheduler_place import SchedulerPlace
from holdfast.cluster.durations import scheduler_timeout
from holdfast.cluster.journal.directory import forget
from holdfast.cluster.processes import run_directory
from holdfast.cluster.processes.forking import Forker
from holdfast.cluster.processes.parent import ChildProcess
from holdfast.objectstore.errors import HoldfastError

#: In the environment of every process of a cluster, so that those whose parent was killed can be found.
CLUSTER_ID_VARIABLE = "HOLDFAST_CLUSTER_ID"
#: How long what has started may take to stop when something else could not.
FAILED_START_SECONDS = 2.0
#: What each gets to stop in even when the others have used up the time.
LEAST_SECONDS = 0.5


class LocalProcesses:
    """Starts and stops them, and starts node agents again that die. They end with this process, however it ends.

    Nothing here needs the class to be closed for that: a killed owner's children end by their lifelines.

    Parameters
    ----------
    token : bytes
        The cluster's token.
    log_level : str
    log_directory : Path or None
        Where each process gets a log file; None: they share this process's standard error.
    dask_config : bytes
        For the workers; see `holdfast.cluster.dask_config`.
    scheduler_options : dict, optional
        Of `holdfast.cluster.scheduler.io.server.Scheduler`.

    Attributes
    ----------
    scheduler_place : SchedulerPlace or None
        Has the scheduler, if it is one of ours.
    places : list of AgentPlace
        Of the node agents.
    keeper : AgentKeeper or None
        Sees to it that they are filled; from `keep` on.
    scheduler_address : str
        Where processes of this host reach the scheduler.
    """

    def __init__(
        self,
        token: bytes,
        *,
        log_level: str = "WARNING",
        log_directory: Path | None = None,
        dask_config: bytes = b"",
        scheduler_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.id = secrets.token_hex(8)
        self.scheduler_place: SchedulerPlace | None = None
        self.places: list[AgentPlace] = []
        self.keeper: AgentKeeper | None = None
        self.scheduler_address = ""
        self._token = token
        self._log_level = log_level
        self._log_directory = log_directory
        self._dask_config = dask_config
        self._scheduler_options = dict(scheduler_options or {})
        self._forker = Forker(
            env={CLUSTER_ID_VARIABLE: self.id},
            log_file=self._log_of("fork-server"),
        )
        self._owner_pid = os.getpid()
        self._stopped = False
        self._state: Path | None = None
        self._arguments: list[str] = []  # the scheduler's

    def start_cluster(
        self,
        host: str,
        port: int,
        plans: Sequence[NodePlan],
        timeout: float,
        *,
        state_directory: Path | None = None,
        is_temporary: bool = True,
    ) -> None:
        """Start a scheduler and node agents; return when all of them are ready.

        Parameters
        ----------
        host, port
            What the scheduler listens on.
        plans
            What each node agent is to be.
        timeout
            Seconds for all of it.
        state_directory
            Where the scheduler keeps its journal. If it dies, another one goes on from there.
        is_temporary
            Whether that directory goes with this process. If not, what this process leaves there when it is killed is
            for the next one.

        Raises
        ------
        HoldfastError
            One of them could not start; none is left.
        """
        deadline = time.monotonic() + timeout
        sock = bound_socket(host, port)
        self._state = state_directory
        try:
            bound_host, bound_port = sock.getsockname()[:2]
            self.scheduler_address = format_address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), bound_port)
            self._arguments = ["--host", bound_host, "--port", str(bound_port), *self._scheduler_arguments()]
            if state_directory is not None:
                self._arguments += ["--state-directory", str(state_directory)]
                self._arguments += ["--temporary-state"] if is_temporary else []
            child = self._fork(
                "scheduler", "scheduler", self._arguments, deadline, pass_fds={"--listen-fd": sock.fileno()}
            )
            fork_again = None if state_directory is None else self._fork_scheduler_again
            self.scheduler_place = SchedulerPlace(child, sock, fork_again, scheduler_timeout())
        except BaseException:
            sock.close()
            self.stop(FAILED_START_SECONDS)
            raise
        self.start_nodes(plans, deadline - time.monotonic())

    def start_nodes(self, plans: Sequence[NodePlan], timeout: float) -> None:
        """Start node agents for the scheduler of this object, or the one at `scheduler_address`."""
        deadline = time.monotonic() + timeout
        try:
            # The scheduler's socket listens already, so no process waits for another one before it connects.
            for index, plan in enumerate(plans):
                place = AgentPlace(f"node-{index}", plan)
                self.places.append(place)
                place.restarts.begin()
                arguments = self._node_arguments(place)
                with dask_config.handed_down(self._dask_config) as config_fd:
                    place.child = self._fork("node", place.name, arguments, deadline, config_fd, may_fork=True)
            self._forker.prepare("holdfast.cluster.worker.__main__")
            if self.scheduler_place is not None:
                self.scheduler_place.child.wait_ready(max(0.0, deadline - time.monotonic()))
                self.scheduler_place.is_ready()
            for place in self.places:
                assert place.child is not None
                place.info = place.child.wait_ready(max(0.0, deadline - time.monotonic()))
                place.restarts.ready()
        except BaseException:
            self.stop(FAILED_START_SECONDS)
            raise

    def keep(self, on_change: Callable[[], object]) -> AgentKeeper:
        """From here on start again what dies; ``on_change()`` is called, in a thread, when `describe` changes."""
        self.keeper = AgentKeeper(self.places, self.scheduler_place, self._fork_again, on_change)
        return self.keeper

    def _scheduler_arguments(self) -> list[str]:
        arguments = []
        for name, value in self._scheduler_options.items():
            if name == "blocked_requests":
                arguments += ["--blocked-requests", json.dumps(sorted(value))]
            elif name == "validate":
                arguments += ["--validate"] if value else []
            else:
                arguments += [f"--{name.replace('_', '-')}", str(value)]
        return arguments

    def _node_arguments(self, place: AgentPlace) -> list[str]:
        plan = place.plan
        arguments = ["--scheduler", self.scheduler_address, "--host", plan.host]
        arguments += ["--indices", json.dumps(plan.numbers), "--threads", str(plan.threads_per_worker)]
        arguments += ["--object-store-memory", str(plan.store_capacity)]
        if plan.spill_directory is not None:
            arguments += ["--spill-directory", plan.spill_directory]
        if plan.memory_limit is not None:
            arguments += ["--memory-limit", str(plan.memory_limit)]
        if plan.resources:
            arguments += ["--resources", json.dumps(dict(plan.resources))]
        if self._log_directory is not None:
            arguments += ["--worker-logs", str(self._log_directory)]
        if plan.environment:
            arguments += ["--environment", json.dumps(dict(plan.environment))]
        if plan.preload:
            arguments += ["--preload", json.dumps(plan.preload)]
        if plan.name is not None:
            arguments += ["--name", plan.name]
        if place.restarts.last_death is not None:
            arguments += ["--deaths", str(place.restarts.deaths), "--last-death", place.restarts.last_death]
            arguments += ["--last-death-seconds", str(place.restarts.last_death_seconds)]
        return arguments

    def _fork(
        self,
        module: str,
        name: str,
        arguments: list[str],
        deadline: float,
        pass_fds: Mapping[str, int] | None = None,
        **options: Any,
    ) -> ChildProcess:
        with tokens.handed_down(self._token) as token_fd:
            try:
                return self._forker.fork(
                    f"holdfast.cluster.{module}.__main__",
                    [*arguments, "--log-level", self._log_level],
                    name,
                    deadline - time.monotonic(),
                    log_file=self._log_of(name),
                    pass_fds={tokens.OPTION: token_fd, **(pass_fds or {})},
                    **options,
                )
            except BlockingIOError as error:
                raise HoldfastError(
                    f"{name} could not start: no process can be made ({error.strerror}); 'ulimit -u' tells how many"
                ) from None

    async def _fork_again(self, place: AgentPlace) -> ChildProcess:
        """`_fork` for the keeper: all others are done with forking by then."""
        with tokens.handed_down(self._token) as token_fd, dask_config.handed_down(self._dask_config) as config_fd:
            return await self._forker.fork_async(
                "holdfast.cluster.node.__main__",
                [*self._node_arguments(place), "--log-level", self._log_level],
                place.name,
                log_file=self._log_of(place.name),
                pass_fds={tokens.OPTION: token_fd, **config_fd},
                may_fork=True,
            )

    async def _fork_scheduler_again(self, sock: socket.socket) -> ChildProcess:
        """Another scheduler, for the place of one that has died."""
        with tokens.handed_down(self._token) as token_fd:
            return await self._forker.fork_async(
                "holdfast.cluster.scheduler.__main__",
                [*self._arguments, "--log-level", self._log_level],
                "scheduler",
                log_file=self._log_of("scheduler"),
                pass_fds={tokens.OPTION: token_fd, "--listen-fd": sock.fileno()},
            )

    @property
    def scheduler_pid(self) -> int:
        """The process of the scheduler; this one, if it has none of ours."""
        return self._owner_pid if self.scheduler_place is None else self.scheduler_place.child.pid

    @property
    def owner_pid(self) -> int:
        """The process whose these are."""
        return self._owner_pid

    def addresses(self) -> list[str | None]:
        """The address of each node agent; None for one that does not run now."""
        return [None if (info := place.info) is None else info["address"] for place in self.places]

    def plan(self, index: int, plan: NodePlan) -> None:
        """What the next agent is to be that is started in a place."""
        self.places[index].plan = plan

    async def refill(self, index: int) -> None:
        """Have an agent started in a place whose last one was told to close, as when its host was retired."""
        if self.keeper is not None:
            self.keeper.refill(self.places[index])

    @property
    def log_files(self) -> list[Path]:
        """The logs of all that were started."""
        schedulers = [] if self.scheduler_place is None else ["scheduler"]
        names = ["fork-server", *schedulers, *(place.name for place in self.places)]
        return [log for name in names if (log := self._log_of(name)) is not None]

    def _log_of(self, name: str) -> Path | None:
        return None if self._log_directory is None else self._log_directory / f"{name}.log"

    @property
    def node_infos(self) -> list[dict[str, Any]]:
        """What each node agent that runs said when it was ready."""
        return [info for place in self.places if (info := place.info) is not None]

    def describe(self) -> dict[str, Any]:
        """What this process tells of itself in its run directory."""
        return {
            "address": self.scheduler_address,
            "id": self.id,
            "nodes": [info["address"] for info in self.node_infos],
            "object_store_memory": sum(place.plan.store_capacity for place in self.places),
            "restarting": self.restarting(),
            "scheduler": None if self.scheduler_place is None else self.scheduler_place.describe(),
            "state_directory": None if self._state is None else str(self._state),
            "time": time.time(),
        }

    def restarting(self) -> list[dict[str, Any]]:
        """How it stands with the agents that don't run and will again, for people (`AgentPlace.describe`)."""
        return [place.describe() for place in self.places if place.info is None and not place.is_over]

    def died(self) -> list[str]:
        """What has ended and doesn't run again, in words."""
        down = [f"{place.name} {place.ended}" for place in self.places if place.info is None]
        place = self.scheduler_place
        return [*down, *([place.ended] if place is not None and place.ended is not None else [])]

    def stop(self, timeout: float) -> None:
        """Stop all of them and wait; kill those that take longer than ``timeout`` seconds. Twice is no error."""
        if self._stopped or os.getpid() != self._owner_pid:
            return
        if self.keeper is not None and self.keeper.is_current:
            # A collection of garbage can run in any thread, and the keeper's can't wait for itself.
            threading.Thread(target=self.stop, args=(timeout,), name="holdfast-cluster-close").start()
            return
        try:
            self._stop(time.monotonic() + timeout)
        except BaseException:  # an interrupt: whoever doesn't want to wait doesn't
            self._kill()
            raise

    def _stop(self, deadline: float) -> None:
        self._keep_no_more()
        # Node agents first: with the scheduler gone they would only try to find it again.
        for group in (self._agents(), self._schedulers()):
            for child in group:
                child.terminate()
            for child in group:
                child.stop(max(LEAST_SECONDS, deadline - time.monotonic()))
        self._end_with(max(LEAST_SECONDS, deadline - time.monotonic()))

    def _kill(self) -> None:
        self._keep_no_more()
        for child in (*self._agents(), *self._schedulers()):
            child.stop(0)
        self._end_with(0.0)

    def _schedulers(self) -> list[ChildProcess]:
        return [] if self.scheduler_place is None else [self.scheduler_place.child]

    def _keep_no_more(self) -> None:
        if self.keeper is not None:
            with contextlib.suppress(TimeoutError):
                self.keeper.close()

    def _end_with(self, timeout: float) -> None:
        self._forker.close()
        kill_strays(self.id, timeout)
        self._forget_state()
        if self.scheduler_place is not None:
            self.scheduler_place.close()
        run_directory.sweep()
        self._stopped = True

    def _forget_state(self) -> None:
        """A scheduler that ends in order leaves nothing to go on with. One that did not, since it was down, must not
        either, if the cluster was stopped; but what was given up may still be of use."""
        place = self.scheduler_place
        if self._state is not None and place is not None and place.child.returncode != 0 and not place.was_given_up:
            forget(self._state)

    def _agents(self) -> list[ChildProcess]:
        return [place.child for place in self.places if place.child is not None]


def kill_strays(cluster_id: str, timeout: float) -> list[int]:
    """Wait until no process of a stopped cluster is left; kill those that are, and return their ids.

    Workers whose node agent was killed end by their lifelines, but no process can wait for them.
    """
    deadline = time.monotonic() + timeout
    delay = 0.005
    while strays := _processes_of(cluster_id):
        if time.monotonic() >= deadline:
            for pid in strays:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            _wait_gone(cluster_id)
            return strays
        time.sleep(delay)
        delay = min(0.1, delay * 2)
    return []


def _wait_gone(cluster_id: str, timeout: float = 5.0) -> None:
    deadline = time.monotonic() + timeout
    while left := _processes_of(cluster_id):
        if time.monotonic() >= deadline:
            raise HoldfastError(f"processes {left} do not end, although they were killed")
        time.sleep(0.01)


def _processes_of(cluster_id: str) -> list[int]:
    """Processes of a cluster, reading /proc: only Holdfast's own, not what a user's task has started."""
    mark = f"{CLUSTER_ID_VARIABLE}={cluster_id}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdecimal() or int(entry) == os.getpid():
            continue
        try:
            # A zombie has ended; its environment and command line read as empty.
            if mark not in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                continue
            command = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").split()
        except OSError:
            continue
        if any(word.startswith(b"holdfast.cluster.") for word in command):
            found.append(int(entry))
    return found
