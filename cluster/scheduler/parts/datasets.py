"""Published datasets."""

from __future__ import annotations

from typing import ClassVar

from holdfast.cluster.scheduler.tasks.model import Holder, HolderDescription
from holdfast.cluster.scheduler.tasks.names import Payload


class Dataset(Holder):
    """A published collection: bytes that only clients read, and the tasks that it holds."""

    __slots__ = ("data", "name", "published", "publisher")

    kind: ClassVar[str] = "dataset"

    def __init__(self, name: str, data: Payload, publisher: str, published: float) -> None:
        super().__init__(name)
        self.name = name
        self.data = data
        self.publisher = publisher
        self.published = published

    def describe(self) -> HolderDescription:
        return HolderDescription(self.kind, repr(self.name))
