"""Functions that write into their arguments.

Dependencies are read in place, and the memory of the store can't be written. Most functions never notice. Some code
writes into its input all the same, or asks for a writable buffer that it then only reads (Cython code
does). A task that fails for this reason is run once more with private copy-on-write views of its dependencies, and
its function gets such views right away from then on.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable

logger = logging.getLogger(__name__)

# What numpy, Cython's typed memoryviews, memoryview, ctypes, pandas, Arrow, numba and scipy say.
_READ_ONLY = re.compile(
    r"(array|buffer|memory|memoryview|destination|source|base|values|data) (is|are) (read-?only|immutable)"
    r"|read-?only (array|buffer|memory|memoryview|object|bytes)"
    r"|not (writ(e)?able|mutable)"
    r"|writ(e)?able (buffer|array|memory)"
    r"|WRITEABLE flag",
    re.IGNORECASE,
)


def is_read_only_failure(error: BaseException) -> bool:
    """Whether a task failed because it wanted to write where it can't."""
    # A file that was opened to be read says something alike, as an error that is a ValueError and an OSError.
    kinds = (ValueError, TypeError, BufferError)
    return isinstance(error, kinds) and not isinstance(error, OSError) and bool(_READ_ONLY.search(str(error)))


class Writers:
    """The functions that are known to write into their arguments."""

    def __init__(self) -> None:
        self._known: set[Hashable] = set()

    def __contains__(self, function: Hashable) -> bool:
        return function in self._known

    def __bool__(self) -> bool:
        return bool(self._known)

    def add(self, function: Hashable, name: str, error: BaseException) -> None:
        """Remember a function by its digest or name; logs its name the first time."""
        if function not in self._known:
            self._known.add(function)
            logger.warning(
                "%s writes into its arguments, which lie in the object store (%s: %s): it gets private copies of the "
                "pages that it writes to. Copying the argument explicitly is clearer",
                name,
                type(error).__name__,
                str(error),  # not the error itself, whose traceback holds the arguments
            )
