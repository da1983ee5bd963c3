"""Which line of a user's code calls this package, or is being run: what is shown of a task beside its key.

The line is that of the first frame outside of Holdfast and dask. If that frame belongs to an installed library, such as
xarray, the line of the user's own code that has called the library is named as well.

A call in a loop comes from the same instruction each time. So the text is made once for each instruction, and what a
task pays is the look at one frame and into one dictionary.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Sequence
from importlib.util import find_spec
from types import CodeType, FrameType
from typing import Final

import holdfast

#: The description of a line is shortened to about so many characters, in its middle.
MAX_LENGTH = 400
#: Instructions, and files, that are remembered; those of a notebook have a new file for each cell.
_MAX_KNOWN = 4_096

_OURS: Final = 0
_INSTALLED: Final = 1
_USERS: Final = 2

_kinds: dict[str, int] = {}
#: By instruction: the id of the code, which is kept so that no other one gets that, and the place in it.
_lines: dict[tuple[int, int], tuple[CodeType, str]] = {}


def call_site() -> str:
    """The line of the user's code that has called the caller of the function that calls this; empty if there is none.

    Examples
    --------
    >>> def submit():
    ...     return call_site()
    >>> def method():
    ...     return submit()
    >>> method()
    '<doctest ...>:1 in <module>'
    """
    try:
        frame = sys._getframe(3)
    except ValueError:  # a thread or an embedding program has called the method by no code of Python
        return ""
    known = _lines.get((id(frame.f_code), frame.f_lasti))
    return _line_above(frame) if known is None else known[1]


def line_of(frames: Sequence[FrameType]) -> str:
    """The innermost line of the user's code in a stack, the outermost frame first; if there is none, the innermost that
    is not Holdfast's, or else the innermost."""
    for kinds in ((_USERS,), (_USERS, _INSTALLED), (_USERS, _INSTALLED, _OURS)):
        for frame in reversed(frames):
            if _kind_of(frame.f_code.co_filename) in kinds:
                return _described(frame)
    return ""


def stacklevel() -> int:
    """Where the user's code is, as `warnings.warn` counts from where this is called."""
    level = 1
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _kind_of(frame.f_code.co_filename) == _OURS:
        frame = frame.f_back
        level += 1
    return level


def _kind_of(filename: str) -> int:
    kind = _kinds.get(filename)
    if kind is None:
        if len(_kinds) >= _MAX_KNOWN:
            _kinds.clear()
        if filename.startswith(_OWN_FOLDERS):
            kind = _OURS
        elif filename.startswith((*_LIBRARY_FOLDERS, "<frozen ")):
            kind = _INSTALLED
        else:
            kind = _USERS
        _kinds[filename] = kind
    return kind


def _line_above(frame: FrameType | None) -> str:
    while frame is not None and _kind_of(frame.f_code.co_filename) == _OURS:
        frame = frame.f_back
    if frame is None:
        return ""
    if (known := _lines.get((id(frame.f_code), frame.f_lasti))) is not None:
        return known[1]
    text = _described(frame)
    if _kind_of(frame.f_code.co_filename) == _USERS:
        if len(_lines) >= _MAX_KNOWN:
            _lines.clear()
        _lines[id(frame.f_code), frame.f_lasti] = (frame.f_code, text)
        return text
    caller = frame.f_back
    while caller is not None and _kind_of(caller.f_code.co_filename) != _USERS:
        caller = caller.f_back
    return text if caller is None else f"{text}, called from {_described(caller)}"


def _described(frame: FrameType) -> str:
    code = frame.f_code
    text = f"{_shown(code.co_filename)}:{frame.f_lineno} in {code.co_qualname}"
    if len(text) > MAX_LENGTH:
        text = f"{text[: MAX_LENGTH // 3]}…{text[-MAX_LENGTH // 2 :]}"
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    """A name of a file may have bytes that are no text, and ends of lines: no terminal is to get those."""
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def _shown(filename: str) -> str:
    """The name of a file; of a cell of a notebook that of the cell."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = None if get_ipython is None else get_ipython()
    name_of = getattr(getattr(shell, "compile", None), "format_code_name", None)
    named = None if name_of is None else name_of(filename)
    return filename if named is None else " ".join(named)


def _folders(*places: str) -> tuple[str, ...]:
    return tuple([os.path.join(place, "") for place in places])


def _folders_of(package: str) -> list[str]:
    """Where a package lies, which need not be imported for that: a worker starts without dask."""
    spec = find_spec(package)
    return [] if spec is None else list(spec.submodule_search_locations or ())


_OWN_FOLDERS = _folders(os.path.dirname(holdfast.__file__), *_folders_of("dask"))
_LIBRARY_FOLDERS = _folders(
    *map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")),
    *site.getsitepackages(),
    site.getusersitepackages(),
)
