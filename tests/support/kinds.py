"""Clients of each kind: blocking, asynchronous on each loop, and in a task. A case that is written once runs in all."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import tornado.ioloop
import uvloop

from holdfast import Client, LocalCluster, get_client

DEADLINE_SECONDS = 30

#: ``case(client, got)``; ``await got(what a call gives)`` is what the call gives in a blocking client.
Case = Callable[[Client, Callable[[Any], Awaitable[Any]]], Coroutine[Any, Any, None]]


def on_asyncio(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


def on_uvloop(coroutine: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


def on_tornado(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def run() -> Any:
        return await coroutine

    return in_tornado(run)


def in_tornado(function: Callable[[], Awaitable[Any]]) -> Any:
    loop = tornado.ioloop.IOLoop(make_current=False)
    try:
        return loop.run_sync(function)
    finally:
        loop.run_sync(loop.asyncio_loop.shutdown_default_executor)
        loop.close()


LOOPS = {"asyncio": on_asyncio, "uvloop": on_uvloop, "tornado": on_tornado}
#: Clients outside of tasks.
OUTSIDE = ("blocking", *LOOPS)
KINDS = (*OUTSIDE, "task")


async def got(given: Any) -> Any:
    return await given if inspect.iscoroutine(given) else given


def run_outside(kind: str, cluster: LocalCluster, case: Case, **options: Any) -> None:
    """Run a case with a client of its own, which has these options."""

    async def with_asynchronous() -> None:
        async with Client(cluster, asynchronous=True, set_as_default=False, **options) as client:
            await asyncio.wait_for(case(client, got), DEADLINE_SECONDS)

    if kind == "blocking":
        with Client(cluster, set_as_default=False, **options) as client:
            asyncio.run(case(client, got))
    else:
        LOOPS[kind](with_asynchronous())


_cases: dict[int, Case] = {}
_numbers = itertools.count()


def run_in_task(cluster: LocalCluster, case: Case) -> None:
    """Run a case in a task of a cluster whose workers are in this process, so that no case has to be pickled."""
    number = next(_numbers)
    _cases[number] = case
    try:
        with Client(cluster, set_as_default=False) as client:
            client.submit(_run_case, number, pure=False).result(timeout=2 * DEADLINE_SECONDS)
    finally:
        del _cases[number]


def _run_case(number: int) -> None:
    asyncio.run(_cases[number](get_client(), got))
