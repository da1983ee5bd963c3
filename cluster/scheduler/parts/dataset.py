"""What a published dataset is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from holdfast.cluster.scheduler.tasks.model import Holder, HolderDescription, Task
from holdfast.cluster.scheduler.tasks.names import Key, Payload


class Dataset(Holder):
    """A published collection: bytes that only clients read, and the tasks that it holds.

    Attributes
    ----------
    data
        The bytes.
    keys
        What clients get: the keys in the data, and the tasks that they stand for. It may hold others too.
    about
        What its publisher has said of it, for people.
    publisher, published
        The name of the client that has published it, and when.
    wants_copies
        Whether what can't be made again is to have second copies, and all of it ``replicas``: not before it is known
        that it is to have its name, and that it isn't to be durable instead.
    place
        Where it is durable; None if it isn't.
    on_end
        ``on_end(task)`` is called when a task that it holds has a result, or has failed.
    """

    __slots__ = (
        "_replicas",
        "about",
        "data",
        "keys",
        "name",
        "on_end",
        "place",
        "published",
        "publisher",
        "wants_copies",
    )

    kind: ClassVar[str] = "dataset"

    def __init__(
        self,
        name: Key,
        data: Payload,
        publisher: str,
        published: float,
        *,
        about: Mapping[str, Any] | None = None,
        replicas: int = 1,
        place: str | None = None,
    ) -> None:
        super().__init__(name)
        self.name = name
        self.data = data
        self.publisher = publisher
        self.published = published
        self.keys: dict[Key, Task] = {}
        self.about: Mapping[str, Any] = about or {}
        self.place = place
        self.on_end: Callable[[Task], None] | None = None
        self._replicas = replicas
        self.wants_copies = False

    @property
    def copies(self) -> int:
        return 2 if self.wants_copies else 1

    @property
    def replicas(self) -> int:
        return self._replicas if self.wants_copies else 1

    def as_plain(self) -> tuple[Any, ...]:
        """It as plain data, with the serials of its tasks; `Dataset.of` is the inverse."""
        keys = [(key, task.serial) for key, task in self.keys.items()]
        named = self.name, self.data, self.publisher, self.published
        return (*named, dict(self.about), self._replicas, self.place, keys)

    @classmethod
    def of(cls, plain: Sequence[Any], tasks: Mapping[int, Task]) -> Dataset:
        """The inverse of `as_plain`; it holds nothing yet."""
        name, data, publisher, published, about, replicas, place, keys = plain
        dataset = cls(name, data, publisher, published, about=about, replicas=replicas, place=place)
        dataset.keys = {key: tasks[serial] for key, serial in keys}
        return dataset

    def ended(self, task: Task) -> None:
        if self.on_end is not None:
            self.on_end(task)

    def describe(self) -> HolderDescription:
        return HolderDescription(self.kind, shown(self.name))


def shown(name: Key) -> str:
    """The name of a dataset, in a message."""
    return f"{name!r:.200}"
