"""Answers that come in fragments: ``["part", request, fragment]``, as many as there are, and the last in the reply.

Of fragments that are dictionaries the entries belong together, and of arrays under one name the items. So an answer of
any length is sent, and made, a piece at a time, and one that is short is just a reply.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def merged(fragments: Iterable[Any]) -> Any:
    """The answer that fragments are of.

    Examples
    --------
    >>> merged([{"a": [1]}, {"a": [2], "b": [3]}])
    {'a': [1, 2], 'b': [3]}
    """
    whole: Any = None
    for fragment in fragments:
        if isinstance(fragment, dict):
            whole = {} if whole is None else whole
            for name, value in fragment.items():
                if isinstance(value, (list, tuple)):
                    whole.setdefault(name, []).extend(value)
                else:
                    whole[name] = value
        else:
            whole = fragment
    return whole
