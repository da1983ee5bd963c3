"""pandas frames: blocks of columns, and their labels.

Left to itself, pandas pickles a frame together with the whole machinery that holds its blocks. Unpickling takes a tenth
of a millisecond then, of a frame of ten rows too, and a third of it goes into the labels of the columns, which
thousands of frames have in common. So a frame is taken apart here into its blocks, as pandas offers it to libraries of
this kind (`pandas.api.internals`, from its third version on), and plain labels are written as bytes of their own, by
which a thread that reads many such frames knows them again.

Labels don't change, but pandas lets one rename an index in place. So each frame gets its own index over labels that it
has in common with others.
"""

from __future__ import annotations

import pickle
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from holdfast.objectstore.errors import DecodeError
from holdfast.objectstore.pickling.importing import see_to

_Placement = tuple[int, int, int] | bytes

_LABELS_NBYTES_MAX = 16 << 10
_REMEMBERED_MAX = 256
_PLAIN_NAMES = frozenset({str, int, type(None)})


class _Read(threading.local):
    """The labels that this thread has read lately."""

    def __init__(self) -> None:
        self.labels: dict[bytes, Any] = {}


_read = _Read()
_written: dict[int, tuple[weakref.ref[Any], Any, bytes]] = {}


def reducer() -> Callable[[Any], Any] | None:
    """The one for frames, if the pandas that is imported can put them together from blocks."""
    api = getattr(sys.modules.get("pandas"), "api", None)
    return _reduce_frame if hasattr(getattr(api, "internals", None), "create_dataframe_from_blocks") else None


def _reduce_frame(frame: Any) -> Any:
    if frame.attrs or not frame.flags.allows_duplicate_labels or frame._metadata:
        return frame.__reduce_ex__(5)
    parts: list[Any] = []
    for block in frame._mgr.blocks:
        parts += block.values, _placement(block.mgr_locs)
    return rebuild_frame, (_labels(frame.columns), frame.index, *parts)


def rebuild_frame(labels: Any, index: Any, *parts: Any) -> Any:
    """A frame of its labels, its index, and the values and the place of each block.

    Raises
    ------
    DecodeError
        If they don't belong together.
    """
    see_to("pandas.api.internals")  # only where a frame is unpickled
    from pandas.api.internals import create_dataframe_from_blocks

    columns = _labels_of(labels) if type(labels) is bytes else labels
    blocks = [(parts[i], _positions(parts[i + 1])) for i in range(0, len(parts), 2)]
    try:
        return create_dataframe_from_blocks(blocks, index, columns)
    except (AssertionError, TypeError, ValueError) as error:
        raise DecodeError(f"a damaged frame: {error}") from error


def _placement(locations: Any) -> _Placement:
    if locations.is_slice_like:
        at = locations.as_slice
        return at.start, at.stop, at.step
    return np.asarray(locations.as_array, np.int64).tobytes()


def _positions(placement: _Placement) -> Any:
    return np.frombuffer(placement, np.int64) if type(placement) is bytes else np.arange(*placement)


def _labels(columns: Any) -> Any:
    """Names that pandas keeps in an array of its own, as it does with strings, as bytes; other labels as they are."""
    name = columns.name
    is_plain = type(columns) is sys.modules["pandas"].Index and type(name) in _PLAIN_NAMES
    if not is_plain or isinstance(columns.dtype, np.dtype):
        return columns
    values = columns.array  # what the slices of a frame have in common; each has its own index
    known = _written.get(id(values))
    if known is not None and known[0]() is values and known[1] is name:
        return known[2]
    if columns.inferred_type != "string" or columns.nbytes > _LABELS_NBYTES_MAX:
        return columns
    labels = pickle.dumps(columns, 5)
    if len(_written) >= _REMEMBERED_MAX:
        _written.clear()
    _written[id(values)] = weakref.ref(values), name, labels
    return labels


def _labels_of(written: bytes) -> Any:
    labels = _read.labels.get(written)
    if labels is None:
        if len(_read.labels) >= _REMEMBERED_MAX:
            _read.labels.clear()
        labels = _read.labels[written] = pickle.loads(written)
    return labels.view()
