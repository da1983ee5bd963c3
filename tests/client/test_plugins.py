"""Plugins of workers: where they run, what they are told, and that later workers have them before their first task."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import traceback
import zipfile

import pytest
from waiting import until

from holdfast import (
    Client,
    Environ,
    LocalCluster,
    PackageInstall,
    PipInstall,
    Reschedule,
    UploadDirectory,
    UploadFile,
    WorkerPlugin,
)


class Noting(WorkerPlugin):
    """Notes what happens to it, on its worker."""

    name = "noting"

    def __init__(self, mark="first"):
        self.mark = mark

    def setup(self, worker):
        worker.notes = [*getattr(worker, "notes", ()), ("setup", self.mark, worker.name)]

    def teardown(self, worker):
        worker.notes = [*worker.notes, ("teardown", self.mark, worker.name)]


def notes_of(dask_worker):
    return [note[:2] for note in getattr(dask_worker, "notes", ())]


def forget(dask_worker):
    dask_worker.notes = []


def test_a_plugin_is_set_up_replaced_and_taken_down_on_each_worker(run):
    async def case(client, got):
        workers = sorted(await got(client.nthreads()))
        await got(client.run(forget))
        ok = {address: {"status": "OK"} for address in workers}
        assert await got(client.register_plugin(Noting())) == ok
        assert await got(client.register_plugin(Noting("idle"), idempotent=True)) == {}
        assert await got(client.register_plugin(Noting("second"))) == ok
        assert await got(client.unregister_worker_plugin("noting")) == ok
        wanted = [("setup", "first"), ("teardown", "first"), ("setup", "second"), ("teardown", "second")]
        assert await got(client.run(notes_of)) == dict.fromkeys(workers, wanted)
        with pytest.raises(ValueError, match="no worker plugin 'noting' is registered"):
            await got(client.unregister_worker_plugin("noting"))

    run(case)


def test_any_object_with_a_setup_is_a_worker_plugin_in_the_old_way(run):
    class Plain:
        def setup(self, worker):
            worker.plain = 1

    async def case(client, got):
        await got(client.register_worker_plugin(Plain(), name="plain"))
        assert set((await got(client.run(lambda dask_worker: dask_worker.plain))).values()) == {1}
        assert set((await got(client.run(lambda dask_worker: list(dask_worker.plugins)))).popitem()[1]) >= {"plain"}
        await got(client.unregister_worker_plugin("plain"))
        with pytest.raises(TypeError, match="below WorkerPlugin"):
            await got(client.register_plugin(Plain()))
        for wrong in (Plain, 3):
            with pytest.raises(TypeError, match="setup, teardown or transition"):
                await got(client.register_worker_plugin(wrong))
        with pytest.raises(TypeError, match="the name of a plugin"):
            await got(client.register_worker_plugin(Plain(), name=3))

    run(case)


def test_setup_and_teardown_may_be_coroutine_functions(client):
    class Slow(WorkerPlugin):
        async def setup(self, worker):
            await asyncio.sleep(0)
            worker.slow = True

        async def teardown(self, worker):
            await asyncio.sleep(0)
            worker.slow = False

    client.register_plugin(Slow(), name="slow")
    assert set(client.run(lambda dask_worker: dask_worker.slow).values()) == {True}
    client.unregister_worker_plugin("slow")
    assert set(client.run(lambda dask_worker: dask_worker.slow).values()) == {False}


def test_what_fails_is_raised_with_its_traceback(run):
    class Failing(WorkerPlugin):
        name = "failing"

        def __init__(self, where):
            self.where = where

        def setup(self, worker):
            if self.where == "setup":
                raise ValueError(f"not on {worker.name}")

        def teardown(self, worker):
            raise KeyError("never")

    async def case(client, got):
        with pytest.raises(ValueError, match="not on") as raised:
            await got(client.register_plugin(Failing("setup")))
        assert traceback.extract_tb(raised.value.__traceback__)[-1].name == "setup"
        assert any("the plugin 'failing'" in note for note in raised.value.__notes__)
        await got(client.register_plugin(Failing("teardown")))
        with pytest.raises(KeyError, match="never"):
            await got(client.unregister_worker_plugin("failing"))

    run(case)


def test_what_can_not_be_pickled_is_refused(client):
    class Odd(WorkerPlugin):
        def __reduce__(self):
            raise ValueError("no")

    with pytest.raises(TypeError, match="the plugin 'odd' can't be pickled"):
        client.register_plugin(Odd(), name="odd")


def test_transitions_of_tasks_are_told_while_a_plugin_wants_to_hear(client, tmp_path):
    class Listening(WorkerPlugin):
        name = "listening"

        def setup(self, worker):
            self.heard = []

        def transition(self, key, start, finish, **kwargs):
            self.heard.append((key, start, finish))
            if key == "odd":
                raise ValueError("a plugin's fault")

    def fail():
        raise ValueError("a task's fault")

    def try_elsewhere(folder):
        try:
            os.mkdir(f"{folder}/tried")
        except FileExistsError:
            return 1
        raise Reschedule

    def runs_by(dask_worker):
        return dask_worker._worker._threads._run == dask_worker._worker._run

    assert all(client.run(runs_by).values())
    client.register_plugin(Listening())
    assert not any(client.run(runs_by).values())
    assert client.submit(pow, 2, 3, key="good").result() == 8
    assert client.submit(pow, 2, 3, key="odd").result() == 8
    with pytest.raises(ValueError, match="a task's fault"):
        client.submit(fail, key="bad").result()
    assert client.submit(try_elsewhere, str(tmp_path), key="twice").result() == 1

    def heard():
        found = client.run(lambda dask_worker: dask_worker.plugins["listening"].heard)
        return [told for each in found.values() for told in each]

    until(lambda: len(heard()) == 10, "all is told, the end of a task after its result is on its way")
    for key, end in (("good", "memory"), ("odd", "memory"), ("bad", "error")):
        assert [told[1:] for told in heard() if told[0] == key] == [("ready", "executing"), ("executing", end)]
    ends = sorted(finish for key, _, finish in heard() if key == "twice")
    assert ends == ["executing", "executing", "memory", "rescheduled"]
    client.unregister_worker_plugin("listening")
    assert all(client.run(runs_by).values())


def test_large_data_of_a_plugin_goes_through_the_store_and_outlives_its_client(cluster):
    class Large(WorkerPlugin):
        name = "large"

        def __init__(self):
            self.data = os.urandom(3 << 20)

        def setup(self, worker):
            worker.large = len(self.data)

    with Client(cluster, set_as_default=False) as client:
        client.register_plugin(Large())
    with Client(cluster, set_as_default=False) as client:
        assert set(client.run(lambda dask_worker: dask_worker.large).values()) == {3 << 20}
        address = kill_one(client)

        def sizes():
            return client.run(lambda dask_worker: getattr(dask_worker, "large", None), workers=[address])

        until(lambda: sizes() == {address: 3 << 20}, "the plugin is set up: a function may run before")
        client.unregister_worker_plugin("large")


def kill_one(client):
    """Kill a worker, and wait until another one is there in its place."""
    address, pid = client.run(os.getpid).popitem()
    os.kill(pid, signal.SIGKILL)

    def is_back():
        found = client.run(os.getpid, on_error="ignore")
        return found.get(address, pid) != pid and len(found) == 2

    until(is_back, "it starts again")
    return address


def status_of(client, address):
    return client.scheduler_info()["workers"].get(address, {}).get("status")


def test_a_worker_that_starts_again_has_its_plugins_before_its_first_task(client, tmp_path):
    class Late(WorkerPlugin):
        name = "late"

        def __init__(self, path):
            self.path = path

        def setup(self, worker):
            if os.path.exists(os.path.join(self.path, "slowly")):
                until(lambda: os.path.exists(os.path.join(self.path, "go")), "the test says so")
            worker.is_prepared = True

    def is_prepared():
        from holdfast import get_worker

        return getattr(get_worker(), "is_prepared", False)

    client.register_plugin(Late(str(tmp_path)))
    (tmp_path / "slowly").touch()
    address, pid = client.run(os.getpid).popitem()
    os.kill(pid, signal.SIGKILL)
    future = client.submit(is_prepared, workers=[address], pure=False)
    until(lambda: status_of(client, address) == "starting", "it starts again")
    assert not future.done()
    (tmp_path / "go").touch()
    assert client.run(is_prepared)[address], "a function of run has the plugins too"
    assert future.result(30)
    client.unregister_worker_plugin("late")


def test_what_fails_later_is_an_event_and_the_worker_is_used(client, tmp_path):
    class Moody(WorkerPlugin):
        name = "moody"

        def __init__(self, path):
            self.path = path

        def setup(self, worker):
            if os.path.exists(self.path):
                raise OSError("not any more")

    client.register_plugin(Moody(str(tmp_path / "moody")))
    (tmp_path / "moody").touch()
    address = kill_one(client)
    assert client.submit(pow, 2, 3, workers=[address], pure=False).result(30) == 8
    ((_, event),) = [event for event in client.get_events("plugins") if event[1]["plugin"] == "moody"]
    assert event["worker"] == address
    assert "OSError: not any more" in event["text"]
    client.unregister_worker_plugin("moody")


def test_callbacks_are_called_on_each_worker(run):
    async def case(client, got):
        def callback(dask_worker):
            dask_worker.called = dask_worker.name

        await got(client.register_worker_callbacks(callback))
        await got(client.register_worker_callbacks(setup=lambda: None))
        assert all((await got(client.run(lambda dask_worker: dask_worker.called == dask_worker.name))).values())
        with pytest.raises(TypeError, match="setup is a function"):
            await got(client.register_worker_callbacks(3))

    run(case)


def test_plugins_are_taken_down_with_their_worker(tmp_path):
    class Leaving(WorkerPlugin):
        def __init__(self, path):
            self.path = path

        def teardown(self, worker):
            with open(os.path.join(self.path, worker.name), "w"):
                pass

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, object_store_memory="64 MiB") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(Leaving(str(tmp_path)))
    until(lambda: len(list(tmp_path.iterdir())) == 2, "both are taken down")


# -- those that are there


def value_in(module):
    import importlib

    return importlib.import_module(module).VALUE


def test_a_module_is_uploaded_and_replaced(run_outside_of_tasks, tmp_path, request):
    name = f"uploaded_{request.node.callspec.id}"
    path = tmp_path / f"{name}.py"

    async def case(client, got):
        path.write_text("VALUE = 1\ndef give():\n    return VALUE\n")
        workers = sorted(await got(client.nthreads()))
        assert list(await got(client.upload_file(path))) == workers
        sys.path.insert(0, str(tmp_path))
        try:
            give = __import__(name).give
            assert await got(client.gather(client.submit(give, pure=False))) == 1
            path.write_text("VALUE = 2\ndef give():\n    return VALUE\n")
            await got(client.upload_file(str(path)))
            assert set((await got(client.run(value_in, name))).values()) == {2}
            assert await got(client.gather(client.submit(give, pure=False, workers=workers[:1]))) == 2
            assert await got(client.gather(client.submit(give, pure=False, workers=workers[1:]))) == 2
        finally:
            sys.path.remove(str(tmp_path))
            sys.modules.pop(name, None)
        with pytest.raises(FileNotFoundError):
            await got(client.upload_file(tmp_path / "none.py"))

    run_outside_of_tasks(case)


def test_a_task_may_upload_a_module(run, tmp_path, request):
    name = f"sent_{request.node.callspec.id}"
    path = tmp_path / f"{name}.py"

    async def case(client, got):
        for value in (1, 2):
            path.write_text(f"VALUE = {value}\n")
            await got(client.upload_file(path))
            assert set((await got(client.run(value_in, name))).values()) == {value}

    run(case)


@pytest.mark.parametrize("suffix", [".zip", ".egg", ".whl"])
def test_an_archive_is_uploaded_and_replaced(client, tmp_path, suffix):
    name = f"packed_{suffix[1:]}"
    path = tmp_path / f"{name}{suffix}"
    for value in (1, 2):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{name}/__init__.py", f"from {name}.inner import VALUE\n")
            archive.writestr(f"{name}/inner.py", f"VALUE = {value}\n")
        client.upload_file(path)
        assert set(client.run(value_in, name).values()) == {value}
    client.unregister_worker_plugin(f"upload-file-{path.name}")
    assert all(client.run(lambda: not any(str(each).endswith(path.name) for each in sys.path)).values())


def test_a_file_that_is_no_module_only_lies_there(client, tmp_path):
    path = tmp_path / "numbers.txt"
    path.write_text("1 2 3")

    def read(dask_worker):
        with open(os.path.join(dask_worker.local_directory, "numbers.txt")) as file:
            return file.read()

    client.upload_file(path)
    assert set(client.run(read).values()) == {"1 2 3"}


def test_a_module_that_can_not_be_imported_says_so(client, tmp_path):
    path = tmp_path / "broken_module.py"
    path.write_text("import nothing_like_this\n")
    with pytest.raises(ModuleNotFoundError, match="nothing_like_this"):
        client.upload_file(path)
    client.upload_file(path, load=False)
    client.unregister_worker_plugin("upload-file-broken_module.py")


def test_later_workers_have_what_was_uploaded(client, tmp_path):
    path = tmp_path / "early_module.py"
    path.write_text("VALUE = 7\n")
    client.upload_file(path)
    address = kill_one(client)
    assert client.submit(value_in, "early_module", workers=[address], pure=False).result(30) == 7


def test_a_folder_is_uploaded_and_replaced(client, tmp_path):
    folder = tmp_path / "uploaded_folder"
    (folder / "tests").mkdir(parents=True)
    (folder / "tests" / "test_it.py").touch()
    (folder / "old.pyc").touch()
    for value in (1, 2):
        (folder / "__init__.py").write_text(f"VALUE = {value}\n")
        (folder / "top_module.py").write_text(f"VALUE = {10 * value}\n")
        client.register_plugin(UploadDirectory(folder))
        assert set(client.run(value_in, "uploaded_folder").values()) == {value}
        assert set(client.run(value_in, "uploaded_folder.top_module").values()) == {10 * value}
    client.register_plugin(UploadDirectory(str(folder), update_path=True))
    assert set(client.run(value_in, "top_module").values()) == {20}

    def listed(dask_worker):
        return sorted(os.listdir(os.path.join(dask_worker.local_directory, "uploaded_folder")))

    for files in client.run(listed).values():
        assert "__init__.py" in files
        assert "tests" not in files
        assert "old.pyc" not in files
    client.unregister_worker_plugin("upload-directory-uploaded_folder")
    with pytest.raises(NotADirectoryError):
        UploadDirectory(tmp_path / "none")


class Hanging(WorkerPlugin):
    """Is not set up before there is a file."""

    name = "hanging"
    setup_timeout = 0.5

    def __init__(self, folder, when="always"):
        self.go = os.path.join(folder, "go")
        self.hung = os.path.join(folder, "hung")
        self.ended = os.path.join(folder, "ended")
        self.when = when

    def setup(self, worker):
        if self.when == "always" or os.path.exists(os.path.join(os.path.dirname(self.go), self.when)):
            open(self.hung, "w").close()
            until(lambda: os.path.exists(self.go), "it may go on")
        worker.hanging = True

    def teardown(self, worker):
        open(self.ended, "w").close()


def names_of_plugins(dask_worker):
    return list(dask_worker.plugins)


def test_a_setup_that_hangs_is_not_waited_for_for_ever_and_the_error_says_where_it_stands(client, tmp_path):
    with pytest.raises(TimeoutError, match="its setup is not waited for any longer") as raised:
        client.register_plugin(Hanging(str(tmp_path)))
    text = str(raised.value)
    assert "has not ended on worker" in text
    assert "after 0.5 s" in text
    assert "in setup\n    until(lambda: os.path.exists(self.go)" in text
    assert client.submit(pow, 2, 3, pure=False).result() == 8
    assert not any("hanging" in names for names in client.run(names_of_plugins).values())
    (tmp_path / "go").touch()
    until(lambda: all("hanging" in names for names in client.run(names_of_plugins).values()), "it is there after all")
    client.unregister_worker_plugin("hanging")
    assert (tmp_path / "ended").exists()


def test_one_that_was_unregistered_while_it_hung_is_taken_down_when_it_goes_on(client, tmp_path):
    with pytest.raises(TimeoutError):
        client.register_plugin(Hanging(str(tmp_path)))
    client.unregister_worker_plugin("hanging")
    assert not (tmp_path / "ended").exists()
    (tmp_path / "go").touch()
    until((tmp_path / "ended").exists, "it is taken down")
    assert not any("hanging" in names for names in client.run(names_of_plugins).values())


def test_a_worker_that_comes_is_used_though_a_setup_hangs_and_an_event_says_so(client, tmp_path):
    client.register_plugin(Hanging(str(tmp_path), when="later"))
    (tmp_path / "later").touch()
    told = len(client.get_events("plugins") or ())
    address, pid = client.run(os.getpid).popitem()
    os.kill(pid, signal.SIGKILL)
    until((tmp_path / "hung").exists, "it hangs")
    assert client.submit(pow, 2, 3, workers=[address], pure=False).result(30) == 8
    *_, (_, event) = until(lambda: (client.get_events("plugins") or ())[told:], "it is told")
    assert (event["plugin"], event["worker"]) == ("hanging", address)
    assert "setup_timeout" in event["text"]
    (tmp_path / "go").touch()
    client.unregister_worker_plugin("hanging")


def test_a_coroutine_that_hangs_is_shown_where_it_waits(client):
    class Waiting(WorkerPlugin):
        setup_timeout = 0.3

        async def inner(self):
            await asyncio.Event().wait()

        async def setup(self, worker):
            await self.inner()

    with pytest.raises(TimeoutError, match="in inner"):
        client.register_plugin(Waiting(), name="waiting")
    client.unregister_worker_plugin("waiting")


@pytest.mark.parametrize("seconds", [0, -1, "soon", True, float("nan")])
def test_a_time_that_is_none_is_refused(client, seconds):
    plugin = WorkerPlugin()
    plugin.setup_timeout = seconds
    with pytest.raises(ValueError, match="setup_timeout of a plugin is a number of seconds"):
        client.register_plugin(plugin, name="timed")
    plugin.setup_timeout = None
    client.register_plugin(plugin, name="timed")
    client.unregister_worker_plugin("timed")


class ErrorLogger(WorkerPlugin):
    """As dask's documentation has it."""

    name = "error-logger"

    def __init__(self, path):
        self.path = path

    def setup(self, worker):
        self.worker = worker

    def transition(self, key, start, finish, *args, **kwargs):
        task = self.worker.state.tasks[key]
        with open(self.path, "a") as file:
            if finish == "error":
                trace = [frame.name for frame in traceback.extract_tb(task.traceback)]
                file.write(f"{key} {type(task.exception).__name__} {task.exception} in {trace[-1]}\n")
                file.write(f"{task.exception_text}; {len(task.exception.__notes__)} note\n")
            else:
                file.write(f"{key} {task.state} {task.nbytes} {task.type} {task.exception}\n")


def fails(size):
    raise ValueError("x" * size)


def test_a_plugin_sees_what_a_task_has_raised(client, tmp_path):
    client.register_plugin(ErrorLogger(str(tmp_path / "log")))
    client.submit(fails, 3, key="small").exception()
    client.submit(bytes, 20_000, key="result").result()
    client.submit(fails, 200_000, key="large").exception()
    log = until(lambda: (text := (tmp_path / "log").read_text()).count("note") == 2 and text, "all is told")
    assert "small executing None  None\n" in log
    assert "small ValueError xxx in fails\nValueError: xxx; 1 note\n" in log
    assert "result memory 20" in log
    assert f"large ValueError {'x' * 200_000} in fails" in log
    client.unregister_worker_plugin("error-logger")
    assert all(not tasks for tasks in client.run(lambda dask_worker: list(dask_worker.tasks)).values())


def test_a_transition_that_fails_costs_no_task_and_is_an_event(client):
    class Clumsy(WorkerPlugin):
        def transition(self, key, start, finish, **kwargs):
            raise ZeroDivisionError("oh")

    told = len(client.get_events("plugins") or ())
    client.register_plugin(Clumsy(), name="clumsy")
    assert client.gather(client.map(pow, [2] * 10, range(10), pure=False)) == [2**n for n in range(10)]
    events = until(lambda: (client.get_events("plugins") or ())[told:], "it is told")
    assert {(event["plugin"], "ZeroDivisionError: oh" in event["text"]) for _, event in events} == {("clumsy", True)}
    client.unregister_worker_plugin("clumsy")


def test_variables_of_the_environment(client):
    client.register_plugin(Environ({"MY_OWN_VARIABLE": 3}))
    assert client.submit(os.getenv, "MY_OWN_VARIABLE", pure=False).result() == "3"
    address = kill_one(client)
    assert client.submit(os.getenv, "MY_OWN_VARIABLE", workers=[address], pure=False).result(30) == "3"
    client.register_plugin(Environ({"MY_OWN_VARIABLE": None}))
    assert set(client.run(os.getenv, "MY_OWN_VARIABLE").values()) == {None}
    client.unregister_worker_plugin("environ")


class Pretended(PackageInstall):
    """Installs nothing, and notes that."""

    INSTALLER = "pretended"

    def __init__(self, path, **options):
        super().__init__([str(path)], **options)

    def install(self):
        with open(self.packages[0], "a") as file:
            file.write("installed\n")


def test_workers_of_one_environment_install_once(client, tmp_path):
    client.register_plugin(Pretended(tmp_path / "log"))
    assert (tmp_path / "log").read_text() == "installed\n"
    kill_one(client)
    assert (tmp_path / "log").read_text() == "installed\n"


def test_workers_start_again_after_an_installation_that_wants_it(client, tmp_path):
    before = client.run(os.getpid)
    client.register_plugin(Pretended(tmp_path / "log", restart_workers=True))

    def started_again():
        now = client.run(os.getpid, on_error="ignore")
        return len(now) == 2 and not set(now.values()) & set(before.values())

    until(started_again, "both start again")
    assert (tmp_path / "log").read_text() == "installed\n"
    assert client.submit(pow, 2, 3, pure=False).result(30) == 8


def waits_for(path):
    while not os.path.exists(path):
        time.sleep(0.01)
    return "done"


def test_what_runs_when_workers_start_again_is_run_again_and_not_to_blame(client, tmp_path):
    future = client.submit(waits_for, str(tmp_path / "go"), pure=False)
    for number in range(4):  # more often than a task may be charged for
        until(lambda: any(client.processing().values()), "it runs")
        before = client.run(os.getpid)
        client.register_plugin(Pretended(tmp_path / f"log{number}", restart_workers=True))
        assert not set(client.run(os.getpid).values()) & set(before.values())
    (tmp_path / "go").touch()
    assert future.result(30) == "done"


def test_a_worker_starts_again_when_a_function_wants_it(client):
    before = client.run(os.getpid)
    client.run(lambda dask_worker: dask_worker.restart("the test says so"))
    until(lambda: not set(client.run(os.getpid).values()) & set(before.values()), "they are new")


def test_pip_says_why_it_could_not(client):
    with pytest.raises(RuntimeError, match=r"'pip install .*no-such' has failed"):
        client.register_plugin(PipInstall(["/no-such"], ["--no-index"]))
    assert PipInstall(["a"]).name != PipInstall(["a"], ["--upgrade"]).name
    with pytest.raises(TypeError, match="packages is a list"):
        PipInstall("scikit-learn")


def test_a_file_is_uploaded_as_a_plugin(run, tmp_path, request):
    name = f"plugged_{request.node.callspec.id}"
    path = tmp_path / f"{name}.py"

    async def case(client, got):
        path.write_text("VALUE = 42\n")
        assert len(await got(client.register_plugin(UploadFile(path)))) == 2
        assert set((await got(client.run(value_in, name))).values()) == {42}

    run(case)


def test_uploading_again_needs_no_second_name(tmp_path):
    path = tmp_path / "m.py"
    path.touch()
    assert UploadFile(path).name == UploadFile(str(path), load=False).name


def test_they_are_found_where_plugins_are():
    from holdfast import plugins

    assert plugins.WorkerPlugin is WorkerPlugin
    assert all(getattr(plugins, name).__doc__ for name in plugins.__all__)
