"""Datasets as files: what is published is there whole, whatever happens to the process that writes it."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from holdfast.objectstore.durable import sweeping
from holdfast.objectstore.durable.catalogue import Catalogue
from holdfast.objectstore.durable.manifest import (
    DatasetEntry,
    Part,
    TableEntry,
    dump_manifest,
    dump_table,
    from_json,
    load_manifest,
    load_table,
    to_json,
)
from holdfast.objectstore.durable.objects import bytes_source, name_of, put, read, read_into
from holdfast.objectstore.durable.opening import id_of, normal_url, open_place
from holdfast.objectstore.durable.place import NewFile, Place
from holdfast.objectstore.durable.sweeping import Process, enter_writer, leave_writer, sweep
from holdfast.objectstore.errors import DurableError

PUBLICATIONS = [f"{n:032x}" for n in range(10)]
NAMES = st.recursive(
    st.none() | st.booleans() | st.text(max_size=8) | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=4)
    | st.floats(allow_nan=False),
    lambda items: st.lists(items, max_size=3).map(tuple),
    max_leaves=6,
)  # fmt: skip


@pytest.fixture(params=["directory", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "directory":
        yield open_place(str(tmp_path / "place"))
        return
    import fsspec

    yield open_place(f"memory://{tmp_path.name}")
    fsspec.filesystem("memory").store.clear()


def dataset(place: Place, name: Any, values: dict[Any, bytes], recipe: bytes = b"recipe") -> DatasetEntry:
    """A dataset whose objects are in the place."""
    stored = put(place, [bytes_source(value) for value in values.values()])
    entries = [
        TableEntry(key, each.digest, each.nbytes, each.checksum, "bytes", ())
        for key, each in zip(values, stored, strict=True)
    ]
    table, of_recipe = put(place, [bytes_source(dump_table(entries)), bytes_source(recipe)])
    return DatasetEntry(
        name,
        {"type": "bytes"},
        Part(*of_recipe[:2]),
        (Part(*table[:2]),),
        len(entries),
        sum(each.nbytes for each in stored),
    )


def contents(place: Place) -> dict[Any, dict[Any, bytes]]:
    """All values of all datasets, read from their files."""
    catalogue = Catalogue(place)
    return {
        found.dataset.name: {
            entry.key: read(place, entry.digest, entry.nbytes) for entry in catalogue.entries(found.dataset)
        }
        for found in catalogue.datasets()
    }


def publish(place: Place, number: int, named: dict[Any, dict[Any, bytes]], removes: tuple[Any, ...] = ()) -> None:
    """As a cluster does it."""
    enter_writer(place, PUBLICATIONS[number], Process.own())
    Catalogue(place).publish(
        PUBLICATIONS[number], [dataset(place, name, values) for name, values in named.items()], removes
    )
    leave_writer(place, PUBLICATIONS[number])


def test_what_was_published_is_there_for_others(place: Place) -> None:
    publish(place, 1, {"flights": {"a": b"1" * 100, ("b", 2): b"2" * 5_000_000}, ("wind", 2013): {}})
    assert contents(open_place(place.url)) == {
        "flights": {"a": b"1" * 100, ("b", 2): b"2" * 5_000_000},
        ("wind", 2013): {},
    }
    found = Catalogue(place).find("flights")
    assert found is not None
    assert found.dataset.nbytes == 5_000_100
    assert Catalogue(place).find("wind") is None


@pytest.mark.parametrize(
    ("url", "error", "way"),
    [
        ("s3://bucket/published", ImportError("Install s3fs to access S3"), "pip install 'holdfast[s3]'"),
        ("gs://bucket", ImportError("Please install gcsfs"), "Please install gcsfs. Install it where you publish"),
        ("gs://bucket", ModuleNotFoundError("No module named 'gcsfs'", name="gcsfs"), "(pip install gcsfs)"),
    ],
)
def test_a_package_that_is_missing_is_named_as_it_is_installed(
    url: str, error: ImportError, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(DurableError) as refused:
        open_place(url)
    assert way in str(refused.value)
    assert f"pip install {error})" not in str(refused.value)


def test_the_last_word_on_a_name_counts(place: Place) -> None:
    publish(place, 9, {"x": {"k": b"old"}, "y": {"k": b"y"}})
    publish(place, 1, {"x": {"k": b"new"}})
    assert contents(place) == {"x": {"k": b"new"}, "y": {"k": b"y"}}
    publish(place, 2, {}, removes=("x", "never there"))
    assert contents(place) == {"y": {"k": b"y"}}
    publish(place, 3, {"x": {"k": b"again"}})
    assert contents(place) == {"x": {"k": b"again"}, "y": {"k": b"y"}}


def test_manifests_of_which_nothing_counts_are_deleted(place: Place) -> None:
    publish(place, 1, {"x": {}})
    publish(place, 2, {"x": {}, "y": {}})
    publish(place, 3, {"x": {}})
    assert len(place.names("datasets")) == 2, "the second one has published y"
    publish(place, 4, {}, removes=("x", "y"))
    publish(place, 5, {"z": {}})
    assert len(place.names("datasets")) == 1
    assert list(contents(place)) == ["z"]


def test_a_publication_that_is_there_is_not_added_again(place: Place) -> None:
    publish(place, 1, {"x": {"k": b"first"}})
    publish(place, 2, {"x": {"k": b"second"}})
    publish(place, 2, {"x": {"k": b"third"}})
    assert contents(place) == {"x": {"k": b"second"}}


def test_an_object_is_written_once(tmp_path: Path) -> None:
    place = open_place(str(tmp_path))
    (stored,) = put(place, [bytes_source(b"x" * 1000)])
    file = tmp_path / name_of(stored.digest)
    before = file.stat()
    assert put(place, [bytes_source(b"x" * 1000), bytes_source(b"x" * 1000)]) == [stored, stored]
    assert file.stat().st_ino == before.st_ino


@pytest.mark.parametrize("damage", [b"cut short", b"y" + b"x" * 999])
def test_what_is_damaged_is_written_again(place: Place, damage: bytes) -> None:
    (stored,) = put(place, [bytes_source(b"x" * 1000)])
    place.put([NewFile(name_of(stored.digest), [damage])])
    put(place, [bytes_source(b"x" * 1000)])
    assert read(place, stored.digest, 1000) == b"x" * 1000


@pytest.mark.parametrize("damage", [b"", b"y" * 999 + b"x", b"x" * 1001, None])
def test_a_damaged_object_is_an_error_that_names_it(place: Place, damage: bytes | None) -> None:
    (stored,) = put(place, [bytes_source(b"y" * 1000)])
    if damage is None:
        place.delete(name_of(stored.digest))
    else:
        place.put([NewFile(name_of(stored.digest), [damage])])
    with pytest.raises(DurableError, match=f"{stored.digest}.*damaged"):
        read_into(place, stored.digest, memoryview(bytearray(1000)))


def test_a_damaged_manifest_hides_no_other(place: Place) -> None:
    publish(place, 1, {"x": {"k": b"x"}})
    publish(place, 2, {"y": {"k": b"y"}})
    name = next(name for name in place.names("datasets") if PUBLICATIONS[2] in name)
    data = place.read(f"datasets/{name}")
    assert data is not None
    place.put([NewFile(f"datasets/{name}", [data[:-20]])])
    assert contents(place) == {"x": {"k": b"x"}}
    with pytest.raises(DurableError, match=name):
        Catalogue(place).find("y")
    with pytest.raises(DurableError, match=r"nothing .* is swept"):
        sweep(place)
    publish(place, 3, {"y": {"k": b"new"}})
    assert contents(place)["y"] == {"k": b"new"}, "what comes is after the damaged one"


def test_a_dataset_is_used_as_the_manifest_before_a_damaged_one_has_it(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    publish(place, 1, {"x": {"k": b"old"}, "z": {"k": b"z"}})  # for z it stays
    publish(place, 2, {"x": {"k": b"new"}})
    name = next(name for name in place.names("datasets") if PUBLICATIONS[2] in name)
    data = place.read(f"datasets/{name}")
    assert data is not None
    place.put([NewFile(f"datasets/{name}", [data[:-20]])])
    publish(place, 3, {"y": {"k": b"y"}})
    catalogue = Catalogue(place)
    found = catalogue.find("x")
    assert found is not None
    assert found.publication == PUBLICATIONS[1]
    [warning] = caplog.messages
    assert name in warning
    assert "'x' is used as publication 1 has it" in warning
    caplog.clear()
    assert catalogue.find("y") is not None
    assert not caplog.messages, "y is of a later manifest than the damaged one"
    assert {each.dataset.name for each in catalogue.datasets()} == {"x", "y", "z"}
    [warning] = caplog.messages
    assert name in warning


@given(NAMES)
@examples(200)
def test_names_are_the_same_in_json(name: Any) -> None:
    import json

    back = from_json(json.loads(json.dumps(to_json(name), allow_nan=False)))
    assert back == name
    assert repr(back) == repr(name), "1 is not True"


def test_manifests_of_a_later_version_are_refused() -> None:
    from holdfast.objectstore.durable.manifest import Manifest

    data = dump_manifest(Manifest(PUBLICATIONS[1], 1, (), ()))
    assert load_manifest(data, "it").publication == PUBLICATIONS[1]
    for load in (load_manifest, load_table):
        with pytest.raises(DurableError, match="update Holdfast"):
            load(data.replace(b'"format": 1', b'"format": 2'), "it")
    for damaged in (b"", b"[]", b"{}", data[:10], b'{"format": 1}', b'{"format": 1, "datasets": 3, "entries": [1]}'):
        for load in (load_manifest, load_table):
            with pytest.raises(DurableError):
                load(damaged, "it")


def test_the_marker_is_made_once(place: Place) -> None:
    assert id_of(place) is None
    made = id_of(place, create=True)
    assert made
    assert id_of(open_place(place.url)) == id_of(place, create=True) == made


# -- sweeping


def objects(place: Place) -> set[str]:
    return set(place.names("objects"))


def test_what_nothing_refers_to_is_swept(place: Place) -> None:
    publish(place, 1, {"x": {"k": b"old"}})
    publish(place, 2, {"x": {"k": b"new"}})
    put(place, [bytes_source(b"of a writer that died")])
    swept = sweep(place)
    assert swept.is_over
    assert swept.nobjects == 3, "the old value, the table that has it, and what the dead writer has left"
    assert contents(place) == {"x": {"k": b"new"}}
    assert sweep(place).nobjects == 0


def test_nothing_is_swept_while_somebody_writes(place: Place) -> None:
    other = Process("another kernel", 1, 1, "far away", "she")
    enter_writer(place, PUBLICATIONS[1], other)
    entry = dataset(place, "x", {"k": b"value"})
    assert sweep(place).held_up_by == (PUBLICATIONS[1],)
    Catalogue(place).publish(PUBLICATIONS[1], [entry])
    leave_writer(place, PUBLICATIONS[1])
    assert sweep(place).nobjects == 0
    assert contents(place) == {"x": {"k": b"value"}}


def test_a_writer_that_died_here_holds_nothing_up(place: Place) -> None:
    child = os.fork()
    if not child:
        enter_writer(place, PUBLICATIONS[1], Process.own())
        os._exit(0)
    os.waitpid(child, 0)
    dead = Process.own()._replace(pid=child, started=1)
    enter_writer(place, PUBLICATIONS[2], dead)  # where memory isn't shared with the child
    put(place, [bytes_source(b"of a writer that died")])
    assert sweep(place).nobjects == 1
    assert sweeping.writers(place) == {}


def test_a_writer_elsewhere_is_abandoned_by_a_person(place: Place) -> None:
    enter_writer(place, PUBLICATIONS[1], Process("another kernel", 1, 1, "far away", "she"))
    put(place, [bytes_source(b"of a writer that died")])
    assert sweep(place).nobjects == 0
    assert sweep(place, abandon=(PUBLICATIONS[1],)).nobjects == 1


def test_a_writer_waits_for_a_sweeper(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "SWEEP_SECONDS", 0.5)
    waited: list[float] = []
    monkeypatch.setattr(sweeping.time, "sleep", waited.append)
    place.put([NewFile("sweeping/of-one-that-died", [b"{}"])])
    enter_writer(place, PUBLICATIONS[1], Process.own())
    assert waited
    assert place.names("sweeping") == []


def test_a_sweep_that_takes_long_stops_in_time(place: Place) -> None:
    put(place, [bytes_source(bytes([n])) for n in range(5)])
    times = iter([0.0, 0.0, 0.0, 1000.0])
    swept = sweep(place, clock=lambda: next(times))
    assert (swept.nobjects, swept.is_over) == (2, False)
    assert sweep(place).is_over


# -- crashes

#: What changes a directory.
CHANGES = ("open", "write", "fsync", "rename", "mkdir", "unlink", "close")


def killed_at(step: int, work: Callable[[], None]) -> bool:
    """Have a child do something, and kill it -9 before its so many-th change. Whether it got that far."""
    child = os.fork()
    if not child:
        left = step

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def changed(*args: Any, **kwargs: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **kwargs)

            return changed

        for name in CHANGES:
            setattr(os, name, counted(getattr(os, name)))
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status)


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed loses nothing of the page cache, so what waits for the disk can be left out."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def test_a_file_is_synced_before_it_has_its_name_and_the_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = open_place(str(tmp_path / "place"))
    steps: list[tuple[str, str]] = []

    def fsync(fd: int, call: Any = os.fsync) -> None:
        steps.append(("sync", os.readlink(f"/proc/self/fd/{fd}")))
        call(fd)

    def rename(source: str, target: str, call: Any = os.rename) -> None:
        steps.append(("rename", source))
        call(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    put(place, [bytes_source(b"one"), bytes_source(b"two")])
    beside = [path for what, path in steps if what == "rename"]
    directory = str(tmp_path / "place" / "objects")
    assert len(beside) == 2
    assert steps[-5:] == [
        ("sync", beside[0]), ("sync", beside[1]), ("rename", beside[0]), ("rename", beside[1]), ("sync", directory)
    ]  # fmt: skip
    assert ("sync", str(tmp_path / "place")) in steps, "the directory of objects is new itself"


def test_what_another_writer_has_named_is_synced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = open_place(str(tmp_path / "place"))
    put(place, [bytes_source(b"one")])
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    put(place, [bytes_source(b"one")])
    assert synced == [str(tmp_path / "place" / "objects")]


@pytest.mark.parametrize("nbytes", [0, 1, 4 << 20, (4 << 20) + 1, (9 << 20) - 7])
@pytest.mark.parametrize("kind", ["a disk", "no direct writes", "other blocks"])
def test_files_of_all_sizes_are_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nbytes: int, kind: str
) -> None:
    def fcntl_without(fd: int, command: int, flags: int = 0, call: Any = fcntl.fcntl) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return int(call(fd, command, flags))

    def write_some(fd: int, data: Any, call: Any = os.write) -> int:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT and len(data) % (4 << 20):
            raise OSError(errno.EINVAL, "Invalid argument")
        return int(call(fd, data[: max(4096, len(data) // 2)]))

    if kind == "no direct writes":
        monkeypatch.setattr(fcntl, "fcntl", fcntl_without)
    elif kind == "other blocks":
        monkeypatch.setattr(os, "write", write_some)
    data = os.urandom(nbytes)
    place = open_place(str(tmp_path))
    (stored,) = put(place, [lambda: [data[: nbytes // 3], data[nbytes // 3 :]]])
    monkeypatch.undo()
    assert (tmp_path / name_of(stored.digest)).read_bytes() == data


@pytest.mark.usefixtures("quick_disk")
def test_a_writer_that_is_killed_at_any_step_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    old = {"x": {"a": b"old a", "b": b"same"}, "y": {"k": b"old y"}, "stays": {"k": b"stays"}}
    new = {"x": {"a": b"new a", "b": b"same"}, "y": {"k": b"new y" * 1_000_000}}
    seen = []
    for step in range(1000):
        place = open_place(str(tmp_path / str(step)))
        publish(place, 1, old)
        was_killed = killed_at(step, lambda place=place: publish(place, 2, new))  # type: ignore[misc]
        found = contents(place)
        is_new = found == {"stays": old["stays"], **new}
        assert is_new or found == old, f"killed at step {step}: neither old nor new"
        seen.append(is_new)
        swept = sweep(place)
        assert swept.is_over
        assert contents(place) == found
        assert objects(place) == sweeping.referred_to(Catalogue(place))
        assert not [name for name in os.listdir(tmp_path / str(step) / "objects") if name.startswith(".")]
        publish(place, 3, new)
        assert contents(place) == {"stays": old["stays"], **new}, "the next try succeeds"
        if not was_killed:
            break
    assert len(seen) > 20
    assert seen == sorted(seen), "from one step on it is the new"


@pytest.mark.usefixtures("quick_disk")
def test_a_remover_that_is_killed_at_any_step_removes_all_or_none(tmp_path: Path) -> None:
    old = {"x": {"a": b"x"}, "y": {"k": b"y"}, "stays": {"k": b"stays"}}
    for step in range(1000):
        place = open_place(str(tmp_path / str(step)))
        for number, (name, values) in enumerate(old.items()):
            publish(place, number, {name: values})

        def remove(place: Place = place) -> None:
            Catalogue(place).publish(PUBLICATIONS[5], [], ("x", "y"))
            sweep(place)

        was_killed = killed_at(step, remove)
        assert contents(place) in (old, {"stays": old["stays"]})
        remove()
        assert contents(place) == {"stays": old["stays"]}
        assert sweep(place).is_over or place.names("sweeping")
        if not was_killed:
            break
    else:
        pytest.fail("it never came to its end")


# -- what can go wrong


def test_errors_name_the_place_and_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = open_place(str(tmp_path / "place"))

    def full(fd: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(DurableError, match=r"place can't be written: No space left on device\. Free some"):
        publish(place, 1, {"x": {}})
    monkeypatch.undo()
    assert contents(place) == {}
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DurableError, match="file"):
        publish(open_place(str(tmp_path / "file")), 1, {"x": {}})
    with pytest.raises(DurableError, match="nosuch"):
        open_place("nosuch://bucket/x")


def test_places_have_one_name() -> None:
    assert normal_url("~") == os.path.expanduser("~")
    assert normal_url("x") == os.path.join(os.getcwd(), "x")
    for wrong in ("", " ", "/" + "x" * 2000):
        with pytest.raises(ValueError, match="place"):
            normal_url(wrong)
