"""Published datasets: what a client has published is kept under a name until a client unpublishes it.

A dataset is bytes that only clients read, and the tasks whose keys are in them, which it holds. Publishing several at
once publishes all of them or none. Its answer waits for second copies of what can't be made again (`copies`), for
`PUBLISH_SECONDS` at most. If such data is lost before it has a second copy, what was published with it is taken back.

A dataset that is to be durable has its name when it is durable (`durable`). Until then another one of the name stays,
and the name is taken; that the publisher leaves changes nothing. What is durable and not known here is loaded when a
client asks for it. So before a name is taken, and when one is not known, the cluster's place is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from holdfast.cluster.protocol.limits import MAX_DATASETS
from holdfast.cluster.protocol.requests import (
    DESCRIBE_DATASETS,
    GET_DATASET,
    LIST_DATASETS,
    PUBLISH,
    UNPUBLISH,
)
from holdfast.cluster.scheduler.parts.copies import Copies, CopiesWait
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


class Publication(CopiesWait):
    """A publisher that waits for copies of what is in these datasets."""

    __slots__ = ("_datasets", "datasets")

    kind = "publication"

    def __init__(
        self,
        part: Datasets,
        client: str,
        request: int,
        due: float,
        datasets: list[Dataset],
        roots: dict[Task, bool],
    ) -> None:
        super().__init__(part, client, request, due, roots)
        self._datasets = part
        self.datasets = datasets

    def made(self) -> None:
        self._datasets.conclude(self)

    def describe(self) -> str:
        return f"copies of the dataset {some(shown(dataset.name) for dataset in self.datasets)}"

    def snapshot(self) -> Any:
        return [dataset.name for dataset in self.datasets]


class PlaceWait(Wait):
    """A request that waits for what is done in a place."""

    __slots__ = ("on_late",)

    kind = "place"

    def __init__(
        self, part: WaitOwner, client: str, request: int, due: float, on_late: Callable[[PlaceWait], None] | None
    ) -> None:
        super().__init__(part, client, request, due)
        self.on_late = on_late

    def describe(self) -> str:
        return "a place for durable datasets"

    @property
    def is_over(self) -> bool:
        """Whether nobody waits any more."""
        return self.due is None


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
        self._place_waits: dict[PlaceWait, None] = {}
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
        place = self.place if durable == "" else durable
        if durable == "" and place is None:
            text = (
                "this cluster has no place for durable datasets: name one, or start it with 'holdfast start --durable'"
            )
            raise Refusal("DurableError", text)
        self._demand_names(datasets, override)
        new = self._made(client, datasets, copies, place)
        looked_at = place or self.place
        if looked_at is None or not (place or self._durable.places.has_hosts):
            self._put(client.id, request, new)
            return
        wait = self._wait(client.id, request, None)

        def looked(found: _Found, failure: Failure | None) -> None:
            if failure is not None and place is not None:
                self._withdraw(wait, new, failure)
            elif found and not override:
                name, about, *_ = found[0]
                by = about.get("publisher")
                text = f"a dataset {shown(name)} is durable in {looked_at} already (by {by}); override=True replaces it"
                self._withdraw(wait, new, Failure("DatasetExistsError", text))
            else:
                self._publish_in(wait, new, place, [name for name, *_ in found])

        self._look(looked_at, [dataset.name for dataset in new], looked)

    def _demand_names(self, datasets: _Entries, override: bool) -> None:
        """Refuse what can't be published."""
        new = 0
        for name, _, keys, _ in datasets:
            old = self.published.get(name)
            if old is not None and not override:
                text = f"a dataset {shown(name)} is published already (by {old.publisher}); override=True replaces it"
                raise Refusal("DatasetExistsError", text)
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
        if len(self.published) + new > MAX_DATASETS:
            there = f"{len(self.published):,} datasets are published, and there may be {MAX_DATASETS:,}"
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

    def _publish_in(self, wait: PlaceWait, new: list[Dataset], place: str | None, there: list[Key]) -> None:
        """The names are free, or are to be replaced: ``there`` are those that the place has."""
        client, request = wait.client, wait.request
        publication = _publication_id(client, request)

        def done(failure: Failure | None) -> None:
            if failure is not None:
                self._withdraw(wait, new, failure)
                if place is not None:
                    self._durable.sweep(place)
                return
            if place is not None and there:
                olds = [self.published[name] for name in there if name in self.published]
                self._durable.sweep(place, self._files(olds, place, new))
            if wait.is_over:
                self._name(new, publication)
                self._copies.urge(new)
            else:
                self.shared.waits.end(wait)
                self._put(client, request, new)

        if place is not None:
            self._durable.write(place, publication, new, done)
        elif there:  # or they would be back when the cluster is started again
            assert self.place is not None
            self._durable.remove(self.place, publication, there, done)
        else:
            done(None)

    def _put(self, client: str, request: int, new: list[Dataset]) -> None:
        """Datasets have their names from now on. Their publisher waits for copies."""
        self._name(new, _publication_id(client, request))
        self._await_copies(client, request, self.shared.now + self._publish_seconds, new)

    def _name(self, new: list[Dataset], publication: str) -> None:
        for index, dataset in enumerate(new):
            old = self.published.get(dataset.name)
            self._coming.pop(dataset, None)
            dataset.is_named = True
            self.published[dataset.name] = dataset
            self._renamed.pop(dataset.name, None)
            if dataset.replicas > 1:
                dataset.on_end = self._copies.look_at
            if old is not None:
                self._let_go(old)
                if old.place is not None and old.place not in (dataset.place, self.place):
                    self._durable.remove(old.place, _publication_id(publication, index), [old.name], _ignore)

    def _withdraw(self, wait: PlaceWait, new: list[Dataset], failure: Failure) -> None:
        """Datasets can't be published."""
        for dataset in new:
            self._coming.pop(dataset, None)
            self._let_go(dataset)
        self._refuse(wait, failure)

    # -- other requests

    def _unpublish(self, client: Client, request: int, name: Key) -> None:
        self.shared.waits.demand_room(client.id)
        dataset = self.published.pop(name, None)
        self._renamed.pop(name, None)
        place = self.place if dataset is None or dataset.place is None else dataset.place
        files: list[Task] = []
        if dataset is not None:
            files = self._files([dataset], place, ())
            self._let_go(dataset)
        is_durable = dataset is not None and dataset.place is not None
        if place is None or not (is_durable or self._durable.places.has_hosts):
            self.answer(client, request, None)
            return
        wait = self._wait(client.id, request, None)
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

    def _get(self, client: Client, request: int, name: Key) -> None:
        dataset = self.published.get(name)
        if dataset is not None:
            self._give(client, request, dataset)
            return
        if self.place is None or not self._durable.places.has_hosts:
            raise self._unknown(name)
        self.shared.waits.demand_room(client.id)
        wait = self._wait(client.id, request, LOOKUP_SECONDS)

        def loaded(found: DurableDataset | None, failure: Failure | None) -> None:
            if found is not None and not (found.dataset.is_named or self._has_gone(found.dataset)):
                if name in self.published or len(self.published) >= MAX_DATASETS:
                    self.shared.life.holding.let_go(found.dataset)
                else:
                    found.dataset.is_named = True
                    self.published[name] = found.dataset
                    self._renamed[name] = found.renamed
            self._first_look()
            if wait.is_over:
                return
            dataset = self.published.get(name)
            if failure is not None or dataset is None:
                unknown = self._unknown(name)
                self._refuse(wait, failure or Failure(unknown.error, unknown.text))
                return
            self.shared.waits.end(wait)
            self._give(self.shared.clients[wait.client], wait.request, dataset)

        self._durable.load(self.place, name, loaded)

    def _has_gone(self, dataset: Dataset) -> bool:
        """Whether another request has let go of a dataset that was loaded for both."""
        return self.shared.life.holding.is_departed(dataset)

    def _give(self, client: Client, request: int, dataset: Dataset) -> None:
        keys = [task.key for task in dataset.holds]
        given: dict[str, Any] = {"data": dataset.data, "keys": keys, "about": dict(dataset.about)}
        if renamed := self._renamed.get(dataset.name):
            given["renamed"] = [list(item) for item in renamed.items()]
        self.answer(client, request, given)
        self.shared.life.want(client, keys)

    def _list(self, client: Client, request: int) -> None:
        def listed(found: _Found) -> list[Key]:
            return _in_order({*self.published, *(name for name, *_ in found)})[:MAX_DATASETS]

        self._look_for_client(client, request, None, listed)

    def _describe(self, client: Client, request: int, names: Sequence[Key] | None = None) -> None:
        def described(found: _Found) -> list[list[Any]]:
            about = {
                name: {**known, "keys": count, "nbytes": nbytes, "durable": self.place, "loaded": False}
                for name, known, count, nbytes in found
            }
            about.update((name, self._about(dataset)) for name, dataset in self.published.items())
            chosen = _in_order(about) if names is None else [name for name in names if name in about]
            return [[name, about[name]] for name in chosen[:MAX_DATASETS]]

        self._look_for_client(client, request, names, described)

    def _about(self, dataset: Dataset) -> dict[str, Any]:
        """What is known of a dataset, for people."""
        tasks = list(dataset.keys.values())
        return {
            **dataset.about,
            "publisher": dataset.publisher,
            "keys": len(tasks),
            "nbytes": sum(task.nbytes for task in tasks if task.state == "memory"),
            "unfinished": sum(task.state not in ("memory", "erred") for task in tasks),
            "durable": dataset.place,
            "copies": max(1, dataset.replicas),
            "loaded": True,
        }

    def names(self) -> list[Key]:
        """All names that are known here: texts first, in order."""
        return _in_order(self.published)

    def _unknown(self, name: Key) -> Refusal:
        there = f"there are {some(map(shown, self.published), 20)}" if self.published else "there are none"
        return Refusal("DatasetNotFoundError", f"no dataset {shown(name)} is published; {there}")

    def _let_go(self, dataset: Dataset) -> None:
        self.shared.life.holding.let_go(dataset)
        self._copies.let_go(dataset)
        for publication in self._publications:
            if dataset in publication.datasets:
                self._copies.wait_no_longer(publication)

    # -- the cluster's place

    def _look(self, url: str, names: Sequence[Key] | None, on_end: Callable[[_Found, Failure | None], None]) -> None:
        self._durable.places.begin(Lookup(self._durable, url, names, on_end))

    def _look_for_client(
        self, client: Client, request: int, names: Sequence[Key] | None, answer: Callable[[_Found], Any]
    ) -> None:
        """Answer a request by what is known here, and what the cluster's place has, if it can be looked at."""
        if self.place is None or not self._durable.places.has_hosts:
            self.answer(client, request, answer(()))
            return
        self.shared.waits.demand_room(client.id)
        wait = self._wait(client.id, request, LOOKUP_SECONDS, lambda wait: self._answer(wait, answer(())))

        def looked(found: _Found, failure: Failure | None) -> None:
            self._first_look()
            self._answer(wait, answer(found))  # a place that can't be read hides nothing that is known here

        self._look(self.place, names, looked)

    def _first_look(self) -> None:
        """What writers have left that died with an earlier scheduler is swept once."""
        if not self._was_swept and self.place is not None and self._durable.places.hosts_of(self.place):
            self._was_swept = True
            self._durable.sweep(self.place)

    def _wait(
        self, client: str, request: int, seconds: float | None, on_late: Callable[[PlaceWait], None] | None = None
    ) -> PlaceWait:
        due = NO_END if seconds is None else self.shared.now + seconds
        wait = PlaceWait(self, client, request, due, on_late)
        self._place_waits[wait] = None
        self.shared.waits.begin(wait)
        return wait

    def _answer(self, wait: PlaceWait, value: Any, failure: Failure | None = None) -> None:
        if failure is not None:
            self._refuse(wait, failure)
        elif not wait.is_over:
            self.shared.waits.answer(wait, value)

    def _refuse(self, wait: PlaceWait, failure: Failure) -> None:
        if not wait.is_over:
            self.shared.waits.refuse(wait, failure.error, failure.text)

    # -- publications

    def _await_copies(self, client: str, request: int, due: float, datasets: list[Dataset]) -> Publication:
        publication = Publication(self, client, request, due, datasets, self._copies.urge(datasets))
        self._publications[publication] = None
        self._copies.begin(publication)
        return publication

    def conclude(self, publication: Publication) -> None:
        """Tell a publisher what has become of the copies; take back what was lost before it had a second one."""
        lost = publication.lost
        if lost is None:
            self.shared.waits.answer(publication, None)
            return
        for dataset in publication.datasets:
            if self.published.get(dataset.name) is dataset:
                del self.published[dataset.name]
                self._let_go(dataset)
        text = f"the host that had {lost.key!r} was lost before there was a copy of it: publish once more"
        self.shared.waits.refuse(publication, "ObjectLostError", text)

    def expired(self, wait: Wait) -> None:
        if isinstance(wait, Publication):
            self.conclude(wait)
            return
        assert isinstance(wait, PlaceWait)
        if wait.on_late is not None:
            wait.on_late(wait)
        else:
            text = f"{self.place} has not been read within {LOOKUP_SECONDS:g} s: see whether the hosts can reach it"
            self._refuse(wait, Failure("TimeoutError", text))

    def forget(self, wait: Wait) -> None:
        if isinstance(wait, PlaceWait):
            del self._place_waits[wait]
            return
        assert isinstance(wait, Publication)
        del self._publications[wait]
        self._copies.end(wait)

    # -- the rest

    def snapshot(self) -> Any:
        return [
            [
                dataset.name,
                dataset.data,
                dataset.publisher,
                dataset.published,
                [[key, task.key] for key, task in dataset.keys.items()],
                dict(dataset.about),
                dataset.replicas,
                dataset.place,
            ]
            for dataset in self.published.values()
        ]

    def restore(self, data: Any) -> None:
        tasks = self.shared.life.generations.tasks
        for name, blob, publisher, published, keys, about, replicas, place in data:
            dataset = self.published[name] = Dataset(
                name, blob, publisher, published, about=about, replicas=replicas, place=place
            )
            for key, here in keys:
                dataset.keys[key] = tasks[here]
                self.shared.life.holding.hold(dataset, tasks[here])
            if renamed := {key: here for key, here in keys if key != here}:
                self._renamed[name] = renamed
            dataset.is_named = True
            self._copies.hold_lineage(dataset)
            if replicas > 1:
                dataset.on_end = self._copies.look_at
        self._copies.urge(self.published.values())

    def resume(self, kind: str, client: str, request: int, due: float, data: Any) -> Wait | None:
        if kind == PlaceWait.kind:
            wait = self._wait(client, request, None)
            text = "the scheduler was started again before it was done: ask once more"
            self._refuse(wait, Failure("ConnectError", text))
            return wait
        if kind != Publication.kind:
            return None
        datasets = [self.published[name] for name in data if name in self.published]
        return self._await_copies(client, request, due, datasets)

    def check(self) -> None:
        for name, dataset in self.published.items():
            assert dataset.name == name
        assert self._renamed.keys() <= self.published.keys()
        assert set(self._publications) == {wait for wait in self.shared.waits if isinstance(wait, Publication)}
        assert set(self._place_waits) == {wait for wait in self.shared.waits if isinstance(wait, PlaceWait)}


def _ignore(failure: Failure | None) -> None:
    """It stays where it is, then."""


def _in_order(names: Iterable[Key]) -> list[Key]:
    return sorted(names, key=lambda name: (not isinstance(name, str), str(name)))


def _publication_id(client: str, request: int) -> str:
    """Of what a client has asked for. No two are alike, since a client's id is random and counts its requests."""
    return blake2b(f"{client} {request}".encode(), digest_size=16).hexdigest()
