"""A script that has about everything in its ``__main__`` that a script may have, and uses it in tasks.

Run with the address of a cluster, its token and some words that say what is tried; writes a JSON object: what each task
gave, as text, and the keys of some calls.
"""

import abc
import concurrent.futures
import contextlib
import dataclasses
import enum
import functools
import json
import multiprocessing
import pickle
import sys
import threading
import typing
from collections import namedtuple

from holdfast import Client

UserId = typing.NewType("UserId", int)
T = typing.TypeVar("T")
P = typing.ParamSpec("P")
Ts = typing.TypeVarTuple("Ts")
Point = namedtuple("Point", "x y")


class Named(typing.NamedTuple):
    number: int

    def double(self):
        return self.number * 2


class Color(enum.Enum):
    RED = 1
    GREEN = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class User:
    id: UserId
    tags: list = dataclasses.field(default_factory=list)
    _: dataclasses.KW_ONLY = None
    name: str = "nobody"


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: int


@typing.runtime_checkable
class HasArea(typing.Protocol):
    def area(self) -> float: ...


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...


class Square(Shape, typing.Generic[T]):
    def __init__(self, side):
        self.side = side

    @functools.cached_property
    def name(self):
        return f"square of {self.side}"

    @functools.lru_cache(maxsize=7)  # noqa: B019
    def area(self):
        return self.side**2

    @staticmethod
    def corners():
        return 4

    @classmethod
    def unit(cls):
        return cls(1)

    @functools.singledispatchmethod
    def scaled(self, by):
        return "by anything"

    @scaled.register
    def _(self, by: int):
        return self.side * by


@functools.lru_cache(maxsize=3, typed=True)
def cached(x):
    return x + 1


@functools.cache
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


@functools.singledispatch
def describe(value):
    """What it is."""
    return "anything"


@describe.register
def _(value: int):
    return f"a number after {describe('x')}"


@describe.register(Square)
def _(value):
    return f"a {value.name}"


@functools.singledispatch
def halve(value):
    return value / 2


@halve.register
def _(value: int):
    return value // 2


def logged(function: typing.Callable[P, T]) -> typing.Callable[P, T]:
    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)

    return wrapper


@logged
def negate(x):
    return -x


negate_four = functools.partial(negate, 4)
negate_static = staticmethod(negate)


class Absent:
    """There is one of it."""

    def __init__(self, words):
        self.words = words

    def __reduce__(self):
        return "ABSENT"


ABSENT = Absent("nothing there")


def is_absent(value, marker=ABSENT):
    return value is marker and value is ABSENT and value.words


def numbers(n):
    yield from range(n)


@contextlib.contextmanager
def three():
    yield 3


def managed():
    with three() as x:
        return x


def square(x):
    return x * x


def renamed(user):
    return User(user.id, name="renamed")


def remember(value):
    global remembered
    remembered = value


def recall(x):
    return remembered + x


def in_a_pool(method):
    with multiprocessing.get_context(method).Pool(1) as pool:
        return pool.map(square, range(3)), pool.map(renamed, [User(UserId(1))])


def with_an_initializer():
    with multiprocessing.get_context("fork").Pool(1, remember, (10,)) as pool:
        return pool.map(recall, range(2))


def in_an_executor(method):
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        return list(executor.map(cached, range(3)))


def put_into(queue, user):
    queue.put(renamed(user))


def in_a_process(method):
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    process = context.Process(target=put_into, args=(queue, User(UserId(1))))
    process.start()
    try:
        return queue.get()
    finally:
        process.join()


def pickled_here(user):
    copies = pickle.loads(pickle.dumps([user, Color.RED, square, cached, Frozen(2)]))
    return copies[0] == user and copies[1] is Color.RED and copies[2](3) == 9 and copies[3](1) == 2


class Failed(Exception):
    def __init__(self, code, *, why):
        self.code = code


def fail():
    raise Failed(7, why="so")


def caught(client):
    try:
        client.submit(fail).result(60)
    except Failed as error:
        return error.code


def tasks(client):
    submit = client.submit
    return {
        "function with a cache": lambda: submit(cached, 1),
        "recursive function with a cache": lambda: submit(fibonacci, 20),
        "parameters of a cache": lambda: submit(lambda: (cached.cache_parameters(), cached.__name__)),
        "new type": lambda: submit(lambda x: UserId(x), 3),
        "new type itself": lambda: submit(UserId, 3),
        "new type as a result": lambda: submit(lambda: UserId),
        "type variables": lambda: submit(lambda: [each.__name__ for each in (T, P, Ts)]),
        "named tuple": lambda: submit(Point, 1, 2),
        "method of a named tuple": lambda: submit(Named(4).double),
        "enumeration": lambda: submit(lambda given: (given is Color.RED, Color.GREEN), Color.RED),
        "flag": lambda: submit(lambda: Access.READ | Access.WRITE),
        "dataclass": lambda: submit(User, 3),
        "fields of a dataclass": lambda: submit(
            lambda: [(f.name, f.default is dataclasses.MISSING) for f in dataclasses.fields(User)]
        ),
        "frozen dataclass": lambda: submit(Frozen, 3),
        "protocol": lambda: submit(lambda: isinstance(Square(2), HasArea)),
        "abstract class": lambda: submit(lambda: isinstance(Square(2), Shape)),
        "generic class": lambda: submit(lambda: Square[int](3).side),
        "cached property": lambda: submit(lambda shape: shape.name, Square(2)),
        "method with a cache": lambda: submit(lambda: Square(3).area()),
        "static method": lambda: submit(Square.corners),
        "class method": lambda: submit(lambda: Square.unit().side),
        "generic method": lambda: submit(lambda: (Square(2).scaled(3), Square(2).scaled("x"))),
        "generic function": lambda: submit(describe, 1),
        "generic function by a class": lambda: submit(lambda: (describe(Square(2)), describe.__doc__)),
        "decorated function": lambda: submit(negate, 3),
        "what is decorated": lambda: submit(negate.__wrapped__, 3),
        "partial": lambda: submit(negate_four),
        "static function": lambda: submit(negate_static, 3),
        "one of its kind": lambda: submit(is_absent, ABSENT),
        "one of its kind as a result": lambda: submit(lambda: ABSENT),
        "generator": lambda: submit(lambda n: sum(numbers(n)), 4),
        "context manager": lambda: submit(managed),
        "pickled by the task": lambda: submit(pickled_here, User(UserId(1))),
    }


def processes(client):
    cases = {"pool with an initializer": lambda: client.submit(with_an_initializer)}
    for method in ("fork", "spawn", "forkserver"):
        cases[f"pool, {method}"] = lambda method=method: client.submit(in_a_pool, method)
        cases[f"executor, {method}"] = lambda method=method: client.submit(in_an_executor, method)
        cases[f"process, {method}"] = lambda method=method: client.submit(in_a_process, method)
    return cases


def main():
    address, token, *wanted = sys.argv[1:]
    with Client(address, token=token) as client:
        answers, keys = {}, {}
        for make in (tasks, processes):
            if make.__name__ in wanted:
                for name, case in make(client).items():
                    try:
                        value = case().result(60)
                        answers[name] = "ABSENT" if value is ABSENT else repr(value)
                    except Exception as error:
                        answers[name] = f"{type(error).__name__}: {error}"
        answers["an error"] = repr(caught(client))
        for function in (cached, fibonacci, halve, negate, square, UserId, threading.Thread):
            keys[repr(function.__name__)] = client.submit(function, 1).key
        print(json.dumps({"answers": answers, "keys": keys}))


if __name__ == "__main__":
    main()
