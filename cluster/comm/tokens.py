"""The cluster's token: a secret that each process that connects must know.

It is looked for in ``HOLDFAST_TOKEN``, then in the file that ``HOLDFAST_TOKEN_FILE`` names, then in
``~/.config/holdfast/token``, then beside this user's run directories, for users who can't write to a home. The file has
mode 0600 and is made by whatever starts a cluster first. To let another host or user join, copy the file there.

The processes of a cluster get it from the one that starts them, in a descriptor (`handed_down`) that each reads and
closes. It is in no environment of theirs: programs that tasks start inherit that, and write it to their logs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from holdfast.cluster.errors import AuthenticationError
from holdfast.cluster.processes import run_directory
from holdfast.cluster.processes.environment import TOKEN_VARIABLE
from holdfast.objectstore.system.surroundings import check_umask

MIN_TOKEN_NBYTES = 16
#: The token itself.
VARIABLE = TOKEN_VARIABLE
#: The option of a process that is started with a descriptor of the token.
OPTION = "--token-fd"


def token_path() -> Path:
    """Where the token file is, or would be."""
    named = os.environ.get("HOLDFAST_TOKEN_FILE")
    if named:
        return Path(named)
    at_home = _path_at_home()
    if at_home is None or not os.path.exists(at_home):
        away = run_directory.run_root() / "token"
        if at_home is None or away.exists():
            return away
    return at_home


def _path_at_home() -> Path | None:
    places = os.environ.get("XDG_CONFIG_HOME", ""), os.path.join(os.path.expanduser("~"), ".config")
    return next((Path(place, "holdfast", "token") for place in places if os.path.isabs(place)), None)


def load_token(*, create: bool = False) -> bytes:
    """The token of this user's clusters.

    Parameters
    ----------
    create:
        Make the file if there is none. Processes that start clusters do; processes that join don't.

    Raises
    ------
    AuthenticationError
        There is no token, it is too short, or others can read its file.
    """
    value = os.environ.get(VARIABLE)
    if value:
        return _checked(value.encode(), VARIABLE)
    if create:
        _create()
    path = token_path()
    try:
        mode = path.stat().st_mode
        token = path.read_bytes().strip()
    except FileNotFoundError:
        raise AuthenticationError(
            f"there is no token at {path}: copy the file from the host that started the cluster, or set {VARIABLE}"
        ) from None
    except OSError as error:
        raise AuthenticationError(f"can't read the token in {path}: {error.strerror or error}") from None
    if mode & 0o077:
        raise AuthenticationError(f"others can read the token in {path}: run 'chmod 600 {path}'")
    return _checked(token, str(path))


@contextlib.contextmanager
def handed_down(token: bytes) -> Iterator[int]:
    """A descriptor of the token, to be given to a process with the option `OPTION`."""
    fd = os.memfd_create("holdfast-token")
    try:
        os.write(fd, token)
        yield fd
    finally:
        os.close(fd)


def add_token_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that `token_of` reads."""
    parser.add_argument(OPTION, type=int, metavar="N", help="read the token here (default: look for it)")


def token_of(options: argparse.Namespace, *, create: bool = False) -> bytes:
    """The token that this process was started with, or else this user's.

    It is no longer in the environment afterwards, for what this process starts.

    Raises
    ------
    AuthenticationError
        As of `load_token`.
    """
    if options.token_fd is None:
        token = load_token(create=create)
    else:
        token = _checked(os.pread(options.token_fd, os.fstat(options.token_fd).st_size, 0), OPTION)
        os.close(options.token_fd)
    os.environ.pop(VARIABLE, None)
    return token


def _checked(token: bytes, where: str) -> bytes:
    if len(token) < MIN_TOKEN_NBYTES:
        raise AuthenticationError(f"the token in {where} is shorter than {MIN_TOKEN_NBYTES} bytes")
    return token


def _create() -> None:
    path = token_path()
    if os.path.exists(path):
        return
    check_umask()
    try:
        _write(path)
    except OSError as error:
        if "HOLDFAST_TOKEN_FILE" in os.environ:
            raise _not_made(path, error) from None
        away = run_directory.run_root() / "token"
        try:
            _write(away)
        except OSError as also:
            raise _not_made(away, also) from None


def _not_made(path: Path, error: OSError) -> AuthenticationError:
    return AuthenticationError(
        f"can't make a token at {path}: {error.strerror or error}; name another file with HOLDFAST_TOKEN_FILE, "
        f"or set {VARIABLE}"
    )


def _write(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Written aside and linked into place: two processes that start at once agree on one token, and none reads half of
    # it.
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
