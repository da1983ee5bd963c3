"""What clients see of the processes of a cluster: stacks, logs, profiles, records of tasks."""

from __future__ import annotations

import logging
import operator
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
from waiting import until

from holdfast import Client, LocalCluster, get_client, get_task_stream
from holdfast.client.operations import diagnostics

_gates = {}


@pytest.fixture
def gate():
    """A gate that tasks of a cluster in this process wait at."""
    name = f"gate-{time.monotonic()}"
    _gates[name] = threading.Event()
    yield name
    _gates.pop(name).set()


def wait_at_gate(name):
    return _gates[name].wait(30)


def wait_for_another(name):
    return get_client().submit(wait_at_gate, name, pure=False).result()


def burn(seconds):
    until_ = time.monotonic() + seconds
    n = 0
    while time.monotonic() < until_:
        n += 1
    return seconds


def warn(text):
    logging.getLogger("of.a.user").warning("%s", text)


def log_info(text):
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        logging.getLogger("of.a.user").info("%s 100 %%", text, exc_info=True)


class TestCallStack:
    def test_it_shows_where_running_tasks_are_and_nothing_of_the_worker(self, in_process, gate):
        with Client(in_process, set_as_default=False) as client:
            future = client.submit(wait_at_gate, gate, key="stopped-here")
            other = client.submit(wait_at_gate, gate, key=("other", 1))
            stacks = until(lambda: len(s := client.call_stack([future, other])) == 2 and s, "both run")
            (frames,) = [tasks["stopped-here"] for tasks in stacks.values() if "stopped-here" in tasks]
            assert "in wait_at_gate\n    return _gates[name].wait(30)" in frames[0]
            assert "threading.py" in frames[-1]
            (address,) = client.call_stack(future)
            assert address in client.scheduler_info()["workers"]
            assert list(client.call_stack(keys=[("other", 1)]).values()) == [{("other", 1): frames}]
            assert client.call_stack(keys=["no such key"]) == {}
            assert client.call_stack(futures=[future], keys=[("other", 1)]).keys() == stacks.keys()
            _gates[gate].set()
            client.gather([future, other])
            until(lambda: client.call_stack() == {}, "nothing runs")

    def test_a_task_that_waits_for_another_is_shown_too(self, in_process, gate):
        with Client(in_process, set_as_default=False) as client:
            future = client.submit(wait_for_another, gate, key="outer")

            def seen():
                stacks = client.call_stack()
                return len([key for tasks in stacks.values() for key in tasks]) == 2 and stacks

            stacks = until(seen, "both are seen")
            (frames,) = [tasks["outer"] for tasks in stacks.values() if "outer" in tasks]
            assert "in wait_for_another" in frames[0]
            _gates[gate].set()
            assert future.result(timeout=30)

    def test_in_all_kinds_of_clients(self, run):
        async def case(client, got):
            stacks = await got(client.call_stack())
            assert all("_run_case" in tasks[key][0] for tasks in stacks.values() for key in tasks)

        run(case)


class TestLogs:
    def test_lines_of_tasks_and_of_workers_the_newest_first(self, cluster, client):
        for n in range(3):
            client.submit(warn, f"number {n} of {id(self)}", workers=f"{next(iter(client.nthreads()))}").result()
        logs = client.get_worker_logs()
        assert set(logs) == set(client.nthreads())
        ours = [(level, text) for lines in logs.values() for level, text in lines if f"of {id(self)}" in text]
        assert [text.partition("number ")[2][0] for _, text in ours] == ["2", "1", "0"]
        assert {level for level, _ in ours} == {"WARNING"}
        assert "of.a.user: number" in ours[0][1]
        (address,) = [address for address, lines in logs.items() if any(str(id(self)) in text for _, text in lines)]
        (line,) = client.get_worker_logs(n=1, workers=address)[address]
        assert "number 2" in line[1]
        assert client.get_worker_logs(n=0) == dict.fromkeys(logs, ())

    def test_in_all_kinds_of_clients(self, run):
        async def case(client, got):
            assert set(await got(client.get_worker_logs(n=1))) == set(await got(client.nthreads()))
            nodes = {worker["node"] for worker in (await got(client.scheduler_info()))["workers"].values()}
            assert set(await got(client.get_worker_logs(nanny=True))) == nodes
            lines = await got(client.get_scheduler_logs(n=3))
            assert len(lines) <= 3
            for wrong in (-1, 1.5, "x", True):
                with pytest.raises(ValueError, match="n is a number from 0 on, or None for all"):
                    await got(client.get_scheduler_logs(wrong))
                with pytest.raises(ValueError, match="n is a number from 0 on, or None for all"):
                    await got(client.get_worker_logs(wrong))
            with pytest.raises(ValueError, match="no worker is called 'nobody'"):
                await got(client.get_worker_logs(workers="nobody"))

        run(case)

    def test_the_scheduler_and_the_nodes_have_logs_of_their_own(self):
        with (
            LocalCluster(1, 1, object_store_memory="64 MiB", silence_logs="INFO") as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            lines = client.get_scheduler_logs()
            assert any("holdfast.cluster.scheduler" in text and level == "INFO" for level, text in lines)
            stamps = [text[:23] for _, text in lines]
            assert stamps == sorted(stamps, reverse=True)
            newest = client.get_scheduler_logs(n=2)
            assert len(newest) == 2
            assert newest[0][1][:23] >= stamps[0], "more may have been logged since"
            assert len(client.get_worker_logs(nanny=True)) == 1


class TestForwarding:
    @pytest.fixture
    def caught(self):
        """Records that the logger of a user takes in this process."""
        records = []

        class Catching(logging.Handler):
            def emit(self, record):
                records.append(record)

        logger = logging.getLogger("of.a.user")
        handler = Catching()
        logger.addHandler(handler)
        before = logger.level
        logger.setLevel(logging.DEBUG)
        yield records
        logger.removeHandler(handler)
        logger.setLevel(before)

    def test_what_workers_log_is_logged_here(self, client, caught):
        client.forward_logging("of.a", level="INFO")
        client.submit(log_info, "one").result()
        record = until(lambda: caught and caught[0], "it is here")
        assert record.name == "of.a.user"
        assert record.getMessage() == "one 100 %"
        assert record.levelno == logging.INFO
        assert record.funcName == "log_info"
        assert record.process != os.getpid()
        assert "log_info" in str(record.task)
        assert "ZeroDivisionError" in record.exc_text
        client.unforward_logging("of.a")
        client.submit(log_info, "two").result()
        client.submit(warn, "three").result()
        client.forward_logging()
        client.submit(warn, "four").result()
        until(lambda: "four" in [each.getMessage() for each in caught], "it is forwarded again")
        assert not {"two", "three"} & {each.getMessage().split()[0] for each in caught}
        client.unforward_logging()

    def test_in_all_kinds_of_clients(self, run):
        async def case(client, got):
            await got(client.forward_logging("some.logger", logging.ERROR))
            await got(client.unforward_logging("some.logger"))
            with pytest.raises(ValueError, match=r"the logger 'some\.logger' is not forwarded"):
                await got(client.unforward_logging("some.logger"))
            with pytest.raises(ValueError, match="a level is a number, or a name such as 'INFO'"):
                await got(client.forward_logging(level="loud"))
            with pytest.raises(TypeError, match="logger_name is the name of a logger"):
                await got(client.forward_logging(3))

        run(case)

    def test_workers_that_join_later_forward_and_record_too(self, caught):
        with (
            LocalCluster(1, 1, object_store_memory="64 MiB") as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            client.forward_logging("of.a")
            client.get_task_stream(count=0)
            (worker,) = client.scheduler_info()["workers"].values()
            os.kill(worker["pid"], signal.SIGKILL)

            def another_has_logged():
                client.submit(warn, "hello", pure=False).result(timeout=30)
                return any(record.process != worker["pid"] for record in caught)

            until(another_has_logged, "the one in its place forwards")
            until(client.get_task_stream, "it records")


class TestProfile:
    def test_functions_are_found_by_prefix_and_time(self, cluster, client):
        client.gather(client.map(burn, [0, 0.001]))  # which imports this module there
        assert client.profile(key="no-such-prefix")["count"] == 0
        before = time.time()
        client.gather(client.map(burn, [0.3, 0.31]))
        state = until(lambda: (s := client.profile(key="burn"))["count"] > 5 and s, "it was seen")
        assert state["identifier"] == "root"
        (top,) = [child for child in state["children"].values() if child["description"]["name"] == "burn"]
        assert top["count"] > 5
        assert top["description"]["filename"] == __file__
        assert top["description"]["line"]
        assert client.profile(key="no-such-prefix")["count"] == 0
        assert client.profile(key="burn", stop=before - 1)["count"] == 0
        assert client.profile(key="burn", start=before - 1)["count"] == state["count"]
        assert client.profile(key="burn", start="1 h")["count"] == state["count"]
        apart = client.profile(key="burn", merge_workers=False)
        assert set(apart) == set(client.nthreads())
        assert sum(each["count"] for each in apart.values()) == state["count"]
        (one,) = client.profile(workers=[next(iter(apart))], merge_workers=False)
        assert one in apart

    def test_loops_are_looked_at_from_the_first_time_on(self, run):
        async def case(client, got):
            for option in ("server", "scheduler"):
                await got(client.profile(**{option: True}))
                deadline = time.monotonic() + 20
                while not (await got(client.profile(**{option: True})))["count"]:
                    assert time.monotonic() < deadline, f"the loop was not seen: {option}"
            assert (await got(client.profile()))["identifier"] == "root"
            with pytest.raises(ValueError, match="a time is in seconds since 1970"):
                await got(client.profile(start=-5))
            with pytest.raises(TypeError, match="key is the prefix of keys"):
                await got(client.profile(key=("x", 1)))

        run(case)

    def test_a_plot_is_a_figure_and_may_be_saved(self, client, tmp_path):
        client.profile()
        client.submit(burn, 0.2, pure=False).result()
        state, figure = client.profile(plot=True)
        assert state["identifier"] == "root"
        assert type(figure).__module__.startswith("bokeh")
        client.profile(filename=str(tmp_path / "missing" / "profile.html"))
        assert "<html" in (tmp_path / "missing" / "profile.html").read_text()
        with pytest.raises(ValueError, match="a plot is of all workers together"):
            client.profile(plot=True, merge_workers=False)

    def test_without_bokeh_the_error_names_what_to_install(self, client, monkeypatch):
        monkeypatch.setitem(sys.modules, "bokeh.plotting", None)
        for call in (client.profile, client.get_task_stream):
            with pytest.raises(ImportError, match=r"a plot needs bokeh: pip install 'holdfast\[plots\]'"):
                call(plot=True)


class TestTaskStream:
    def test_what_each_task_took(self, run):
        async def case(client, got):
            await got(client.get_task_stream(count=0))
            before = time.time()
            good = client.map(burn, [0.01, 0.02], pure=False)
            bad = client.submit(operator.truediv, 1, 0, pure=False)
            large = client.submit(np.arange, 100_000, pure=False)
            await got(client.gather([*good, bad, large], errors="skip"))
            # A record may come a moment after the result.
            deadline = time.monotonic() + 20
            keys = {future.key for future in (*good, bad, large)}
            while True:
                found = {r["key"]: r for r in await got(client.get_task_stream(start=before - 1)) if r["key"] in keys}
                if len(found) == 4:
                    break
                assert time.monotonic() < deadline
            workers = set(await got(client.nthreads()))
            for record in found.values():
                assert record["worker"] in workers
                assert record["thread"] > 0
                for step in record["startstops"]:
                    assert before - 1 < step["start"] <= step["stop"] < time.time() + 1
            assert found[bad.key]["status"] == "error"
            assert found[large.key]["status"] == "OK"
            assert found[large.key]["nbytes"] > 800_000
            assert found[large.key]["type"] == "numpy.ndarray"
            (compute,) = [s for s in found[good[0].key]["startstops"] if s["action"] == "compute"]
            assert compute["stop"] - compute["start"] > 0.009
            assert len(await got(client.get_task_stream(count=2))) == 2
            assert await got(client.get_task_stream(stop=before - 100)) == ()
            assert all(r["key"] not in keys for r in await got(client.get_task_stream(stop=before)))

        run(case)

    def test_in_a_block_of_code(self, run):
        async def case(client, got):
            if client.asynchronous:
                with pytest.raises(TypeError, match="async with"), get_task_stream(client):
                    pass
                async with get_task_stream(client, plot=True) as stream:
                    await client.gather(client.map(str, range(20), pure=False))
            else:
                with get_task_stream(client, plot=True) as stream:
                    client.gather(client.map(str, range(20), pure=False))
            assert len([record for record in stream.data if record["key"].startswith("str-")]) >= 19
            assert type(stream.figure).__module__.startswith("bokeh")

        run(case)

    def test_a_plot_is_saved(self, client, tmp_path):
        with get_task_stream(plot="save", filename=str(tmp_path / "missing" / "stream.html")) as stream:
            client.gather(client.map(burn, [0.01] * 3, pure=False))
        assert stream.figure is not None
        assert "<html" in (tmp_path / "missing" / "stream.html").read_text()
        records, figure = client.get_task_stream(plot=True)
        assert records
        assert figure.title.text == "Task stream"

    def test_many_records_lie_in_the_store_on_their_way(self, client):
        client.get_task_stream(count=0)
        client.gather(client.map(operator.neg, range(3_000), pure=False))
        until(lambda: len(client.get_task_stream(start="1 minute")) >= 3_000, "all are recorded")


def test_a_process_that_does_not_answer_in_time_is_warned_of_and_left_out(monkeypatch):
    with (
        LocalCluster(1, 1, object_store_memory="64 MiB") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        monkeypatch.setattr(diagnostics, "ANSWER_SECONDS", 0.2)
        (worker,) = client.scheduler_info()["workers"].values()
        os.kill(worker["pid"], signal.SIGSTOP)
        try:
            with pytest.warns(RuntimeWarning, match="did not answer within 0.2 s"):
                assert client.call_stack() == {}
        finally:
            os.kill(worker["pid"], signal.SIGCONT)
