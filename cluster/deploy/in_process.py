"""A whole cluster inside this process: one event loop for the scheduler and the node agents, tasks in threads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.cluster.comm.listening import bound_socket
from holdfast.cluster.comm.loops import LoopThread
from holdfast.cluster.deploy.lasting_executor import LastingExecutor
from holdfast.cluster.deploy.plan import NodePlan

#: What gets to close in even when the time is over.
LAST_SECONDS = 2.0


class LocalThreads:
    """Starts and stops it."""

    def __init__(self, token: bytes, scheduler_options: Mapping[str, Any] | None = None) -> None:
        self.scheduler_address = ""
        self._token = token
        self._scheduler_options = dict(scheduler_options or {})
        self._thread: LoopThread | None = None
        self._scheduler: Any = None
        self._agents: list[Any] = []
        self._plans: list[NodePlan] = []
        self._owner_pid = os.getpid()

    def start_cluster(
        self,
        host: str,
        port: int,
        plans: Sequence[NodePlan],
        timeout: float,
        *,
        state_directory: Path | None = None,
    ) -> None:
        """Start a scheduler and node agents; return when all of them are ready.

        No state is kept: what is a part of this process does not die alone.
        """
        sock = bound_socket(host, port)
        self._thread = LoopThread("holdfast-cluster")
        try:
            self._thread.run(self._start(sock, plans), timeout)
        except BaseException as error:
            self.stop(5.0)
            sock.close()
            if isinstance(error, TimeoutError):
                raise TimeoutError(f"the cluster was not ready after {timeout:g} s; timeout= gives it more") from None
            raise

    async def _start(self, sock: Any, plans: Sequence[NodePlan]) -> None:
        # Imported here: a process whose cluster runs in other processes has no use for it.
        from holdfast.cluster.scheduler.io.server import Scheduler

        asyncio.get_running_loop().set_default_executor(LastingExecutor())
        self._scheduler = Scheduler(token=self._token, sock=sock, **self._scheduler_options)
        await self._scheduler.start()
        self.scheduler_address = self._scheduler.address
        self._plans = list(plans)
        self._agents = [self._agent_of(plan) for plan in plans]
        await asyncio.gather(*(agent.start() for agent in self._agents))

    def _agent_of(self, plan: NodePlan) -> Any:
        from holdfast.cluster.node.agent import NodeAgent

        return NodeAgent(
            self.scheduler_address,
            token=self._token,
            host=plan.host,
            n_workers=plan.n_workers,
            indices=plan.numbers,
            threads_per_worker=plan.threads_per_worker,
            environment=plan.environment,
            preload=[(text, words) for text, words in plan.preload],
            memory_limit=plan.memory_limit,
            store_capacity=plan.store_capacity,
            spill_directory=plan.spill_directory,
            resources=None if plan.resources is None else dict(plan.resources),
            processes=False,
            name=plan.name,
        )

    @property
    def owner_pid(self) -> int:
        """The process whose these are."""
        return self._owner_pid

    @property
    def node_infos(self) -> list[dict[str, Any]]:
        """Of each node agent that runs its address, and the process."""
        return [{"address": address, "pid": os.getpid()} for address in self.addresses() if address is not None]

    def addresses(self) -> list[str | None]:
        """The address of each node agent; None for one that has ended."""
        return [None if _has_ended(agent) else agent.address for agent in self._agents]

    def plan(self, index: int, plan: NodePlan) -> None:
        """What the next agent is to be that is started in a place."""
        self._plans[index] = plan

    async def refill(self, index: int) -> None:
        """Start an agent in a place whose last one has ended, as when its host was retired."""
        if self._thread is not None:
            await self._thread.run_for(self._refill(index))

    async def _refill(self, index: int) -> None:
        if _has_ended(self._agents[index]):
            agent = self._agent_of(self._plans[index])
            await agent.start()
            self._agents[index] = agent

    async def _close(self) -> None:
        # One that was stopped before it began has nothing to close.
        agents = [agent for agent in self._agents if hasattr(agent, "finished")]
        results = await asyncio.gather(*(agent.close() for agent in agents), return_exceptions=True)
        if hasattr(self._scheduler, "finished"):
            await self._scheduler.close()
        for result in results:
            if isinstance(result, BaseException):
                raise result

    @property
    def scheduler_pid(self) -> int:
        """This process."""
        return self._owner_pid

    def describe(self) -> dict[str, Any]:
        """What this process tells of itself in its run directory."""
        return {"address": self.scheduler_address}

    def keep(self, on_change: Callable[[], object]) -> None:
        """Nothing changes by itself: what is a part of this process does not die alone."""

    def restarting(self) -> list[dict[str, Any]]:
        """How it stands with the agents that don't run and will again: there are none."""
        return []

    def died(self) -> list[str]:
        """What has ended that was not told to, in words."""
        parts = [("scheduler", self._scheduler), *((f"node {agent.address}", agent) for agent in self._agents)]
        return [f"{name} ended" for name, part in parts if _has_ended(part)]

    def stop(self, timeout: float) -> None:
        """Stop all of it and wait. Twice is no error."""
        thread = self._thread
        if thread is None or thread.loop.is_closed() or os.getpid() != self._owner_pid:
            return
        if thread.is_current:
            # A collection of garbage can run in any thread, this loop's too, and it can't wait for itself.
            threading.Thread(target=self.stop, args=(timeout,), name="holdfast-cluster-close").start()
            return
        try:
            thread.run(self._close(), timeout)
        except BaseException:  # it takes too long, or whoever waits is interrupted: what is being closed goes on
            with contextlib.suppress(Exception):
                thread.run(self._close(), LAST_SECONDS)
            raise
        finally:
            thread.close(max(1.0, timeout))
            self._thread = None


def _has_ended(part: Any) -> bool:
    return hasattr(part, "finished") and part.finished.is_set()
