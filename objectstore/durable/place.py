"""What a place for durable datasets can do: keep files by name, each whole or not there at all."""

from __future__ import annotations

import abc
import contextlib
import errno
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from holdfast.objectstore.errors import DurableError

CHUNK_NBYTES = 4 << 20

_CHOOSE = "or name another place: publish_dataset(durable=), HOLDFAST_DURABLE"
_LOOK = "See whether it is there and can be used from this host"
_WAYS_OUT = {
    errno.ENOSPC: f"Free some of its disk, {_CHOOSE}",
    errno.EDQUOT: f"Free some of your quota there, {_CHOOSE}",
    errno.EACCES: f"Let this user write there, {_CHOOSE}",
    errno.EPERM: f"Let this user write there, {_CHOOSE}",
    errno.EROFS: f"Mount it so that it can be written to, {_CHOOSE}",
}


class NewFile(NamedTuple):
    """A file that is to be: its name within the place, and its bytes, piece by piece."""

    name: str
    chunks: Iterable[bytes | memoryview]


class Place(abc.ABC):
    """Where durable datasets lie. Thread-safe; everything here blocks.

    A name is a path within the place, such as ``objects/ab12``. What a method can't do raises a `DurableError` that
    names the place and what to do.

    Attributes
    ----------
    url
        What it is called, everywhere.
    """

    url: str

    @abc.abstractmethod
    def put(self, files: Sequence[NewFile], there: Sequence[str] = ()) -> None:
        """Write files, or replace them. Each is there whole or not at all, and all are safe when this returns.

        So are those that are ``there``, which another writer may have named just now, and not safely yet.
        """

    @abc.abstractmethod
    def read(self, name: str) -> bytes | None:
        """The bytes of a small file; None if it isn't there."""

    @abc.abstractmethod
    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of a file, piece by piece. Raises if it isn't there."""

    @abc.abstractmethod
    def size(self, name: str) -> int | None:
        """The bytes of a file; None if it isn't there."""

    @abc.abstractmethod
    def names(self, directory: str) -> list[str]:
        """The names of all files of a directory that are whole, in order, without that of the directory."""

    @abc.abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file; no error if it isn't there."""

    @abc.abstractmethod
    def delete_remains(self, directory: str) -> int:
        """Delete what writers that died have left there of files that never appeared. How many there were."""

    @abc.abstractmethod
    def prepare(self) -> None:
        """Make it, if it isn't there."""

    def path_of(self, name: str) -> str | None:
        """The path of a file on this host, under which it can be mapped; None if there is none."""
        return None

    @contextlib.contextmanager
    def saying(self, what: str) -> Iterator[None]:
        """Within it, whatever goes wrong is an error that says so of this place."""
        try:
            yield
        except DurableError:
            raise
        except ImportError as error:
            raise DurableError(
                f"{self.url} can't be {what}: {error}. {_to_install(self.url, error)} where you publish, and on all "
                f"hosts of the cluster, {_CHOOSE}"
            ) from error
        except OSError as error:
            way = _WAYS_OUT.get(error.errno or 0, f"{_LOOK}, {_CHOOSE}")
            raise DurableError(f"{self.url} can't be {what}: {_words(error)}. {way}") from error
        except Exception as error:  # a library of the place may raise anything
            words = f"{self.url} can't be {what}: {type(error).__name__}: {error}"
            raise DurableError(f"{words}. {_LOOK}, {_CHOOSE}") from error


def _to_install(url: str, error: ImportError) -> str:
    """What a user does about a package that is missing. fsspec names none: its text says what is to be installed."""
    if url.partition("://")[0] in ("s3", "s3a"):
        return "Install it (pip install 'holdfast[s3]')"
    return f"Install {error.name!r} (pip install {error.name})" if error.name else "Install it"


def _words(error: OSError) -> str:
    if error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return error.strerror or str(error) or type(error).__name__
