"""What a user sees of a task that failed: its error as it was raised there, their own frames, and these once."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing
import pdb
import subprocess
import sys
import threading
import traceback
import urllib.error

import dask
import dask.array as da
import numpy as np
import pytest

from holdfast import Client, KilledWorker, RemoteError
from holdfast.client.raising import hide_own_frames, raise_as_it_was
from holdfast.objectstore import StoreServer, connect
from holdfast.objectstore.errors import StoreClosedError
from holdfast.objectstore.pickling.exceptions import args_of, cause_of, trace_of

PATIENCE_SECONDS = 30
LARGE = 100_000


class Failed(Exception):
    def __init__(self, code, *, why):
        super().__init__(code)
        self.code = code
        self.why = why


def fail(code):
    return look_up(code)


def look_up(code):
    try:
        return {}["k"]
    except KeyError as error:
        raise Failed(code, why="there is no k") from error


def frames(trace):
    return [(frame.name, frame.line) for frame in traceback.extract_tb(trace)]


@pytest.fixture(scope="module")
def failed(cluster):
    with Client(cluster, set_as_default=False) as client:
        future = client.submit(fail, 7)
        future.exception(PATIENCE_SECONDS)
        yield future


def test_an_error_is_caught_by_its_class_with_all_that_it_has(failed):
    with pytest.raises(Failed) as caught:
        failed.result()
    assert (caught.value.code, caught.value.why) == (7, "there is no k")
    assert repr(caught.value.__cause__) == "KeyError('k')"
    assert frames(caught.value.__cause__.__traceback__) == [("look_up", 'return {}["k"]')]


WAYS = {
    "result": lambda client: client.submit(fail, 7).result(),
    "gather": lambda client: client.gather([client.submit(fail, 7)]),
    "gather skipping": lambda client: client.gather(iter([client.submit(fail, 7)])).__next__(),
    "get": lambda client: client.get({"x": (fail, 7)}, "x"),
    "compute": lambda client: client.compute(dask.delayed(fail)(7), sync=True),
    "of a dependency": lambda client: client.submit(str, client.submit(fail, 7)).result(),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_traceback_shows_the_line_that_asked_and_the_frames_of_the_task(client, way):
    with pytest.raises(Failed) as caught:
        WAYS[way](client)
    _, asked, *rest = frames(caught.value.__traceback__)
    assert asked[0] == "<lambda>"
    assert rest == [("fail", "return look_up(code)"), ("look_up", 'raise Failed(code, why="there is no k") from error')]


SCRIPT = """
import sys
from holdfast import Client

def divide(x):
    return x / 0

with Client(sys.argv[1], token=sys.argv[2]) as client:
    client.submit(divide, 1).result()
"""


def test_a_script_that_ends_with_it_shows_its_own_lines_only(cluster, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    token = cluster.token.decode() if isinstance(cluster.token, bytes) else cluster.token
    command = [sys.executable, str(script), cluster.scheduler_address, token]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    shown = [line.strip() for line in done.stderr.splitlines() if not set(line) <= set(" ^~")]
    assert shown[:-1] == [
        "Traceback (most recent call last):",
        f'File "{script}", line 9, in <module>',
        "client.submit(divide, 1).result()",
        f'File "{script}", line 6, in divide',
        "return x / 0",
        "ZeroDivisionError: division by zero",
    ]
    assert shown[-1].startswith("Raised by task 'divide-")


def test_of_dask_s_compute_it_shows_what_dask_shows_of_itself(client):
    with pytest.raises(Failed) as caught:
        da.ones(3).map_blocks(lambda block: fail(7), meta=np.ones(1)).compute()
    files = {frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)}
    assert not [name for name in files if "/holdfast/" in name]
    assert frames(caught.value.__traceback__)[-2:] == frames(client.submit(fail, 7).traceback(PATIENCE_SECONDS))


def test_raised_again_and_again_it_is_the_same(failed, cluster):
    seen = []

    def ask():
        try:
            failed.client.gather([failed] * 10)
        except Failed as error:
            seen.append(error)

    for _ in range(3):
        ask()
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(error) for error in seen}) == len({id(error.__cause__) for error in seen}) == 7
    assert len({str(frames(error.__traceback__)[1:]) for error in seen}) == 1
    assert {len(error.__notes__) for error in seen} == {1}
    with pytest.raises(Failed) as caught:
        raise seen[0]
    assert frames(failed.traceback()) == frames(caught.value.__traceback__)[-2:]


def test_an_error_that_is_raised_while_another_one_is_handled_keeps_its_own_context(failed):
    def ask():
        try:
            raise LookupError("here")
        except LookupError:
            failed.result()

    with pytest.raises(Failed) as caught:
        ask()
    links = []
    link = caught.value
    while link is not None:
        links.append(type(link))
        link = link.__context__
    assert links == [Failed, KeyError, LookupError]


def test_an_error_with_a_context_that_is_raised_while_nothing_is_handled_stays_as_it_is():
    error = ValueError("of a task")
    error.__context__ = KeyError("in it")
    with pytest.raises(ValueError, match="of a task"):
        raise_as_it_was(error)
    assert repr(error.__context__) == "KeyError('in it')"
    assert error.__context__.__context__ is None


def test_contexts_that_form_a_circle_end():
    one, other = ValueError(1), ValueError(2)
    one.__context__, other.__context__ = other, one

    def ask():
        try:
            raise LookupError("here")
        except LookupError:
            raise_as_it_was(one)

    with pytest.raises(ValueError, match="1"):
        ask()
    assert one.__context__ is other
    assert other.__context__ is one


def test_an_error_that_is_nobody_s_keeps_its_frames():
    def ask():
        try:
            raise ValueError("here")
        except ValueError as error:
            hide_own_frames(error)
            raise

    with pytest.raises(ValueError, match="here") as caught:
        ask()
    assert [frame.name for frame in caught.traceback][1:] == ["ask"]


def test_the_cluster_s_own_errors_show_the_line_that_asked(client):
    future = client.submit(fail, 7, pure=False)
    future.cancel()
    with pytest.raises(Exception, match="cancelled") as caught:
        future.result()
    assert [frame.name for frame in caught.traceback] == ["test_the_cluster_s_own_errors_show_the_line_that_asked"]


def test_a_debugger_finds_its_way(failed, monkeypatch, capsys):
    commands = iter(["where", "list", "up", "quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(commands))
    with pytest.raises(Failed) as caught:
        failed.result()
    debugger = pdb.Pdb(stdin=sys.stdin, stdout=sys.stdout, nosigint=True, readrc=False)
    debugger.use_rawinput = True
    debugger.reset()
    debugger.interaction(None, caught.value.__traceback__)
    shown = capsys.readouterr().out
    assert 'raise Failed(code, why="there is no k") from error' in shown
    assert "def look_up(code):" in shown
    assert "-> return look_up(code)" in shown


def test_exceptions_with_what_cant_be_sent(client):
    def answer():
        with open("/dev/full", "wb") as body:
            raise urllib.error.HTTPError("http://localhost", 503, "busy", {"Retry-After": "3"}, body)

    def hold():
        error = Failed(8, why=threading.Lock())
        error.array = np.arange(1000)
        raise error

    http = client.submit(answer).exception(PATIENCE_SECONDS)
    assert (type(http), http.code, http.headers["Retry-After"]) == (urllib.error.HTTPError, 503, "3")
    held = client.submit(hold).exception(PATIENCE_SECONDS)
    assert (type(held), held.code, held.array.sum()) == (Failed, 8, 499_500)
    assert "_thread.lock" in repr(held.why)


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


class Slotted(Exception):
    __slots__ = ("code",)


class Withdrawn(Exception):
    """Shows nothing of itself, and takes nothing."""

    def __getattribute__(self, name):
        raise LookupError(name)

    __setattr__ = __getattribute__


def fail_as(kind, cause):
    error = kind(7)
    if kind is Slotted:
        error.code = 7
    raise error from cause


@pytest.mark.parametrize("kind", [Frozen, Slotted, Withdrawn])
def test_exceptions_that_let_nobody_set_or_get_their_attributes(client, kind):
    with pytest.raises(kind) as caught:
        client.submit(fail_as, kind, KeyError("k")).result(PATIENCE_SECONDS)
    error = caught.value
    assert args_of(error) == (7,)
    assert repr(cause_of(error)) == "KeyError('k')"
    assert [frame.name for frame in traceback.extract_tb(trace_of(error))][-1] == "fail_as"
    if kind is not Withdrawn:
        assert error.code == 7


def of_a_store_of_its_own():
    with StoreServer("16 MiB") as server:
        store = connect(server.socket_path)
        object_id = store.put(1)
        store.close()
        store.get(object_id)


def test_an_error_of_a_store_of_the_task_s_own_ends_no_worker(client):
    with pytest.raises(StoreClosedError, match="is closed"):
        client.submit(of_a_store_of_its_own).result(PATIENCE_SECONDS)


def test_an_error_takes_along_a_view_of_the_store_and_a_future(client):
    def take(array):
        error = Failed(9, why=array[::2])
        error.future = Client.current().submit(abs, -1)
        raise error

    error = client.submit(take, client.scatter(np.arange(100_000))).exception(PATIENCE_SECONDS)
    assert error.why.sum() == np.arange(0, 100_000, 2).sum()
    assert error.future.result() == 1


def test_an_error_of_a_task_s_own_task_shows_both(client):
    def outer():
        return Client.current().submit(fail, 7).result()

    with pytest.raises(Failed) as caught:
        client.submit(outer, pure=False).result(PATIENCE_SECONDS)
    assert [name for name, _ in frames(caught.value.__traceback__)][1:] == ["outer", "fail", "look_up"]
    assert [note.partition("-")[0] for note in caught.value.__notes__] == [
        "Raised by task 'fail",
        "Raised by task 'outer",
    ]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_task_ends_no_program(client, kind):
    def leave():
        raise kind(3) from LookupError("why")

    with pytest.raises(RemoteError, match=f"the task raised {kind.__name__}") as caught:
        client.submit(leave, pure=False).result(PATIENCE_SECONDS)
    assert type(caught.value.__cause__) is kind
    assert repr(caught.value.__cause__.__cause__) == "LookupError('why')"
    assert frames(caught.value.__traceback__)[1][0] == "leave"


def test_groups_of_tasks_errors(client):
    def both():
        raise ExceptionGroup("both", [Failed(1, why="a"), Failed(2, why=threading.Lock())])

    codes = []
    try:
        client.submit(both).result(PATIENCE_SECONDS)
    except* Failed as group:
        codes += [error.code for error in group.exceptions]
    assert codes == [1, 2]


def give(*outcomes):
    return outcomes[0] if len(outcomes) == 1 else {"outcomes": list(outcomes)}


def test_exceptions_that_are_results_or_arguments(client):
    failed, refused = Failed(7, why="so"), urllib.error.HTTPError("http://localhost", 404, "no", {}, None)
    failed.args = ("words", 1)
    result = client.submit(give, failed).result(PATIENCE_SECONDS)
    assert (type(result), result.args, result.code, result.why) == (Failed, ("words", 1), 7, "so")
    one, other, array = client.submit(give, failed, refused, np.ones(LARGE)).result(PATIENCE_SECONDS)["outcomes"]
    assert (type(one), one.code, type(other), other.code, array.sum()) == (
        Failed,
        7,
        urllib.error.HTTPError,
        404,
        LARGE,
    )
    group = client.submit(give, ExceptionGroup("g", [failed, OSError(2, "no", "file")])).result(PATIENCE_SECONDS)
    assert (group.exceptions[0].code, group.exceptions[1].filename) == (7, "file")
    assert client.submit(lambda error: error.code, client.scatter(failed)).result(PATIENCE_SECONDS) == 7


def test_errors_of_processes_that_tasks_start(client):
    def work_in_executor():
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as executor:
            list(executor.map(divide, [1]))

    with pytest.raises(ZeroDivisionError) as caught:
        client.submit(work_in_executor).result(PATIENCE_SECONDS)
    assert "in divide" in str(caught.value.__cause__)
    assert type(caught.value.__cause__).__name__ == "_RemoteTraceback"


def divide(x):
    return x / 0


def test_errors_of_the_scheduler_have_no_worker(client):
    from holdfast.cluster.failures.dumping import dump_exception
    from holdfast.cluster.failures.loading import load_exception

    assert not hasattr(load_exception(*dump_exception(KilledWorker("gone")))[0], "__notes__")
