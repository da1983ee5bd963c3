"""An exception that was sent is what it was, and of one that can't be, as much as can be."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import io
import json
import pickle
import socket
import subprocess
import sys
import threading
import traceback
import urllib.error
import weakref
from typing import ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from holdfast import RemoteError
from holdfast.cluster.failures import dumping, loading
from holdfast.cluster.failures.links import Unsent


def sent(error, note=""):
    """The exception as it arrives where the result is asked for."""
    try:
        raise error
    except BaseException as caught:
        blob, text = dumping.dump_exception(caught, note)
    return loading.load_exception(blob, text)[0]


class Failed(Exception):
    def __init__(self, code, *, why):
        super().__init__(f"failed with {code}")
        self.code = code
        self.why = why


class Silent(Exception):
    """Never calls ``super().__init__``."""

    def __init__(self, status, *, request):
        self.status = status
        self.request = request


class Made(Exception):
    """Can only be made by a classmethod."""

    def __new__(cls, *args, **kwargs):
        if not kwargs.get("really"):
            raise TypeError("use Made.of")
        return super().__new__(cls)

    @classmethod
    def of(cls, number):
        error = cls(really=True)
        error.number = number
        return error

    def __init__(self, *args, **kwargs):
        pass


class Slotted(ValueError):
    __slots__ = ("left", "never", "none")

    def __init__(self, left):
        self.left = left
        self.none = None


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    x: int
    y: str


class Guarded(Exception):
    args = property(lambda self: ("shown",))

    def __setattr__(self, name, value):
        raise AttributeError(name)

    def with_traceback(self, trace):
        raise RuntimeError("not here")


class Lost(OSError):
    def __init__(self, host, *, port):
        super().__init__(111, "no answer", f"{host}:{port}")
        self.host = host


class Liar(Exception):
    """Its ``__reduce__`` makes something else of it."""

    def __init__(self, a, b):
        super().__init__(a)
        self.b = b

    def __reduce__(self):
        return Exception, (str(self),)


class Closed(Exception):
    """Has a lock, and knows how to be pickled without."""

    def __init__(self, number, lock=None):
        super().__init__(number)
        self.number = number
        self.reason = None
        self.lock = lock or "a new lock"

    def __reduce__(self):
        return Closed, (self.number,)


class Failures(ExceptionGroup):
    def __new__(cls, members, place):
        self = super().__new__(cls, f"failures at {place}", members)
        self.place = place
        return self

    def __init__(self, members, place):
        pass

    def derive(self, members):
        return Failures(members, self.place)


def json_error():
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads('{"a": ')
    return caught.value


def loop_error():
    with pytest.raises(TypeError) as caught:
        np.add.reduce(np.array(["a", "b"]))
    return caught.value


def memory_error():
    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 55, "i1")
    return caught.value


def fields(error):
    names = [name for name in dir(error) if not name.startswith("__") and name not in ("add_note", "with_traceback")]
    found = {name: getattr(error, name, None) for name in names}
    return {name: value for name, value in found.items() if not callable(value)}


@pytest.mark.parametrize(
    "error",
    [
        ValueError("plain", 1, None),
        KeyError(("a", 1)),
        Failed(7, why="it must be"),
        Silent(404, request={"url": "http://localhost"}),
        Made.of(3),
        Slotted("left"),
        Frozen(1, "y"),
        Guarded("hidden"),
        Lost("localhost", port=80),
        Liar(1, 2),
        OSError("only words"),
        FileNotFoundError(2, "no such file", "a", None, "b"),
        BlockingIOError(11, "would block", 5),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        UnicodeEncodeError("ascii", "\udcff", 0, 1, "bad"),
        ImportError("gone", name="module", path="/tmp"),
        NameError("who", name="who"),
        StopIteration(5),
        SyntaxError("bad", ("file", 1, 2, "text", 1, 3)),
        subprocess.CalledProcessError(3, ["ls"], output=b"out", stderr=b"err"),
        subprocess.TimeoutExpired("ls", 3.0),
        json_error(),
        loop_error(),
        memory_error(),
        np.exceptions.AxisError(3, 1),
        pd.errors.OutOfBoundsDatetime("far"),
        pa.ArrowInvalid("no"),
        pickle.PicklingError("no"),
        socket.gaierror(-2, "unknown"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_type_words_arguments_and_attributes_arrive(error):
    copy = sent(error)
    assert type(copy) is type(error)
    assert BaseException.args.__get__(copy) == BaseException.args.__get__(error)
    assert str(copy) == str(error)
    assert fields(copy) == fields(error)


def test_no_method_of_the_class_has_a_part_in_it():
    class Calls(Exception):
        calls: ClassVar[list[str]] = []

    for name in ("__init__", "__eq__", "__setattr__", "__getattribute__", "__setstate__", "__hash__", "__bool__"):
        setattr(Calls, name, lambda self, *args, name=name, **kwargs: Calls.calls.append(name) or NotImplemented)
    error = BaseException.__new__(Calls, 1)
    copy = sent(error)
    assert type(copy) is Calls
    assert BaseException.args.__get__(copy) == (1,)
    # What formats a traceback asks an exception for its notes.
    assert set(Calls.calls) <= {"__getattribute__"}


def test_an_exception_of_a_response_arrives_with_what_can_be_sent_of_it():
    with socket.socket() as plain, plain.makefile("rb") as body:
        error = urllib.error.HTTPError("http://localhost", 404, "not here", {"a": "b"}, body)
        copy = sent(error)
        error.close()
    assert type(copy) is urllib.error.HTTPError
    assert (copy.code, copy.reason, copy.filename, copy.headers) == (404, "not here", "http://localhost", {"a": "b"})
    assert str(copy) == "HTTP Error 404: not here"
    assert isinstance(copy.fp, Unsent)
    assert "BufferedReader" in repr(copy.fp)
    with pytest.raises(AttributeError, match="can't be pickled"):
        copy.read()
    assert sent(urllib.error.URLError(ConnectionRefusedError(111, "refused"))).reason.errno == 111


@pytest.mark.parametrize(
    "value",
    [
        threading.Lock(),
        sys._getframe(),
        weakref.ref(Failed),
        (n for n in range(3)),
        pytest.param([[threading.Lock()]], id="nested"),
        io.TextIOWrapper(io.BytesIO()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cant_be_sent_says_so_and_the_rest_arrives(value):
    error = Failed(7, why=value)
    error.more = [1, 2]
    copy = sent(error)
    assert (copy.code, copy.more, str(copy)) == (7, [1, 2], "failed with 7")
    assert isinstance(copy.why, Unsent)
    assert "which can't be pickled (" in repr(copy.why)
    assert len(repr(copy.why)) < 1000
    # A copy of the copy is the same.
    assert repr(sent(copy).why) == repr(copy.why)


def test_values_that_refuse_in_any_way_are_left_out():
    class Refuses:
        def __init__(self, kind):
            self.kind = kind

        def __reduce__(self):
            raise self.kind("no")

        __repr__ = __reduce__

    class Unreadable:
        def __reduce__(self):
            return int, ("no number",)

    deep = []
    for _ in range(100_000):
        deep = [deep]
    error = ValueError(Refuses(SystemExit), Refuses(RecursionError), deep)
    error.unreadable = Unreadable()
    copy = sent(error)
    assert [type(value) for value in copy.args] == [Unsent] * 3
    assert isinstance(copy.unreadable, Unsent)
    assert "can't be unpickled here: ValueError: invalid literal" in repr(copy.unreadable)


def test_its_own_reducer_is_asked_where_there_is_something_that_cant_be_sent():
    error = Closed(7, threading.Lock())
    error.reason = Failed(1, why="the reason")
    copy = sent(error)
    assert type(copy) is Closed
    assert (copy.number, copy.lock, copy.reason.code) == (7, "a new lock", 1)
    assert sent(Closed(7, "an old lock")).lock == "an old lock"


def test_values_that_are_the_same_are_the_same_again():
    shared = [1]
    error = Failed(7, why=shared)
    error.args = (shared, error)
    error.itself = error
    copy = sent(error)
    assert copy.args[0] is copy.why
    assert copy.args[1] is copy.itself is copy


def test_cause_context_and_notes_arrive():
    def fail():
        try:
            try:
                {}["k"]
            except KeyError as error:
                error.add_note("of the key")
                raise Failed(7, why="cause") from error
        except Failed as failed:
            failed.add_note("of the failure")
            raise ValueError("context") from None

    with pytest.raises(ValueError, match="context") as caught:
        fail()
    copy = sent(caught.value, note="Where it was.")
    assert copy.__cause__ is None
    assert copy.__suppress_context__
    assert copy.__notes__ == ["Where it was."]
    assert copy.__context__.code == 7
    assert copy.__context__.__notes__ == ["of the failure"]
    assert repr(copy.__context__.__cause__) == "KeyError('k')"
    assert copy.__context__.__context__ is copy.__context__.__cause__
    assert copy.__context__.__cause__.__notes__ == ["of the key"]
    assert "".join(traceback.format_exception(copy.__context__)) == "".join(
        traceback.format_exception(caught.value.__context__)
    )


def test_notes_that_are_none():
    error = ValueError("x")
    error.__notes__ = "no list"
    assert sent(error).__notes__ == "no list"
    assert sent(error, note="Where it was.").__notes__ == ["Where it was."]


def test_chains_in_circles_and_without_end():
    one, other = ValueError("one"), KeyError("other")
    one.__cause__, other.__context__ = other, one
    copy = sent(one)
    assert copy.__cause__.__context__ is copy
    last = first = ValueError(0)
    for number in range(1, 5000):
        last.__cause__ = ValueError(number)
        last = last.__cause__
    copy, length = sent(first), 0
    while copy is not None:
        assert copy.args == (length,)
        length, copy = length + 1, copy.__cause__
    assert length == dumping.MAX_LINKS


def test_groups_arrive_with_their_members():
    group = ExceptionGroup(
        "outer", [Failed(7, why=threading.Lock()), ExceptionGroup("inner", [OSError(2, "no"), Failed(8, why=1)])]
    )
    group.exceptions[0].__context__ = group
    copy = sent(group)
    assert copy.message == "outer"
    assert [type(member) for member in copy.exceptions] == [Failed, ExceptionGroup]
    assert copy.exceptions[0].__context__ is copy
    assert copy.exceptions[1].exceptions[1].code == 8
    matching, rest = copy.split(OSError)
    assert matching.exceptions[0].exceptions[0].errno == 2
    assert rest is not None
    own = sent(Failures([ValueError(1)], "home"))
    assert (type(own), own.place, own.message, own.exceptions[0].args) == (Failures, "home", "failures at home", (1,))


def test_of_very_many_members_some_are_left_out():
    copy = sent(ExceptionGroup("many", [ValueError(n) for n in range(3000)]))
    assert [member.args for member in copy.exceptions[:-1]] == [(n,) for n in range(dumping.MAX_LINKS - 1)]
    assert "2,001 further exceptions" in str(copy.exceptions[-1])


def test_exceptions_within_values_arrive_as_such():
    class Retries(Exception):
        def __init__(self, attempts):
            self.attempts = attempts

    cause = Failed(7, why="cause")
    error = Retries({"first": [cause, Failed(8, why=threading.Lock())]})
    error.__cause__ = cause
    copy = sent(error)
    first, second = copy.attempts["first"]
    assert first is copy.__cause__
    assert (first.code, second.code, type(second.why)) == (7, 8, Unsent)


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError("stop"),
        BaseExceptionGroup("both", [KeyboardInterrupt(), ValueError(1)]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_would_end_the_program_is_a_cause(error):
    error.__context__ = KeyError("k")
    copy = sent(error)
    assert type(copy) is RemoteError
    assert str(copy).startswith(f"the task raised {type(error).__name__}")
    assert type(copy.__cause__) is type(error)
    assert str(copy.__cause__) == str(error)
    assert repr(copy.__cause__.__context__) == "KeyError('k')"
    assert copy.__traceback__.tb_frame.f_code.co_name == "sent"
    assert copy.__cause__.__traceback__ is None


# -- classes that aren't there


@pytest.fixture
def module(tmp_path, monkeypatch):
    """``module(source)``: a module that there is until ``forget()``."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def forget(*names):
        for name in names:
            (tmp_path / f"{name}.py").unlink(missing_ok=True)
            sys.modules.pop(name, None)
        importlib.invalidate_caches()

    def make(name, source):
        (tmp_path / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    make.forget = forget
    yield make
    forget("only_there", "on_both_sides")


SOURCE = """
import on_both_sides
class Failed(on_both_sides.LibraryError, OSError):
    def __init__(self, code, *, value):
        super().__init__(5, "no way")
        self.code = code
        self.value = value
class Value:
    pass
"""


def test_a_class_that_isnt_there_is_one_of_what_is(module):
    there = module("on_both_sides", "class LibraryError(Exception):\n  def __str__(self): return self.nobody_knows")
    only_there = module("only_there", SOURCE)
    error = only_there.Failed(7, value=only_there.Value())
    error.__cause__ = only_there.Failed(8, value=1)
    blob, text = dumping.dump_exception(ExceptionGroup("two", [error, KeyError("k")]))
    module.forget("only_there")
    group = loading.load_exception(blob, text)[0]
    copy, other = group.exceptions
    assert isinstance(copy, RemoteError)
    assert isinstance(copy, OSError)
    assert isinstance(copy, there.LibraryError)
    assert repr(other) == "KeyError('k')"
    assert (copy.errno, copy.code, copy.__cause__.code) == (5, 7, 8)
    assert "can't be unpickled here: ModuleNotFoundError" in repr(copy.value)
    assert "only_there.Failed can't be used in this process: ModuleNotFoundError" in str(copy)
    assert type(copy).__name__ == "RemoteError(Failed)"
    # It can be sent on, also by pickle, and is itself again where its class is.
    assert str(pickle.loads(pickle.dumps(copy))) == str(copy)
    blob, text = dumping.dump_exception(copy)
    only_there = module("only_there", SOURCE)
    back = loading.load_exception(blob, text)[0]
    assert type(back) is only_there.Failed
    assert (back.errno, back.code) == (5, 7)


def test_a_group_whose_class_isnt_there_is_a_group(module):
    only_there = module("only_there", "class Failures(ExceptionGroup):\n  pass")
    blob, text = dumping.dump_exception(only_there.Failures("some", [ValueError(1), Failed(7, why=1)]))
    module.forget("only_there")
    copy = loading.load_exception(blob, text)[0]
    assert isinstance(copy, RemoteError)
    assert isinstance(copy, ExceptionGroup)
    assert [type(member) for member in copy.exceptions] == [ValueError, Failed]


@pytest.mark.parametrize(
    "base",
    [
        "class Base(Exception):\n  def __init_subclass__(cls): assert again",
        "class Meta(type):\n  def __new__(*args): return again and type.__new__(*args)\n"
        "class Base(Exception, metaclass=Meta): pass",
        "class Base(Exception):\n  def __new__(cls, must): pass",
        "class Base(Exception):\n  __slots__ = ('a', 'b')\n  args = property(lambda self: ())",
    ],
)
def test_bases_that_refuse_to_have_others_below_them_are_no_matter(module, base):
    there = module("on_both_sides", "again = True\n" + base)
    only_there = module("only_there", "import on_both_sides\nclass Failed(on_both_sides.Base, ValueError): pass\n")
    there.again = False
    blob, text = dumping.dump_exception(BaseException.__new__(only_there.Failed, "why"))
    module.forget("only_there")
    copy = loading.load_exception(blob, text)[0]
    assert isinstance(copy, RemoteError)
    assert isinstance(copy, ValueError)
    assert "Failed: why" in str(copy)


def test_a_class_that_is_another_one_now(module):
    only_there = module("only_there", "class Failed(LookupError): pass")
    blob, text = dumping.dump_exception(only_there.Failed("why"))
    module.forget("only_there")
    module("only_there", "Failed = print")
    copy = loading.load_exception(blob, text)[0]
    assert isinstance(copy, LookupError)
    assert "is no class of exceptions" in str(copy)


def test_a_class_that_cant_be_pickled():
    class Local(Failed):
        lock = threading.Lock()

    copy = sent(Local(7, why="local"))
    assert isinstance(copy, Failed)
    assert isinstance(copy, RemoteError)
    assert (copy.code, copy.why) == (7, "local")
    assert "Local can't be used in this process" in str(copy)


def test_a_local_class_is_itself():
    class Local(Failed):
        def shown(self):
            return self.code + 1

    copy = sent(Local(7, why="local"))
    assert type(copy) is Local
    assert copy.shown() == 8


# -- words


def test_exceptions_that_cant_speak_arrive():
    class Speechless(Exception):
        def __init__(self, one, two):
            super().__init__(one)

        def __str__(self):
            raise KeyboardInterrupt

        __repr__ = __str__

        def __reduce__(self):
            raise SystemExit

    copy = sent(Speechless(1, 2))
    assert type(copy) is Speechless
    assert copy.args == (1,)


def test_texts_are_short_whatever_an_exception_has_to_say():
    class Talkative(Exception):
        def __str__(self):
            return "x" * 10_000_000

        def __getstate__(self):
            raise RuntimeError

    blob, text = dumping.dump_exception(Talkative())
    assert len(text) < 20_000
    assert len(blob) < 20_000


def test_a_damaged_blob_is_an_error_with_the_text():
    blob, text = dumping.dump_exception(Failed(7, why=1))
    for damaged in (b"", b"no pickle", blob[:-10], pickle.dumps(([], [], "")), pickle.dumps(1)):
        copy = loading.load_exception(damaged, text)[0]
        assert type(copy) is RemoteError
        assert "Failed: failed with 7" in str(copy)


# -- tracebacks


def test_a_traceback_shows_what_it_showed():
    def outer(n):
        return 1 + inner(n, n) * 2

    def inner(a, b):
        return [
            a,
            (a + 1) / (b * 0),  # fails
        ]

    with pytest.raises(ZeroDivisionError) as caught:
        outer(3)
    copy = sent(caught.value)
    assert "".join(traceback.format_exception(copy)) == "".join(traceback.format_exception(caught.value))
    trace = copy.__traceback__
    while trace is not None:
        assert trace.tb_frame.f_back is None
        assert not trace.tb_frame.f_locals
        assert trace.tb_frame.f_globals["__name__"] == __name__
        trace = trace.tb_next


def test_of_a_long_traceback_the_ends_arrive():
    def deeper(n):
        return deeper(n - 1) if n else 1 / 0

    with pytest.raises(ZeroDivisionError) as caught:
        deeper(500)
    frames = traceback.extract_tb(sent(caught.value).__traceback__)
    assert 50 <= len(frames) <= 100
    assert frames[0].name == "sent"
    assert frames[-1].line == "return deeper(n - 1) if n else 1 / 0"


def test_loaded_exceptions_are_in_no_circle():
    blob, text = dumping.dump_exception(Failed(7, why=1))
    copy = loading.load_exception(blob, text)[0]
    gone = weakref.ref(copy)
    del copy
    assert gone() is None
