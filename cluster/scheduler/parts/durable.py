"""Durable datasets: their way into a place, and back.

A *durable copy* of a result is a file (`Results.durable`). It is one more place where an object lies: a task may be in
state "memory" with no other copy. Who needs it is told of the file where it would be told of hosts, and the store of
its host brings it, or adopts it (`cluster/transfer/fetcher.py`). So what is loaded is read when it is touched, and to
lose the last host of a result that has a durable copy loses nothing.

A *writing* (`Writing`) puts datasets into a place, and outlives the client that wants it:

=============  =====================================================================================================
it is …        … and what comes next
=============  =====================================================================================================
entering       it is entered among the writers of the place, so that nothing is deleted there that it finds
writing        each result is written as soon as it is there, so many at a time, by a host that has it and sees the
               place, or else by one that brings it. What is inside of results is written too
listing        the keys are written, with the objects of their results
publishing     the manifest is written: from then on all of its datasets are there
published      the results have durable copies from now on, and the datasets have their names
withdrawing    it has failed, and is entered no longer
failed         nothing is there; what it has written is swept later
=============  =====================================================================================================

Until it is published, nothing has changed for anybody but for the room that its files take.
"""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from holdfast.cluster.protocol.durable_copies import DurableCopy
from holdfast.cluster.protocol.errands import (
    DURABLE_DATASETS,
    ENTER_WRITER,
    LEAVE_WRITER,
    LOAD_DATASET,
    LOAD_TABLE,
    PUBLISH_DURABLY,
    SEE_PLACE,
    SWEEP_PLACE,
    WRITE_OBJECTS,
    WRITE_TABLE,
)
from holdfast.cluster.protocol.limits import MAX_TABLE_ENTRIES
from holdfast.cluster.scheduler.parts.copies import Copies
from holdfast.cluster.scheduler.parts.dataset import Dataset, shown
from holdfast.cluster.scheduler.parts.errands import Commission, Errands, Outcome
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.parts.places import Failure, Places, Script, Steps
from holdfast.cluster.scheduler.tasks.deadlines import Timed
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.model import Holder, Host, Task
from holdfast.cluster.scheduler.tasks.names import Key, ObjectId
from holdfast.cluster.scheduler.tasks.origins import Origin
from holdfast.cluster.scheduler.tasks.reports import sources

#: So many objects, of about so many bytes, are in one errand; so many errands of one writing are under way to a host,
#: and in all.
BATCH_OBJECTS = 64
BATCH_NBYTES = 64 << 20
MAX_OF_HOST = 4
MAX_BATCHES = 32
#: A result that could not be read so often where it should be is lost.
MAX_MISSES = 5
#: What was removed is swept when nothing refers to its objects any more, which is looked at so often.
SWEEP_SECONDS = 30.0

WritingPhase: TypeAlias = Literal["entering", "writing", "listing", "publishing", "published", "withdrawing", "failed"]
#: The legal moves of a writing. Nothing else ever happens.
WRITING_MOVES: Mapping[WritingPhase, frozenset[WritingPhase]] = {
    "entering": frozenset({"writing", "withdrawing"}),
    "writing": frozenset({"listing", "withdrawing"}),
    "listing": frozenset({"publishing", "withdrawing"}),
    "publishing": frozenset({"published", "withdrawing"}),
    "withdrawing": frozenset({"failed"}),
    "published": frozenset(),
    "failed": frozenset(),
}

StoredEntry: TypeAlias = tuple[str, int, str]  # digest, nbytes, checksum
#: ``on_loaded(loaded, failure)``: what was loaded; None if there is none of this name, or for the failure. Whether the
#: dataset is kept. Else it is let go of.
OnLoaded: TypeAlias = "Callable[[DurableDataset | None, Failure | None], bool]"
#: ``on_end(failure)``
OnEnd: TypeAlias = Callable[[Failure | None], None]


class DurableDataset(NamedTuple):
    """A dataset that was loaded from a place."""

    dataset: Dataset
    renamed: dict[Key, Key]


class _Written(NamedTuple):
    object_id: ObjectId
    stored: StoredEntry
    type_name: str


class _Batch(Commission):
    """Results that a host is writing."""

    def __init__(self, writing: Writing, host: Host, tasks: list[tuple[Task, ObjectId]]) -> None:
        self.writing = writing
        self.host = host
        self.tasks = tasks
        self.under_way: dict[int, str] = {}

    @property
    def holder(self) -> Client | None:
        return None

    def came(self, address: str, outcome: Outcome) -> None:
        self.writing.batch_came(self, outcome)


class Writing(Script):
    """Datasets that are being made durable. They hold what they have; see the module's docstring for its phases.

    Parameters
    ----------
    part
        Whose writing it is.
    url
        The place.
    publication
        Its id.
    datasets
        What is published.
    on_end
        Is told when it is published, or that it has failed.
    """

    writes = True

    def __init__(self, part: Durable, url: str, publication: str, datasets: Sequence[Dataset], on_end: OnEnd) -> None:
        super().__init__(part.places, url)
        self.phase: WritingPhase = "entering"
        self.publication = publication
        self.datasets = datasets
        self._part = part
        self._on_end = on_end
        self._life = part.shared.life
        self._tasks: dict[Task, None] = {}  # all that are written
        self._todo: deque[Task] = deque()  # those that have results
        self._written: dict[Task, _Written] = {}
        self._misses: Counter[Task] = Counter()
        self._batches: dict[_Batch, None] = {}
        self._barred: dict[str, str] = {}  # hosts that could not write, and why
        self._failure: Failure | None = None

    def _move(self, phase: WritingPhase) -> None:
        assert phase in WRITING_MOVES[self.phase], (self.phase, phase)
        self.phase = phase

    def steps(self) -> Steps:
        try:
            yield ENTER_WRITER, {"publication": self.publication, "process": self._part.process}
            self._move("writing")
            for dataset in self.datasets:
                dataset.on_end = self._ended
                for task in dataset.keys.values():
                    self._add(task)
            while self._failure is None and len(self._written) < len(self._tasks):
                if not self.places.hosts_of(self.url):
                    yield SEE_PLACE, {}  # which waits for a host that does
                    continue
                self._fill()
                if self._failure is None:
                    yield None
            if self._failure is not None:
                raise self._failure
            self._move("listing")
            entries = []
            for dataset in self.datasets:
                tables: list[Any] = []
                rows = self._rows(dataset)
                for at in range(0, len(rows), MAX_TABLE_ENTRIES):
                    tables.append((yield WRITE_TABLE, {"entries": rows[at : at + MAX_TABLE_ENTRIES]}))
                nbytes = sum(stored[1] for _, stored, _, _ in rows)
                about = {**dataset.about, "publisher": dataset.publisher}
                entries.append((dataset.name, dataset.data, about, tables, len(rows), nbytes))
            self._move("publishing")
            yield PUBLISH_DURABLY, {"publication": self.publication, "datasets": entries, "removes": []}
        except Failure as failure:
            self._move("withdrawing")
            self._drop_batches()
            with contextlib.suppress(Failure):  # it is swept when the scheduler's process is known to be dead
                yield LEAVE_WRITER, {"publication": self.publication}
            raise failure from None
        self._move("published")

    def ended(self, failure: Failure | None) -> None:
        for dataset in self.datasets:
            dataset.on_end = None
        if failure is None:
            for task, written in self._written.items():
                if task.object_id == written.object_id:
                    self._part.has_durable(task, written.stored, self.url)
        else:
            self._move("failed")
        self._part.writing_ended(self)
        self._on_end(failure)

    def _rows(self, dataset: Dataset) -> list[tuple[Key, StoredEntry, str, list[Key]]]:
        """The keys of a dataset and of what is inside of its results, each with its object, in an order."""
        contents = self._life.holding.contents
        tasks = dict.fromkeys(dataset.keys.values())
        stack = list(tasks)
        rows = []
        while stack:
            task = stack.pop()
            inside = list(contents[task].holds) if task in contents else []
            for other in inside:
                if other not in tasks:
                    tasks[other] = None
                    stack.append(other)
            written = self._written[task]
            rows.append((task.key, written.stored, written.type_name, [other.key for other in inside]))
        rows.sort(key=lambda row: repr(row[0]))
        return rows

    # -- results

    def _add(self, task: Task) -> None:
        """A result that is to be written, now or when it is there."""
        if task in self._tasks:
            return
        self._tasks[task] = None
        if task.state in ("memory", "erred"):
            self._ended(task)

    def _ended(self, task: Task) -> None:
        if task not in self._tasks or task in self._written:
            return
        if task.error is not None:
            self._fail(
                Failure("DurableError", f"{task.key!r:.200} has failed, so it can't be durable: {task.error.text}")
            )
            return
        contents = self._life.holding.contents.get(task)
        for other in () if contents is None else list(contents.holds):
            self._life.holding.hold(self.datasets[0], other)
            self._add(other)
        self._todo.append(task)
        self.resume()

    def _fail(self, failure: Failure) -> None:
        self._failure = self._failure or failure
        self.resume()

    def _fill(self) -> None:
        """Have hosts write, as many as may."""
        seen = {host.address: host for host in self.places.hosts_of(self.url) if host.address not in self._barred}
        if not seen:
            self._fail(Failure("DurableError", next(iter(self._barred.values()))))
            return
        busy = Counter(batch.host for batch in self._batches)
        left: deque[Task] = deque()
        lots: dict[Host, list[tuple[Task, ObjectId]]] = {}
        nbytes: Counter[Host] = Counter()
        room = MAX_BATCHES - len(self._batches)
        while self._todo and room > 0:
            task = self._todo.popleft()
            if task.state != "memory" or task.object_id is None or task in self._written:
                continue  # it is heard of again when it has a result
            able = [host for host in task.where if host.address in seen and busy[host] < MAX_OF_HOST]
            if not able and not any(host.address in seen for host in task.where):
                able = [host for host in seen.values() if busy[host] < MAX_OF_HOST]
            if not able:
                left.append(task)
                if len(left) > BATCH_OBJECTS * MAX_BATCHES:
                    break
                continue
            host = min(able, key=lambda host: nbytes[host])
            lots.setdefault(host, []).append((task, task.object_id))
            nbytes[host] += task.nbytes
            if len(lots[host]) == BATCH_OBJECTS or nbytes[host] >= BATCH_NBYTES:
                self._send(host, lots.pop(host))
                del nbytes[host]
                busy[host] += 1
                room -= 1
        for host, tasks in lots.items():
            self._send(host, tasks)
        self._todo.extendleft(reversed(left))

    def _send(self, host: Host, tasks: list[tuple[Task, ObjectId]]) -> None:
        durable = self._life.results.durable
        batch = _Batch(self, host, tasks)
        self._batches[batch] = None
        objects = [
            (object_id, task.inline, [] if host in task.where else list(sources(task, durable)))
            for task, object_id in tasks
        ]
        arguments = {"place": self.url, "objects": objects}
        for outcome in self._part.errands.send(batch, WRITE_OBJECTS, arguments, [host.address]).values():
            self.batch_came(batch, outcome)

    def batch_came(self, batch: _Batch, outcome: Outcome) -> None:
        """A host has written, or failed to."""
        del self._batches[batch]
        if "error" in outcome:
            error, text = outcome["error"]
            if error not in ("ConnectError", "RuntimeError"):
                self._barred[batch.host.address] = f"{batch.host.address}: {text}"
            self._todo.extendleft(task for task, _ in reversed(batch.tasks))
            self.resume()
            return
        for (task, object_id), stored in zip(batch.tasks, outcome["value"], strict=True):
            if stored is not None:
                self._written[task] = _Written(object_id, stored, task.type_name)
                continue
            self._misses[task] += 1
            if self._misses[task] >= MAX_MISSES:
                text = f"{task.key!r:.200} could not be read from any host: publish once more"
                self._fail(Failure("ObjectLostError", text))
            elif task.state == "memory":
                self._todo.append(task)
        self.resume()

    def _drop_batches(self) -> None:
        for batch in self._batches:
            self._part.errands.drop(batch)
        self._batches.clear()

    def check(self) -> None:
        """Check that nothing is forgotten: for validation."""
        if self.phase != "writing" or self._failure is not None:
            return
        on_their_way = {task for batch in self._batches for task, _ in batch.tasks}
        for task in self._tasks:
            is_there = task.state == "memory" and task not in self._written
            assert not is_there or task in on_their_way or task in self._todo, f"{task!r} is not written"
        assert len(self._batches) <= MAX_BATCHES + len(self.places.shared.hosts)


class Loading(Script):
    """A dataset that is being loaded from a place: its keys, not their results.

    Parameters
    ----------
    part
        Whose loading it is.
    url, name
        The place, and the name of the dataset.
    on_loaded
        Is told what was loaded.
    """

    def __init__(self, part: Durable, url: str, name: Key, on_loaded: OnLoaded) -> None:
        super().__init__(part.places, url)
        self.name = name
        self.dataset: Dataset | None = None
        self._part = part
        self._listeners = [on_loaded]
        self._renamed: dict[Key, Key] = {}

    def listen(self, on_loaded: OnLoaded) -> None:
        """Another one wants it as well."""
        self._listeners.append(on_loaded)

    def steps(self) -> Steps:
        found = yield LOAD_DATASET, {"name": self.name}
        if found is None:
            return
        recipe, about, tables, _, _ = found
        shared = self._part.shared
        publisher = about.get("publisher")
        published = about.get("published")
        self.dataset = Dataset(
            self.name,
            recipe,
            publisher if type(publisher) is str else "unknown",
            shared.now if type(published) not in (int, float) else float(published),
            about=about,
            place=self.url,
        )
        said = {"user": about.get("user"), "hostname": about.get("host")}
        known = {name: text for name, text in said.items() if type(text) is str}
        self._origin = Origin("", self.dataset.publisher, known, "", None)
        inside: dict[Key, Sequence[Key]] = {}
        for table in tables:
            for object_id, key, stored, type_name, contained in (yield LOAD_TABLE, {"table": table}):
                self._enter(object_id, key, stored, type_name)
                if contained:
                    inside[key] = contained
        self._contain(inside)

    def _enter(self, object_id: ObjectId, key: Key, stored: StoredEntry, type_name: str) -> None:
        """A key of it: from now on there is a task with that result."""
        assert self.dataset is not None
        life = self._part.shared.life
        here = key
        task = life.generations.tasks.get(key)
        if task is not None and not self._is(task, stored):
            if life.holding.is_held(task):
                here = f"durable-{object_id.hex()}"
                self._renamed[key] = here
            else:
                life.generations.free_key(task)
            task = None
        if task is None:
            digest, nbytes, checksum = stored
            task = life.create(here, None, self._origin)
            life.brought(task, object_id, nbytes, type_name, None)
            copy = DurableCopy(digest, nbytes, checksum, self.url)
            life.results.lies_in_file(task, copy, object_id, nbytes, type_name)
            life.holding.hold(self.dataset, task)
            life.restore(task, None, object_id, nbytes, None, type_name)
        else:
            life.holding.hold(self.dataset, task)
        self.dataset.keys[key] = task

    def _is(self, task: Task, stored: StoredEntry) -> bool:
        copy = self._part.shared.life.results.durable.get(task)
        return copy is not None and copy[:3] == tuple(stored)

    def _contain(self, inside: Mapping[Key, Sequence[Key]]) -> None:
        """What is inside of results is kept as long as these."""
        assert self.dataset is not None
        keys = self.dataset.keys
        for key, contained in inside.items():
            renamed = next((other for other in contained if other in self._renamed), None)
            if renamed is not None:
                text = (
                    f"{shown(self.name)} can't be loaded: {renamed!r:.200}, to which a result in it refers, is the "
                    "key of something else now. Release that, or load it in another cluster"
                )
                raise Failure("DurableError", text)
            others = [keys[other] for other in contained if other in keys]
            self._part.shared.life.holding.contain(keys[key], others)

    def ended(self, failure: Failure | None) -> None:
        self._part.loading_ended(self)
        loaded = None
        if self.dataset is not None and failure is None:
            loaded = DurableDataset(self.dataset, self._renamed)
        kept = [on_loaded(loaded, failure) for on_loaded in self._listeners]
        if self.dataset is not None and not any(kept):
            self._part.shared.life.holding.let_go(self.dataset)


class Lookup(Script):
    """What datasets there are in a place.

    Parameters
    ----------
    part
        Whose lookup it is.
    url
        The place.
    names
        Those that are asked for; None: all.
    on_end
        ``on_end(found, failure)``: name, description, number of keys, and bytes of each.
    """

    def __init__(
        self,
        part: Durable,
        url: str,
        names: Sequence[Key] | None,
        on_end: Callable[[Sequence[tuple[Key, Mapping[str, Any], int, int]], Failure | None], None],
    ) -> None:
        super().__init__(part.places, url)
        self._names = names
        self._on_end = on_end
        self._found: Sequence[tuple[Key, Mapping[str, Any], int, int]] = ()

    def steps(self) -> Steps:
        self._found = yield DURABLE_DATASETS, {} if self._names is None else {"names": list(self._names)}

    def ended(self, failure: Failure | None) -> None:
        self._on_end(self._found, failure)


class Removal(Script):
    """Names that are to mean nothing in a place any more.

    Parameters
    ----------
    part
        Whose removal it is.
    url, publication, names
        The place, the id of what says so, and the names.
    on_end
        Is told that it is done, or has failed.
    """

    def __init__(self, part: Durable, url: str, publication: str, names: Sequence[Key], on_end: OnEnd) -> None:
        super().__init__(part.places, url)
        self._part = part
        self._publication = publication
        self._names = list(names)
        self._on_end = on_end

    def steps(self) -> Steps:
        yield ENTER_WRITER, {"publication": self._publication, "process": self._part.process}
        try:
            yield PUBLISH_DURABLY, {"publication": self._publication, "datasets": [], "removes": self._names}
        except Failure as failure:
            with contextlib.suppress(Failure):
                yield LEAVE_WRITER, {"publication": self._publication}
            raise failure from None

    def ended(self, failure: Failure | None) -> None:
        self._on_end(failure)


class _Sweep(Script):
    """What nothing refers to is deleted in a place."""

    def __init__(self, part: Durable, url: str) -> None:
        super().__init__(part.places, url)
        self._part = part
        self.is_over = False

    def steps(self) -> Steps:
        self.is_over = yield SWEEP_PLACE, {}

    def ended(self, failure: Failure | None) -> None:
        self._part.sweep_ended(self, failure)


class _SweepTime(Timed):
    """Places are to be swept."""

    __slots__ = ("_part", "due")

    due: float | None

    def __init__(self, part: Durable) -> None:
        super().__init__()
        self._part = part
        self.due = None

    def expire(self, now: float) -> None:
        self.due = None
        self._part.sweep_places()


class Durable(Part):
    """Makes datasets durable, and loads them.

    Parameters
    ----------
    shared
        What all parts work with.
    errands, places
        Have things done by hosts, and where.
    copies
        Need not make second copies of what is durable.
    process
        The process of the scheduler, as `durable.sweeping.Process`.
    """

    name = "durable"

    def __init__(
        self, shared: Shared, errands: Errands, places: Places, copies: Copies, *, process: Sequence[Any] = ()
    ) -> None:
        super().__init__(shared)
        self.errands = errands
        self.places = places
        self.process = list(process)
        self._copies = copies
        self._writings: dict[Writing, None] = {}
        self._loadings: dict[tuple[str, Key], Loading] = {}
        #: To be swept: by place, tasks whose files are removed when they go.
        self._to_sweep: dict[str, list[Task]] = {}
        self._sweeping: dict[str, None] = {}
        self._sweep_time = _SweepTime(self)
        self._publications = 0

    def holders(self) -> Iterator[Holder]:
        for loading in self._loadings.values():
            if loading.dataset is not None:
                yield loading.dataset

    # -- for `Datasets`

    def write(self, url: str, publication: str, datasets: Sequence[Dataset], on_end: OnEnd) -> Writing:
        """Make datasets durable."""
        writing = Writing(self, url, publication, datasets, on_end)
        self._writings[writing] = None
        self.places.begin(writing)
        return writing

    def load(self, url: str, name: Key, on_loaded: OnLoaded) -> None:
        """Load a dataset."""
        loading = self._loadings.get((url, name))
        if loading is not None:
            loading.listen(on_loaded)
            return
        loading = self._loadings[url, name] = Loading(self, url, name, on_loaded)
        self.places.begin(loading)

    def remove(self, url: str, publication: str, names: Sequence[Key], on_end: OnEnd) -> None:
        """Have names mean nothing any more in a place."""
        self.places.begin(Removal(self, url, publication, names, on_end))

    def sweep(self, url: str, tasks: Sequence[Task] = ()) -> None:
        """Have what nothing refers to deleted in a place, when the files of these are not needed any more."""
        self._to_sweep.setdefault(url, []).extend(tasks)
        self.sweep_places()

    # -- for scripts

    def has_durable(self, task: Task, stored: StoredEntry, url: str) -> None:
        """A result has a durable copy from now on."""
        assert task.object_id is not None
        copy = DurableCopy(*stored, url)
        self.shared.life.results.lies_in_file(task, copy, task.object_id, task.nbytes, task.type_name)
        self._copies.copied(task)

    def writing_ended(self, writing: Writing) -> None:
        """A writing is published, or has failed."""
        del self._writings[writing]

    def loading_ended(self, loading: Loading) -> None:
        """A loading has come to its end."""
        del self._loadings[loading.url, loading.name]

    def sweep_places(self) -> None:
        """Sweep those places where nothing is read any more that was removed."""
        durable = self.shared.life.results.durable
        for url, tasks in list(self._to_sweep.items()):
            tasks[:] = [task for task in tasks if task in durable and durable[task].place == url]
            if not tasks and url not in self._sweeping:
                del self._to_sweep[url]
                self._sweeping[url] = None
                self.places.begin(_Sweep(self, url))
        self._look_again()

    def sweep_ended(self, sweep: _Sweep, failure: Failure | None) -> None:
        """A place was swept; not wholly, if somebody is writing there."""
        del self._sweeping[sweep.url]
        if failure is None and not sweep.is_over:
            self._to_sweep.setdefault(sweep.url, [])
            self._look_again()

    def _look_again(self) -> None:
        if self._to_sweep and self._sweep_time.due is None:
            self._sweep_time.due = self.shared.now + SWEEP_SECONDS
            self.shared.deadlines.watch(self._sweep_time)

    def check(self) -> None:
        for writing in self._writings:
            assert writing.phase not in ("published", "failed")
            writing.check()
        for (url, name), loading in self._loadings.items():
            assert (loading.url, loading.name) == (url, name)
        for task in self.shared.life.results.durable:
            assert task.state == "memory", f"{task!r} has a durable copy, and no result"
        assert self._sweep_time.due is not None or not self._to_sweep
        self.shared.deadlines.check([self._sweep_time])
