"""Which line of a user's code has brought a task: recorded by each call, and told by `Client.explain`."""

from __future__ import annotations

import _thread
import inspect
import queue
import textwrap
import types

import dask
import dask.array as da
import numpy as np
import pytest

from holdfast import get_client
from holdfast.cluster import call_sites
from tests.support.waiting import until


def here(offset=0):
    """The line that calls this, as it is recorded."""
    frame = inspect.currentframe().f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno + offset} in {frame.f_code.co_qualname}"


async def site_of(client, got, future):
    return (await got(client.explain(future))).call_site


class TestWhatIsRecorded:
    def test_every_call_that_brings_something(self, run):
        async def case(client, got):
            future = client.submit(pow, 2, 3, pure=False)
            assert await site_of(client, got, future) == here(-1)
            futures = client.map(abs, range(-3, 0), pure=False)
            assert {await site_of(client, got, each) for each in futures} == {here(-1)}
            scattered = await got(client.scatter(np.arange(10), hash=False))
            assert await site_of(client, got, scattered) == here(-1)
            delayed = client.compute(dask.delayed(abs)(-5))
            assert await site_of(client, got, delayed) == here(-1)
            array = client.persist(da.ones(10, chunks=5))
            assert {await site_of(client, got, key) for key in array.__dask_keys__()} == {here(-1)}
            object_id = await got(client.put("something"))
            where = here(-1)
            objects = (await got(client.memory())).objects
            (key,) = [each["key"] for each in objects if each["object_id"] == str(object_id)]
            assert await site_of(client, got, key) == where
            client.free(object_id)

        run(case)

    def test_a_created_array(self, run):
        async def case(client, got):
            created = await got(client.create(3))
            future = created.seal()
            assert await site_of(client, got, future) == here(-1)

        run(case)

    def test_queues_are_of_the_line_that_mapped_them(self, client):
        items = queue.Queue()
        items.put(-1)
        futures = client.map(abs, items, pure=False)
        where = here(-1)
        assert client.explain(futures.get(timeout=30)).call_site == where
        others = queue.Queue()
        others.put(-1)
        scattered = client.scatter(others, hash=False)
        where = here(-1)
        assert client.explain(scattered.get(timeout=30)).call_site == where

    def test_a_line_in_a_task_and_the_task(self, client):
        def submits():
            client = get_client()
            future = client.submit(pow, 2, 5, pure=False)
            where = here(-1)
            explanation = client.explain(future)
            return where, explanation.call_site, explanation.origin

        future = client.submit(submits, key="submits")
        where, call_site, origin = future.result()
        assert call_site == where
        assert origin["task"] == "submits"


class TestWhichLine:
    """`call_site` looks three frames up: past the operation and the method of the client."""

    @pytest.fixture
    def library(self, tmp_path, monkeypatch):
        """A module that looks like an installed one."""
        path = tmp_path / "library.py"
        path.write_text("def asks(method):\n    return method()\n")
        module = types.ModuleType("library")
        exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
        monkeypatch.setattr(call_sites, "_LIBRARY_FOLDERS", (str(tmp_path),))
        return module

    @staticmethod
    def method():
        return TestWhichLine.operation()

    @staticmethod
    def operation():
        return call_sites.call_site()

    def test_that_of_the_caller(self):
        assert self.method() == here()
        again = []
        for _ in range(2):
            again.append(self.method())
        assert again == [here(-1)] * 2

    def test_a_library_and_who_has_called_it(self, library):
        text = library.asks(self.method)
        assert text == f"{library.asks.__code__.co_filename}:2 in asks, called from {here(-1)}"

    def test_the_cell_of_a_notebook(self, monkeypatch):
        class Compile:
            @staticmethod
            def format_code_name(name):
                return ("Cell", "In[3]") if name == "/tmp/ipykernel_1/2.py" else None

        shell = types.SimpleNamespace(compile=Compile)
        monkeypatch.setitem(call_sites.sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
        namespace = {"method": self.method}
        exec(compile("def cell():\n    return method()\n", "/tmp/ipykernel_1/2.py", "exec"), namespace)
        assert namespace["cell"]() == "Cell In[3]:2 in cell"

    def test_code_without_an_end_is_forgotten_again(self, monkeypatch):
        monkeypatch.setattr(call_sites, "_MAX_KNOWN", 8)
        for number in range(30):
            namespace = {"method": self.method}
            source = textwrap.dedent(f"""
                def cell_{number}():
                    return method()
                """)
            exec(compile(source, f"<cell {number}>", "exec"), namespace)
            assert namespace[f"cell_{number}"]() == f"<cell {number}>:3 in cell_{number}"
            assert len(call_sites._lines) <= 8
            assert len(call_sites._kinds) <= 8

    def test_a_long_name_is_cut(self):
        namespace = {"method": self.method}
        exec(compile("def f():\n    return method()\n", "/" + "long/" * 500 + "end.py", "exec"), namespace)
        text = namespace["f"]()
        assert len(text) < call_sites.MAX_LENGTH
        assert text.endswith("end.py:2 in f")

    def test_a_name_is_text_of_one_line_for_every_terminal(self):
        namespace = {"method": self.method}
        exec(compile("def f():\n    return method()\n", "a\n\x1b[31m\udc80.py", "exec"), namespace)
        assert namespace["f"]() == r"a\n\x1b[31m\udc80.py:2 in f"

    def test_a_call_by_no_code_of_python(self, client):
        """A thread that a library in C begins has no frame above that of the method."""
        futures = []
        _thread.start_new_thread(futures.extend, (map(client.submit, [abs], [-1]),))
        until(lambda: futures, "the thread has submitted")
        assert futures[0].result() == 1
        assert client.explain(futures[0]).call_site == ""
