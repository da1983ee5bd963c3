"""S3, and whatever else fsspec opens: ``s3://bucket/prefix``, ``gs://…``, ``memory://…``.

What is put there appears whole when its last byte is there, as object stores promise it, so nothing has another name
first. Credentials and endpoints are fsspec's: its configuration files, its variables, and those of the service.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from holdfast.objectstore.durable.place import CHUNK_NBYTES, NewFile, Place

#: A file up to this size is sent by one request.
_ONE_REQUEST_NBYTES = 8 << 20
#: Object stores have no directories, and a bucket is made by a person.
_WITHOUT_DIRECTORIES = {"s3", "s3a", "gs", "gcs", "abfs", "az"}
#: What is written with several requests goes in parts of this size.
_PART_NBYTES = 32 << 20


class ElsewherePlace(Place):
    """A place that fsspec opens.

    Parameters
    ----------
    url
        With its protocol.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        with self.saying("opened"):
            import fsspec  # here: most places are directories, and this takes a tenth of a second

            self._fs, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False)

    def prepare(self) -> None:
        protocols = {self._fs.protocol} if isinstance(self._fs.protocol, str) else set(self._fs.protocol)
        if protocols.isdisjoint(_WITHOUT_DIRECTORIES):
            with self.saying("made"):
                self._fs.makedirs(self._root, exist_ok=True)

    def put(self, files: Sequence[NewFile], there: Sequence[str] = ()) -> None:
        with self.saying("written"):
            for file in files:
                self._put(self._path(file.name), iter(file.chunks))

    def _put(self, path: str, chunks: Iterator[bytes | memoryview]) -> None:
        first = bytearray()
        for chunk in chunks:
            first += chunk
            if len(first) > _ONE_REQUEST_NBYTES:
                break
        else:
            self._fs.pipe_file(path, bytes(first))
            return
        file = self._fs.open(path, "wb", block_size=_PART_NBYTES, autocommit=False)
        try:
            file.write(first)
            for chunk in chunks:
                file.write(chunk)
            file.close()
            file.commit()
        except BaseException:
            with contextlib.suppress(Exception):
                file.discard()
            raise

    def read(self, name: str) -> bytes | None:
        with self.saying("read"):
            try:
                return bytes(self._fs.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

    def chunks(self, name: str) -> Iterator[bytes]:
        path = self._path(name)
        with self.saying("read"):
            nbytes = self._fs.size(path)
            at = 0
            while at < nbytes:
                chunk = self._fs.cat_file(path, start=at, end=min(at + _PART_NBYTES, nbytes))
                if not chunk:
                    raise OSError(f"{name} was cut short")
                at += len(chunk)
                for start in range(0, len(chunk), CHUNK_NBYTES):
                    yield chunk[start : start + CHUNK_NBYTES]

    def size(self, name: str) -> int | None:
        with self.saying("read"):
            try:
                return int(self._fs.info(self._path(name))["size"])
            except FileNotFoundError:
                return None

    def names(self, directory: str) -> list[str]:
        with self.saying("read"):
            try:
                found: list[dict[str, Any]] = self._fs.ls(self._path(directory), detail=True, refresh=True)
            except FileNotFoundError:
                return []
            except TypeError:  # a file system that keeps no listings, and so can't refresh them
                found = self._fs.ls(self._path(directory), detail=True)
            return sorted(entry["name"].rsplit("/", 1)[-1] for entry in found if entry["type"] == "file")

    def delete(self, name: str) -> None:
        with self.saying("changed"), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def delete_remains(self, directory: str) -> int:
        return 0  # what was not finished is no file here

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"
