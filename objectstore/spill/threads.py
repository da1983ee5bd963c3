"""The server's hands on the files of spilled objects: threads, so that its event loop waits for no disk."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from holdfast.objectstore.core.objects import SpillExtent
from holdfast.objectstore.errors import SpillError
from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.layout import Layout
from holdfast.objectstore.spill.files import SpillDirectory, SpillLostError, Written

logger = logging.getLogger("holdfast.objectstore")


class SpillThreads:
    """A spill directory, to be used in an event loop.

    Parameters
    ----------
    parent : str
        Where the directory is made.
    limit : int or None
        The most bytes that its files may have together.

    Raises
    ------
    SpillError
        If no directory can be made there.
    """

    def __init__(self, parent: str, *, limit: int | None) -> None:
        try:
            self._directory = SpillDirectory(parent, limit=limit)
        except OSError as error:
            text = f"objects can't be spilled to {parent}: {error}; choose another spill directory"
            raise SpillError(text) from error
        # Two, so that a reader doesn't wait for the one batch that is written at a time.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="holdfast-spill")
        self._failure: str | None = None

    @property
    def file_nbytes(self) -> int:
        """The bytes of all files."""
        return self._directory.file_nbytes

    async def write(self, source: memoryview, layouts: Sequence[Layout]) -> Written:
        """Copies objects from ``source`` into files, as many as there is room for. One call at a time."""
        loop = asyncio.get_running_loop()
        extents, error = await loop.run_in_executor(self._threads, self._directory.write, source, layouts)
        if error is not None:
            error = f"{self._directory.path}: {error}"
            if error != self._failure:
                logger.warning("The store can't move objects to disk: %s", error)
        self._failure = error
        return Written(extents, error)

    async def open_verified(self, object_id: ObjectID, extent: SpillExtent) -> int:
        """A descriptor of the file that the object is in, the caller's to close, once it's known to be undamaged.

        Raises
        ------
        SpillLostError
            If the object is lost.
        SpillError
            If it can't be read just now.
        """
        opening = self._threads.submit(self._directory.open_verified, extent)
        try:
            return await asyncio.wrap_future(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_opened)
            raise
        except SpillError as error:
            fate = "is lost" if isinstance(error, SpillLostError) else "can't be read now"
            text = f"object {object_id} lies in a file and {fate}: {error}"
            logger.error("An %s", text)
            raise type(error)(text) from error

    async def verify(self, object_id: ObjectID, extent: SpillExtent) -> SpillError | None:
        """Why the object can't be read; None if it can."""
        try:
            os.close(await self.open_verified(object_id, extent))
        except SpillError as error:
            return error
        return None

    def drop(self, extent: SpillExtent) -> None:
        """The extent isn't needed any more."""
        self._threads.submit(self._directory.drop, extent)

    async def close(self) -> None:
        """Removes everything. What is mapped stays readable."""
        self._directory.stop()
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.to_thread(self._directory.close)


def _close_opened(opening: Future[int]) -> None:
    """Closes a descriptor that no request waits for any more."""
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result())
