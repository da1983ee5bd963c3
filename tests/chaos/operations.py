"""What clients do, again and again. Each operation knows without the cluster what has to come out.

An operation is a function of a `Work`. It raises `Wrong` if it gets another value than it has to, and whatever error
the cluster raises. What it makes it lets go of, but for what it puts under names: those of the run, which the run
clears in the end, and which other clients use.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd

from holdfast import Client, Event, Future, Lock, Queue, Semaphore, Variable, as_completed, get_client
from holdfast.cluster.errors import CancelledError, DatasetExistsError, DatasetNotFoundError
from tests.chaos.holders import TooMany, held

#: A call without an answer after so long hangs.
PATIENCE_SECONDS = 120.0
#: An array of the tests has so many items, of 8 bytes.
LENGTH = 50_000
#: A client keeps so many large results for a while.
MAX_KEPT = 24
#: So many datasets are published under numbered names, and so many items are in the queue.
DATASETS, QUEUED = 4, 6

QUEUE, COUNTER, LOCK, SHARED = "chaos-queue", "chaos-counter", "chaos-lock", "chaos-shared"
EXCLUSIVE, LIMITED, LIMIT = "chaos-exclusive", "chaos-limited", 2


class Wrong(Exception):
    """A value is another one than it has to be."""


# -- what runs on the cluster


def square(number: int) -> int:
    return number * number


def fill(number: int) -> np.ndarray:
    return np.full(LENGTH, number)


def total(*arrays: np.ndarray) -> int:
    return int(sum(int(array.sum()) for array in arrays))


def fail(number: int) -> None:
    raise LookupError(number)


def linger(number: int) -> int:
    time.sleep(0.05)
    return number


def wait_for(event: Event) -> bool:
    found: bool = event.wait(PATIENCE_SECONDS)
    return found


def sum_of_squares(numbers: range) -> int:
    """A task with a client inside: it waits for tasks that it submits."""
    client = get_client()
    return sum(client.gather(client.map(square, numbers, pure=False)))


def two_arrays(number: int) -> dict[str, Any]:
    """A result that contains futures."""
    return {"number": number, "inside": get_client().map(fill, [number, number + 1], pure=False)}


class Account:
    """An actor."""

    def __init__(self, balance: int) -> None:
        self.balance = balance

    def pay_in(self, amount: int) -> int:
        self.balance += amount
        return self.balance


# -- what clients do


class Work:
    """What an operation has: a client, chance, and what earlier operations have kept.

    Attributes
    ----------
    began : float
        When there was a client.
    since : float
        When the oldest of what this operation uses was made.
    fragile : list of str
        The keys of what it uses that has one copy and can't be made again.
    places : list of str
        The addresses of the hosts where that lay at first.
    holders : Path
        Where files say which process has a lock.
    """

    def __init__(self, client: Client, chance: random.Random, holders: Path) -> None:
        self.client = client
        self.chance = chance
        self.holders = holders
        self.places: list[str] = []
        self.kept: list[tuple[float, int, Future]] = []
        self.began = self.since = time.monotonic()
        self.fragile: list[str] = []

    def begin(self) -> None:
        """Begin an operation."""
        self.since = time.monotonic()
        self.fragile = []
        self.places = []

    def number(self) -> int:
        """A number that hardly anything else has."""
        return self.chance.randrange(1 << 20)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        return self.client.submit(function, *arguments, pure=False)


Operation: TypeAlias = Callable[[Work], None]


def expect(value: Any, expected: Any, what: str) -> None:
    """Raises `Wrong` unless they are equal."""
    same = np.array_equal(value, expected) if isinstance(expected, np.ndarray) else value == expected
    if not same:
        raise Wrong(f"{what}: {value!r:.200}, and it has to be {expected!r:.200}")


def values(futures: list[Future]) -> list[Any]:
    """Their results, each waited for no longer than is patient."""
    return [future.result(PATIENCE_SECONDS) for future in futures]


def expect_filled(number: int, futures: list[Future], what: str) -> None:
    for offset, value in enumerate(values(futures)):
        expect(value, fill(number + offset), f"{what} {number}, item {offset}")


def tasks(work: Work) -> None:
    number = work.number()
    futures = work.client.map(square, range(number, number + 40), pure=False)
    tops = [work.submit(operator.add, *pair) for pair in itertools.pairwise(futures)]
    expected = [n * n for n in range(number, number + 40)]
    expect(values(tops), [a + b for a, b in itertools.pairwise(expected)], "sums of squares")
    expect(values(futures), expected, "squares")


def chain(work: Work) -> None:
    """Each task needs the one before, wherever it was."""
    number = work.number()
    future = work.submit(linger, number)
    for _ in range(20):
        future = work.submit(operator.add, future, 1)
    expect(future.result(PATIENCE_SECONDS), number + 20, "the end of a chain")


def large(work: Work) -> None:
    """Large results, read by tasks on whatever host, and by this client."""
    number = work.number()
    arrays = work.client.map(fill, range(number, number + 6), pure=False)
    whole = work.submit(total, *arrays)
    expect(whole.result(PATIENCE_SECONDS), LENGTH * (6 * number + 15), "a total")
    expect_filled(number, arrays, "arrays from")


def keep(work: Work) -> None:
    """Results that were finished long ago are still there, or are made again."""
    if work.kept and (len(work.kept) == MAX_KEPT or work.chance.random() < 0.5):
        look_again(work)
    else:
        number = work.number()
        work.kept.append((work.since, number, work.submit(fill, number)))


def look_again(work: Work) -> None:
    """What this client has kept is let go of with the last look."""
    work.since, number, future = work.kept.pop(work.chance.randrange(len(work.kept)))
    expect(future.result(PATIENCE_SECONDS), fill(number), "what was kept")


def array(work: Work) -> None:
    matrix = np.random.default_rng(work.number()).integers(-9, 9, (160, 120))
    lazy = da.from_array(matrix, chunks=(40, 60))
    product = (lazy @ lazy.T).rechunk((80, 80))
    if work.chance.random() < 0.5:
        product = product.persist()
    future = work.client.compute(product.sum(axis=0))
    expect(future.result(PATIENCE_SECONDS), (matrix @ matrix.T).sum(axis=0), "columns of a product")


def dataframe(work: Work) -> None:
    """A shuffle, and a sum of each group."""
    draw = np.random.default_rng(work.number())
    frame = pd.DataFrame({"group": draw.integers(0, 20, 400), "value": draw.integers(0, 1000, 400)})
    lazy = dd.from_pandas(frame, npartitions=4).shuffle("group", npartitions=3)
    future = work.client.compute(lazy.groupby("group").value.sum())
    found = future.result(PATIENCE_SECONDS).sort_index()
    expect(found.to_dict(), frame.groupby("group").value.sum().to_dict(), "sums of groups")


def delayed(work: Work) -> None:
    number = work.number()
    parts = [dask.delayed(fill, pure=False)(number + i) for i in range(4)]
    (whole,) = work.client.persist([dask.delayed(total, pure=False)(*parts)])
    expect(work.client.compute(whole).result(PATIENCE_SECONDS), LENGTH * (4 * number + 6), "a persisted total")


def scattered(work: Work) -> None:
    """The only thing that may be lost: data of this client with one copy."""
    number = work.number()
    future = work.client.scatter(fill(number), hash=False)
    work.fragile.append(str(future.key))
    work.places += work.client.who_has(future).get(future.key, ())
    expect(work.submit(total, future).result(PATIENCE_SECONDS), LENGTH * number, "a total of scattered data")
    expect(future.result(PATIENCE_SECONDS), fill(number), "scattered data")


def queue(work: Work) -> None:
    """Items go from whatever client to whatever client, and keep what is in them though their client is gone."""
    shared = Queue(QUEUE, client=work.client)
    if shared.qsize() < QUEUED or work.chance.random() < 0.5:
        number = work.number()
        shared.put((time.monotonic(), number, work.client.map(fill, [number, number + 1], pure=False)))
    with contextlib.suppress(TimeoutError):
        made, number, futures = shared.get(timeout=0.5 if work.chance.random() < 0.5 else 0)
        work.since = made
        expect_filled(number, futures, "an item of the queue")


def variable(work: Work) -> None:
    shared = Variable(SHARED, client=work.client)
    if work.chance.random() < 0.5:
        number = work.number()
        shared.set((time.monotonic(), number, work.submit(fill, number)))
    with contextlib.suppress(TimeoutError):
        work.since, number, future = shared.get(timeout=0)
        expect(future.result(PATIENCE_SECONDS), fill(number), "a variable")


def count(work: Work) -> None:
    """A counter that only the lock keeps right: the run knows how often it was counted."""
    with Lock(LOCK, client=work.client):
        counter = Variable(COUNTER, client=work.client)
        counter.set(counter.get(timeout=PATIENCE_SECONDS) + 1)


def exclusive(work: Work) -> None:
    """The machine tells that no other process has the lock."""
    with Lock(EXCLUSIVE, client=work.client):
        _hold(work, EXCLUSIVE, 1)


def limited(work: Work) -> None:
    """No more processes have the semaphore than may."""
    with Semaphore(LIMIT, LIMITED, client=work.client):
        _hold(work, LIMITED, LIMIT)


def _hold(work: Work, name: str, places: int) -> None:
    """Have a lock while a task runs, alone."""
    number = work.number()
    try:
        with held(work.holders, name, places):
            expect(work.submit(square, number).result(PATIENCE_SECONDS), number * number, "a square")
    except TooMany as raised:
        work.since = min(work.since, *(since for _, since in raised.others))
        raise


def event(work: Work) -> None:
    """An event that is set is seen by a task that waits for it, and stays set until it is cleared."""
    flag = Event(f"chaos-event-{work.number()}", client=work.client)
    expect(flag.is_set(), False, "an event that nobody has set")
    waits = work.submit(wait_for, flag)
    flag.set()
    expect(waits.result(PATIENCE_SECONDS), True, "what a task has seen of an event")
    expect(flag.is_set(), True, "an event that was set")
    flag.clear()
    expect(flag.is_set(), False, "an event that was cleared")


def dataset(work: Work) -> None:
    _change_or_check(work, f"chaos-{work.chance.randrange(DATASETS)}", 0.3, durable=False)


def durable(work: Work) -> None:
    _change_or_check(work, f"chaos-durable-{work.chance.randrange(DATASETS)}", 0.4, durable=True)


def _change_or_check(work: Work, name: str, published: float, *, durable: bool) -> None:
    """Publish a dataset, with this chance, or unpublish it, or see whether it is right."""
    choice = work.chance.random()
    if choice < published:
        _publish(work, name, durable=durable)
        return
    with contextlib.suppress(DatasetNotFoundError):
        if choice < published + 0.1:
            work.client.unpublish_dataset(name)
        else:
            check_dataset(work, name)


def _publish(work: Work, name: str, durable: bool) -> None:
    number = work.number()
    futures = work.client.map(fill, range(number, number + 3), pure=False)
    with contextlib.suppress(DatasetExistsError):
        override = work.chance.random() < 0.5
        work.client.publish_dataset((work.since, number, futures), name=name, durable=durable, override=override)


def check_dataset(work: Work, name: str) -> None:
    """See that a dataset has what was published under that name, by whatever client."""
    work.since, number, futures = work.client.get_dataset(name)
    expect_filled(number, futures, f"the dataset {name}")


def actor(work: Work) -> None:
    number = work.number()
    account = work.client.submit(Account, number, actor=True, pure=False).result(PATIENCE_SECONDS)
    amounts = [work.chance.randrange(100) for _ in range(5)]
    balances = [account.pay_in(amount) for amount in amounts]
    for position, balance in enumerate(balances, 1):
        expect(balance.result(PATIENCE_SECONDS), number + sum(amounts[:position]), "the balance of an account")


def inside(work: Work) -> None:
    number = work.number()
    expected = sum(n * n for n in range(number, number + 10))
    futures = [work.submit(sum_of_squares, range(number, number + 10)) for _ in range(3)]
    expect(values(futures), [expected] * 3, "what a task has gathered")


def nested(work: Work) -> None:
    """Futures inside a result live as long as the result."""
    number = work.number()
    outer = work.submit(two_arrays, number)
    found = outer.result(PATIENCE_SECONDS)
    del outer
    expect(found["number"], number, "a result with futures")
    expect_filled(number, found["inside"], "futures inside a result")


def error(work: Work) -> None:
    """A task's own error arrives as such, and stops what depends on it."""
    number = work.number()
    future = work.submit(operator.add, work.submit(fail, number), 1)
    try:
        future.result(PATIENCE_SECONDS)
    except LookupError as raised:
        expect(raised.args, (number,), "the error of a task")
    else:
        raise Wrong("no error came from a task that fails")


def cancelled(work: Work) -> None:
    futures = work.client.map(linger, range(20), pure=False)
    more = work.client.submit(sum, futures, pure=False)
    work.client.cancel(futures)
    for future in (*futures, more):
        with contextlib.suppress(CancelledError):
            future.result(PATIENCE_SECONDS)


def completed(work: Work) -> None:
    number = work.number()
    futures = work.client.map(square, range(number, number + 10), pure=False)
    found = sorted(result for _, result in as_completed(futures, with_results=True, timeout=PATIENCE_SECONDS))
    expect(found, [n * n for n in range(number, number + 10)], "what was completed")


def beside_scheduler(work: Work) -> None:
    expect(work.client.run_on_scheduler(square, 12), 144, "what ran beside the scheduler")


def beside_hosts(work: Work) -> None:
    """Whichever hosts there are, each says the same."""
    said = work.client.run(square, 12, nanny=True, on_error="return")
    expect({value for value in said.values() if not isinstance(value, BaseException)} <= {144}, True, "nannies")


#: All of them, and how often each is done beside the others.
OPERATIONS: Mapping[Operation, int] = {
    tasks: 6, chain: 3, large: 6, keep: 8, array: 4, dataframe: 2, delayed: 3, scattered: 3, queue: 4, variable: 3,
    count: 3, exclusive: 3, limited: 3, event: 3,
    dataset: 4, durable: 3, actor: 4, inside: 3, nested: 3, error: 2, cancelled: 2, completed: 2,
    beside_scheduler: 1, beside_hosts: 1,
}  # fmt: skip
