"""Writes ``docs/protocol.md`` from the definitions.

``make protocol-docs``, or ``python -m holdfast.cluster.protocol.document docs/protocol.md`` in the repository's root. A
test fails while the file doesn't say what the definitions say.
"""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from holdfast.cluster.protocol import opening, payloads, transfer
from holdfast.cluster.protocol.errands import ERRANDS
from holdfast.cluster.protocol.kinds import GLOSSARY
from holdfast.cluster.protocol.limits import (
    MAX_INTEGER,
    MAX_ITEMS,
    MAX_KEY_DEPTH,
    MAX_PLAIN_DEPTH,
    MAX_PLAIN_ITEMS,
)
from holdfast.cluster.protocol.message import Message, Request, Vocabulary
from holdfast.cluster.protocol.requests import REQUESTS
from holdfast.cluster.protocol.shapes import (
    Anything,
    Blob,
    Boolean,
    Either,
    Entry,
    Fields,
    Identity,
    Integer,
    KeyShape,
    Listed,
    Mapped,
    Maybe,
    Nothing,
    Number,
    OneOf,
    Plain,
    Shape,
    Text,
)
from holdfast.cluster.protocol.vocabularies import VOCABULARIES

_HEAD = f"""\
# The protocol

Every message between the processes of a cluster, as `cluster/protocol/` defines it. **This file is made from these
definitions by `make protocol-docs`: change the definitions, not this file.** How messages lie on the wire, and how they
are cut, is told in [architecture.md](architecture.md#the-wire-clustercomm).

A message is an array: its operation, and its fields in the order of the tables. A field that is *cut* is a list that
may go in several messages of up to {MAX_ITEMS:,} entries each, with all other fields the same in each of them. Other
words in italics are in the [glossary](#glossary), with their limits. "or nil" says that there may be nothing.
`[x, …]` is an array of any number of these, `[a: x, b: y]` one with just these in these places, and `{{a: x, b?: y}}` a
dictionary, in which what is marked with a question mark may be missing. Types are exact: true is no number.
"""
_WIDTH = 120

_NAMES = {id(shape): name for name, (shape, _) in GLOSSARY.items()}


def text() -> str:
    """All of the file."""
    parts: list[str] = [_HEAD, *_contents()]
    for vocabulary in VOCABULARIES:
        parts += _vocabulary(vocabulary)
    parts += _requests()
    parts += _errands()
    parts += _opening()
    parts += _payloads()
    parts += _transfer()
    parts += _glossary()
    return "\n".join(parts)


def _contents() -> Iterator[str]:
    titles = [_title(vocabulary) for vocabulary in VOCABULARIES]
    for title in [*titles, "Requests", "Errands", "The opening", "Payloads", "Between hosts", "Glossary"]:
        yield f"* [{title}](#{title.lower().replace(' ', '-')})"
    yield ""


def _title(vocabulary: Vocabulary) -> str:
    return f"From {vocabulary.speaker} to {vocabulary.hearer}"


def _vocabulary(vocabulary: Vocabulary) -> Iterator[str]:
    yield f"## {_title(vocabulary)}\n"
    for message in vocabulary:
        yield from _message(message)


def _message(message: Message) -> Iterator[str]:
    yield f"### `{_array([message.operation, *message.fields])}`\n"
    yield _paragraph(message.meaning)
    rows = []
    for name, shape in message.fields.items():
        is_cut = ""
        if name == message.cut:
            is_cut = " *cut*" if message.unless is None else f" *cut* where `{message.unless}` is nil"
        rows.append((f"`{name}`{is_cut}", describe(shape)))
    yield from _table(("field", "what it is"), rows)


def _array(names: list[str]) -> str:
    operation, *fields = names
    return f"[{', '.join([repr(operation).replace(chr(39), chr(34)), *fields])}]"


def _requests() -> Iterator[str]:
    yield "## Requests\n"
    yield _paragraph(
        "What a client asks with `request`, and what the `reply` gives. An argument without a question mark has to be "
        "there. The scheduler answers soon, except if a request *waits*: then the answer may take until tasks have run "
        "or workers have come, and a task that asks lends its slot meanwhile. A *quiet* request is answered only if it "
        "is refused."
    )
    rows = [
        (
            f"`{request.operation}`{' *waits*' if request.waits else ''}{' *quiet*' if request.quiet else ''}",
            _arguments(request),
            describe(request.answer),
            request.meaning,
        )
        for request in REQUESTS
    ]
    yield from _table(("request", "arguments", "answer", "meaning"), rows)


def _errands() -> Iterator[str]:
    yield "## Errands\n"
    yield _paragraph(
        "What a client has workers or nodes do beside their tasks, with the request `errand`. The scheduler sends each "
        "of them `errand`, and passes on what they answer: with `errand-done` the answer of this table."
    )
    rows = [
        (f"`{errand.operation}`", errand.by, _arguments(errand), describe(errand.answer), errand.meaning)
        for errand in ERRANDS
    ]
    yield from _table(("errand", "done by", "arguments", "answer", "meaning"), rows)


def _arguments(request: Request) -> str:
    shape = request.arguments
    return ", ".join(_fields(shape.known, shape.needed)) or "none"


def _opening() -> Iterator[str]:
    yield "## The opening\n"
    yield f"The protocol has version {opening.PROTOCOL_VERSION}. The magic is `{opening.MAGIC}`.\n"
    for vocabulary in (opening.FROM_LISTENER, opening.FROM_CONNECTOR):
        yield f"{vocabulary.speaker.capitalize()} says:\n"
        for message in vocabulary:
            yield from _message(message)
    yield "What the `info` of each role has, and what its welcome has:\n"
    rows = [
        (f"`{name}`", role.meaning, describe(role.info), describe(role.welcome)) for name, role in opening.ROLES.items()
    ]
    yield from _table(("role", "what it is", "its info", "its welcome"), rows)


def _payloads() -> Iterator[str]:
    yield "## Payloads\n"
    yield _paragraph(
        "What the scheduler passes on and never looks into. What is larger lies in a store, and a reference stands in "
        "its place."
    )
    rows = [(kind.name, kind.meaning, f"{kind.most_nbytes:,} bytes") for kind in payloads.KINDS]
    yield from _table(("payload", "what it is", "at most"), rows)


def _transfer() -> Iterator[str]:
    yield "## Between hosts\n"
    yield _paragraph(
        "A node agent's port speaks the opening with the role `peer`. After it come exchanges, one after the other, "
        "and not in frames. Integers are little endian. A description is MessagePack of a dictionary. A checksum is "
        "XXH3's of all bytes of an object. `cluster/protocol/transfer.py` tells why the steps are what they are."
    )
    description = transfer.DESCRIPTION
    rows = [(f"`{name}`", describe(shape)) for name, shape in description.known.items()]
    yield from _table(("of a description", "what it is"), [*rows, ("others", "*data*")])
    for exchange in transfer.EXCHANGES:
        yield f"### {exchange.name}\n"
        yield _paragraph(exchange.meaning)
        yield from _table(
            ("from", "what", "only if"), [(step.sender, step.parts, step.when) for step in exchange.steps]
        )


def _glossary() -> Iterator[str]:
    yield "## Glossary\n"
    rows = [(f"*{name}*", _spelled_out(shape), meaning) for name, (shape, meaning) in sorted(GLOSSARY.items())]
    plain = (
        "*data*",
        f"numbers, texts, arrays and dictionaries, up to {MAX_PLAIN_ITEMS:,} things in all and {MAX_PLAIN_DEPTH} deep",
        "What is for people, or of a later version.",
    )
    yield from _table(("word", "what it is", "meaning"), [*rows, plain])


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    rows = list(rows)
    if rows:
        yield _row(head)
        yield _row(tuple("---" for _ in head))
        yield from map(_row, rows)
        yield ""


def _paragraph(words: str) -> str:
    return textwrap.fill(words, _WIDTH, break_long_words=False, break_on_hyphens=False) + "\n"


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


# -- shapes in words


def describe(shape: Shape) -> str:
    """A shape in words: its name, if it is in the glossary.

    Examples
    --------
    >>> describe(Maybe(Listed(Boolean())))
    '[true or false, …] or nil'
    """
    name = _NAMES.get(id(shape))
    return f"*{name}*" if name is not None else _spelled_out(shape)


def _spelled_out(shape: Shape) -> str:
    match shape:
        case Anything(words):
            return words
        case Nothing():
            return "nil"
        case Boolean():
            return "true or false"
        case Integer(low, high):
            return f"an integer{_limits(low, None if high >= MAX_INTEGER else high)}"
        case Number(low, high):
            return f"a number{_limits(low, high)}"
        case Text(longest, shortest):
            return f"a text of {shortest or 'up'} to {longest:,} characters"
        case Identity(nbytes, or_empty):
            return f"{nbytes} bytes{' or none' if or_empty else ''}"
        case Blob(most):
            return f"up to {most:,} bytes"
        case KeyShape(limit=limit):
            return (
                f"a text, a number, bytes, nil, or an array of these up to {MAX_KEY_DEPTH} deep; up to "
                f"{limit:,} bytes in all"
            )
        case Maybe(inner):
            return f"{describe(inner)} or nil"
        case Either(array, other):
            return f"{describe(other)}, or {describe(array)}"
        case OneOf():
            return " or ".join(map(describe, shape.shapes))
        case Entry():
            return f"[{', '.join(f'{name}: {describe(field)}' for name, field in shape.fields.items())}]"
        case Listed():
            return f"[{describe(shape.item)}, …]"
        case Mapped():
            return f"{{{describe(shape.key)}: {describe(shape.value)}, …}}"
        case Fields():
            others = [] if shape.others is None else [f"others: {describe(shape.others)}"]
            return f"{{{', '.join([*_fields(shape.known, shape.needed), *others])}}}"
        case Plain():
            return "*data*"
    raise TypeError(f"no words for a {type(shape).__name__}")


def _fields(known: Mapping[str, Shape], needed: Mapping[str, Shape]) -> list[str]:
    return [f"{name}{'' if name in needed else '?'}: {describe(shape)}" for name, shape in known.items()]


def _limits(low: float, high: float | None) -> str:
    if high is None:
        return "" if low < 0 else f" from {low} on"
    if math.isinf(low) and math.isinf(high):
        return ""
    return f" from {_figure(low)} to {_figure(high)}"


def _figure(number: float) -> str:
    return f"{number:,}" if type(number) is int else f"{number:g}"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text())
