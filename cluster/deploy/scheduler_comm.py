"""How a cluster object asks its scheduler: one connection in an event loop, over which requests go and answers come."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from holdfast.cluster import protocol
from holdfast.cluster.comm.connecting import connect
from holdfast.cluster.comm.connection import Connection
from holdfast.cluster.errors import ConnectError, error_named
from holdfast.cluster.identity import own_identity
from holdfast.cluster.protocol.answers import merged
from holdfast.cluster.protocol.message import Dispatch, Request

#: How long an answer may take that waits for nothing.
ANSWER_SECONDS = 30.0
#: Workers that are to go have so long to end what they run, and all of it may take so long.
GRACE_SECONDS = 30.0
RETIRE_SECONDS = 300.0


class SchedulerComm:
    """A connection by which a scheduler is asked; `open` makes one.

    For the scheduler it is a client that has no futures. If it breaks for good, what waits for an answer raises.

    Attributes
    ----------
    address : str
        The scheduler's.
    """

    def __init__(self, address: str, connection: Connection) -> None:
        self.address = address
        self._connection = connection
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._fragments: dict[int, list[Any]] = {}
        self._over: Exception | None = None
        self._dispatch: Dispatch[None] = Dispatch(
            protocol.client.TO_CLIENT,
            {
                protocol.client.PART: self._on_part,
                protocol.client.REPLY: self._on_reply,
                protocol.client.CLOSING: self._on_closing,
            },
            otherwise=lambda message: None,
        )
        connection.start(self._on_batch, self._on_lost)

    @classmethod
    async def open(cls, address: str, *, token: bytes, name: str, timeout: float = 10.0) -> SchedulerComm:
        """Connect.

        Raises
        ------
        ConnectError, AuthenticationError, VersionMismatchError
            There is no scheduler, or none that could be worked with.
        """
        info = {
            "id": f"cluster-{secrets.token_hex(8)}",
            "name": name,
            **own_identity(),
        }
        return cls(address, await connect(address, token=token, role="client", info=info, timeout=timeout))

    @property
    def is_over(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._over is not None

    async def ask(self, request: Request, patience: float = ANSWER_SECONDS, /, **arguments: Any) -> Any:
        """What the scheduler answers to a request within so many seconds.

        Raises
        ------
        TimeoutError
            There was no answer in time.
        ConnectError
            The scheduler is gone.
        Exception
            What the scheduler has named.
        """
        if self._over is not None:
            raise ConnectError(str(self._over))
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._connection.send(protocol.client.REQUEST(number, *request(**arguments)))
        try:
            async with asyncio.timeout(patience):
                return await answer
        except TimeoutError as error:
            if answer.done() and not answer.cancelled() and answer.exception() is error:
                raise
            raise TimeoutError(f"the scheduler at {self.address} did not answer within {patience:g} s") from None
        finally:
            self._waiting.pop(number, None)
            self._fragments.pop(number, None)

    async def identity(self) -> dict[str, Any]:
        """What `Client.scheduler_info` gives."""
        return dict(await self.ask(protocol.requests.INFO))

    async def adaptive_target(self, target_duration: float = 5.0, brings_memory: bool = False) -> int:
        """How many workers the cluster should have (`cluster/scheduler/watching/scaling.py`)."""
        target = await self.ask(
            protocol.requests.ADAPTIVE_TARGET, target_duration=float(target_duration), brings_memory=brings_memory
        )
        return int(target)

    async def workers_to_close(
        self,
        n: int | None = None,
        target: int | None = None,
        minimum: int | None = None,
        memory_ratio: float | None = None,
        key: Callable[[dict[str, Any]], Any] | str | None = None,
        attribute: str = "address",
    ) -> list[Any]:
        """The workers that it costs least to close; ``attribute`` says by what they are named."""
        workers = (await self.identity())["workers"]
        groups = None
        if key is not None:
            groups = {address: _group(key, {"address": address, **worker}) for address, worker in workers.items()}
        addresses = await self.ask(
            protocol.requests.WORKERS_TO_CLOSE,
            n=n,
            target=target,
            minimum=minimum,
            memory_ratio=None if memory_ratio is None else float(memory_ratio),
            groups=groups,
        )
        if attribute == "address":
            return list(addresses)
        return [workers[address][attribute] for address in addresses if address in workers]

    async def retire_workers(
        self,
        workers: Sequence[str] | None = None,
        names: Sequence[Any] | None = None,
        *,
        close_workers: bool = True,
        remove: bool = True,
        close_hosts: bool = False,
        grace: float = GRACE_SECONDS,
        timeout: float = RETIRE_SECONDS,
    ) -> dict[str, Any]:
        """Let workers go: they get nothing new, what only they have is moved, and then they end."""
        named = [str(name) for name in (workers if workers is not None else names or ())]
        answer = await self.ask(
            protocol.requests.RETIRE_WORKERS,
            timeout + ANSWER_SECONDS,
            workers=named,
            close_workers=close_workers,
            close_hosts=close_hosts,
            awaits_end=remove,
            grace=grace,
            timeout=timeout,
        )
        return dict(answer)

    def close(self) -> None:
        """Leave. What waits for an answer raises."""
        self._end(ConnectError("the cluster has closed its connection"))
        self._connection.close()

    def _on_batch(self, batch: tuple[Any, ...]) -> None:
        for message in batch:
            self._dispatch(message)

    def _on_part(self, number: int, fragment: Any) -> None:
        if number in self._waiting:
            self._fragments.setdefault(number, []).append(fragment)

    def _on_reply(self, number: int, ok: bool, value: Any) -> None:
        answer = self._waiting.get(number)
        if answer is None or answer.done():
            return
        if ok:
            fragments = self._fragments.pop(number, None)
            answer.set_result(merged([*fragments, value]) if fragments else value)
        else:
            answer.set_exception(error_named(*value))

    def _on_closing(self, reason: str) -> None:
        self._end(ConnectError(f"the cluster is shutting down: {reason}"))

    def _on_lost(self, error: Exception | None) -> None:
        self._end(ConnectError(f"the connection to the scheduler was lost{f' ({error})' if error else ''}"))

    def _end(self, reason: Exception) -> None:
        self._over = self._over or reason
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ConnectError(str(self._over)))


def _group(key: Callable[[dict[str, Any]], Any] | str, worker: dict[str, Any]) -> str:
    group = worker.get(key) if isinstance(key, str) else key(worker)
    return f"{type(group).__name__} {group!r}"[:1000]
