"""Drivers take operations to their ends: what they give, what they raise, and what is left where they stop."""

from __future__ import annotations

import ast
import asyncio
import gc
import threading
from pathlib import Path

import pytest

import holdfast
from holdfast.client.drivers.asynchronous import AsynchronousDriver
from holdfast.client.drivers.blocking import BLOCKING, BlockingDriver
from holdfast.client.drivers.effects import Elsewhere, NotAtOnce, Signal, Sleep, WouldWaitError
from holdfast.client.raising import raise_in_operation


def run_blocking(operation):
    return BLOCKING.run(operation)


def run_asynchronous(operation):
    async def main():
        return await AsynchronousDriver().run(operation)

    return asyncio.run(main())


@pytest.fixture(params=[run_blocking, run_asynchronous])
def run(request):
    return request.param


def fail():
    raise LookupError("why")


class TestOperations:
    def test_gives_what_it_returns(self, run):
        def operation():
            yield Sleep(0)
            got = yield Elsewhere(lambda: 3)
            return got + 1

        assert run(operation()) == 4

    def test_one_that_never_waits(self, run):
        def operation():
            return 7
            yield

        assert run(operation()) == 7

    def test_what_fails_while_it_is_waited_for_is_raised_in_the_operation(self, run):
        def operation():
            try:
                yield Elsewhere(fail)
            except LookupError as error:
                text = str(error)
            return (yield Elsewhere(lambda: text))

        assert run(operation()) == "why"

    def test_what_it_raises_comes_out(self, run):
        def operation():
            yield Sleep(0)
            fail()

        with pytest.raises(LookupError, match="why"):
            run(operation())

    def test_a_task_that_raised_what_no_generator_can_raise(self):
        def operation():
            yield Sleep(0)
            raise_in_operation(StopIteration("of a task"))

        with pytest.raises(StopIteration, match="of a task"):
            run_blocking(operation())
        with pytest.raises(RuntimeError, match="a task raised StopIteration") as caught:
            run_asynchronous(operation())
        assert type(caught.value.__cause__) is StopIteration

    def test_one_that_is_interrupted_puts_in_order_what_it_has_begun(self):
        ended = []

        def operation():
            try:
                yield Elsewhere(lambda: (_ for _ in ()).throw(KeyboardInterrupt))
            finally:
                ended.append(1)

        with pytest.raises(KeyboardInterrupt):
            run_blocking(operation())
        assert ended == [1]

    def test_one_that_nobody_goes_on_with_ends_where_it_yielded(self):
        ended = []

        def operation():
            try:
                yield Sleep(0)
            finally:
                ended.append(1)

        begun = operation()
        begun.send(None)
        del begun
        gc.collect()
        assert ended == [1]


class TestOnALoop:
    def test_what_is_tried_at_once_runs_on_the_loop_and_the_rest_elsewhere(self):
        threads = []

        def note():
            threads.append(threading.current_thread())

        def not_now():
            note()
            raise NotAtOnce

        def operation():
            yield Elsewhere(fail, note)
            yield Elsewhere(note, not_now)

        run_asynchronous(operation())
        here = threading.current_thread()
        assert threads[:2] == [here, here]
        assert threads[2] is not here

    def test_a_cancelled_wait_undoes_what_comes_of_it(self):
        async def main():
            go_on, undone = threading.Event(), []

            def operation():
                yield Elsewhere(lambda: go_on.wait(20) and 5, undo=undone.append)

            waiting = asyncio.ensure_future(AsynchronousDriver().run(operation()))
            await asyncio.sleep(0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert undone == []
            go_on.set()
            await asyncio.get_running_loop().shutdown_default_executor()
            assert undone == [5]

        asyncio.run(main())

    def test_a_call_that_never_waits_does_at_once_what_it_can(self):
        async def main():
            driver = AsynchronousDriver()

            def quick():
                got = yield Elsewhere(fail, lambda: 3)
                return got

            def slow():
                yield Sleep(0)

            assert driver.finish(quick()) == 3
            with pytest.raises(WouldWaitError, match="returns at once"):
                driver.finish(slow())
            assert not driver.may_block
            # In another thread the same call may wait.
            assert await asyncio.to_thread(lambda: driver.may_block)
            await asyncio.to_thread(lambda: driver.finish(slow()))

        asyncio.run(main())
        assert BlockingDriver().may_block

    def test_a_signal_ends_a_wait_from_any_thread_once(self):
        async def main():
            signal = Signal()
            threading.Thread(target=signal.give).start()
            assert await signal.wait(20)
            signal.give()
            late = Signal()
            assert not await late.wait(0.001)
            late.give()
            return signal

        asyncio.run(main()).give()  # its loop is closed: nobody waits

    def test_a_coroutine_in_the_loop_of_the_connection(self):
        async def three():
            await asyncio.sleep(0)
            return 3

        driver = BlockingDriver()

        def operation(driver, make, timeout=None):
            return (yield driver.in_loop(make, timeout))

        try:
            assert driver.run(operation(driver, three)) == 3
            with pytest.raises(TimeoutError):
                driver.run(operation(driver, lambda: asyncio.sleep(60), 0.01))
        finally:
            driver.thread.close()

        async def main():
            driver = AsynchronousDriver()
            assert await driver.run(operation(driver, three)) == 3
            with pytest.raises(TimeoutError):
                await driver.run(operation(driver, lambda: asyncio.sleep(60), 0.01))

        asyncio.run(main())


def test_no_operation_holds_a_lock_where_it_yields():
    """Rule 2 of `holdfast.client.drivers`: nothing that is a lock is held around a yield."""
    held = []
    for path in (Path(holdfast.__file__).parent / "client").resolve().rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.With) and any("lock" in ast.unparse(item.context_expr) for item in node.items):
                inside = [each for body in node.body for each in ast.walk(body)]
                held += [f"{path.name}:{each.lineno}" for each in inside if isinstance(each, ast.Yield | ast.YieldFrom)]
    assert held == []
