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


class _Widget:
    def __init__(self, *args, **kwargs):
        self.children = args[0] if args and isinstance(args[0], list) else ()
        self.value = args[0] if args and isinstance(args[0], str) else kwargs.get("value")
        self.max = kwargs.get("max")


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


def test_with_widgets(client, shown, monkeypatch):
    widgets = types.ModuleType("ipywidgets")
    widgets.VBox = widgets.HBox = widgets.IntProgress = widgets.HTML = _Widget
    monkeypatch.setitem(sys.modules, "ipywidgets", widgets)
    futures = [*client.map(longer, range(3), pure=False), client.submit(fail, 1, key="failing-1")]
    bar = progress(futures)
    bar._ipython_display_()
    (box,) = shown
    until(lambda: box.children and "done in" in box.children[-1].value, "it is done")
    rows = [row.children for row in box.children[:-1]]
    assert [(each.value, each.max) for each, _ in rows] == [(3, 3), (0, 1)]
    assert "longer 3/3" in rows[0][1].value
    assert "failing 0/1, 1 failed" in rows[1][1].value
    assert "as it should" in box.children[-1].value


def test_a_notebook_without_ipython(client, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    with pytest.raises(RuntimeError, match="needs IPython"):
        progress(client.submit(abs, 1), notebook=True)
