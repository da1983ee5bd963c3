"""`progress`: a line in a terminal, a widget in a notebook."""

from __future__ import annotations

import io
import sys
import types

import dask
import dask.array as da
import pytest

from holdfast import progress
from holdfast.client.futures import bars
from tests.support.waiting import until


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    out = Terminal()
    monkeypatch.setattr(bars, "sys", types.SimpleNamespace(stdout=out))
    monkeypatch.setenv("COLUMNS", "200")
    return out


def last_line(terminal):
    return terminal.getvalue().split("\r")[-1]


def wait_for(path):
    until(path.exists, "the test lets it go on")


def longer(n):
    return n + 1


def fail(n):
    raise ValueError(f"as it should: {n}")


def test_a_line_that_ends_when_all_are_done(run, terminal):
    async def case(client, got):
        first = client.map(longer, range(5), pure=False)
        futures = {"a": [client.map(abs, first, pure=False)], "b": client.submit(sum, first, pure=False)}
        assert await got(progress(futures)) is None
        line = last_line(terminal)
        assert line.startswith("[########################################] 100% ")
        assert "abs 5/5" in line
        assert "sum 1/1" in line
        assert terminal.getvalue().endswith("\n")

    run(case)


def test_what_is_needed_counts_too_and_what_fails_is_named(client, terminal, tmp_path):
    waiting = client.submit(wait_for, tmp_path / "go", pure=False)
    inner = [client.submit(lambda n, _: n, n, waiting, key=f"inner-{n}") for n in range(3)]
    futures = [client.submit(fail, each, key=f"outer-{n}") for n, each in enumerate(inner)]
    del inner
    written = terminal.write

    def write(text):
        (tmp_path / "go").touch()  # after the first look
        return written(text)

    terminal.write = write
    progress(futures)
    text = terminal.getvalue()
    assert "inner 0/3" in text.split("\r")[1]
    assert "outer 0/3" in text.split("\r")[1]
    assert "3 failed" in last_line(terminal)
    assert "'outer-0' failed: ValueError: as it should: 0\n" in text
    assert text.endswith("\n")


def test_a_file_gets_nothing(client, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(bars, "sys", types.SimpleNamespace(stdout=out))
    future = client.submit(abs, -1, pure=False)
    progress(future)
    assert future.done()
    assert out.getvalue() == ""


def test_a_persisted_collection(client, terminal):
    progress(da.ones(10, chunks=2).persist(), dask.delayed(abs)(-1).persist())
    assert "100% 6/6" in last_line(terminal)


def test_groups_and_what_is_left_out(client, terminal):
    done = client.map(abs, range(3), pure=False)
    client.gather(done)
    more = client.map(longer, range(4), pure=False)
    progress(done, more, group_by=lambda key: "own group", complete=True)
    assert "7/7" in last_line(terminal)
    progress(done, complete=False)
    assert "100% 0/0" in last_line(terminal)
    progress(done, more, multi=False)
    assert "abs" not in last_line(terminal)
    with pytest.raises(ValueError, match="group_by"):
        progress(done, group_by="spans")


def test_what_has_no_futures_is_refused(client):
    with pytest.raises(TypeError, match="takes futures"):
        progress(3)
    assert progress([]) is None


@pytest.fixture
def shown(monkeypatch):
    """What a pretended notebook shows."""
    found = []

    class Handle:
        def update(self, value):
            found.append(value)

    def display(value, display_id=False):
        found.append(value)
        return Handle()

    module = types.ModuleType("IPython")
    module.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    module.display = types.ModuleType("IPython.display")
    module.display.HTML = str
    module.display.display = display
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", module.display)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    return found


def test_in_a_notebook_it_returns_at_once(run, shown, tmp_path):
    async def case(client, got):
        future = client.submit(wait_for, tmp_path / "go", key="waits-1")
        bar = progress(future, interval=0.01)
        assert not future.done()
        bar._ipython_display_()
        (tmp_path / "go").touch()
        await got(future.result())
        while "done in" not in shown[-1]:
            await got(client.nthreads())
        assert "waits 1/1" in shown[-1]
        (tmp_path / "go").unlink()
        shown.clear()

    run(case)


@pytest.fixture(scope="module")
def kernel():
    """What runs cells as a notebook does, and gives what the notebook is told."""
    pytest.importorskip("ipykernel")
    pytest.importorskip("ipywidgets")
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel()

    def run(cell):
        sent = client.execute(cell, stop_on_error=False)
        told = []
        while True:
            message = client.get_iopub_msg(timeout=60)
            kind, content = message["msg_type"], message["content"]
            if kind == "error":
                raise AssertionError("\n".join(content["traceback"]))
            is_over = kind == "status" and content["execution_state"] == "idle"
            if is_over and message["parent_header"].get("msg_id") == sent:
                return told
            told.append((kind, content))

    yield run
    client.stop_channels()
    manager.shutdown_kernel()
    manager.cleanup_resources()


def opened(told, model):
    """The states of the widgets of a kind that were made."""
    states = [content["data"]["state"] for kind, content in told if kind == "comm_open"]
    return [state for state in states if state["_model_name"] == model]


def printed(told):
    return "".join(content["text"] for kind, content in told if kind == "stream" and content["name"] == "stdout")


SET_UP = """
import os, time
from holdfast import Client, progress

client = Client({address!r}, token={token!r}, attach=False)

def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.001)
    if path.endswith("fails"):
        raise RuntimeError("as it should")

def row(row):
    bar, words = row.children
    return bar.value, bar.max, bar.bar_style, words.value
"""


def test_in_a_real_notebook(kernel, cluster, tmp_path):
    kernel(SET_UP.format(address=cluster.scheduler_address, token=cluster.token))
    paths = [str(tmp_path / name) for name in ("first", "second")]
    told = kernel(
        f"futures = client.map(wait_for, {paths}, key='waits')\n"
        f"futures.append(client.submit(wait_for, {str(tmp_path / 'fails')!r}, key='failing-1'))\n"
        "bar = progress(futures, interval=0.001)\n"
        "bar"
    )
    (shown,) = [content["data"] for kind, content in told if kind in ("display_data", "execute_result")]
    assert "application/vnd.jupyter.widget-view+json" in shown
    (tmp_path / "first").touch()
    told += kernel("futures[0].result()\nwhile bar._box.children[0].children[0].value < 1: time.sleep(0.01)")
    (tmp_path / "second").touch()
    (tmp_path / "fails").touch()
    told += kernel(
        "while 'done in' not in bar._rest_of_box.value: time.sleep(0.01)\n"
        "print(sorted(map(row, bar._box.children[:-1])))\nprint(bar._rest_of_box.value)"
    )
    assert "[(0, 1, 'danger', 'failing 0/1, 1 failed'), (2, 2, 'success', 'waits 2/2')]" in printed(told)
    assert "as it should" in printed(told)
    # Each was made once, however often it has changed.
    assert len(opened(told, "IntProgressModel")) == 2
    assert len(opened(told, "HTMLModel")) == 3


def test_in_a_real_notebook_of_an_asynchronous_client(kernel, cluster, tmp_path):
    kernel(SET_UP.format(address=cluster.scheduler_address, token=cluster.token))
    address, token = cluster.scheduler_address, cluster.token
    (tmp_path / "go").touch()
    told = kernel(
        "import asyncio\n"
        f"async with Client({address!r}, token={token!r}, attach=False, asynchronous=True) as other:\n"
        f"    futures = other.map(wait_for, [{str(tmp_path / 'go')!r}] * 3, key='goes', pure=False)\n"
        "    bar = progress(futures)\n"
        "    while 'done in' not in bar._rest_of_box.value: await asyncio.sleep(0.01)\n"
        "print(row(bar._box.children[0]))"
    )
    assert "(3, 3, 'success', 'goes 3/3')" in printed(told)
    kernel("client.close()")


def test_a_notebook_without_ipython(client, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    with pytest.raises(RuntimeError, match="needs IPython"):
        progress(client.submit(abs, 1), notebook=True)
