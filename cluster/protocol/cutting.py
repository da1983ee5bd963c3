"""How one message becomes several that say the same.

A receiver handles a message in one piece, and all other peers wait meanwhile. So a long list goes in parts of
`limits.MAX_ITEMS`. A message says in its definition which of its lists that may be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from holdfast.cluster.protocol.limits import MAX_ITEMS
from holdfast.cluster.protocol.message import Carrier
from holdfast.cluster.protocol.vocabularies import VOCABULARIES


class Cut(NamedTuple):
    """Where a message may be cut: the place of its list, and that of the field that has to be nil (0: none has).

    The place 0 stands for what a `Carrier` carries.
    """

    place: int
    unless: int


def _declared() -> dict[str, Cut]:
    """By operation. A message that is cut says so in each vocabulary that has one of this name, and in one way."""
    cuts: dict[str, Cut] = {}
    said: dict[str, Cut | None] = {}
    for vocabulary in VOCABULARIES:
        for message in vocabulary:
            names = ["", *message.fields]
            cut = None if message.cut is None else Cut(names.index(message.cut), names.index(message.unless or ""))
            if isinstance(message, Carrier):
                cut = Cut(0, 0)
            if said.setdefault(message.operation, cut) != cut:
                raise ValueError(f"two messages {message.operation!r} are cut in two ways")
            if cut is not None:
                cuts[message.operation] = cut
    return cuts


_CUTS = _declared()


def where_cut(message: Sequence[Any], count: int) -> int:
    """The place of the list in a message that lists more than ``count`` things and may be cut there. 0: it may not."""
    try:
        cut = _CUTS.get(message[0])
        if cut is None:
            return 0
        place, unless = cut
        if not place:
            place = where_cut(message[1:], count)
            return place + 1 if place else 0
        items = message[place]
        if len(items) <= count or (unless and message[unless] is not None):
            return 0
    except (IndexError, TypeError):  # malformed: the receiver says how
        return 0
    kind = type(items)
    return place if kind is tuple or kind is list else 0


def pieces(message: tuple[Any, ...]) -> Iterable[tuple[Any, ...]]:
    """Messages that say the same as this one, one after the other, none of them of more than `MAX_ITEMS`.

    A ``submit`` that wants only some of its tasks stays whole: the others would be forgotten before those came that
    depend on them. The sender cuts one where that is seen to (`holdfast.client.packing.graphs.split`).

    Examples
    --------
    >>> [len(keys) for _, keys in pieces(("release", list(range(1200))))]
    [500, 500, 200]
    """
    place = where_cut(message, MAX_ITEMS)
    return _pieces(message, place) if place else (message,)


def _pieces(message: tuple[Any, ...], place: int) -> Iterator[tuple[Any, ...]]:
    before, items, after = message[:place], message[place], message[place + 1 :]
    for start in range(0, len(items), MAX_ITEMS):
        yield (*before, items[start : start + MAX_ITEMS], *after)


def in_pieces(messages: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Messages that say the same as these; see `pieces`."""
    for message in messages:
        if where_cut(message, MAX_ITEMS):
            return [piece for message in messages for piece in pieces(message)]
    return messages
