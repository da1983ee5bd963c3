"""Tasks that are ended while they run: cancelled with `kill=True`, or longer than their `run_timeout`."""

from __future__ import annotations

import asyncio
import ctypes
import operator
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import dask.array as da
import pytest

from holdfast import CancelledError, Client, LocalCluster, get_client, wait
from tests.support.waiting import DEADLINE_SECONDS, until

FOREVER = 600.0


@pytest.fixture(scope="module")
def alone():
    """One worker with one thread."""
    with LocalCluster(n_workers=1, threads_per_worker=1, object_store_memory="64 MiB") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def wide():
    """One worker with two threads."""
    with LocalCluster(n_workers=1, threads_per_worker=2, object_store_memory="64 MiB") as cluster:
        yield cluster


@pytest.fixture
def client_alone(alone):
    with Client(alone) as client:
        yield client


@pytest.fixture
def client_wide(wide):
    with Client(wide) as client:
        yield client


def hang(begun, seconds=FOREVER, count=None):
    """Say that it has begun, by a file with the number of its process, and go on for long."""
    with open(f"{begun}.new", "w") as file:
        file.write(str(os.getpid()))
    os.replace(f"{begun}.new", begun)
    time.sleep(seconds)
    return os.getpid()


def hang_for(argument, begun):
    return hang(begun)


def pid_of(begun: Path) -> int:
    until(begun.exists, f"{begun.name} begins")
    return int(begun.read_text())


async def begun_pid(begun: Path) -> int:
    while not begun.exists():
        await asyncio.sleep(0.01)
    return int(begun.read_text())


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] != b"Z"


def getpid(_=None):
    return os.getpid()


def test_a_task_that_runs_is_ended_with_its_process_when_cancel_returns(run_outside_of_tasks, tmp_path):
    async def case(client, got):
        future = client.submit(hang, tmp_path / "begun", pure=False)
        pid = await begun_pid(tmp_path / "begun")
        await got(client.cancel(future, kill=True))
        assert not lives(pid)
        assert future.cancelled()
        await got(client.wait_for_workers(2))
        pids = await got(client.gather(client.map(getpid, range(20), pure=False)))
        assert pid not in pids

    run_outside_of_tasks(case)


def test_a_future_kills_too_and_says_why(run_outside_of_tasks, tmp_path):
    async def case(client, got):
        future = client.submit(hang, tmp_path / "begun", pure=False)
        pid = await begun_pid(tmp_path / "begun")
        await got(future.cancel(kill=True, reason="too slow", msg="See the manual"))
        assert not lives(pid)
        with pytest.raises(CancelledError, match=r"cancelled by .*: too slow\. See the manual$"):
            await got(future.result())

    run_outside_of_tasks(case)


def test_without_kill_a_task_that_runs_goes_on_to_its_end(client_alone, tmp_path):
    future = client_alone.submit(hang, tmp_path / "begun", 0.3, pure=False)
    pid = pid_of(tmp_path / "begun")
    future.cancel()
    assert future.cancelled()
    assert client_alone.submit(getpid, pure=False).result() == pid


def test_the_worker_is_back_without_a_pause_each_time_and_has_not_died(client_alone, tmp_path):
    pids = set()
    for number in range(5):
        future = client_alone.submit(hang, tmp_path / f"begun{number}", pure=False)
        pids.add(pid_of(tmp_path / f"begun{number}"))
        future.cancel(kill=True)
    pids.add(client_alone.submit(getpid, pure=False).result(DEADLINE_SECONDS))
    assert len(pids) == 6


def test_what_ran_beside_it_is_run_again_and_never_to_blame(client_wide, tmp_path):
    innocent = client_wide.submit(hang, tmp_path / "innocent", 1.0, pure=False)
    for number in range(4):  # more often than a task may kill workers
        (tmp_path / "innocent").unlink(missing_ok=True)
        future = client_wide.submit(hang, tmp_path / f"begun{number}", pure=False)
        pid = pid_of(tmp_path / f"begun{number}")
        assert not innocent.done()
        future.cancel(kill=True)
        assert not lives(pid)
    assert innocent.result(DEADLINE_SECONDS) > 0


def test_a_task_in_the_queue_of_a_worker_is_dropped_and_the_process_lives(client_alone, tmp_path):
    first = client_alone.submit(hang, tmp_path / "first", 0.5, pure=False)
    pid = pid_of(tmp_path / "first")
    queued = [client_alone.submit(hang, tmp_path / f"queued{n}", pure=False) for n in range(3)]
    client_alone.cancel(queued, kill=True)
    assert first.result(DEADLINE_SECONDS) == pid
    assert client_alone.submit(getpid, pure=False).result() == pid
    assert not list(tmp_path.glob("queued*"))


def test_results_that_are_there_stay_there(client_alone, tmp_path):
    small = client_alone.map(operator.neg, range(50))
    large = client_alone.submit(bytes, 1_000_000, pure=False)
    wait([*small, large])
    future = client_alone.submit(hang, tmp_path / "begun", pure=False)
    pid_of(tmp_path / "begun")
    behind = client_alone.submit(sum, small)
    future.cancel(kill=True)
    assert client_alone.gather(small) == [-n for n in range(50)]
    assert large.result() == bytes(1_000_000)
    assert behind.result(DEADLINE_SECONDS) == -sum(range(50))


def test_what_another_client_holds_is_ended_only_with_force(cluster, client, tmp_path):
    with Client(cluster, set_as_default=False, name="other") as other:
        mine = client.submit(hang, tmp_path / "begun", key="shared-hang")
        pid = pid_of(tmp_path / "begun")
        its = other.submit(hang, tmp_path / "begun", key="shared-hang")
        until(lambda: client.who_has() is not None and len(other.who_has([its])) >= 0, "it is held")
        client.cancel(mine, kill=True)
        assert mine.cancelled()
        assert not its.done()
        assert lives(pid)
        client.cancel(
            client.submit(hang, tmp_path / "begun", key="shared-hang"), kill=True, force=True, reason="enough"
        )
        assert not lives(pid)
        with pytest.raises(CancelledError, match="enough"):
            its.result(DEADLINE_SECONDS)


def test_what_is_computed_only_for_it_is_ended_too(client, tmp_path):
    x = da.ones(2, chunks=1).map_blocks(hang_for, tmp_path / "begun", dtype=float, meta=da.ones(1)._meta)
    total = client.compute(x.sum())
    pid = pid_of(tmp_path / "begun")
    client.cancel(total, kill=True)
    assert not lives(pid)
    client.wait_for_workers(2)


def waits_for(begun, child_begun):
    with open(begun, "w") as file:
        file.write(str(os.getpid()))
    return get_client().submit(hang, child_begun, 1.0, pure=False).result()


def test_a_task_that_waits_for_others_is_ended_and_what_it_has_submitted_is_dropped(client, tmp_path):
    parent = client.submit(waits_for, tmp_path / "parent", tmp_path / "child", pure=False)
    pid_of(tmp_path / "child")
    parent.cancel(kill=True)
    assert not lives(int((tmp_path / "parent").read_text()))
    assert client.submit(operator.add, 1, 2, pure=False).result(DEADLINE_SECONDS) == 3
    until(lambda: not client.who_has(), "nothing is left of them")


def starts_a_program(begun):
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(f"{begun}.new", "w") as file:
        file.write(str(program.pid))
    os.replace(f"{begun}.new", begun)
    return program.wait()


def test_what_it_has_started_ends_with_it(client_alone, tmp_path):
    future = client_alone.submit(starts_a_program, tmp_path / "begun", pure=False)
    pid = pid_of(tmp_path / "begun")
    assert lives(pid)
    future.cancel(kill=True)
    until(lambda: not lives(pid), "the program has ended")


def keeps_the_interpreter(begun):
    with open(f"{begun}.new", "w") as file:
        file.write(str(os.getpid()))
    os.replace(f"{begun}.new", begun)
    ctypes.PyDLL(None).sleep(600)


@pytest.mark.parametrize("options", [{}, {"run_timeout": "5 s"}])
def test_a_call_that_keeps_the_interpreter_to_itself_is_ended(client_alone, tmp_path, options):
    future = client_alone.submit(keeps_the_interpreter, tmp_path / "begun", pure=False, **options)
    pid = pid_of(tmp_path / "begun")
    if options:
        with pytest.raises(TimeoutError, match="ran longer than its run_timeout of 5 s"):
            future.result(DEADLINE_SECONDS)
    else:
        future.cancel(kill=True)
    until(lambda: not lives(pid), "its process has ended")


def test_a_worker_that_shares_its_process_can_not_be_ended_and_the_error_says_so(in_process, tmp_path):
    with Client(in_process, set_as_default=False) as client:
        future = client.submit(hang, tmp_path / "begun", 0.5, pure=False)
        pid_of(tmp_path / "begun")
        with pytest.raises(RuntimeError, match=r"cancelled, but not killed: .*goes on to its end"):
            client.cancel(future, kill=True)
        assert future.cancelled()
        assert client.submit(operator.add, 1, 2, pure=False).result(DEADLINE_SECONDS) == 3


def cancels_another(begun):
    client = get_client()
    future = client.submit(hang, begun, pure=False)
    while not os.path.exists(begun):
        time.sleep(0.01)
    client.cancel(future, kill=True)
    return int(open(begun).read())


def test_a_task_ends_another_one_in_another_process(client, tmp_path):
    killed = client.submit(cancels_another, tmp_path / "begun", pure=False).result(DEADLINE_SECONDS)
    assert not lives(killed)
    client.wait_for_workers(2)


def test_a_task_does_not_end_its_own_process(client_wide, tmp_path):
    future = client_wide.submit(cancels_another, tmp_path / "begun", pure=False)
    with pytest.raises(RuntimeError, match="with the very task that cancels"):
        future.result(DEADLINE_SECONDS)
    pid = int((tmp_path / "begun").read_text())
    assert lives(pid)
    os.kill(pid, 9)  # what was cancelled would go on for long
    assert client_wide.submit(getpid, pure=False).result(DEADLINE_SECONDS) != pid


def test_many_threads_cancel_at_once_and_each_hears_of_its_own(client, tmp_path):
    done = []

    def end(number):
        future = client.submit(hang, tmp_path / f"{number}", pure=False)
        pid = pid_of(tmp_path / f"{number}")
        future.cancel(kill=True)
        done.append(lives(pid))

    threads = [threading.Thread(target=end, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [False, False]
    client.wait_for_workers(2)


@pytest.mark.parametrize("name", ["reason", "msg"])
def test_a_reason_is_text(client, name):
    future = client.submit(operator.add, 1, 2)
    with pytest.raises(TypeError, match=f"{name} is a text"):
        client.cancel(future, **{name: 3})
    assert future.result() == 3


def test_a_very_long_reason_is_cut(client, tmp_path):
    future = client.submit(time.sleep, 0.1, pure=False)
    future.cancel(reason="x" * 100_000)
    with pytest.raises(CancelledError) as caught:
        future.result()
    assert len(str(caught.value)) < 2_000


@pytest.mark.parametrize("way", ["cancel", "run_timeout"])
def test_what_follows_at_once_meets_the_process_that_comes(client_alone, tmp_path, way):
    (worker,) = client_alone.nthreads()
    for number in range(2):
        (pid,) = client_alone.run(getpid).values()
        if way == "cancel":
            future = client_alone.submit(hang, tmp_path / f"begun{number}", pure=False)
            assert pid_of(tmp_path / f"begun{number}") == pid
            future.cancel(kill=True)
        else:
            future = client_alone.submit(hang, tmp_path / f"begun{number}", pure=False, run_timeout=0.2)
            with pytest.raises(TimeoutError, match="whose process was ended"):
                future.result(DEADLINE_SECONDS)
        assert not lives(pid)
        then = client_alone.run(getpid) if number % 2 else client_alone.run(getpid, workers=[worker])
        assert list(then) == [worker]
        assert then[worker] != pid
    future = client_alone.submit(hang, tmp_path / "last", pure=False)
    pid_of(tmp_path / "last")
    future.cancel(kill=True)
    assert client_alone.restart_workers([worker]) == {worker: "OK"}


# -- run_timeout


def test_a_task_that_takes_too_long_fails_and_the_rest_goes_on(run, tmp_path):
    async def case(client, got):
        long = client.submit(time.sleep, 5, pure=False, run_timeout="200 ms", key=f"long-{os.getpid()}-{time.time()}")
        short = client.submit(operator.add, 1, 2, pure=False, run_timeout=30)
        with pytest.raises(TimeoutError, match=r"'long-.*' ran longer than its run_timeout of 0\.2 s, on worker '"):
            await got(long.result())
        assert await got(short.result()) == 3

    run(case)


@pytest.mark.parametrize("way", ["map", "compute", "persist", "get", "annotation", "annotated graph", "delayed"])
def test_every_way_to_submit_takes_it(client, way):
    graph = {"x": (time.sleep, 30)}
    slow = dask.delayed(time.sleep, pure=False)(30)
    array = da.ones(1, chunks=1)

    def annotated():
        with dask.annotate(run_timeout="0.2 s"):
            return client.submit(time.sleep, 30, pure=False).result()

    def annotated_graph():
        with dask.annotate(run_timeout=lambda key: "0.2 s"):
            x = array.map_blocks(lambda block: time.sleep(30), dtype=float, meta=array._meta)
        return x.compute()

    ways = {
        "map": lambda: client.gather(client.map(time.sleep, [30], pure=False, run_timeout=0.2)),
        "compute": lambda: client.compute(slow, run_timeout="200ms").result(),
        "persist": lambda: client.persist(slow, run_timeout=0.2).compute(),
        "get": lambda: client.get(graph, "x", run_timeout=0.2),
        "annotation": annotated,
        "annotated graph": annotated_graph,
        "delayed": lambda: slow.compute(run_timeout=0.2),
    }
    with pytest.raises(TimeoutError, match=r"ran longer than its run_timeout of 0\.2 s"):
        ways[way]()


def test_time_in_the_queue_does_not_count(client_alone):
    futures = client_alone.map(time.sleep, [0.3] * 12, pure=False, run_timeout=3)
    assert client_alone.gather(futures) == [None] * 12


def waits_longer_than_it_may(n):
    return get_client().submit(time.sleep, n, pure=False).result()


def test_time_in_which_it_waits_for_others_does_not_count(client_alone):
    future = client_alone.submit(waits_longer_than_it_may, 9.0, run_timeout=8, pure=False)
    assert future.result(DEADLINE_SECONDS) is None


def slow_the_first_time(marker):
    if not os.path.exists(marker):
        open(marker, "w").close()
        time.sleep(30)
    return "done"


def test_retries_apply(client, tmp_path):
    future = client.submit(slow_the_first_time, tmp_path / "marker", run_timeout=10, retries=1, pure=False)
    assert future.result(DEADLINE_SECONDS) == "done"


@pytest.mark.parametrize(
    ("limit", "error"),
    [(0, ValueError), (-1, ValueError), (float("nan"), ValueError), (float("inf"), ValueError), ("soon", ValueError),
     ([1], TypeError), (True, TypeError)],
)  # fmt: skip
def test_what_is_no_time_is_refused(client, limit, error):
    with pytest.raises(error, match=r"run_timeout|no time"):
        client.submit(operator.add, 1, 2, run_timeout=limit)
