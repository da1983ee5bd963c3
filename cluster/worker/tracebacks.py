"""What a user sees of a task's failure: their own frames, not the worker's."""

from __future__ import annotations

import os
import traceback
from types import TracebackType

import holdfast
from holdfast.cluster.failures.dumping import MAX_LINKS
from holdfast.cluster.protocol import payloads
from holdfast.objectstore.pickling.exceptions import linked, set_trace, trace_of

#: What runs a function, and what a client sends in the place of one so that an actor is made.
_OWN_FOLDERS = (
    os.path.dirname(__file__) + os.sep,
    os.path.join(os.path.dirname(holdfast.__file__), "client", "actors", ""),
)
_OWN_FILES = (payloads.__file__,)
_EVALUATOR = os.path.join("dask", "_task_spec.py")


def _is_own(filename: str) -> bool:
    return filename.startswith(_OWN_FOLDERS) or filename in _OWN_FILES or filename.endswith(_EVALUATOR)


def trim(error: BaseException) -> None:
    """Drop the frames of the worker that lead to the user's, from the error and from what it was raised from."""
    for link in linked(error, MAX_LINKS):
        set_trace(link, _users(trace_of(link)))


def forget_locals(error: BaseException) -> None:
    """Clear the frames of the traceback, so that what the task had in its variables, views of the store, is let go."""
    for link in linked(error, MAX_LINKS):
        traceback.clear_frames(trace_of(link))


def _users(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and _is_own(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace
