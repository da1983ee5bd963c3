"""Classes that are pickled by value come back to the process that defined them without changing anything there.

A class of ``__main__`` takes its whole content along, and an object of it that comes back, as a task's result, brings a
copy of that content. cloudpickle finds the class that is meant, and sets all its attributes to what the copy has. Where
the class was made from a pickle that is right: it may have been made of an earlier state. But the process that defined
it would lose what it has set in the meantime, a setting or a registry for instance. So there the class stays as it is.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

from cloudpickle import cloudpickle

_by_id = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID
_make_class = cloudpickle._make_skeleton_class
_make_enum = cloudpickle._make_skeleton_enum
_set_state = cloudpickle._class_setstate

#: A thread that finds a class which another one is making sets its state as well.
_lock = threading.RLock()
#: Those that this process has made from pickles.
_made: weakref.WeakSet[type] = weakref.WeakSet()


def make_class(*args: Any) -> Any:
    """cloudpickle's ``_make_skeleton_class``."""
    return _noted(_make_class, args)


def make_enum(*args: Any) -> Any:
    """cloudpickle's ``_make_skeleton_enum``."""
    return _noted(_make_enum, args)


def set_state(cls: Any, state: Any) -> Any:
    """cloudpickle's ``_class_setstate``, for classes that were made from a pickle."""
    return _set_state(cls, state) if cls in _made else cls


def _noted(make: Any, args: tuple[Any, ...]) -> Any:
    tracker_id = args[-2]
    with _lock:
        is_known = tracker_id is not None and tracker_id in _by_id
        cls = make(*args)
        if not is_known:
            _made.add(cls)
    return cls


#: What stands for what a pickle names in cloudpickle.
INSTEAD = {"_make_skeleton_class": make_class, "_make_skeleton_enum": make_enum, "_class_setstate": set_state}
