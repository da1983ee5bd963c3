"""What warns of an end that comes, or of a resource that is left open, is an error, wherever code of ours does it."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

CATEGORIES = [DeprecationWarning, PendingDeprecationWarning, FutureWarning]


@pytest.mark.parametrize("category", CATEGORIES)
def test_code_of_ours_that_warns_fails_here(category: type[Warning]) -> None:
    with pytest.raises(category):
        warnings.warn_explicit("old", category, "session.py", 1, module="holdfast.client.core.session")


@pytest.mark.parametrize("category", CATEGORIES)
def test_code_of_ours_that_warns_fails_in_the_processes_that_tests_start(category: type[Warning]) -> None:
    warn = "import warnings; warnings.warn_explicit('old', {}, 'file.py', 1, module='{}')"

    def run(module: str) -> int:
        return subprocess.run(
            [sys.executable, "-c", warn.format(category.__name__, module)], stderr=subprocess.DEVNULL
        ).returncode

    assert run("holdfast.cluster.worker.worker") == 1
    assert run("somebody.else") == 0


PROGRAM = """
import asyncio, gc, os, time
from holdfast import Client, LocalCluster, Lock, Queue, get_client


def nested(x):
    return get_client().submit(abs, x).result()


async def coroutine(x):
    return await get_client().submit(abs, x)


async def main():
    async with Client(n_workers=1, threads_per_worker=1, asynchronous=True) as client:
        assert await client.submit(abs, -1) == 1
    await Client(n_workers=1, threads_per_worker=1, asynchronous=True)  # closed with the loop


if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster) as client:
        assert client.gather(client.map(nested, range(3))) == [0, 1, 2]
        assert client.submit(coroutine, -1).result() == 1
        assert client.submit(list, actor=True).result().append(1).result() is None
        with Lock("lock"):
            Queue("queue").put(1)
        client.run(os.getpid)
        client.run_on_scheduler(os.getpid)
        future = client.submit(time.sleep, 600)
        future.cancel(kill=True)
        client.restart()
        with client.get_executor() as executor:
            assert list(executor.map(abs, [-1])) == [1]
        if (child := os.fork()) == 0:
            raise SystemExit
        os.waitpid(child, 0)
    asyncio.run(main())
    with Client(n_workers=1, threads_per_worker=1, processes=False) as client:
        assert client.submit(abs, -1).result() == 1
    dropped = Client(n_workers=1, threads_per_worker=1, set_as_default=False)
    del dropped
    gc.collect()
    left = Client(n_workers=1, threads_per_worker=1)
    assert left.submit(abs, -1).result() == 1
    print("done")
"""


def test_no_process_leaves_a_resource_open(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    ran = subprocess.run(
        [sys.executable, file],
        env={**os.environ, "PYTHONWARNINGS": "error::ResourceWarning"},  # of the processes that it starts, too
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "done\n"
    assert "ResourceWarning" not in ran.stderr
