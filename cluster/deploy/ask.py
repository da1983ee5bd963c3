"""One question to a scheduler, without an event loop: what commands and `LocalCluster.status` need."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Mapping
from typing import Any

from holdfast.cluster import protocol
from holdfast.cluster.comm import frames
from holdfast.cluster.comm.blocking import StalledError, UnknownHostError, connect_blocking
from holdfast.cluster.comm.frame_reader import FrameReader
from holdfast.cluster.comm.strangers import StrangerError
from holdfast.cluster.comm.tokens import load_token
from holdfast.cluster.errors import AuthenticationError, ConnectError, VersionMismatchError
from holdfast.cluster.identity import own_identity
from holdfast.cluster.protocol.answers import merged
from holdfast.cluster.protocol.message import Dispatch, Request
from holdfast.objectstore.errors import HoldfastError

RETRY_SECONDS = 0.1
_NUMBER = 1  # of the only question
_WAY_OUT = (
    "Is a cluster running there? 'holdfast start --head' starts one, and with --host ADDRESS one that other hosts can "
    "reach"
)


def ask(
    address: str,
    request: Request,
    *,
    token: bytes | None = None,
    timeout: float = 10.0,
    **arguments: Any,
) -> Any:
    """Send one request to the scheduler at ``address`` and return its reply's value; see `answer_to`."""
    return answer_to(address, request, arguments, token=token, timeout=timeout)


def answer_to(
    address: str,
    request: Request,
    arguments: Mapping[str, Any],
    *,
    token: bytes | None = None,
    timeout: float = 10.0,
) -> Any:
    """Send one request to the scheduler at ``address`` and return its reply's value.

    Raises
    ------
    ConnectError
        Or one of its subclasses: there is no answer, or one of a program that can't be worked with.
    HoldfastError
        The scheduler's own error.
    """
    token = token or load_token()
    try:
        sock = _connect(address, request.operation, token, timeout)
    except (AuthenticationError, VersionMismatchError, StalledError, StrangerError, UnknownHostError):
        raise
    except ConnectError as error:
        raise ConnectError(f"{error}. {_WAY_OUT}") from None
    with sock:
        try:
            sock.sendall(b"".join(frames.pack([protocol.client.REQUEST(_NUMBER, *request(**arguments))])))
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
        None did; names the address, how long it was tried and the last error.
    AuthenticationError, VersionMismatchError, StrangerError
        A program answered that can't be worked with.
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
                if isinstance(error, StalledError | UnknownHostError):
                    raise
                raise ConnectError(f"{error} (tried for {elapsed:.1f} s). {_WAY_OUT}") from None
            time.sleep(RETRY_SECONDS)


def _connect(address: str, purpose: str, token: bytes, timeout: float) -> socket.socket:
    info = {
        "id": f"client-{secrets.token_hex(8)}",
        "name": f"holdfast-{purpose}",
        **own_identity(),
    }
    return connect_blocking(address, token=token, role="client", info=info, timeout=timeout)[0]


def _reply(sock: socket.socket) -> Any:
    reader = FrameReader()
    listening = _Listening()
    while data := sock.recv(1 << 20):
        for batch in reader.feed(data):
            for message in batch:
                listening.dispatch(message)
                if listening.is_over:
                    return listening.answer
    raise ConnectError("the scheduler closed the connection without an answer")


class _Listening:
    """Hears the answer to one question, and nothing else."""

    def __init__(self) -> None:
        self._fragments: list[Any] = []
        self.answer: Any = None
        self.is_over = False
        self.dispatch: Dispatch[None] = Dispatch(
            protocol.client.TO_CLIENT,
            {
                protocol.client.PART: self._on_part,
                protocol.client.REPLY: self._on_reply,
                protocol.client.CLOSING: self._on_closing,
            },
            otherwise=lambda message: None,
        )

    def _on_part(self, number: int, fragment: Any) -> None:
        self._fragments.append(fragment)

    def _on_reply(self, number: int, ok: bool, value: Any) -> None:
        if not ok:
            raise HoldfastError(": ".join(str(part) for part in value))
        self.answer = merged([*self._fragments, value]) if self._fragments else value
        self.is_over = True

    def _on_closing(self, reason: str) -> None:
        raise ConnectError(f"the cluster is shutting down: {reason}")
