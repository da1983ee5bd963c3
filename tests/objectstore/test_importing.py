"""One thread at a time imports what pickles name: in interpreters of their own, where the race is certain."""

from __future__ import annotations

import io
import pickle
import pickletools
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from holdfast.objectstore.pickling import importing

#: ``begun(name, other)``: called in the middle of a module; waits until the other one is there too, or for a moment.
MEETING = """
import threading
_begun = {}
def has_begun(name):
    return _begun.setdefault(name, threading.Event())
def begun(name, other):
    has_begun(name).set()
    has_begun(other).wait(0.3)
"""
#: A package imports its module at its end, and the module takes something from the package first. Whichever comes first
#: in one thread, this works. Of two threads that begin with one each, the first gets a module without its function.
RING = {
    "ring/__init__.py": """
        import meeting
        meeting.begun("ring", "ring.inner")
        LIMIT = 1
        from ring.inner import double
    """,
    "ring/inner.py": """
        import meeting
        meeting.begun("ring.inner", "ring")
        from ring import LIMIT
        def double(x):
            return 2 * x
    """,
}
#: The first thread is in the middle of the package when the others begin.
PROGRAM = """
import sys, threading
sys.path.insert(0, {folder!r})
import meeting
from holdfast.objectstore.pickling import importing
pickles = {pickles!r}
results = [None] * len(pickles)
def load(n):
    try:
        {statement}
    except Exception as error:
        results[n] = f"{{type(error).__name__}}: {{error}}"
threads = [threading.Thread(target=load, args=(n,)) for n in range(len(pickles))]
threads[0].start()
meeting.has_begun("ring").wait(30)
for thread in threads[1:]:
    thread.start()
for thread in threads:
    thread.join()
print(results)
"""


def named(module: str, name: str) -> bytes:
    """The pickle of what a module has under this name, which isn't imported here."""
    frame = pickle.dumps((module, name), protocol=5)
    assert frame  # as pickle writes it, but for the tuple
    text = [b"\x8c" + bytes([len(part)]) + part.encode() + b"\x94" for part in (module, name)]
    return b"\x80\x05" + b"".join(text) + pickle.STACK_GLOBAL + b"\x94."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "meeting.py").write_text(MEETING)
    for path, text in RING.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(textwrap.dedent(text))
    return tmp_path


def run(folder: Path, pickles: list[bytes], statement: str = "results[n] = importing.loads(pickles[n])(1)") -> str:
    program = PROGRAM.format(folder=str(folder), pickles=pickles, statement=statement)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class TestThreads:
    def test_that_begin_with_a_package_and_with_a_module_of_it(self, folder):
        assert run(folder, [named("ring", "double"), named("ring.inner", "double")]) == "[2, 2]"

    def test_of_which_many_begin_at_either_end(self, folder):
        assert run(folder, [named("ring", "double"), named("ring.inner", "double")] * 4) == str([2] * 8)

    def test_that_import_by_cloudpickles_function_for_modules(self, folder):
        calls = [
            b"\x80\x05"
            + named("cloudpickle.cloudpickle", "subimport")[2:-1]
            + b"\x8c"
            + bytes([len(m)])
            + m
            + b"\x85R."
            for m in (b"ring", b"ring.inner")
        ]
        assert run(folder, calls, "results[n] = importing.loads(pickles[n]).double(1)") == "[2, 2]"

    @pytest.mark.parametrize("by_itself", [0, 1], ids=["package", "module"])
    def test_beside_one_whose_function_imports_by_itself(self, folder, by_itself):
        names = ["ring", "ring.inner"]
        statement = f"results[n] = n == {by_itself} and [__import__({names[by_itself]!r})] and 2"
        statement += " or importing.loads(pickles[n])(1)"
        results = run(folder, [named(name, "double") for name in names], statement)
        assert eval(results)[1 - by_itself] == 2


class TestOneThread:
    VALUES = (
        None,
        (1, "text", b"\x93" * 10),
        [Path("x"), {"a": frozenset([1])}],
        threading.Thread,
        ["x" * 10] * 20_000 + [Path("y")],
        b"z" * 300_000,
    )

    @pytest.mark.parametrize("number", range(len(VALUES)))
    @pytest.mark.parametrize("kind", [bytes, memoryview])
    def test_reads_what_pickle_reads(self, number, kind):
        value = self.VALUES[number]
        for protocol in (0, 2, 4, 5):
            assert importing.loads(kind(pickle.dumps(value, protocol))) == value

    @pytest.mark.parametrize("kind", [bytes, memoryview])
    def test_reads_buffers(self, kind):
        buffers: list[pickle.PickleBuffer] = []
        data = pickle.dumps([pickle.PickleBuffer(bytearray(b"abc")), Path("x")], 5, buffer_callback=buffers.append)
        assert importing.loads(kind(data), buffers) == [bytearray(b"abc"), Path("x")]

    @pytest.mark.parametrize("data", [b"", b"\x80\x05", pickle.dumps(Path("x"))[:-3], pickle.dumps(b"x" * 99_999)[:-9]])
    @pytest.mark.parametrize("kind", [bytes, memoryview])
    def test_raises_what_pickle_raises(self, data, kind):
        with pytest.raises((EOFError, pickle.UnpicklingError)):
            importing.loads(kind(data))

    def test_what_is_not_there(self):
        with pytest.raises(ModuleNotFoundError, match="no_such_module"):
            importing.loads(named("no_such_module", "f"))
        with pytest.raises(AttributeError, match="no_such_name"):
            importing.loads(named("threading", "no_such_name"))

    def test_a_module_that_fails_fails_once(self, tmp_path, monkeypatch):
        (tmp_path / "fails_once.py").write_text(
            "import sys\nsys.tried_once = sys.tried_once + 1\nraise ImportError('no')"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(sys, "tried_once", 0, raising=False)
        with pytest.raises(ImportError, match="no"):
            importing.loads(named("fails_once", "f"))
        assert sys.tried_once == 1


def test_nobody_waits_for_ever_for_one_that_waits_for_them(monkeypatch, tmp_path):
    monkeypatch.setattr(importing, "WAIT_SECONDS", 0.05)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "waited_for.py").write_text("def f(x):\n    return x")
    (tmp_path / "waits_for_another.py").write_text(
        "import threading\n"
        "from holdfast.objectstore.pickling import importing\n"
        "from tests.objectstore.test_importing import named\n"
        "thread = threading.Thread(target=lambda: importing.loads(named('waited_for', 'f')))\n"
        "thread.start()\n"
        "thread.join()\n"
    )
    assert importing.import_alone("waits_for_another").thread.is_alive() is False


def test_a_pickle_of_ours_looks_names_up_with_one_operation():
    # What `loads` takes for a pickle without names must have none.
    for value in (Path("x"), threading.Thread, importing.import_alone):
        names = {op.name for op, _, _ in pickletools.genops(io.BytesIO(pickle.dumps(value, 5)))}
        assert "STACK_GLOBAL" in names
        assert not names & {"GLOBAL", "INST", "EXT1", "EXT2", "EXT4"}
