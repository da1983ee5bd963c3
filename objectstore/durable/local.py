"""A directory of this host, or one that several hosts have mounted.

A file is written beside its place under another name, synced, and renamed; then the directory is synced. A rename is
atomic, so a reader sees the file whole or not at all, and after the second sync a power cut changes nothing.

What is large is written past the page cache, where the file system lets it: nobody reads it soon, to make new pages for
it takes several times the processor time of all else here, and they would push out pages that are in use.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import secrets
from collections.abc import Iterator, Sequence

from holdfast.objectstore.durable.place import CHUNK_NBYTES, NewFile, Place
from holdfast.objectstore.errors import DurableError

#: What the name of a file begins with while it is written.
_UNFINISHED = ".unfinished-"


class LocalPlace(Place):
    """A directory.

    Parameters
    ----------
    path
        Its path, absolute.
    """

    def __init__(self, path: str) -> None:
        self.url = path

    def prepare(self) -> None:
        with self.saying("made"):
            _make_directory(self.url)

    def put(self, files: Sequence[NewFile], there: Sequence[str] = ()) -> None:
        with self.saying("written"):
            written: list[tuple[str, str]] = []
            try:
                for file in files:
                    path = os.path.join(self.url, file.name)
                    _make_directory(os.path.dirname(path))
                    beside = os.path.join(os.path.dirname(path), f"{_UNFINISHED}{secrets.token_hex(8)}")
                    written.append((beside, path))
                    _write(beside, file)
                for beside, path in written:
                    os.rename(beside, path)
            except BaseException:
                for beside, _ in written:
                    with contextlib.suppress(OSError):
                        os.unlink(beside)
                raise
            paths = [path for _, path in written] + [os.path.join(self.url, name) for name in there]
            for directory in {os.path.dirname(path): None for path in paths}:
                _sync_directory(directory)

    def read(self, name: str) -> bytes | None:
        with self.saying("read"):
            try:
                with open(os.path.join(self.url, name), "rb") as file:
                    return file.read()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def chunks(self, name: str) -> Iterator[bytes]:
        with self.saying("read"), open(os.path.join(self.url, name), "rb", buffering=0) as file:
            while chunk := file.read(CHUNK_NBYTES):
                yield chunk

    def size(self, name: str) -> int | None:
        with self.saying("read"):
            try:
                return os.stat(os.path.join(self.url, name)).st_size
            except (FileNotFoundError, NotADirectoryError):
                return None

    def names(self, directory: str) -> list[str]:
        with self.saying("read"):
            return sorted(name for name in self._listed(directory) if not name.startswith(_UNFINISHED))

    def _listed(self, directory: str) -> list[str]:
        try:
            return os.listdir(os.path.join(self.url, directory))
        except FileNotFoundError:
            return []

    def delete(self, name: str) -> None:
        with self.saying("changed"), contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.url, name))

    def delete_remains(self, directory: str) -> int:
        with self.saying("changed"):
            remains = [name for name in self._listed(directory) if name.startswith(_UNFINISHED)]
        for name in remains:
            self.delete(f"{directory}/{name}")
        return len(remains)

    def path_of(self, name: str) -> str | None:
        return os.path.join(self.url, name)


def _write(path: str, file: NewFile) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        _set_direct(fd, True)
        block, filled = memoryview(mmap.mmap(-1, CHUNK_NBYTES)), 0  # of whole pages, as it has to be for that
        for chunk in file.chunks:
            view = memoryview(chunk).cast("B")
            while view:
                nbytes = min(len(view), CHUNK_NBYTES - filled)
                block[filled : filled + nbytes] = view[:nbytes]
                view, filled = view[nbytes:], filled + nbytes
                if filled == CHUNK_NBYTES:
                    _write_all(fd, block)
                    filled = 0
        _set_direct(fd, False)  # the rest is no whole block
        _write_all(fd, block[:filled])
        os.fsync(fd)
    finally:
        os.close(fd)


def _set_direct(fd: int, direct: bool) -> None:
    """Whether what is written goes past the page cache; it doesn't where the file system can't do that."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT if direct else flags & ~os.O_DIRECT)


def _write_all(fd: int, view: memoryview) -> None:
    while view:
        try:
            view = view[os.write(fd, view) :]
        except OSError as error:
            if error.errno != errno.EINVAL or not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
                raise
            _set_direct(fd, False)  # it takes other blocks than ours, or a part of one was written


def _make_directory(path: str) -> None:
    """Make a directory that survives a power cut, and those above it."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent == path:
        raise DurableError(f"{path} is no directory")
    _make_directory(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o755)
    _sync_directory(parent)


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
