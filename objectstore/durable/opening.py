"""A place by its path or URL, and the marker by which it is known."""

from __future__ import annotations

import json
import os
import secrets
from urllib.parse import unquote, urlsplit

from holdfast.objectstore.durable.elsewhere import ElsewherePlace
from holdfast.objectstore.durable.local import LocalPlace
from holdfast.objectstore.durable.manifest import FORMAT, check_format
from holdfast.objectstore.durable.place import NewFile, Place
from holdfast.objectstore.errors import DurableError

MARKER = "holdfast-place.json"
#: So long the path or URL of a place may be.
MAX_URL_LENGTH = 700


def normal_url(place: str | os.PathLike[str]) -> str:
    """A place as it is called everywhere: a URL, or an absolute path.

    Raises
    ------
    ValueError
        It is empty, or too long.

    Examples
    --------
    >>> normal_url("/data/../published/"), normal_url("s3://bucket/published/"), normal_url("file:///data")
    ('/published', 's3://bucket/published', '/data')
    """
    text = os.fspath(place)
    if not isinstance(text, str) or not text.strip():
        raise ValueError("a place for durable datasets is a directory, or a URL such as s3://bucket/published")
    if text.startswith("file:"):
        text = unquote(urlsplit(text).path)
    found = text.rstrip("/") if "://" in text else os.path.abspath(os.path.expanduser(text))
    if len(found) > MAX_URL_LENGTH:
        raise ValueError(f"the place {found:.60}… has {len(found):,} characters, and may have {MAX_URL_LENGTH}")
    return found


def open_place(url: str) -> Place:
    """A place, whether it is there or not.

    Raises
    ------
    DurableError
        Nothing here can open such a URL; says what is to be installed.
    """
    return ElsewherePlace(url) if "://" in url else LocalPlace(url)


def id_of(place: Place, *, create: bool = False) -> str | None:
    """The id of a place; None if there is none. With ``create`` it is made then.

    Raises
    ------
    DurableError
        It can't be read or made, or was made by a later version.
    """
    data = place.read(MARKER)
    if data is None and create:
        place.prepare()
        made = json.dumps({"format": FORMAT, "id": secrets.token_hex(16)}).encode()
        place.put([NewFile(MARKER, [made])])
        data = place.read(MARKER)  # another one may have made it at the same time: the last one counts, for both
    if data is None:
        return None
    try:
        marker = json.loads(data)
        version, identity = marker["format"], str(marker["id"])
    except (ValueError, KeyError, TypeError) as error:
        raise DurableError(f"{place.url} is no place for datasets: its {MARKER} is damaged: {error}") from error
    check_format(version, place.url)
    return identity


def default_place() -> str | None:
    """The place of clusters for which none is named: ``HOLDFAST_DURABLE``, or a directory of this user's.

    None if this user has no home.
    """
    named = os.environ.get("HOLDFAST_DURABLE")
    if named:
        return normal_url(named)
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    path = os.path.join(state, "holdfast", "durable")
    return path if os.path.isabs(path) else None
