"""The end of the journal that a scheduler writes to.

A batch is in the kernel's hands when `Writer.append` returns, so it survives the process, but a power cut only when
`Writer.sync` has returned after it. A file that has grown to its size is closed, and another begun; closed files can be
summed up (`compaction`).

A disk may be full. The writer keeps a reserve for that, a file of some megabytes which it gives up then. What ends
things can still be written, and its owner sees by `is_short` that nothing new should be begun, until `regain` has the
reserve again. When the reserve is used up as well, `append` raises a `JournalFullError`, and the batch is not in the
journal.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast.cluster.errors import JournalError, JournalFullError
from holdfast.cluster.journal.batches import FORMAT, Heading, Record, pack_heading, packer, prefix_of
from holdfast.cluster.journal.directory import StateDirectory, sync_directory

logger = logging.getLogger(__name__)

#: A file that has grown to this is closed.
FILE_NBYTES = 64 << 20
RESERVE_NBYTES = 16 << 20
#: What a packer keeps; one that had to pack more is replaced.
_PACKER_NBYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Writer:
    """Appends batches. Used by one thread, but for `sync`.

    Parameters
    ----------
    directory
        The state directory.
    file_number, batch_number
        Of the first file and the first batch that it writes.
    file_nbytes
        A file that has grown to this is closed.
    reserve_nbytes
        What is kept for a full disk; 0: nothing is.
    on_closed
        ``on_closed(number)`` is called when a file is closed.

    Attributes
    ----------
    file_number
        Of the file that is written.
    nbytes
        Of what it has written, in all files.
    is_short
        The disk is full, and the reserve is in use.

    Raises
    ------
    JournalError, JournalFullError
        The first file can't be made.
    """

    def __init__(
        self,
        directory: StateDirectory,
        file_number: int,
        batch_number: int,
        *,
        file_nbytes: int = FILE_NBYTES,
        reserve_nbytes: int = RESERVE_NBYTES,
        on_closed: Callable[[int], None] = lambda number: None,
    ) -> None:
        self.file_number = file_number
        self.nbytes = 0
        self.is_short = False
        self._directory = directory
        self._batch_number = batch_number
        self._file_nbytes = file_nbytes
        self._reserve_nbytes = reserve_nbytes
        self._reserve = directory.path / "journal" / "reserve"
        self._on_closed = on_closed
        self._packer = packer()
        self._position = 0
        self._to_sync: list[int] = []  # the descriptors of files that were closed and are not on the disk
        self._syncing = threading.Lock()
        self._changing = threading.Lock()  # which files there are to sync
        self.regain()
        try:
            self._file = self._begin()
        except JournalFullError:
            if not self._use_reserve():
                raise
            self._file = self._begin()

    def append(self, batch: Sequence[Record]) -> None:
        """Write records, all of them or none.

        Raises
        ------
        JournalFullError
            The disk is full, and the reserve used up.
        JournalError
            They can't be written, for another reason.
        """
        payload = self._packer.pack(batch)
        prefix = prefix_of(self._batch_number, payload)
        nbytes = len(prefix) + len(payload)
        try:
            self._write(prefix, payload, nbytes)
        except OSError as error:
            if error.errno not in _FULL or not self._use_reserve():
                raise self._failure(error) from error
            try:
                self._write(prefix, payload, nbytes)
            except OSError as second:
                raise self._failure(second) from second
        self._batch_number += 1
        self.nbytes += nbytes
        if len(payload) > _PACKER_NBYTES:
            self._packer = packer()
        if self._position >= self._file_nbytes:
            self._go_on_in_another()

    def sync(self) -> None:
        """Return when all that was written before is on the disk. In any thread. At once, if it need not be there.

        Raises
        ------
        OSError
            It can't be brought there.
        """
        if self._directory.is_temporary:
            return
        with self._syncing:
            with self._changing:
                current, closed = self._file, len(self._to_sync)
            for _ in range(closed):
                os.fdatasync(self._to_sync[0])
                os.close(self._to_sync.pop(0))
            os.fdatasync(current)

    def regain(self) -> bool:
        """Take the reserve again, if there is room for it. Whether there is a reserve."""
        if not self._reserve_nbytes:
            return not self.is_short
        try:
            descriptor = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._reserve_nbytes)
            finally:
                os.close(descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._reserve.unlink()
            if error.errno in _FULL:
                self.is_short = True
            else:
                logger.warning("no reserve for a full disk can be kept in %s: %s", self._reserve.parent, error)
            return False
        self.is_short = False
        return True

    def close(self) -> None:
        """Bring everything to the disk, and end."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                self.sync()
            os.close(self._file)
            self._file = -1

    # -- files

    def _begin(self) -> int:
        """Make the file with the current number."""
        path = self._directory.path_of(self.file_number)
        heading = Heading(FORMAT, self._directory.cluster, self._directory.epoch, None)
        data = pack_heading(self._batch_number, heading)
        descriptor = -1
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            _write_all(descriptor, data)
            if not self._directory.is_temporary:
                sync_directory(path.parent)
        except OSError as error:
            if descriptor >= 0:
                os.close(descriptor)
                with contextlib.suppress(OSError):
                    path.unlink()
            raise self._failure(error) from error
        self._batch_number += 1
        self._position = len(data)
        return descriptor

    def _go_on_in_another(self) -> None:
        closed = self.file_number
        self.file_number += 1
        try:
            descriptor = self._begin()
        except JournalError as error:
            self.file_number = closed  # which goes on to grow
            logger.warning("%s", error)
            self._file_nbytes += FILE_NBYTES
            return
        with self._changing:
            if self._directory.is_temporary:
                os.close(self._file)
            else:
                self._to_sync.append(self._file)
            self._file = descriptor
        self._on_closed(closed)

    def _write(self, prefix: bytes, payload: bytes, nbytes: int) -> None:
        written = 0
        try:
            written = os.writev(self._file, (prefix, payload))
            if written < nbytes:
                _write_all(self._file, (prefix + payload)[written:])
        except BaseException:  # the file must end with a whole batch, or what comes next is lost behind this one
            os.ftruncate(self._file, self._position)
            raise
        self._position += nbytes

    # -- a full disk

    def _use_reserve(self) -> bool:
        """Give up the reserve. Whether there was one."""
        self.is_short = True
        try:
            self._reserve.unlink()
        except FileNotFoundError:
            return False
        return True

    def _failure(self, error: OSError) -> JournalError:
        place: Path = self._directory.path
        if error.errno in _FULL:
            return JournalFullError(
                f"the disk of the state directory {place} is full. Make room there; what the cluster has is safe, and "
                "nothing new is taken until then"
            )
        return JournalError(f"the journal in {place} can't be written: {error.strerror or error}")


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
