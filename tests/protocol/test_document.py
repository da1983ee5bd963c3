"""The docs say what the definitions say."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.cluster.protocol import document, shapes
from holdfast.cluster.protocol.opening import ROLES
from holdfast.cluster.protocol.requests import REQUESTS
from holdfast.cluster.protocol.vocabularies import VOCABULARIES

FILE = Path(__file__).parents[2] / "docs" / "protocol.md"


def test_the_file_is_up_to_date():
    assert FILE.read_text() == document.text(), "run 'make protocol-docs'"


def test_it_tells_of_every_message_request_and_role():
    text = document.text()
    for vocabulary in VOCABULARIES:
        assert f"## From {vocabulary.speaker} to {vocabulary.hearer}" in text
        for message in vocabulary:
            assert f'### `["{", ".join([message.operation + chr(34), *message.fields])}]`' in text
    for request in REQUESTS:
        manner = f"{' *waits*' if request.waits else ''}{' *quiet*' if request.quiet else ''}"
        assert f"| `{request.operation}`{manner} |" in text
    for name in ROLES:
        assert f"| `{name}` |" in text


def test_every_shape_has_words():
    class Unknown(shapes.Shape):
        def check(self, value, where):
            pass

    with pytest.raises(TypeError, match="no words for a Unknown"):
        document.describe(Unknown())
    entry = shapes.Entry(a=shapes.Number(), b=shapes.Maybe(shapes.Boolean()), c=shapes.Listed(shapes.Text(9, 2)))
    assert document.describe(entry) == (
        "[a: a number from 0 to 1e+18, b: true or false or nil, c: [a text of 2 to 9 characters, …]]"
    )
