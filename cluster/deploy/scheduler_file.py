"""The file that says where a scheduler is: its address and its workers, as JSON.

The token is not in it: that is this user's, in a file of its own that nobody else can read
(`holdfast.cluster.comm.tokens`). So a scheduler file may lie where other hosts see it. Other users can't read it all
the same.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.cluster.comm.addresses import format_address, parse_address
from holdfast.objectstore.errors import HoldfastError

#: A larger file is something else.
MAX_NBYTES = 16 << 20
#: How often it is looked for one that is not there yet.
LOOK_SECONDS = 0.05


def write_scheduler_file(path: str | os.PathLike[str], identity: Mapping[str, Any]) -> None:
    """Write what a scheduler says of itself; a file of this name is replaced at once, or stays as it is.

    Parameters
    ----------
    path
        Of the file. Only this user may read and write it.
    identity
        With ``"address"``, ``"id"`` and ``"workers"``.

    Raises
    ------
    HoldfastError
        The file can't be written; names it, and says why.
    """
    place = Path(path)
    aside = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "w") as file:
                json.dump(identity, file, indent=2, default=str)
            aside.replace(place)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise HoldfastError(f"the scheduler file {place} can't be written: {error.strerror or error}") from None


def address_in(path: str | os.PathLike[str]) -> str:
    """The address of the scheduler that a file tells of, ``tcp://host:port``.

    Raises
    ------
    HoldfastError
        There is no such file, or it is no scheduler file; says which.
    """
    place = Path(path)
    try:
        with place.open("rb") as file:
            text = file.read(MAX_NBYTES)
    except FileNotFoundError:
        raise HoldfastError(
            f"there is no scheduler file {place}: 'holdfast start --head --scheduler-file {place}' writes one"
        ) from None
    except OSError as error:
        raise HoldfastError(f"the scheduler file {place} can't be read: {error.strerror or error}") from None
    try:
        return format_address(*parse_address(json.loads(text)["address"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HoldfastError(f"{place} is no scheduler file: it has no address of a scheduler ({error})") from None


def wait_for_address(path: str | os.PathLike[str], timeout: float) -> str:
    """`address_in` a file that may have yet to be written; for that so many seconds are waited.

    Raises
    ------
    HoldfastError
        As of `address_in`.
    """
    deadline = time.monotonic() + timeout
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    return address_in(path)
