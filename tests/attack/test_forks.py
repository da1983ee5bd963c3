"""Forks look at what their parent has: nobody writes there, whatever becomes of the parent's own views.

In each test the child has a value of its parent's, everybody lets go of that and deletes it, and another client fills
the store. Then the child holds every word against what it was.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from campaign import Campaign
from waiting import until

from holdfast import Client, LocalCluster
from holdfast.objectstore import Store, StoreFullError, StoreServer, connect
from holdfast.objectstore.system import forks
from tests.support.interrupts import Interrupt

MIB = 1 << 20
WORDS = 500_000  # of eight bytes
DEADLINE_SECONDS = 20.0


@pytest.fixture
def server() -> Iterator[StoreServer]:
    """A store that moves nothing to disk, so that it can be filled."""
    with StoreServer(32 * MIB, spill=False) as server:
        yield server


@pytest.fixture
def store(server: StoreServer) -> Iterator[Store]:
    with connect(server.socket_path, name="parent") as store:
        yield store


@pytest.fixture
def other(server: StoreServer) -> Iterator[Store]:
    with connect(server.socket_path, name="other") as store:
        yield store


def refill(store: Store) -> None:
    """Writes all over what is free, and leaves it free."""
    ids = []
    for nbytes in (MIB, 64 << 10, 4096):
        with contextlib.suppress(StoreFullError):
            while True:
                ids.append(store.put(np.full(nbytes, 0x99, "u1"), timeout=0))
    store.delete(ids)


def close_all_but(*fds: int) -> None:
    """As daemons do: closes what they don't know."""
    for fd in range(3, 1024):
        if fd not in fds:
            with contextlib.suppress(OSError):
                os.close(fd)


class Fork:
    """A child that says what ``look(*arguments)`` returns, each time that it's asked, until it's told to end.

    With ``grandchild`` the one that looks is a fork of the child, which ends at once. As a ``daemon`` it closes all
    descriptors that it inherited.
    """

    def __init__(
        self, look: Callable[..., object], *arguments: Any, grandchild: bool = False, daemon: bool = False
    ) -> None:
        asked, self._ask = os.pipe()
        self._answers, answer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            with contextlib.suppress(BaseException):
                os.close(self._ask)
                if grandchild and os.fork():
                    os._exit(0)
                if daemon:
                    close_all_but(asked, answer)
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(60)
                while (question := os.read(asked, 1)) and question != b"e":
                    if question == b"x":
                        os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)"])
                    try:
                        said = str(look(*arguments))
                    except BaseException as error:
                        said = f"{type(error).__name__}: {error}"
                    os.write(answer, said.encode())
            os._exit(0)
        os.close(asked)
        os.close(answer)
        if grandchild:
            os.waitpid(self.pid, 0)

    def look(self) -> str:
        os.write(self._ask, b"?")
        return os.read(self._answers, 1000).decode()

    def become_another_program(self) -> None:
        os.write(self._ask, b"x")

    def end(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._ask, b"e")  # its neighbours have this end of the pipe too
        for fd in (self._ask, self._answers):
            os.close(fd)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.end()


def wrong(value: Any, number: int) -> int:
    return int((np.asarray(value) != number).sum())


def write(array: Any) -> int:
    array[:] = 5
    return wrong(array, 5)


def read(store: Store, other: Store) -> Any:
    return store.get(other.put(np.full(WORDS, 7)))


def read_by_message(store: Store, other: Store) -> Any:
    """What shares data isn't in the index."""
    mine = other.get(other.put(np.full(2 * WORDS, 7)))
    return store.get(other.put(mine[100 : WORDS + 100]))


def read_privately(store: Store, other: Store) -> Any:
    """A private map shows the arena's own pages where it wasn't written to."""
    return store.get(other.put(np.full(WORDS, 7)), writable=True)


def created(store: Store, other: Store) -> Any:
    array, pending = store.create(WORDS, "int64")
    array[:] = 7
    pending.seal()
    return array


READS = [read, read_by_message, read_privately, created]


def delete_all(store: Store, server: StoreServer) -> None:
    store.delete([meta.object_id for meta in server.inventory() if meta.object_id is not None])


def is_empty(server: StoreServer) -> bool:
    stats = server.stats()
    return stats["pins"] == stats["reserved"] == stats["deleted_but_pinned"] == 0


@pytest.mark.parametrize("value_of", READS)
@pytest.mark.parametrize("kind", [{}, {"grandchild": True}, {"daemon": True}, {"grandchild": True, "daemon": True}])
def test_what_a_fork_sees_stays_when_its_parent_lets_go(
    server: StoreServer, store: Store, other: Store, value_of: Callable[..., Any], kind: dict[str, bool]
) -> None:
    value = value_of(store, other)
    fork = Fork(wrong, value, 7, **kind)
    if "daemon" in kind:
        assert fork.look() == "0"  # so it has closed them
    del value
    gc.collect()
    delete_all(other, server)
    store.flush()
    refill(other)
    assert fork.look() == "0"
    assert server.stats()["deleted_but_pinned"] >= 1
    fork.end()
    until(lambda: is_empty(server), "the bytes are free when the fork has ended")


@pytest.mark.parametrize("kind", [{}, {"grandchild": True}])
def test_a_fork_writes_to_private_views_of_its_own(
    server: StoreServer, store: Store, other: Store, kind: dict[str, bool]
) -> None:
    """What was written before the fork both have; what wasn't they read in the arena; what is written later one has."""
    value = read_privately(store, other)
    value[:1000] = 8
    reads = Fork(lambda array: (wrong(array[:1000], 8), wrong(array[1000:], 7)), value, **kind)
    writes = Fork(write, value[500:2000], **kind)
    value[:3000] = 9
    assert writes.look() == "0"
    assert (wrong(value[:3000], 9), wrong(value[3000:], 7)) == (0, 0)
    assert reads.look() == "(0, 0)"
    del value
    gc.collect()
    delete_all(other, server)
    store.flush()
    refill(other)
    assert reads.look() == "(0, 0)"
    reads.end()
    writes.end()
    until(lambda: is_empty(server), "the bytes are free when the forks have ended")


def test_what_a_fork_may_write_to_is_nobody_elses(server: StoreServer, store: Store, other: Store) -> None:
    """An array that was being filled when its process forked, and then given up there."""
    array, pending = store.create(WORDS, "int64")

    fork = Fork(write, array)
    pending.abort()
    del array
    gc.collect()
    store.flush()
    ids = []
    with contextlib.suppress(StoreFullError):
        while True:
            ids.append(other.put(np.full(WORDS // 10, 9), timeout=0))
    assert fork.look() == "0"
    assert [wrong(other.get(object_id), 9) for object_id in ids] == [0] * len(ids), "it wrote into others' objects"
    fork.end()
    until(lambda: server.stats()["reserved"] == 0, "the bytes are free when the fork has ended")


def test_a_fork_that_becomes_another_program_lets_go(server: StoreServer, store: Store, other: Store) -> None:
    value = read(store, other)
    fork = Fork(wrong, value, 7)
    del value
    delete_all(other, server)
    assert fork.look() == "0"
    fork.become_another_program()
    until(lambda: is_empty(server), "the bytes are free once the fork has none of the memory")
    fork.kill()


def test_programs_that_are_started_keep_nothing(server: StoreServer, store: Store, other: Store) -> None:
    value = read(store, other)
    with subprocess.Popen(["sleep", "60"], preexec_fn=lambda: None) as one, subprocess.Popen(["sleep", "60"]) as two:
        del value
        delete_all(other, server)
        until(lambda: is_empty(server), "the bytes are free")
        one.kill()
        two.kill()


def test_each_fork_keeps_what_there_was_when_it_was_forked_and_no_more(
    server: StoreServer, store: Store, other: Store
) -> None:
    """Forks that overlap in time hand nothing on to each other."""
    values, children = [], []
    for number in range(4):
        object_id = other.put(np.full(1000, number))
        values = [store.get(object_id), store.create(1000)]
        children.append(Fork(wrong, values[0], number))
        assert children[-1].look() == "0"
        if number:
            children.pop(0).end()
    values.clear()
    delete_all(other, server)
    store.flush()
    until(lambda: server.stats()["deleted_but_pinned"] == 1, "what only forks saw that have ended is free")
    assert server.stats()["reserved"] == 1
    children.pop().end()
    until(lambda: is_empty(server), "all is free")


def test_what_was_let_go_of_before_is_not_kept(server: StoreServer, store: Store, other: Store) -> None:
    values = [read(store, other) for _ in range(3)]
    with store._connection._send_lock:  # so that the server hears of nothing meanwhile
        del values[1:]
        fork = Fork(wrong, values[0], 7)
    delete_all(other, server)
    values.clear()
    until(lambda: server.stats()["deleted_but_pinned"] == 1, "only what the fork sees is kept")
    assert fork.look() == "0"
    fork.end()
    until(lambda: is_empty(server), "all is free")


PARENT = """
import os, signal, sys, threading
import numpy as np
from holdfast.objectstore import ObjectID, connect

store = connect(sys.argv[1], name="parent")
by_index = store.get(ObjectID.fromhex(sys.argv[2]))
by_message = store.get(ObjectID.fromhex(sys.argv[3]))
array, pending = store.create(len(by_index), "int64")
asked, ask = os.pipe()
if os.fork() == 0:
    os.close(ask)
    signal.alarm(60)
    if sys.argv[5] == "daemon":
        os.closerange(3, 1024)
    for line in sys.stdin:
        array[:] = 5
        print((by_index != 7).sum() + (by_message != 7).sum() + (array != 5).sum(), flush=True)
    os._exit(0)
print("ready", flush=True)
if sys.argv[4] == "closes":
    del by_index, by_message, array, pending
    store.close()
if sys.argv[4] == "is hung up on":
    store._connection._socket.sendall(b"nonsense" * 100)
if sys.argv[4] != "ends":
    signal.pause()
sys.stdout.close()
os._exit(0)
"""


@pytest.mark.parametrize("kind", ["child", "daemon"])
@pytest.mark.parametrize("fate", ["ends", "closes", "is killed", "is hung up on", "is hung up on and killed"])
def test_what_a_fork_sees_stays_whatever_becomes_of_its_parent(
    server: StoreServer, other: Store, fate: str, kind: str
) -> None:
    object_id = other.put(np.full(WORDS, 7))
    mine = other.get(other.put(np.full(2 * WORDS, 7)))
    shared = other.put(mine[100 : WORDS + 100])
    del mine
    command = [sys.executable, "-c", PARENT, server.socket_path, object_id.hex(), shared.hex()]
    parent = subprocess.Popen(
        [*command, fate.removesuffix(" and killed"), kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    if "hung up" in fate:
        until(lambda: server.stats()["quarantined"] == 1, "the server has hung up on it")
    if "killed" in fate:
        parent.kill()
    if fate == "ends" or "killed" in fate:
        parent.wait(DEADLINE_SECONDS)
        until(lambda: server.stats()["clients"] == 1, "the parent is gone")
    delete_all(other, server)
    ids = []
    with contextlib.suppress(StoreFullError):
        while True:
            ids.append(other.put(np.full(WORDS // 10, 9), timeout=0))
    parent.stdin.write("look\n")
    parent.stdin.flush()
    assert parent.stdout.readline() == "0\n"
    assert [wrong(other.get(object_id), 9) for object_id in ids] == [0] * len(ids), "it wrote into others' objects"
    parent.stdin.close()
    if fate == "closes":
        until(lambda: server.stats()["clients"] == 1, "the connection ends when the fork has ended")
    parent.kill()
    parent.wait(DEADLINE_SECONDS)
    assert parent.stdout.read() == "", "the fork ends"
    other.delete(ids)
    until(lambda: is_empty(server), "the bytes are free when all have ended")
    parent.stdout.close()


def test_an_interrupt_at_any_point_of_a_fork_takes_nothing_from_the_child(
    server: StoreServer, store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # what a hook raises Python prints, and goes on
    points = 0
    while True:
        value = read(store, other)
        extra = store.create(10)
        interrupt = Interrupt("holdfast.objectstore", points + 1)
        with contextlib.suppress(KeyboardInterrupt), interrupt.armed():
            fork = Fork(wrong, value, 7)
        del value, extra
        delete_all(other, server)
        store.flush()
        refill(other)
        assert fork.look() == "0", f"interrupted in {interrupt.where}"
        fork.end()
        if interrupt.where is None:
            break
        points += 1
    assert points > 20


def test_a_fork_in_a_signals_handler_waits_for_nothing(
    server: StoreServer, store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the thread that forks was interrupted, with whatever locks."""
    monkeypatch.setattr("holdfast.objectstore.client.index_view._FENCE_SECONDS", 0.01)
    object_id = other.put(np.full(1000, 7))
    kept = store.get(object_id)
    points = 0
    while True:
        statuses: list[int] = []

        def fork(statuses: list[int] = statuses) -> None:
            if (pid := os.fork()) == 0:
                os._exit(wrong(kept, 7))
            statuses.append(os.waitpid(pid, 0)[1])

        interrupt = Interrupt("holdfast.objectstore", points + 1, fork)
        with interrupt.armed():
            store.get(object_id)
            store.create(10)[1].abort()
            store.flush()
        assert statuses in ([0], [])
        if interrupt.where is None:
            break
        points += 1
    assert points > 20
    kept = None
    until(lambda: is_empty(server), "nothing is left of it")


def test_without_descriptors_or_threads_what_a_fork_sees_is_kept(
    server: StoreServer, store: Store, other: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pipe, forked = os.pipe, os.fork

    def fork_without_descriptors() -> int:
        def fail() -> tuple[int, int]:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(os, "pipe", fail)
        try:
            return forked()
        finally:
            monkeypatch.setattr(os, "pipe", pipe)

    value = read(store, other)
    monkeypatch.setattr(os, "fork", fork_without_descriptors)
    fork = Fork(wrong, value, 7)
    monkeypatch.setattr(os, "fork", forked)
    assert "what it forks can't be watched" in caplog.text
    del value
    delete_all(other, server)
    refill(other)
    assert fork.look() == "0"
    fork.end()
    (forked,) = store._holdings._forks
    forked.end()  # as the end of this process would


def test_a_fork_costs_little_where_nothing_is_looked_at(server: StoreServer, store: Store) -> None:
    store.get(store.put(np.zeros(1000)))
    until(lambda: server.stats()["pins"] == 0, "it's let go of")
    fork = Fork(os.getpid)
    assert not forks._watch._forks
    assert "holdfast-store-forks" not in {thread.name for thread in threading.enumerate()}
    fork.end()


def sum_and_wait(array: Any, go: Any, answers: Any) -> None:
    go.wait(DEADLINE_SECONDS)
    answers.put(wrong(array, 7))


class TestThroughAClient:
    @pytest.fixture
    def cluster(self, request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
        processes = getattr(request, "param", True)
        with LocalCluster(1, 2, object_store_memory="48 MiB", processes=processes) as cluster:
            yield cluster

    @pytest.mark.parametrize("cluster", [True, False], indirect=True, ids=["processes", "threads"])
    @pytest.mark.parametrize("close", [False, True], ids=["goes on", "closes its client"])
    def test_a_result_is_an_argument_of_a_process(self, cluster: LocalCluster, close: bool) -> None:
        context = multiprocessing.get_context("fork")
        go, answers = context.Event(), context.SimpleQueue()
        with Client(cluster) as client, Client(cluster, set_as_default=False) as filling:
            future = client.submit(np.full, WORDS, 7)
            process = context.Process(target=sum_and_wait, args=(future.result(), go, answers))
            process.start()
            del future
            if close:
                client.close()
            # More than the store has room for, twice over; so that what is free is written over, it's read too.
            for _ in range(2):
                results = filling.map(np.full, [WORDS] * 20, range(100, 120), pure=False)
                for number, future in enumerate(results):
                    assert wrong(future.result(DEADLINE_SECONDS), 100 + number) == 0
                del results, future
            go.set()
            assert answers.get() == 0
            process.join(DEADLINE_SECONDS)
            assert process.exitcode == 0
            process.close()

    def test_a_task_uses_processes_that_it_forks(self, cluster: LocalCluster) -> None:
        """They look at what the task depends on, and the task lets go of it while they do."""

        def look_in_forks(array: Any) -> list[int]:
            fork = multiprocessing.get_context("fork")
            go, answers = fork.Event(), fork.SimpleQueue()
            processes = [fork.Process(target=sum_and_wait, args=(array, go, answers)) for _ in range(2)]
            for process in processes:
                process.start()
            del array
            go.set()
            return [answers.get() for _ in processes]

        with Client(cluster) as client:
            future = client.submit(np.full, WORDS, 7)
            assert client.submit(look_in_forks, future).result(DEADLINE_SECONDS) == [0, 0]


def test_forks_at_random_see_nothing_but_what_their_parent_saw(server: StoreServer, other: Store) -> None:
    """Threads get, create, let go and fork, all at the same time; another client deletes, and fills the store."""
    with Campaign("forks", share=0.12) as campaign:
        stop = threading.Event()
        failures: list[BaseException] = []
        ids: list[Any] = []
        lock = threading.Lock()

        def churn() -> None:
            number = 0
            try:
                while not stop.is_set():
                    number += 1
                    fresh = other.put(np.full(campaign.random.choice([200, 5000, 60_000]), number), timeout=5)
                    with lock:
                        ids.append((number, fresh))
                        old = ids.pop(0)[1] if len(ids) > 10 else None
                    if old is not None:
                        other.delete(old)
            except BaseException as error:
                failures.append(error)

        def look_and_fork(store: Store, seen: list[tuple[int, Any]]) -> None:
            try:
                while not stop.is_set():
                    with lock:
                        number, object_id = campaign.random.choice(ids)
                    with contextlib.suppress(Exception):
                        seen.append((number, store.get(object_id)))
                    if len(seen) > 5:
                        seen.pop(0)
                    time.sleep(0)
            except BaseException as error:
                failures.append(error)

        with connect(server.socket_path, name="forking") as store:
            seen: list[tuple[int, Any]] = []
            threads = [threading.Thread(target=churn)]
            threads[0].start()
            until(lambda: len(ids) > 5, "there is something to look at")
            threads += [threading.Thread(target=look_and_fork, args=(store, seen)) for _ in range(2)]
            for thread in threads[1:]:
                thread.start()
            children: list[Fork] = []
            try:
                while campaign.goes_on() and not failures:
                    # The child takes what there is when it is there: what other threads have just got, too.
                    children.append(
                        Fork(lambda: sum(wrong(value, number) for number, value in seen) * 1000 + len(seen))
                    )
                    campaign.counts["forks"] += 1
                    if len(children) > 3:
                        child = children.pop(campaign.random.randrange(len(children)))
                        bad, checked = divmod(int(child.look()), 1000)
                        child.kill() if campaign.random.random() < 0.5 else child.end()
                        campaign.counts["values checked"] += checked
                        campaign.counts["wrong words"] += bad
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
                for child in children:
                    child.end()
                seen.clear()
        assert not failures, failures
        assert campaign.counts["wrong words"] == 0
        until(lambda: server.stats()["clients"] == 1, "the connection ends when all forks have ended")
        other.flush()
        until(lambda: server.stats()["pins"] == 0, "nothing is pinned any more")


#: By itself, because another module's hooks may hold a lock, too, while one thread forks, and the order of the hooks is
#: that in which the modules were imported.
TWO_THREADS_FORK = """
import concurrent.futures.thread, os, threading
import numpy as np
from holdfast.objectstore import StoreServer, connect
from holdfast.objectstore.system import forks

answers = []

def fork(look):
    answer, ours = os.pipe()
    pid = os.fork()
    if pid == 0:
        if os.fork():
            os._exit(0)
        os.write(ours, str(look()).encode())
        os._exit(0)
    os.close(ours)
    os.waitpid(pid, 0)
    answers.append(os.read(answer, 100).decode())

def add_slowly(watch, forked):
    add(watch, forked)
    if not thread.ident:
        thread.start()
        thread.join()

with StoreServer(32 << 20) as server, connect(server.socket_path) as store:
    value = store.get(store.put(np.full(100_000, 7)))
    watched, add = forks._watch, forks.ForkWatch.add
    forks.ForkWatch.add = add_slowly
    thread = threading.Thread(target=fork, args=(lambda: forks._watch is watched,))
    fork(lambda: (value != 7).sum())
    print(*answers)
    del value
"""


def test_a_child_begins_anew_while_another_thread_is_about_to_have_forked() -> None:
    """Another thread forks when a fork is watched already, and the hooks of its own fork have not ended."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", TWO_THREADS_FORK]  # of forks beside threads
    found = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=True)
    assert (found.stdout, found.stderr) == ("False 0\n", "")


def test_nothing_of_the_watch_is_left(server: StoreServer, store: Store, other: Store) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        value = read(store, other)
        for fork in [Fork(lambda: 0) for _ in range(3)]:
            fork.end()
        del value
    until(lambda: len(os.listdir("/proc/self/fd")) <= before, "its descriptors are closed")
    until(lambda: not [t for t in threading.enumerate() if t.name == "holdfast-store-forks"], "its thread has ended")
