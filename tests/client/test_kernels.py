"""IPython kernels in workers and beside the scheduler, and what a session of IPython has of them."""

from __future__ import annotations

import sys
import types

import pytest

from holdfast.client.operations import kernels


def run_there(info, code, capsys):
    kernels.execute(info, code)
    return capsys.readouterr().out


def test_a_kernel_in_each_worker(client, capsys):
    infos = client.start_ipython_workers()
    assert sorted(infos) == sorted(client.nthreads())
    for address, info in infos.items():
        assert run_there(info, "print(worker.address)", capsys).strip() == address
    assert client.start_ipython_workers(min(infos)) == {min(infos): infos[min(infos)]}
    assert client.submit(pow, 2, 3, pure=False).result() == 8


def test_a_kernel_beside_the_scheduler(run_outside_of_tasks, capsys):
    async def case(client, got):
        info = await got(client.start_ipython_scheduler())
        assert run_there(info, "print(len(scheduler.workers))", capsys).strip() == "2"

    run_outside_of_tasks(case)


def test_magics_are_for_ipython(client, monkeypatch, capsys):
    with pytest.raises(RuntimeError, match="magics are for IPython"):
        client.start_ipython_workers(magic_names="w_*")
    with pytest.raises(ValueError, match="1 magic_names for 2 workers"):
        client.start_ipython_workers(magic_names="w")
    magics = {}

    class Shell:
        def register_magic_function(self, function, magic_kind, magic_name):
            magics[magic_name] = function

    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=Shell))
    client.start_ipython_workers(magic_names="w_*")
    client.start_ipython_scheduler()
    assert sorted(magics) == ["scheduler", "w_0", "w_1"]
    monkeypatch.undo()
    magics["w_1"]("print(worker.name)")
    assert capsys.readouterr().out.strip().endswith("-1")


def test_without_ipykernel_it_says_how_to_get_it(monkeypatch):
    from holdfast.cluster import kernels as there

    monkeypatch.setitem(sys.modules, "ipykernel.kernelapp", None)
    with pytest.raises(ImportError, match=r"pip install 'holdfast\[ipython\]'"):
        there.start("127.0.0.1", {})


def test_workers_that_share_a_process_have_none(in_process):
    from holdfast import Client

    with Client(in_process, set_as_default=False) as client, pytest.raises(RuntimeError, match="processes=True"):
        client.start_ipython_workers()
