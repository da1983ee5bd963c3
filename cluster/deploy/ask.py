"""One question to a scheduler, without an event loop: what commands and `LocalCluster.status` need."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Mapping
from typing import Any

from holdfast.cluster.comm import frames
from holdfast.cluster.comm.blocking import StalledError, connect_blocking
from holdfast.cluster.comm.strangers import StrangerError
from holdfast.cluster.comm.tokens import load_token
from holdfast.cluster.errors import AuthenticationError, ConnectError, VersionMismatchError
from holdfast.cluster.protocol.answers import merged
from holdfast.objectstore.errors import HoldfastError

RETRY_SECONDS = 0.1
_WAY_OUT = (
    "Is a cluster running there? 'holdfast start --head' starts one, and with --host ADDRESS one that other hosts can "
    "reach"
)


def ask(
    address: str,
    operation: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    token: bytes | None = None,
    timeout: float = 10.0,
) -> Any:
    """Send one request to the scheduler at ``address`` and return its reply's value.

    Raises
    ------
    ConnectError
        Or one of its subclasses: nobody answers there, or somebody who can't be worked with.
    HoldfastError
        The scheduler's own error.
    """
    token = token or load_token()
    try:
        sock = _connect(address, operation, token, timeout)
    except (AuthenticationError, VersionMismatchError, StalledError, StrangerError):
        raise
    except ConnectError as error:
        raise ConnectError(f"{error}. {_WAY_OUT}") from None
    with sock:
        try:
            sock.sendall(b"".join(frames.pack([("request", 1, operation, dict(arguments or {}))])))
            return _reply(sock)
        except TimeoutError:
            raise ConnectError(f"the scheduler at {address} did not answer within {timeout:g} s") from None
        except OSError as error:
            if isinstance(error, HoldfastError):
                raise
            raise ConnectError(f"the connection to {address} was lost: {error.strerror or error}") from None


def wait_for_scheduler(address: str, *, timeout: float, token: bytes | None = None) -> None:
    """Wait until a scheduler answers at ``address`` and lets this user in.

    Raises
    ------
    ConnectError
        Nobody did; names the address, how long it was tried and the last error.
    AuthenticationError, VersionMismatchError, StrangerError
        Somebody answered who can't be worked with.
    """
    token = token or load_token()
    started = time.monotonic()
    while True:
        try:
            _connect(address, "start", token, timeout).close()
            return
        except (AuthenticationError, VersionMismatchError, StrangerError):
            raise
        except ConnectError as error:
            elapsed = time.monotonic() - started
            if elapsed + RETRY_SECONDS > timeout:
                if isinstance(error, StalledError):
                    raise
                raise ConnectError(f"{error} (tried for {elapsed:.1f} s). {_WAY_OUT}") from None
            time.sleep(RETRY_SECONDS)


def _connect(address: str, purpose: str, token: bytes, timeout: float) -> socket.socket:
    info = {
        "id": f"client-{secrets.token_hex(8)}",
        "name": f"holdfast-{purpose}",
        "pid": os.getpid(),
        "hostname": socket.gethostname(),
    }
    return connect_blocking(address, token=token, role="client", info=info, timeout=timeout)[0]


def _reply(sock: socket.socket) -> Any:
    reader = frames.FrameReader()
    fragments: list[Any] = []
    while data := sock.recv(1 << 20):
        for batch in reader.feed(data):
            for message in batch:
                if message[0] == "reply" and message[1] == 1:
                    _, _, ok, value = message
                    if not ok:
                        raise HoldfastError(": ".join(str(part) for part in value))
                    return merged([*fragments, value]) if fragments else value
                if message[0] == "part" and message[1] == 1:
                    fragments.append(message[2])
                if message[0] == "closing":
                    raise ConnectError(f"the cluster is shutting down: {message[1]}")
    raise ConnectError("the scheduler closed the connection without an answer")
