"""Published datasets: what a client has published is kept under a name until a client unpublishes it.

A dataset is bytes that only clients read, and the tasks whose keys are in them, which it holds. Publishing several at
once publishes all of them or none. Its answer waits for second copies of what can't be made again (`copies`), for
`PUBLISH_SECONDS` at most. If such data is lost before it has a second copy, what was published with it is taken back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from holdfast.cluster.protocol.limits import MAX_DATASETS
from holdfast.cluster.protocol.requests import GET_DATASET, LIST_DATASETS, PUBLISH, UNPUBLISH
from holdfast.cluster.scheduler.parts.copies import Copies, CopiesWait
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.parts.waits import Refusal, Wait, WaitOwner
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.model import Holder, HolderDescription, Task
from holdfast.cluster.scheduler.tasks.names import Key, Payload
from holdfast.cluster.scheduler.tasks.wording import some

#: A publisher has its answer after this, whatever has become of the copies.
PUBLISH_SECONDS = 60.0

_Entries = Sequence[tuple[Key, Payload, Sequence[Key]]]


class Dataset(Holder):
    """A published collection: bytes that only clients read, and the tasks that it holds."""

    __slots__ = ("data", "name", "published", "publisher")

    kind: ClassVar[str] = "dataset"
    copies: ClassVar[int] = 2

    def __init__(self, name: Key, data: Payload, publisher: str, published: float) -> None:
        super().__init__(name)
        self.name = name
        self.data = data
        self.publisher = publisher
        self.published = published

    def describe(self) -> HolderDescription:
        return HolderDescription(self.kind, _shown(self.name))


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
        roots: dict[Task, None],
    ) -> None:
        super().__init__(part, client, request, due, roots)
        self._datasets = part
        self.datasets = datasets

    def made(self) -> None:
        self._datasets.conclude(self)

    def describe(self) -> str:
        return f"copies of the dataset {some(_shown(dataset.name) for dataset in self.datasets)}"

    def snapshot(self) -> Any:
        return [dataset.name for dataset in self.datasets]


class Datasets(Part, WaitOwner):
    """Publishes datasets.

    Parameters
    ----------
    shared
        What all parts work with.
    copies
        Sees to the second copies.
    publish_seconds
        How long a publisher waits for these at most.

    Attributes
    ----------
    published
        All datasets by name.
    """

    name = "datasets"

    def __init__(self, shared: Shared, copies: Copies, *, publish_seconds: float = PUBLISH_SECONDS) -> None:
        super().__init__(shared)
        self.requests = {
            PUBLISH: self._publish,
            UNPUBLISH: self._unpublish,
            GET_DATASET: self._get,
            LIST_DATASETS: self._list,
        }
        self.published: dict[Key, Dataset] = {}
        self._copies = copies
        self._publish_seconds = publish_seconds
        self._publications: dict[Publication, None] = {}

    def holders(self) -> Iterable[Holder]:
        return self.published.values()

    # -- requests

    def _publish(self, client: Client, request: int, datasets: _Entries, override: bool = False) -> None:
        shared, life = self.shared, self.shared.life
        shared.waits.demand_room(client.id)
        self._demand_names(datasets, override)
        new = []
        for name, data, keys in datasets:
            old = self.published.get(name)
            dataset = Dataset(name, data, client.name, shared.now)
            for key in keys:
                life.holding.hold(dataset, life.generations.tasks[key])
            self._copies.hold_lineage(dataset)
            self.published[name] = dataset
            new.append(dataset)
            if old is not None:
                self._let_go(old)
        self._await_copies(client.id, request, shared.now + self._publish_seconds, new)

    def _demand_names(self, datasets: _Entries, override: bool) -> None:
        """Refuse what can't be published."""
        new = 0
        for name, _, keys in datasets:
            old = self.published.get(name)
            if old is not None and not override:
                text = f"a dataset {_shown(name)} is published already (by {old.publisher}); override=True replaces it"
                raise Refusal("DatasetExistsError", text)
            new += old is None
            gone = [key for key in keys if key not in self.shared.life.generations.tasks]
            if gone:
                text = f"{_shown(name)} can't be published: {some(map(repr, gone))} was cancelled or released"
                raise Refusal("CancelledError", text)
        if len({name for name, _, _ in datasets}) < len(datasets):
            raise Refusal("ValueError", "two datasets of one request have the same name")
        if len(self.published) + new > MAX_DATASETS:
            there = f"{len(self.published):,} datasets are published, and there may be {MAX_DATASETS:,}"
            raise Refusal("ValueError", f"{there}: unpublish some")

    def _unpublish(self, client: Client, request: int, name: Key) -> None:
        dataset = self.published.pop(name, None)
        if dataset is not None:
            self._let_go(dataset)
        self.answer(client, request, None)

    def _get(self, client: Client, request: int, name: Key) -> None:
        dataset = self._find(name)
        keys = [task.key for task in dataset.holds]
        self.answer(client, request, {"data": dataset.data, "keys": keys})
        self.shared.life.want(client, keys)

    def _list(self, client: Client, request: int) -> None:
        self.answer(client, request, self.names())

    def names(self) -> list[Key]:
        """All names: texts first, in order."""
        return sorted(self.published, key=lambda name: (not isinstance(name, str), str(name)))

    def _find(self, name: Key) -> Dataset:
        dataset = self.published.get(name)
        if dataset is None:
            there = f"there are {some(map(_shown, self.published), 20)}" if self.published else "there are none"
            raise Refusal("DatasetNotFoundError", f"no dataset {_shown(name)} is published; {there}")
        return dataset

    def _let_go(self, dataset: Dataset) -> None:
        self.shared.life.holding.let_go(dataset)
        self._copies.let_go(dataset)
        for publication in self._publications:
            if dataset in publication.datasets:
                self._copies.wait_no_longer(publication)

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
        assert isinstance(wait, Publication)
        self.conclude(wait)

    def forget(self, wait: Wait) -> None:
        assert isinstance(wait, Publication)
        del self._publications[wait]
        self._copies.end(wait)

    # -- the rest

    def snapshot(self) -> Any:
        return [
            [dataset.name, dataset.data, dataset.publisher, dataset.published, [task.key for task in dataset.holds]]
            for dataset in self.published.values()
        ]

    def restore(self, data: Any) -> None:
        for name, blob, publisher, published, keys in data:
            dataset = self.published[name] = Dataset(name, blob, publisher, published)
            for key in keys:
                self.shared.life.holding.hold(dataset, self.shared.life.generations.tasks[key])
            self._copies.hold_lineage(dataset)
        self._copies.urge(self.published.values())

    def resume(self, kind: str, client: str, request: int, due: float, data: Any) -> Wait | None:
        if kind != Publication.kind:
            return None
        datasets = [self.published[name] for name in data if name in self.published]
        return self._await_copies(client, request, due, datasets)

    def check(self) -> None:
        for name, dataset in self.published.items():
            assert dataset.name == name
        assert set(self._publications) == {wait for wait in self.shared.waits if isinstance(wait, Publication)}


def _shown(name: Key) -> str:
    return f"{name!r:.200}"
