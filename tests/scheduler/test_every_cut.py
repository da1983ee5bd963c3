"""What a client asks of the scheduler is done once, wherever schedulers die: each scenario is played with every cut.

The steps at which a scheduler may die lie between all that happens: a request is sent, heard, changes something, is
written down, is answered, the answer is heard, what the client says next is sent (`tests.support.cut_anywhere`). Each
scenario is played with clients that never learn which of their frames are safe, and so send all of them again that are
not recorded, and with clients that learn it at once; and with a last word of the scheduler that arrives, or is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from holdfast.cluster.protocol import errands, requests
from tests.support.cut_anywhere import Ask, Program, Tell, World, check_every_cut

Programs = dict[str, Callable[[], Program]]
Check = Callable[[World], None]


@pytest.fixture(params=[False, True], ids=["never safe", "safe at once"])
def says_what_is_safe(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=[False, True], ids=["last word lost", "last word heard"])
def how(request: pytest.FixtureRequest, says_what_is_safe: bool) -> dict[str, bool]:
    return {"says_what_is_safe": says_what_is_safe, "delivers": bool(request.param)}


class Numbers:
    """The numbers of leases of one client."""

    def __init__(self) -> None:
        self.last = 0

    def __next__(self) -> int:
        self.last += 1
        return self.last


def part(world: World, name: str) -> Any:
    return next(part for part in world.state.parts if part.name == name)


def nothing_is_left_of_queues(world: World) -> None:
    queues = part(world, "queues")
    assert not queues.queues
    assert not queues.handed
    assert not world.state.waits
    assert "queues" not in world._tables.entries


# -- queues


def putting(count: int, **arguments: Any) -> Program:
    leases = Numbers()
    for number in range(count):
        ok, value = yield Ask(requests.PUT(name="q", data=b"%d" % number, keys=(), lease=next(leases), **arguments))
        assert ok, value


def putting_quietly(count: int) -> Program:
    for number in range(count):
        yield Tell(requests.PUT_QUIETLY(name="q", data=b"%d" % number, keys=()))


def getting(got: list[int], wanted: int, leases: Numbers, **arguments: Any) -> Program:
    """As `Queue.get` does it: what has come is confirmed, and what has not is given up."""
    lease = next(leases)
    ok, value = yield Ask(requests.GET(name="q", lease=lease, count=wanted, **arguments))
    if ok:
        got += [int(data) for data, _ in value["items"]]
        yield Tell(requests.CONFIRM_ITEMS(lease=lease))
    else:
        assert value[0] == "TimeoutError"
        yield Tell(requests.GIVE_UP_ITEMS(lease=lease))


def getting_all(got: list[int], count: int, wanted: int = 1, **arguments: Any) -> Program:
    leases = Numbers()
    while len(got) < count:
        yield from getting(got, min(wanted, count - len(got)), leases, **arguments)


def of_one_queue(count: int = 3, put: Callable[[int], Program] = putting, **arguments: Any) -> tuple[Programs, Check]:
    """One client puts, and another one gets what comes."""
    got: list[int] = []
    programs: Programs = {"getter": lambda: getting_all(got, count, **arguments), "putter": lambda: put(count)}

    def check(world: World) -> None:
        assert got == list(range(count))
        nothing_is_left_of_queues(world)

    return programs, check


QUEUES: dict[str, Callable[[], tuple[Programs, Check]]] = {
    "one at a time": lambda: of_one_queue(),
    "what is there, which may be nothing": lambda: of_one_queue(wanted=10, at_once=True),
    "without waiting": lambda: of_one_queue(timeout=0.0),
    "for some time": lambda: of_one_queue(timeout=2.0),
    "several at a time": lambda: of_one_queue(count=4, wanted=2),
    "put quietly": lambda: of_one_queue(put=putting_quietly),
    "put quietly, what is there": lambda: of_one_queue(put=putting_quietly, wanted=10, at_once=True),
    "room for one": lambda: with_room_for_one(),
}


def with_room_for_one() -> tuple[Programs, Check]:
    got: list[int] = []

    def check(world: World) -> None:
        assert got == [0, 1, 2]
        queues = part(world, "queues")
        assert [queue.maxsize for queue in queues.queues.values()] == [1]
        assert not queues.queues["q"].items
        assert not queues.handed

    return {"putter": lambda: putting(3, maxsize=1), "getter": lambda: getting_all(got, 3)}, check


@pytest.mark.parametrize("scenario", QUEUES.values(), ids=QUEUES)
def test_each_item_is_got_once_and_in_order(scenario: Any, how: dict[str, bool]) -> None:
    assert check_every_cut(scenario, **how) > 30


@pytest.mark.long
@pytest.mark.parametrize("says_what_is_safe", [False, True], ids=["never safe", "safe at once"])
@pytest.mark.parametrize("arguments", [{"wanted": 10, "at_once": True}, {"timeout": 0.0}], ids=["what is there", "now"])
def test_each_item_is_got_once_and_in_order_though_two_schedulers_die(
    arguments: dict[str, Any], says_what_is_safe: bool
) -> None:
    def scenario() -> tuple[Programs, Check]:
        return of_one_queue(count=2, **arguments)

    assert check_every_cut(scenario, twice=True, says_what_is_safe=says_what_is_safe) > 300


def test_what_several_clients_get_is_got_once(how: dict[str, bool]) -> None:
    """In order for each of them; a client that is back first is served first."""

    def scenario() -> tuple[Programs, Check]:
        got: dict[str, list[int]] = {"b": [], "c": []}

        def get(name: str) -> Program:
            leases = Numbers()
            for _ in range(2):
                yield from getting(got[name], 1, leases)

        def check(world: World) -> None:
            assert sorted(got["b"] + got["c"]) == [0, 1, 2, 3]
            assert all(each == sorted(each) for each in got.values())
            nothing_is_left_of_queues(world)

        return {"a": lambda: putting(4), "b": lambda: get("b"), "c": lambda: get("c")}, check

    assert check_every_cut(scenario, **how) > 50


# -- locks, semaphores, events, variables


def of_lock(acquire: Callable[[int, float | None], Any], release: Callable[[int], Any], name: str, room: int) -> Any:
    """Clients acquire and release, and some give up; nobody has what it does not know of."""

    def scenario() -> tuple[Programs, Check]:
        held: list[str] = []
        done: list[str] = []

        def use(client: str, timeout: float | None) -> Program:
            lease = 0
            while client not in done:
                lease += 1
                ok, granted = yield Ask(acquire(lease, timeout))
                assert ok, granted
                if granted:
                    held.append(client)
                    assert len(held) <= room, f"{held} have it at the same time"
                    yield Tell(requests.STOP_WAITING(wait=lease))  # a step in which it has it
                    held.remove(client)
                    done.append(client)
                    yield Tell(release(lease))

        def check(world: World) -> None:
            assert sorted(done) == ["a", "b", "c"]
            assert not part(world, name).leases
            assert not world.state.waits

        programs = {"a": lambda: use("a", None), "b": lambda: use("b", 0.0), "c": lambda: use("c", 1.0)}
        return programs, check

    return scenario


def test_a_lock_is_had_by_those_that_know_of_it(how: dict[str, bool]) -> None:
    scenario = of_lock(
        lambda lease, timeout: requests.ACQUIRE_LOCKS(names=("x",), lease=lease, timeout=timeout),
        lambda lease: requests.RELEASE_LOCKS(lease=lease),
        "locks",
        1,
    )
    assert check_every_cut(scenario, **how) > 40


def test_a_semaphore_is_had_by_those_that_know_of_it(how: dict[str, bool]) -> None:
    scenario = of_lock(
        lambda lease, timeout: requests.ACQUIRE_SEMAPHORE(name="s", lease=lease, timeout=timeout, max_leases=2),
        lambda lease: requests.RELEASE_SEMAPHORE(lease=lease),
        "semaphores",
        2,
    )
    assert check_every_cut(scenario, **how) > 40


def test_an_event_is_what_was_said_of_it_last(how: dict[str, bool]) -> None:
    def scenario() -> tuple[Programs, Check]:
        def say() -> Program:
            for request in (requests.SET_EVENT, requests.CLEAR_EVENT, requests.SET_EVENT, requests.CLEAR_EVENT):
                yield Ask(request(name="x"))
            yield Ask(requests.SET_EVENT(name="y"))

        def wait() -> Program:
            ok, is_set = yield Ask(requests.WAIT_FOR_EVENT(name="y", wait=1))
            assert (ok, is_set) == (True, True)

        def check(world: World) -> None:
            assert list(part(world, "events").are_set) == ["y"]

        return {"a": say, "b": wait}, check

    assert check_every_cut(scenario, **how) > 25


def test_a_variable_has_the_value_that_was_set_last(how: dict[str, bool]) -> None:
    def scenario() -> tuple[Programs, Check]:
        read: list[bytes] = []

        def say() -> Program:
            for number in range(3):
                ok, _ = yield Ask(requests.SET_VARIABLE(name="v", data=b"%d" % number, keys=()))
                assert ok
            yield Ask(requests.DELETE_VARIABLE(name="v"))
            yield Ask(requests.SET_VARIABLE(name="v", data=b"9", keys=()))

        def get() -> Program:
            lease = 0
            while not read or read[-1] != b"9":
                lease += 1
                ok, value = yield Ask(requests.GET_VARIABLE(name="v", lease=lease, timeout=0.0))
                if ok:
                    read.append(bytes(value["data"]))
                yield Tell(requests.END_READING(lease=lease))

        def check(world: World) -> None:
            assert read == sorted(read)
            variables = part(world, "variables")
            assert [value.data for value in variables.current.values()] == [b"9"]
            assert not variables.readings

        return {"a": say, "b": get}, check

    assert check_every_cut(scenario, **how) > 25


# -- datasets, metadata, errands


def test_a_dataset_is_published_once(how: dict[str, bool]) -> None:
    """Its publisher is not told that there is one of the name already, which is its own."""

    def scenario() -> tuple[Programs, Check]:
        def publish() -> Program:
            for data in (b"1", b"2"):
                ok, value = yield Ask(requests.PUBLISH(datasets=[("d", data, (), {})]))
                assert ok, value
                ok, value = yield Ask(requests.UNPUBLISH(name="d"))
                assert ok, value
            yield Ask(requests.PUBLISH(datasets=[("d", b"3", (), {})]))

        def check(world: World) -> None:
            assert [dataset.data for dataset in world.state.datasets.published.values()] == [b"3"]

        return {"a": publish}, check

    assert check_every_cut(scenario, **how) > 25


def test_a_function_is_called_once_by_each_worker(how: dict[str, bool]) -> None:
    """What each call has come to the client learns, or that nobody knows."""
    unknown = 0

    def scenario() -> tuple[Programs, Check]:
        heard: list[dict[str, Any]] = []

        def call() -> Program:
            for mark in (b"1", b"2"):
                run = {"call": mark, "dependencies": ()}
                ok, outcomes = yield Ask(requests.ERRAND(operation=errands.RUN.operation, arguments=run))
                assert ok, outcomes
                heard.append(outcomes)

        def check(world: World) -> None:
            nonlocal unknown
            sent = [(errand.peer, errand.arguments["call"]) for errand in world.errands]
            assert len(set(sent)) == len(sent)
            for mark, outcomes in zip((b"1", b"2"), heard, strict=True):
                assert len(outcomes) == 2
                for address, outcome in outcomes.items():
                    unknown += "error" in outcome
                    assert (address, mark) in sent or "error" in outcome

        return {"a": call}, check

    assert check_every_cut(scenario, workers=2, **how) > 20
    assert unknown
