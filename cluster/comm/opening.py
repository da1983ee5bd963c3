"""The opening of a connection: both ends prove that they know the cluster's token, without sending it.

::

    connecting → the greeting (`strangers.GREETING`)
    listener   → ["hello", magic, protocol, nonce]
    connecting → ["hello", magic, protocol, role, nonce, proof, info]
    listener   → ["welcome", proof, info]     or     ["refused", code, text]

A proof is HMAC-SHA256 under the token over the sender's side, both nonces and the role, so neither can be
replayed, reflected or used for another role. `info` is plain MessagePack. Nothing here does I/O: `ListenerOpening` and
`ConnectorOpening` take messages and return messages, and serve asyncio and blocking sockets alike.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Any

from holdfast.cluster.errors import AuthenticationError, ConnectError, ProtocolError, VersionMismatchError

MAGIC = "holdfast"
PROTOCOL_VERSION = 3
ROLES = ("client", "node", "worker", "peer")

_NONCE_NBYTES = 32


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


def _is_nonce(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) == _NONCE_NBYTES


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
        self._nonce = secrets.token_bytes(_NONCE_NBYTES)
        self.role = ""
        self.info: dict[str, Any] = {}

    def hello(self) -> tuple[Any, ...]:
        return ("hello", MAGIC, PROTOCOL_VERSION, self._nonce)

    def answer(self, message: Any) -> tuple[Any, ...]:
        """The answer to the connecting end's hello. Raises `Refused` (send ``refusal(error)``) or `ProtocolError`."""
        if len(message) < 3 or message[:2] != ("hello", MAGIC):
            raise ProtocolError("the other end does not speak Holdfast's protocol")
        if message[2] != PROTOCOL_VERSION:
            raise Refused(
                "version", f"this end speaks version {PROTOCOL_VERSION} of the protocol, the other end {message[2]!r}"
            )
        if len(message) != 7:
            raise ProtocolError("a malformed hello")
        role, nonce, proof, info = message[3:]
        if not (isinstance(role, str) and _is_nonce(nonce) and isinstance(proof, bytes) and isinstance(info, dict)):
            raise ProtocolError("a malformed hello")
        if not hmac.compare_digest(proof, _proof(self._token, "connector", role, self._nonce, nonce)):
            raise Refused("token", "the tokens differ")
        if role not in ROLES:
            raise Refused("role", f"unknown role {role!r}")
        self.role, self.info = role, info
        reply = self._welcome(role, info)
        return ("welcome", _proof(self._token, "listener", role, self._nonce, nonce), reply)


def refusal(error: Refused) -> tuple[Any, ...]:
    return ("refused", error.code, str(error))


class ConnectorOpening:
    """The connecting end."""

    def __init__(self, token: bytes, role: str, info: dict[str, Any], where: str) -> None:
        self._token = token
        self._role = role
        self._info = info
        self._where = where
        self._nonce = secrets.token_bytes(_NONCE_NBYTES)
        self._listener_nonce = b""
        self.info: dict[str, Any] = {}

    def answer(self, message: Any) -> tuple[Any, ...] | None:
        """Take the next message of the listener; return what to answer, or None when the opening is done.

        Raises
        ------
        AuthenticationError, VersionMismatchError, ConnectError
            The two can't work together; says why and what to do.
        """
        if message[0] == "hello" and not self._listener_nonce:
            return self._answer_hello(message)
        if message[0] == "refused" and len(message) == 3:
            raise self._refused(message[1], message[2])
        if message[0] != "welcome" or len(message) != 3 or not self._listener_nonce:
            raise ConnectError(f"what answers at {self._where} does not speak Holdfast's protocol")
        _, proof, info = message
        expected = _proof(self._token, "listener", self._role, self._listener_nonce, self._nonce)
        if not isinstance(proof, bytes) or not hmac.compare_digest(proof, expected) or not isinstance(info, dict):
            raise AuthenticationError(f"what answers at {self._where} does not know this cluster's token")
        self.info = info
        return None

    def _answer_hello(self, message: Any) -> tuple[Any, ...]:
        if len(message) != 4 or message[1] != MAGIC or not _is_nonce(message[3]):
            raise ConnectError(f"what answers at {self._where} does not speak Holdfast's protocol")
        if message[2] != PROTOCOL_VERSION:
            raise self._refused("version", f"the other end speaks version {message[2]!r} of the protocol")
        self._listener_nonce = message[3]
        proof = _proof(self._token, "connector", self._role, self._listener_nonce, self._nonce)
        return ("hello", MAGIC, PROTOCOL_VERSION, self._role, self._nonce, proof, self._info)

    def _refused(self, code: str, text: str) -> ConnectError:
        ways_out = {
            "token": "use the token of the host that started the cluster: copy its token file here, or set "
            "HOLDFAST_TOKEN (see 'holdfast start --help')",
            "version": f"this end speaks version {PROTOCOL_VERSION}; install the same version of holdfast on both ends",
        }
        way_out = f"; {ways_out[code]}" if code in ways_out else ""
        return REFUSALS.get(code, ConnectError)(f"{self._where} refused the connection: {text}{way_out}")
