"""What tasks that do the same have in common in their keys: the prefix of a key, as dask has it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

#: Words of a name, the first of which begins with a letter: what follows the last of them tells one task from another.
_NAME = re.compile(r"<?[^\W\d_][^-]*(?:-[^\W\d_]+(?=-|$))*")
_HASH_WORD = re.compile(r"-[a-f0-9]{8}(?=-|$).*")
_HASH = re.compile(r"[a-f0-9]{32}")
#: Nobody calls a task so.
_ANONYMOUS = "data"
_LONGEST = 1_000


def prefix_of(key: Any) -> str:
    """The prefix of a key: the name of what its task does. A key without a name has the prefix ``"Other"``.

    Examples
    --------
    >>> prefix_of("inc-1e297fc27658d7b67b3a758f16bcf47a")
    'inc'
    >>> prefix_of(("random_sample-5a3d", 3, 0))
    'random_sample'
    >>> prefix_of("hello-world-1")
    'hello-world'
    """
    depth = 0
    while type(key) is tuple and key and depth < 100:
        key, depth = key[0], depth + 1
    if type(key) is bytes:
        key = key.decode(errors="replace")
    if type(key) is not str:
        return "Other"
    text = key[:_LONGEST]
    name, dash, last = text.rpartition("-")
    if dash and name and last.isascii() and not last.isalpha():
        return _prefix(name, False)  # which many keys have in common
    return _prefix(text, True)


@lru_cache(10_000)
def _prefix(text: str, is_whole: bool) -> str:
    if is_whole and _HASH.fullmatch(text):
        return _ANONYMOUS
    found = _NAME.match(text.lstrip("_'()\""))
    if found is None:
        return text.partition("-")[0].partition(",")[0].strip("_'()\"") or "Other"
    prefix = _HASH_WORD.sub("", found[0])
    if prefix.startswith("<"):
        return prefix.strip("<>").split()[0].rpartition(".")[2]
    return prefix.partition(",")[0].rstrip("'\")") or "Other"
