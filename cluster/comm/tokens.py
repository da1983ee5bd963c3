"""The cluster's token: a secret that everybody who connects must know.

It is looked for in ``HOLDFAST_TOKEN``, then in the file that ``HOLDFAST_TOKEN_FILE`` names, then in
``~/.config/holdfast/token``. The file has mode 0600 and is made by whatever starts a cluster first. To
let another host or user join, copy the file there.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from holdfast.cluster.errors import AuthenticationError

MIN_TOKEN_NBYTES = 16


def token_path() -> Path:
    """Where the token file is, or would be."""
    named = os.environ.get("HOLDFAST_TOKEN_FILE")
    if named:
        return Path(named)
    config = os.environ.get("XDG_CONFIG_HOME")
    return (Path(config) if config else Path.home() / ".config") / "holdfast" / "token"


def load_token(*, create: bool = False) -> bytes:
    """The token of this user's clusters.

    Parameters
    ----------
    create:
        Make the file if there is none. Those who start clusters do; those who join don't.

    Raises
    ------
    AuthenticationError
        There is no token, it is too short, or others can read its file.
    """
    value = os.environ.get("HOLDFAST_TOKEN")
    if value:
        return _checked(value.encode(), "HOLDFAST_TOKEN")
    path = token_path()
    if create:
        _create(path)
    try:
        mode = path.stat().st_mode
        token = path.read_bytes().strip()
    except FileNotFoundError:
        raise AuthenticationError(
            f"there is no token at {path}: copy the file from the host that started the cluster, or set HOLDFAST_TOKEN"
        ) from None
    except OSError as error:
        raise AuthenticationError(f"can't read the token in {path}: {error.strerror or error}") from None
    if mode & 0o077:
        raise AuthenticationError(f"others can read the token in {path}: run 'chmod 600 {path}'")
    return _checked(token, str(path))


def _checked(token: bytes, where: str) -> bytes:
    if len(token) < MIN_TOKEN_NBYTES:
        raise AuthenticationError(f"the token in {where} is shorter than {MIN_TOKEN_NBYTES} bytes")
    return token


def _create(path: Path) -> None:
    if os.path.exists(path):
        return
    try:
        _write(path)
    except OSError as error:
        raise AuthenticationError(
            f"can't make a token at {path}: {error.strerror or error}; name another file with HOLDFAST_TOKEN_FILE, "
            "or set HOLDFAST_TOKEN"
        ) from None


def _write(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Written aside and linked into place: two who start at once agree on one token, and nobody reads half of it.
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_hex(32).encode())
        os.close(descriptor)
        os.link(aside, path)
    except FileExistsError:
        return
    finally:
        aside.unlink()
