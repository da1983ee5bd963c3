"""Checkers of long lists of what every task needs, and of requests, written out by hand: without further calls.

Each says of most of these that they are right, and never of one that isn't. Of all others the shape of an entry, or of
a field, says what is wrong (`holdfast.cluster.protocol.shapes.Listed`, `holdfast.cluster.protocol.message.Message`). A
test holds the two against each other.
"""

from __future__ import annotations

from typing import Any

from holdfast.cluster.protocol.limits import (
    INLINE_LIMIT_NBYTES,
    MAX_INTEGER,
    MAX_KEY_NBYTES,
    MAX_NAME_LENGTH,
    MAX_NAMED,
    MAX_OBJECT_NBYTES,
    MAX_PAYLOAD_NBYTES,
)

_NAMES_LENGTH = min(MAX_NAME_LENGTH, MAX_NAMED) - 1
_KEY_LENGTH = MAX_KEY_NBYTES // 4  # of a text, whatever its characters are
_KEY_PARTS = 8
_PART_LENGTH = _KEY_LENGTH // _KEY_PARTS - 2  # less what the tuple itself takes


def _is_key(key: Any) -> bool:
    """Whether it surely is a key: one of dask's."""
    if type(key) is not tuple or len(key) > _KEY_PARTS:
        return False
    for part in key:
        kind = type(part)
        if kind is not int and (kind is not str or len(part) > _PART_LENGTH):
            return False
    return True


def is_request(message: Any) -> bool:
    try:
        _, number, operation, arguments = message
        # One text of all names: none if one of them isn't, and of no more names than it has characters.
        return (
            type(number) is int
            and 0 <= number <= MAX_INTEGER
            and type(arguments) is dict
            and len("".join((operation, *arguments))) <= _NAMES_LENGTH
        )
    except (TypeError, ValueError):  # no array of four, or a name that is no text
        return False


def is_reply(message: Any) -> bool:
    try:
        _, number, ok, _ = message
        return type(number) is int and 0 <= number <= MAX_INTEGER and type(ok) is bool
    except ValueError:  # no array of four
        return False


def are_keys(keys: Any) -> bool:
    for key in keys:  # noqa: SIM110 (a generator would cost as much as all the rest)
        if (type(key) is not str or len(key) > _KEY_LENGTH) and not _is_key(key):
            return False
    return True


def are_tasks(tasks: Any) -> bool:
    try:
        for task in tasks:
            key, digest, payload, dependencies = task
            if type(task) is not tuple or ((type(key) is not str or len(key) > _KEY_LENGTH) and not _is_key(key)):
                return False
            if digest is not None and (type(digest) is not bytes or len(digest) != 16):
                return False
            if (type(payload) is not bytes and type(payload) is not memoryview) or len(payload) > MAX_PAYLOAD_NBYTES:
                return False
            if type(dependencies) is not tuple or (dependencies and not are_keys(dependencies)):
                return False
    except (TypeError, ValueError):  # no array of four
        return False
    return True


def are_results(results: Any) -> bool:
    try:
        for result in results:
            serial, run_id, object_id, nbytes, inline, type_name, seconds = result
            if type(result) is not tuple or type(serial) is not int or not 0 <= serial <= MAX_INTEGER:
                return False
            if type(run_id) is not int or run_id > MAX_INTEGER or type(object_id) is not bytes or len(object_id) != 16:
                return False
            if type(nbytes) is not int or not 0 <= nbytes <= MAX_OBJECT_NBYTES:
                return False
            if inline is not None and (type(inline) is not bytes or len(inline) > INLINE_LIMIT_NBYTES):
                return False
            if type(type_name) is not str or len(type_name) > MAX_NAME_LENGTH:
                return False
            if type(seconds) is not float or not 0.0 <= seconds <= 1e12:
                return False
    except (TypeError, ValueError):
        return False
    return True


def are_places(places: Any) -> bool:
    try:
        for place in places:
            key, object_id, nbytes, inline, nodes = place
            if type(place) is not tuple or ((type(key) is not str or len(key) > _KEY_LENGTH) and not _is_key(key)):
                return False
            if type(object_id) is not bytes or len(object_id) != 16:
                return False
            if type(nbytes) is not int or not 0 <= nbytes <= MAX_OBJECT_NBYTES:
                return False
            if inline is not None and (type(inline) is not bytes or len(inline) > INLINE_LIMIT_NBYTES):
                return False
            if type(nodes) is not tuple:
                return False
            for node in nodes:
                if type(node) is not str or not 0 < len(node) <= MAX_NAME_LENGTH:
                    return False
    except (TypeError, ValueError):
        return False
    return True


def _are_read(dependencies: Any) -> bool:
    for dependency in dependencies:
        key, result, inline, nodes = dependency
        if type(dependency) is not tuple or ((type(key) is not str or len(key) > _KEY_LENGTH) and not _is_key(key)):
            return False
        if (type(result) is not bytes or len(result) != 16) and (
            type(result) is not int or not 0 < result <= MAX_INTEGER
        ):
            return False
        if inline is not None and (type(inline) is not bytes or len(inline) > INLINE_LIMIT_NBYTES):
            return False
        if type(nodes) is not tuple:
            return False
        for node in nodes:
            if type(node) is not str or not 0 < len(node) <= MAX_NAME_LENGTH:
                return False
    return True


def are_runs(runs: Any) -> bool:
    try:
        for run in runs:
            key, run_id, digest, payload, dependencies, private, serial = run
            if type(run) is not tuple or ((type(key) is not str or len(key) > _KEY_LENGTH) and not _is_key(key)):
                return False
            if type(run_id) is not int or run_id > MAX_INTEGER:
                return False
            if digest is not None and (type(digest) is not bytes or len(digest) != 16):
                return False
            if type(payload) is not bytes and type(payload) is not memoryview:
                return False
            if type(dependencies) is not tuple or (dependencies and not _are_read(dependencies)):
                return False
            if private is not False and private is not True:
                return False
            if type(serial) is not int or not 0 <= serial <= MAX_INTEGER:
                return False
    except (TypeError, ValueError):
        return False
    return True
