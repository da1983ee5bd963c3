"""The opening of a connection: both ends prove that they know the cluster's token, without sending it.

What they say is defined in `holdfast.cluster.protocol.opening`. A proof is HMAC-SHA256 under the token over the
sender's side, both nonces and the role, so neither can be replayed, reflected or used for another role. Nothing here
does I/O: `ListenerOpening` and `ConnectorOpening` take messages and return messages, and serve asyncio and blocking
sockets alike.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Any, NoReturn

from holdfast.cluster.errors import AuthenticationError, ConnectError, ProtocolError, VersionMismatchError
from holdfast.cluster.protocol.limits import MAX_REASON_LENGTH
from holdfast.cluster.protocol.message import Dispatch
from holdfast.cluster.protocol.opening import (
    FROM_LISTENER,
    HELLO,
    LISTENER_HELLO,
    MAGIC,
    NONCE_NBYTES,
    PROTOCOL_VERSION,
    REFUSED,
    ROLES,
    WELCOME,
    check_welcome,
)


class Refused(Exception):
    """The listener does not take this connection; ``code`` is one of `REFUSALS`."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class TryLater(ConnectError):
    """The listener can't take this connection yet; `connect` tries again until its time is over."""


#: The codes of a refusal, and what they become at the connecting end.
REFUSALS: dict[str, type[ConnectError]] = {
    "later": TryLater,
    "token": AuthenticationError,
    "version": VersionMismatchError,
    "role": ConnectError,
}


def _proof(token: bytes, side: str, role: str, listener_nonce: bytes, connector_nonce: bytes) -> bytes:
    message = b"\0".join((side.encode(), role.encode(), listener_nonce, connector_nonce))
    return hmac.digest(token, message, hashlib.sha256)


class ListenerOpening:
    """The accepting end.

    Parameters
    ----------
    token:
        The cluster's token.
    welcome:
        ``welcome(role, info) -> info``: what to tell somebody who has authenticated. May raise `Refused`.
    """

    def __init__(self, token: bytes, welcome: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
        self._token = token
        self._welcome = welcome
        self._nonce = secrets.token_bytes(NONCE_NBYTES)
        self.role = ""
        self.info: dict[str, Any] = {}

    def hello(self) -> tuple[Any, ...]:
        return LISTENER_HELLO(MAGIC, PROTOCOL_VERSION, self._nonce)

    def answer(self, message: Any) -> tuple[Any, ...]:
        """The answer to the connecting end's hello. Raises `Refused` (send ``refusal(error)``) or `ProtocolError`."""
        # These stand in the same places in every version.
        if len(message) < 3 or message[:2] != (HELLO.operation, MAGIC):
            raise ProtocolError("the other end does not speak Holdfast's protocol")
        version = message[2]
        if version != PROTOCOL_VERSION:
            raise Refused(
                "version", f"this end speaks version {PROTOCOL_VERSION} of the protocol, the other end {version!r}"
            )
        HELLO.check(message)
        _, _, _, role, nonce, proof, info = message
        if not hmac.compare_digest(proof, _proof(self._token, "connector", role, self._nonce, nonce)):
            raise Refused("token", "the tokens differ")
        if role not in ROLES:
            raise Refused("role", f"unknown role {role!r}")
        self.role, self.info = role, info
        reply = self._welcome(role, info)
        return WELCOME(_proof(self._token, "listener", role, self._nonce, nonce), reply)


def refusal(error: Refused) -> tuple[Any, ...]:
    return REFUSED(error.code, str(error)[:MAX_REASON_LENGTH])


class ConnectorOpening:
    """The connecting end."""

    def __init__(self, token: bytes, role: str, info: dict[str, Any], where: str) -> None:
        self._token = token
        self._role = role
        self._info = info
        self._where = where
        self._nonce = secrets.token_bytes(NONCE_NBYTES)
        self._listener_nonce = b""
        self._dispatch: Dispatch[tuple[Any, ...] | None] = Dispatch(
            FROM_LISTENER,
            {LISTENER_HELLO: self._on_hello, WELCOME: self._on_welcome, REFUSED: self._on_refused},
        )
        self.info: dict[str, Any] = {}

    def answer(self, message: Any) -> tuple[Any, ...] | None:
        """Take the next message of the listener; return what to answer, or None when the opening is done.

        Raises
        ------
        AuthenticationError, VersionMismatchError, ConnectError
            The two can't work together; says why and what to do.
        """
        try:
            return self._dispatch(message)
        except ProtocolError as error:
            raise ConnectError(f"what answers at {self._where} does not speak Holdfast's protocol: {error}") from None

    def _on_hello(self, magic: str, version: int, nonce: bytes) -> tuple[Any, ...]:
        if magic != MAGIC or self._listener_nonce:
            raise ProtocolError("an unexpected hello")
        if version != PROTOCOL_VERSION:
            self._on_refused("version", f"the other end speaks version {version!r} of the protocol")
        self._listener_nonce = nonce
        proof = _proof(self._token, "connector", self._role, nonce, self._nonce)
        return HELLO(MAGIC, PROTOCOL_VERSION, self._role, self._nonce, proof, self._info)

    def _on_welcome(self, proof: bytes, info: dict[str, Any]) -> None:
        if not self._listener_nonce:
            raise ProtocolError("an unexpected welcome")
        expected = _proof(self._token, "listener", self._role, self._listener_nonce, self._nonce)
        if not hmac.compare_digest(proof, expected):
            raise AuthenticationError(f"what answers at {self._where} does not know this cluster's token")
        check_welcome(self._role, info)
        self.info = info

    def _on_refused(self, code: str, text: str) -> NoReturn:
        ways_out = {
            "token": "use the token of the host that started the cluster: copy its token file here, or set "
            "HOLDFAST_TOKEN (see 'holdfast start --help')",
            "version": f"this end speaks version {PROTOCOL_VERSION}; install the same version of holdfast on both ends",
        }
        way_out = f"; {ways_out[code]}" if code in ways_out else ""
        raise REFUSALS.get(code, ConnectError)(f"{self._where} refused the connection: {text}{way_out}")
