"""A whole cluster inside this process: one event loop for the scheduler and the node agents, tasks in threads."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from holdfast.cluster.comm.listening import bound_socket
from holdfast.cluster.comm.loops import LoopThread
from holdfast.cluster.deploy.plan import NodePlan

T = TypeVar("T")


class LastingExecutor(ThreadPoolExecutor):
    """Gives every call a thread of its own, as long as threads can be started.

    A cluster that was not closed is closed when the interpreter ends. Then Python's executors refuse work, and since
    Python 3.12 no thread can be started. So one thread is started ahead, and makes these last calls in turn.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last_calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._make_last_calls, name="holdfast-cluster-last-calls", daemon=True).start()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        try:
            threading.Thread(target=run, name="holdfast-cluster-call", daemon=True).start()
        except RuntimeError:  # the interpreter ends, or the system has no thread to spare
            self._last_calls.put(run)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._last_calls.put(None)
        super().shutdown(wait, cancel_futures=cancel_futures)

    def _make_last_calls(self) -> None:
        while (call := self._last_calls.get()) is not None:
            call()


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

    def start_cluster(self, host: str, port: int, plans: Sequence[NodePlan], timeout: float) -> None:
        """Start a scheduler and node agents; return when all of them are ready."""
        sock = bound_socket(host, port)
        self._thread = LoopThread("holdfast-cluster")
        try:
            self._thread.run(self._start(sock, plans), timeout)
        except BaseException as error:
            self.stop(5.0)
            sock.close()
            if isinstance(error, TimeoutError):
                raise TimeoutError(f"the cluster was not ready after {timeout:g} s") from None
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

    def died(self) -> list[str]:
        """What has ended that was not told to, in words."""
        parts = [("scheduler", self._scheduler), *((f"node {agent.address}", agent) for agent in self._agents)]
        return [f"{name} ended" for name, part in parts if _has_ended(part)]

    def stop(self, timeout: float) -> None:
        """Stop all of it and wait. Twice is no error."""
        thread = self._thread
        if thread is None or os.getpid() != self._owner_pid:
            return
        if thread.is_current:
            # A collection of garbage can run in any thread, this loop's too, and it can't wait for itself.
            threading.Thread(target=self.stop, args=(timeout,), name="holdfast-cluster-close").start()
            return
        self._thread = None
        try:
            thread.run(self._close(), timeout)
        finally:
            thread.close(max(1.0, timeout))


def _has_ended(part: Any) -> bool:
    return hasattr(part, "finished") and part.finished.is_set()
