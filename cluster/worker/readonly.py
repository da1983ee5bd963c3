"""Functions that write into their arguments.

Dependencies are read in place, and the memory of the store can't be written. Most functions never notice. Some code
writes into its input all the same, or asks for a writable buffer that it then only reads (Cython code
does). A task that fails for this reason is run once more with private copy-on-write views of its dependencies, and
its function gets such views right away from then on.

Tasks have side effects, so none may run twice for any other error. What counts as a refused write:

* the task has read a dependency from the store, as a shared view: nothing else that it is given is read-only;
* the error, or one that led to it, is worded as one of `WORDINGS`. What led to it is found by ``__cause__``, by
  ``__context__``, also where ``raise … from None`` hides that, and among the members of a group. pandas, for one,
  raises `OutOfBoundsDatetime` when it was refused a write, and most code words its own errors.

Code that asks whether its input is writable, and then takes another way, is right as it is.
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Hashable
from typing import NamedTuple

from holdfast.objectstore.pickling.exceptions import cause_of, context_of, group_of

logger = logging.getLogger(__name__)

#: So many errors of a chain are looked at, and so much of what each says.
MAX_LINKS = 100
MAX_TEXT_LENGTH = 1 << 16


class Wording(NamedTuple):
    """How a write is refused.

    Attributes
    ----------
    said_by
        The libraries that say so.
    pattern
        Is found in what they say, whatever the type of the error is.
    kind
        Only errors of this type mean it, where the words alone could mean anything.
    """

    said_by: str
    pattern: str
    kind: type[Exception] = Exception


# What no buffer ever is, however it's made: a function that was given one of these has another problem.
_NO_BUFFERS = "str|bytes|int|float|complex|bool|list|tuple|dict|set|frozenset|range|NoneType|type|function"

WORDINGS = (
    Wording("numpy, pandas, scipy, Cython, whoever else", r"\b(nd)?(array|buffer|memory|memoryview) is read-?only\b"),
    Wording("numpy: items, slices, copyto, fill", r"\bassignment destination is read-only\b"),
    Wording("numpy: place, take; scipy.sparse", r"\bWRITEBACKIFCOPY base is read-only\b"),
    Wording("numpy: nditer, einsum; numexpr", r"\barray with iterator write flag set is read-only\b"),
    Wording("numpy: byteswap", r"\barray to be byte-swapped is read-only\b"),
    Wording("numpy.random: permuted", r"^out is read-only$"),
    Wording("numpy.random: out=", r"\barray must be contiguous, writable, aligned\b"),
    Wording("numpy: setflags", r"\bcannot set WRITEABLE flag to True of this array\b"),
    Wording("numpy.ctypeslib: ndpointer", r"\barray must have flags \[[^\]]*'WRITEABLE'"),
    Wording("numpy.ctypeslib: as_ctypes", r"\breadonly arrays unsupported\b"),
    Wording("numpy: DLPack", r"\bCannot export readonly array\b"),
    Wording("memoryview", r"\bcannot modify read-only memory\b"),
    Wording("ctypes, memoryview", r"\bunderlying buffer is not writable\b"),
    Wording("Python's buffers", r"^Object is not writable\.$", BufferError),
    Wording("readinto, recv_into, struct", rf"\bread-write bytes-like object, not (?!({_NO_BUFFERS})\b)"),
    Wording("Cython, numpy's buffers", r"\bbuffer source array is read-only\b"),
    Wording("Cython", r"\bCannot create writable memory view from read-only memoryview\b"),
    Wording("pybind11, scipy.fft, PyO3", r"\barray is not writ(e)?able\b"),
    Wording("pybind11", r"\bWritable buffer requested for readonly storage\b"),
    Wording("scipy.spatial", r"\bout array must be aligned, writable\b"),
    Wording("Arrow", r"\breadinto\(\) argument must be a writable buffer\b"),
    Wording("pandas", r"\bCannot modify read-only array\b"),
    Wording("array API", r"\bCan't update read-only array\b"),
    Wording("numba", r"\breadonly (array|buffer|bytes|memoryview)\("),
    Wording("h5py", r"\bArray must be C-contiguous and writable\b"),
    Wording("OpenCV", r"\bprovided NumPy array marked as readonly\b"),
)

_PATTERNS = [(re.compile(wording.pattern), wording) for wording in WORDINGS]
# Most errors have nothing of this in them.
_SUSPICIOUS = re.compile(r"read-?only|read-write|writ(e)?able", re.IGNORECASE)


def is_refused_write(error: BaseException) -> bool:
    """Whether a task failed because it wanted to write where it can't, or because of what followed from that."""
    return any(map(_refuses, _links(error)))


def _refuses(error: BaseException) -> bool:
    kind = type(error)  # `isinstance` would ask the error too, which may be anything
    if issubclass(kind, OSError):
        assert isinstance(error, OSError)
        # A file that was opened to be read words it alike. A system call that was to write into the memory says this.
        return error.errno == errno.EFAULT
    text = _text(error)
    if not _SUSPICIOUS.search(text):
        return False
    return any(issubclass(kind, wording.kind) and pattern.search(text) for pattern, wording in _PATTERNS)


def _text(error: BaseException) -> str:
    try:
        return str(error)[:MAX_TEXT_LENGTH]
    except BaseException:  # a user's own __str__
        return ""


def _links(error: BaseException) -> list[BaseException]:
    """An error, and all that led to it, the nearest first."""
    links: dict[int, BaseException] = {}
    todo: list[BaseException | None] = [error]
    for link in todo:
        if link is None or id(link) in links:
            continue
        if len(links) == MAX_LINKS:
            break
        links[id(link)] = link
        group = group_of(link)
        todo += (cause_of(link), context_of(link), *(group[1] if group is not None else ()))
    return list(links.values())


class Writers:
    """The functions that are known to write into their arguments."""

    def __init__(self) -> None:
        self._known: set[Hashable] = set()

    def __contains__(self, function: Hashable) -> bool:
        return function in self._known

    def __bool__(self) -> bool:
        return bool(self._known)

    def add(self, function: Hashable, name: str, error: BaseException) -> bool:
        """Remember a function by its digest or name; whether it's a new one, whose name is logged."""
        if function in self._known:
            return False
        self._known.add(function)
        logger.warning(
            "%s writes into its arguments, which lie in the object store (%s: %s): it gets private copies of the "
            "pages that it writes to. Say so with writable=True, or copy the argument, which is clearer",
            name,
            type(error).__name__,
            _text(error),  # not the error itself, whose traceback holds the arguments
        )
        return True
