"""Published datasets: what a client has published is kept under a name until a client unpublishes it.

A dataset is bytes that only clients read, and the tasks whose keys are in them, which it holds. Publishing several at
once publishes all of them or none (`Publication`). They have their names when they are safe. Until then others of these
names stay, and that the publisher leaves changes nothing, nor that the scheduler is started again. Safe means

* of a dataset that is to be durable: it is in its place (`durable`),
* of another one: what can't be made again has second copies (`copies`), as far as there are hosts for them, or
  `PUBLISH_SECONDS` have passed. If such data is lost before that, nothing of the publication has a name.

What is durable and not known here is loaded when a client asks for it. So before a name is taken, and when one is not
known, the cluster's place is looked at. Another place is only looked at where a client names it, and what is loaded
from there gets no name here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from holdfast.cluster.journal import records
from holdfast.cluster.journal.tables import Held
from holdfast.cluster.protocol.limits import MAX_DATASETS
from holdfast.cluster.protocol.requests import (
    DESCRIBE_DATASETS,
    GET_DATASET,
    LIST_DATASETS,
    PUBLISH,
    UNPUBLISH,
)
from holdfast.cluster.scheduler.parts.copies import AwaitedCopies, Copies
from holdfast.cluster.scheduler.parts.dataset import Dataset, shown
from holdfast.cluster.scheduler.parts.durable import Durable, DurableDataset, Lookup
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.parts.places import Failure
from holdfast.cluster.scheduler.parts.waits import NO_END, Refusal, Wait, WaitOwner
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.model import Holder, Task
from holdfast.cluster.scheduler.tasks.names import Key, Payload
from holdfast.cluster.scheduler.tasks.wording import some

#: A publisher has its answer after this, whatever has become of the copies.
PUBLISH_SECONDS = 60.0

#: So long a request waits for what a place has to say.
LOOKUP_SECONDS = 15.0

_Entries = Sequence[tuple[Key, Payload, Sequence[Key], Mapping[str, Any]]]
_Found = Sequence[tuple[Key, Mapping[str, Any], int, int]]


class DatasetWait(Wait):
    """A request that waits for what is done about datasets.

    Attributes
    ----------
    on_late
        What is done when its deadline comes.
    """

    __slots__ = ("_what", "on_late")

    kind = "dataset"

    def __init__(
        self,
        part: WaitOwner,
        client: str,
        request: int,
        due: float,
        what: str,
    ) -> None:
        super().__init__(part, client, request, due)
        self._what = what
        self.on_late: Callable[[DatasetWait], None] | None = None

    def describe(self) -> str:
        return self._what

    @property
    def is_over(self) -> bool:
        """Whether nobody waits any more."""
        return self.due is None


class Publication(AwaitedCopies):
    """Datasets on the way to their names.

    Parameters
    ----------
    part
        Whose publication it is.
    id
        Its id.
    wait
        The request of their publisher, which may end before. None: another scheduler has taken it.
    datasets
        What is published.
    override
        Whether they may replace others.
    """

    def __init__(
        self, part: Datasets, id: str, wait: DatasetWait | None, datasets: Sequence[Dataset], override: bool
    ) -> None:
        super().__init__()
        self._part = part
        self.wait = wait
        self.datasets = datasets
        self.override = override
        self.id = id
        self.is_named = False
        #: Names under which the cluster's place has other datasets.
        self.there: Sequence[Key] = ()

    @property
    def place(self) -> str | None:
        """Where they are to be durable."""
        return self.datasets[0].place if self.datasets else None

    def made(self) -> None:
        self._part.copies_made(self)

    def expire(self, now: float) -> None:
        self._part.copies_made(self)


class Datasets(Part, WaitOwner):
    """Publishes datasets.

    Parameters
    ----------
    shared
        What all parts work with.
    copies
        Sees to the second copies.
    durable
        Makes datasets durable, and loads them.
    place
        The cluster's place for durable datasets; None: it has none.
    publish_seconds
        How long a publisher waits for copies at most.

    Attributes
    ----------
    published
        All datasets by name.
    """

    name = "datasets"

    def __init__(
        self,
        shared: Shared,
        copies: Copies,
        durable: Durable,
        *,
        place: str | None = None,
        publish_seconds: float = PUBLISH_SECONDS,
    ) -> None:
        super().__init__(shared)
        self.requests = {
            PUBLISH: self._publish,
            UNPUBLISH: self._unpublish,
            GET_DATASET: self._get,
            LIST_DATASETS: self._list,
            DESCRIBE_DATASETS: self._describe,
        }
        self.published: dict[Key, Dataset] = {}
        self.place = place
        self._copies = copies
        self._durable = durable
        self._publish_seconds = publish_seconds
        self._publications: dict[Publication, None] = {}
        self._coming: dict[Dataset, None] = {}  # that have no names yet
        self._renamed: dict[Key, dict[Key, Key]] = {}  # of datasets, keys in their data and what they are here
        self._was_swept = False

    def holders(self) -> Iterable[Holder]:
        return [*self.published.values(), *self._coming]

    # -- publishing

    def _publish(
        self,
        client: Client,
        request: int,
        datasets: _Entries,
        override: bool = False,
        durable: str | None = None,
        copies: int = 1,
    ) -> None:
        self.shared.waits.demand_room(client.id)
        publication_id = _publication_id(client.id, request)
        what = f"the dataset {some(shown(name) for name, *_ in datasets)} to be safe"
        begun = next((publication for publication in self._publications if publication.id == publication_id), None)
        if begun is not None:  # by an earlier scheduler
            begun.wait = self._wait(client.id, request, NO_END, what)
            return
        place = None if durable is None else self._named(durable)
        self._demand_names(datasets, override)
        new = self._made(client, datasets, copies, place)
        wait = self._wait(client.id, request, NO_END, what)
        publication = Publication(self, publication_id, wait, new, override)
        self._publications[publication] = None
        looked_at = place or self.place
        if looked_at is None or not (place or self._durable.places.has_hosts):
            self._make_safe(publication)
            return

        def looked(found: _Found, failure: Failure | None) -> None:
            if failure is not None and place is not None:
                self._withdraw(publication, failure)
            elif found and not override:
                name, about, *_ = found[0]
                by = about.get("publisher")
                text = f"a dataset {shown(name)} is durable in {looked_at} already (by {by}); override=True replaces it"
                self._withdraw(publication, Failure("DatasetExistsError", text))
            else:
                publication.there = [name for name, *_ in found]
                self._make_safe(publication)

        self._look(looked_at, [dataset.name for dataset in new], looked)

    def _demand_names(self, datasets: _Entries, override: bool) -> None:
        """Refuse what can't be published."""
        new = 0
        for name, _, keys, _ in datasets:
            old = self.published.get(name)
            if old is not None and not override:
                raise Refusal("DatasetExistsError", _taken(old))
            coming = next((each for each in self._coming if each.name == name), None)
            if coming is not None and (coming.place is not None or not override):
                text = f"a dataset {shown(name)} is being published by {coming.publisher}: wait until that has ended"
                raise Refusal("DatasetExistsError", text)
            new += old is None
            gone = [key for key in keys if key not in self.shared.life.generations.tasks]
            if gone:
                text = f"{shown(name)} can't be published: {some(map(repr, gone))} was cancelled or released"
                raise Refusal("CancelledError", text)
        if len({name for name, *_ in datasets}) < len(datasets):
            raise Refusal("ValueError", "two datasets of one request have the same name")
        count = len(self.published) + len(self._coming)
        if count + new > MAX_DATASETS:
            there = f"{count:,} datasets are published, and there may be {MAX_DATASETS:,}"
            raise Refusal("ValueError", f"{there}: unpublish some")

    def _made(self, client: Client, datasets: _Entries, copies: int, place: str | None) -> list[Dataset]:
        """The datasets, which hold what they are to hold, and have no names yet."""
        life = self.shared.life
        new = []
        for name, data, keys, about in datasets:
            dataset = Dataset(name, data, client.name, self.shared.now, about=about, replicas=copies, place=place)
            for key in keys:
                dataset.keys[key] = life.generations.tasks[key]
                life.holding.hold(dataset, dataset.keys[key])
            self._copies.hold_lineage(dataset)
            self._coming[dataset] = None
            new.append(dataset)
        return new

    def _make_safe(self, publication: Publication) -> None:
        """The names are free, or are to be replaced."""
        self._note_publication(publication)
        place = publication.place
        if place is None:
            self._await_copies(publication)
            return

        def written(failure: Failure | None) -> None:
            assert place is not None
            if failure is not None:
                self._withdraw(publication, failure)
                self._durable.sweep(place)
                return
            if publication.there:
                olds = [self.published[name] for name in publication.there if name in self.published]
                self._durable.sweep(place, self._files(olds, place, publication.datasets))
            self._name(publication)
            self._await_copies(publication)  # that are wanted besides

        self._durable.write(place, publication.id, publication.datasets, written)

    def _await_copies(self, publication: Publication) -> None:
        for dataset in publication.datasets:
            dataset.wants_copies = True
            dataset.on_end = self._copies.look_at
        publication.due = self.shared.now + self._publish_seconds
        self.shared.deadlines.watch(publication)
        self._copies.begin(publication, publication.datasets)

    def copies_made(self, publication: Publication) -> None:
        """No copies of what is in these datasets are waited for any more."""
        publication.due = None
        self._copies.end(publication)
        if publication.place is not None:
            self._published(publication)
            return
        if (lost := publication.lost) is not None:
            text = f"the host that had {lost.key!r} was lost before there was a copy of it: publish once more"
            self._withdraw(publication, Failure("ObjectLostError", text))
            return
        taken = next((d.name for d in publication.datasets if d.name in self.published), None)
        if taken is not None and not publication.override:
            self._withdraw(publication, Failure("DatasetExistsError", _taken(self.published[taken])))
            return
        there = [
            dataset.name
            for dataset in publication.datasets
            if dataset.name in publication.there or self._is_in_place(dataset.name)
        ]
        if not there:
            self._name(publication)
            self._published(publication)
            return

        def removed(failure: Failure | None) -> None:
            if failure is not None:
                self._withdraw(publication, failure)
                return
            self._name(publication)
            self._published(publication)

        # Else those that are durable would be back when the cluster is started again.
        assert self.place is not None
        self._durable.remove(self.place, publication.id, there, removed)

    def _is_in_place(self, name: Key) -> bool:
        """Whether a dataset of this name is known to be in the cluster's place."""
        return self.place is not None and name in self.published and self.published[name].place == self.place

    def _name(self, publication: Publication) -> None:
        """Datasets have their names from now on."""
        publication.is_named = True
        self._note_publication(publication)
        for index, dataset in enumerate(publication.datasets):
            old = self.published.get(dataset.name)
            del self._coming[dataset]
            self.published[dataset.name] = dataset
            self._note(dataset)
            self._renamed.pop(dataset.name, None)
            if old is not None:
                self._let_go(old)
                if old.place is not None and old.place not in (dataset.place, self.place):
                    self._durable.remove(old.place, _publication_id(publication.id, index), [old.name], _ignore)

    def _published(self, publication: Publication) -> None:
        """A publication is over, and its datasets have their names."""
        del self._publications[publication]
        self.note_gone(("publication", publication.id))
        if publication.wait is not None:
            self._answer(publication.wait, None)

    def _note_publication(self, publication: Publication) -> None:
        if self.shared.life.decisions.is_kept:
            datasets = publication.datasets
            plain = [None if publication.is_named else dataset.as_plain() for dataset in datasets]
            value = publication.override, publication.there, [dataset.name for dataset in datasets], plain
            held = {task.serial: None for dataset in datasets for task in dataset.holds}
            self.shared.life.decisions.note(records.put(self.name, ("publication", publication.id), value, held))

    def _note(self, dataset: Dataset) -> None:
        if self.shared.life.decisions.is_kept:
            self.note(("dataset", dataset.name), dataset.as_plain(), dataset)

    def _withdraw(self, publication: Publication, failure: Failure) -> None:
        """Datasets can't be published: nothing has changed."""
        del self._publications[publication]
        self.note_gone(("publication", publication.id))
        for dataset in publication.datasets:
            del self._coming[dataset]
            self._let_go(dataset)
        if publication.wait is not None:
            self._refuse(publication.wait, failure)

    # -- other requests

    def _unpublish(self, client: Client, request: int, name: Key, durable: str | None = None) -> None:
        self.shared.waits.demand_room(client.id)
        dataset = self.published.get(name)
        place = self.place if dataset is None or dataset.place is None else dataset.place
        if durable is not None and (named := self._named(durable)) != place:
            dataset, place = None, named  # of which this one is no part
        is_durable = durable is not None or (dataset is not None and dataset.place is not None)
        files: list[Task] = []
        if dataset is not None:
            del self.published[name]
            self.note_gone(("dataset", name))
            self._renamed.pop(name, None)
            files = self._files([dataset], place, ())
            self._let_go(dataset)
        if place is None or not (is_durable or self._durable.places.has_hosts):
            self.answer(client, request, None)
            return
        wait = self._wait(client.id, request, NO_END, f"{place} to be without {shown(name)}")
        url = place

        def removed(failure: Failure | None) -> None:
            if failure is None:
                self._durable.sweep(url, files)
            self._answer(wait, None, failure)

        def looked(found: _Found, failure: Failure | None) -> None:
            if failure is not None or not found:
                self._answer(wait, None, failure if is_durable else None)
            else:
                self._durable.remove(url, _publication_id(wait.client, wait.request), [name], removed)

        self._look(url, [name], looked)

    def _files(self, olds: Iterable[Dataset], place: str | None, new: Collection[Dataset]) -> list[Task]:
        """The tasks of datasets that go whose files nothing in the place refers to then."""
        gone = dict.fromkeys(olds)
        return [
            task
            for dataset in gone
            for task in dataset.holds
            if task in self.shared.life.results.durable
            and not any(
                isinstance(holder, Dataset) and holder not in gone and (holder in new or holder.place == place)
                for holder in task.holders
            )
        ]

    def _get(self, client: Client, request: int, name: Key, durable: str | None = None) -> None:
        dataset = self.published.get(name)
        place = self.place if durable is None else self._named(durable)
        if dataset is not None and (durable is None or dataset.place == place):
            self._give(client, request, dataset, self._renamed.get(name, {}))
            return
        if place is None or (durable is None and not self._durable.places.has_hosts):
            raise self._unknown(name, None)
        self.shared.waits.demand_room(client.id)
        wait = self._wait_for_place(client.id, request, place)

        def loaded(found: DurableDataset | None, failure: Failure | None) -> bool:
            keeps = found is not None and place == self.place and self._adopt(found)
            self._first_look()
            if wait.is_over:
                return keeps
            if found is None:
                unknown = self._unknown(name, place if durable is not None else None)
                self._refuse(wait, failure or Failure(unknown.error, unknown.text))
            else:
                self.shared.waits.end(wait)
                self._give(self.shared.clients[wait.client], wait.request, *found)
            return keeps

        self._durable.load(place, name, loaded)

    def _adopt(self, found: DurableDataset) -> bool:
        """A dataset of the cluster's place was loaded: it has its name here, too, if it can. Whether it has."""
        name = found.dataset.name
        if name not in self.published and len(self.published) < MAX_DATASETS:
            self.published[name] = found.dataset
            self._note(found.dataset)
            self._renamed[name] = found.renamed
        return self.published.get(name) is found.dataset

    def _give(self, client: Client, request: int, dataset: Dataset, renamed: Mapping[Key, Key]) -> None:
        keys = [task.key for task in dataset.holds]
        given: dict[str, Any] = {"data": dataset.data, "keys": keys, "about": dict(dataset.about)}
        if renamed:
            given["renamed"] = [list(item) for item in renamed.items()]
        self.shared.replies.leave_out(client.id, request)  # or it would name keys that the client doesn't hold any more
        self.answer(client, request, given)
        self.shared.life.want(client, keys)

    def _list(self, client: Client, request: int, durable: str | None = None) -> None:
        def listed(found: _Found, here: Collection[Key]) -> list[Key]:
            return _in_order({*here, *(name for name, *_ in found)})[:MAX_DATASETS]

        self._look_for_client(client, request, None, durable, listed)

    def _describe(
        self, client: Client, request: int, names: Sequence[Key] | None = None, durable: str | None = None
    ) -> None:
        place = self.place if durable is None else self._named(durable)

        def described(found: _Found, here: Collection[Key]) -> list[list[Any]]:
            about = {
                name: {**known, "keys": count, "nbytes": nbytes, "durable": place, "loaded": False}
                for name, known, count, nbytes in found
            }
            about.update((name, self._about(self.published[name])) for name in here)
            chosen = _in_order(about) if names is None else [name for name in names if name in about]
            return [[name, about[name]] for name in chosen[:MAX_DATASETS]]

        self._look_for_client(client, request, names, durable, described)

    def _about(self, dataset: Dataset) -> dict[str, Any]:
        """What is known of a dataset, for people."""
        tasks = list(dataset.keys.values())
        return {
            **dataset.about,
            "publisher": dataset.publisher,
            "keys": len(tasks),
            "nbytes": len(dataset.data) + sum(task.nbytes for task in tasks if task.state == "memory"),
            "unfinished": sum(task.state not in ("memory", "erred") for task in tasks),
            "durable": dataset.place,
            "copies": max(1, dataset.replicas),
            "loaded": True,
        }

    def names(self) -> list[Key]:
        """All names that are known here: texts first, in order."""
        return _in_order(self.published)

    def _unknown(self, name: Key, place: str | None) -> Refusal:
        if place is not None:
            return Refusal(
                "DatasetNotFoundError",
                f"no dataset {shown(name)} is in {place}; list_datasets(durable={place!r}) says what is there",
            )
        there = f"there are {some(map(shown, self.published), 20)}" if self.published else "there are none"
        return Refusal("DatasetNotFoundError", f"no dataset {shown(name)} is published; {there}")

    def _let_go(self, dataset: Dataset) -> None:
        self.shared.life.holding.let_go(dataset)
        self._copies.let_go(dataset)
        for publication in self._publications:
            if dataset in publication.datasets:
                self._copies.wait_no_longer(publication)  # another one has its name already

    # -- places

    def _named(self, durable: str) -> str:
        """The place that a client names; an empty text is the cluster's."""
        if durable:
            return durable
        if self.place is None:
            text = (
                "this cluster has no place for durable datasets: name one, or start it with 'holdfast start --durable'"
            )
            raise Refusal("DurableError", text)
        return self.place

    def _look(self, url: str, names: Sequence[Key] | None, on_end: Callable[[_Found, Failure | None], None]) -> None:
        self._durable.places.begin(Lookup(self._durable, url, names, on_end))

    def _look_for_client(
        self,
        client: Client,
        request: int,
        names: Sequence[Key] | None,
        durable: str | None,
        answer: Callable[[_Found, Collection[Key]], Any],
    ) -> None:
        """Answer a request by what a place has that the client names; or by what is known here, and what the cluster's
        place has, if that can be looked at."""
        place = self.place if durable is None else self._named(durable)

        def known() -> list[Key]:
            return [name for name, dataset in self.published.items() if durable is None or dataset.place == place]

        if place is None or (durable is None and not self._durable.places.has_hosts):
            self.answer(client, request, answer((), known()))
            return

        def late(wait: DatasetWait) -> None:
            self._answer(wait, answer((), known()))

        self.shared.waits.demand_room(client.id)
        wait = self._wait_for_place(client.id, request, place, late if durable is None else None)

        def looked(found: _Found, failure: Failure | None) -> None:
            self._first_look()
            # The cluster's place hides nothing that is known here, if it can't be read.
            self._answer(wait, answer(found, known()), failure if durable is not None else None)

        self._look(place, names, looked)

    def _first_look(self) -> None:
        """What writers have left that died with an earlier scheduler is swept once."""
        if not self._was_swept and self.place is not None and self._durable.places.hosts_of(self.place):
            self._was_swept = True
            self._durable.sweep(self.place)

    def _wait(self, client: str, request: int, due: float, what: str) -> DatasetWait:
        wait = DatasetWait(self, client, request, due, what)
        self.shared.waits.begin(wait)
        return wait

    def _wait_for_place(
        self, client: str, request: int, place: str, on_late: Callable[[DatasetWait], None] | None = None
    ) -> DatasetWait:
        wait = self._wait(client, request, self.shared.now + LOOKUP_SECONDS, f"{place} to be read")
        wait.on_late = on_late or (lambda wait: self._refuse(wait, _not_read(place)))
        return wait

    def _answer(self, wait: DatasetWait, value: Any, failure: Failure | None = None) -> None:
        if failure is not None:
            self._refuse(wait, failure)
        elif not wait.is_over:
            self.shared.waits.answer(wait, value)

    def _refuse(self, wait: DatasetWait, failure: Failure) -> None:
        if not wait.is_over:
            self.shared.waits.refuse(wait, failure.error, failure.text)

    def expired(self, wait: Wait) -> None:
        assert isinstance(wait, DatasetWait)
        assert wait.on_late is not None
        wait.on_late(wait)

    def forget(self, wait: Wait) -> None:
        """What is done about datasets goes on without it."""

    # -- the rest

    def recover(self, entries: Mapping[Any, Held], tasks: Mapping[int, Task]) -> None:
        for (kind, name), entry in entries.items():
            if kind == "dataset":
                dataset = self.published[name] = self._recovered(entry.value, entry.holds, tasks)
                if renamed := {key: task.key for key, task in dataset.keys.items() if key != task.key}:
                    self._renamed[name] = renamed
        for (kind, id), entry in entries.items():
            if kind == "publication":
                override, there, names, plain = entry.value
                if is_named := None in plain:
                    datasets = [self.published[name] for name in names if name in self.published]
                else:
                    datasets = [self._recovered(each, entry.holds, tasks) for each in plain]
                    self._coming.update(dict.fromkeys(datasets))
                publication = Publication(self, id, None, datasets, override)
                publication.there = there
                publication.is_named = is_named
                self._publications[publication] = None

    def _recovered(self, plain: Sequence[Any], held: Iterable[int], tasks: Mapping[int, Task]) -> Dataset:
        dataset = Dataset.of(plain, tasks)
        for serial in held:
            self.shared.life.holding.hold(dataset, tasks[serial])
        return dataset

    def recovered(self) -> None:
        for holder in self.holders():
            self._copies.hold_lineage(holder)
        for dataset in self.published.values():
            dataset.wants_copies = True
            dataset.on_end = self._copies.look_at
        self._copies.urge(self.published.values())
        for publication in list(self._publications):
            if publication.is_named:
                self._await_copies(publication)
            else:
                self._make_safe(publication)

    def check(self) -> None:
        for name, dataset in self.published.items():
            assert dataset.name == name
        assert self._renamed.keys() <= self.published.keys()
        coming = [dataset for publication in self._publications for dataset in publication.datasets]
        assert all(dataset in coming for dataset in self._coming)
        self.shared.deadlines.check(self._publications)


def _ignore(failure: Failure | None) -> None:
    """It stays where it is, then."""


def _taken(dataset: Dataset) -> str:
    return f"a dataset {shown(dataset.name)} is published already (by {dataset.publisher}); override=True replaces it"


def _not_read(place: str) -> Failure:
    text = f"{place} has not been read within {LOOKUP_SECONDS:g} s: see whether the hosts can reach it"
    return Failure("TimeoutError", text)


def _in_order(names: Iterable[Key]) -> list[Key]:
    return sorted(names, key=lambda name: (not isinstance(name, str), str(name)))


def _publication_id(client: str, request: int) -> str:
    """Of what a client has asked for. No two are alike, since a client's id is random and counts its requests."""
    return blake2b(f"{client} {request}".encode(), digest_size=16).hexdigest()
