"""The opening of a connection: both ends prove that they know the cluster's token, without sending it.

What they say is defined in `holdfast.cluster.protocol.opening`. A proof is HMAC-SHA256 under the token over the
sender's side, both nonces and the role, so neither can be replayed, reflected or used for another role. To take up a
session again (`resume`) takes a proof of its secret besides; to rejoin another listener takes none, for that knows no
secret of the one before. Nothing here does I/O: `ListenerOpening` and
`ConnectorOpening` take messages and return messages, and serve asyncio and blocking sockets alike.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, Protocol

from holdfast.cluster.comm.resume import Terms, Was
from holdfast.cluster.errors import AuthenticationError, ConnectError, ProtocolError, VersionMismatchError
from holdfast.cluster.protocol.limits import MAX_REASON_LENGTH
from holdfast.cluster.protocol.message import Dispatch
from holdfast.cluster.protocol.opening import (
    FROM_CONNECTOR,
    FROM_LISTENER,
    HELLO,
    LISTENER_HELLO,
    MAGIC,
    NONCE_NBYTES,
    PROTOCOL_VERSION,
    REFUSED,
    RESUME,
    RESUMED,
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


class ResumeError(ConnectError):
    """A session can't be taken up again: it has ended, or the listener is another one."""


class RestartedError(ConnectError):
    """A session can't be taken up again, but the listener has the journal of the one that began it."""


#: The codes of a refusal, and what they become at the connecting end.
REFUSALS: dict[str, type[ConnectError]] = {
    "later": TryLater,
    "token": AuthenticationError,
    "version": VersionMismatchError,
    "role": ConnectError,
    "resume": ResumeError,
    "restarted": RestartedError,
}


class Sessions(Protocol):
    """What a listener knows of sessions."""

    def begin(self, role: str) -> Terms | None:
        """The terms of a new one, or None if connections of this role aren't taken up again."""

    def find(self, session: bytes, epoch: str, role: str) -> Terms:
        """The terms of one that may be taken up again. Raises `Refused`."""

    def supersede(self, session: bytes, attempt: int) -> int:
        """Its earlier connection is no more: how many frames were taken by that.

        Raises `Refused` if a later attempt has come before this one.
        """

    def recorded(self, role: str, info: dict[str, Any], was: Was) -> int:
        """How many frames are in the journal of an end that was connected with another listener. Raises `Refused`."""


class Return(NamedTuple):
    """What a connecting end knows of the session that it comes back to."""

    terms: Terms
    attempt: int
    taken: int


_FIRST_WORDS = (HELLO.operation, RESUME.operation)


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
        ``welcome(role, info) -> info``: what to tell a peer that has authenticated. May raise `Refused`.
    sessions:
        Without them there are none, and no peer comes back.

    Attributes
    ----------
    role, info
        What the connecting end is, and has said about itself. Not if it comes back.
    terms : Terms or None
        Of the session that was begun, or is taken up again.
    taken : int or None
        How many frames the connecting end has taken that comes back.
    was : Was or None
        What it was to another listener, if it rejoins.
    start : int
        How many frames it has sent before, then, that it does not send again.
    """

    def __init__(
        self,
        token: bytes,
        welcome: Callable[[str, dict[str, Any]], dict[str, Any]],
        sessions: Sessions | None = None,
    ) -> None:
        self._token = token
        self._welcome = welcome
        self._sessions = sessions
        self._nonce = secrets.token_bytes(NONCE_NBYTES)
        self._dispatch: Dispatch[tuple[Any, ...]] = Dispatch(
            FROM_CONNECTOR, {HELLO: self._on_hello, RESUME: self._on_resume}
        )
        self.role = ""
        self.info: dict[str, Any] = {}
        self.terms: Terms | None = None
        self.taken: int | None = None
        self.was: Was | None = None
        self.start = 0

    def hello(self) -> tuple[Any, ...]:
        return LISTENER_HELLO(MAGIC, PROTOCOL_VERSION, self._nonce)

    def answer(self, message: Any) -> tuple[Any, ...]:
        """The answer to the connecting end. Raises `Refused` (send ``refusal(error)``) or `ProtocolError`."""
        # These stand in the same places in every version.
        if len(message) < 3 or message[0] not in _FIRST_WORDS or message[1] != MAGIC:
            raise ProtocolError("the other end does not speak Holdfast's protocol")
        version = message[2]
        if version != PROTOCOL_VERSION:
            raise Refused(
                "version", f"this end speaks version {PROTOCOL_VERSION} of the protocol, the other end {version!r}"
            )
        return self._dispatch(message)

    def _on_hello(
        self,
        magic: str,
        version: int,
        role: str,
        nonce: bytes,
        proof: bytes,
        info: dict[str, Any],
        comes_back: bool,
        was: dict[str, Any] | None,
    ) -> tuple[Any, ...]:
        self._check_token(role, nonce, proof)
        self.role, self.info = role, info
        recorded = None
        if was is not None:
            if self._sessions is None:
                raise Refused("resume", "nobody comes back to this listener")
            self.was = Was(was["session"], was["cluster"], was["acknowledged"], was["attempt"])
            recorded = self._sessions.recorded(role, info, self.was)
            self.start = max(recorded, self.was.acknowledged)
        reply = self._welcome(role, info)
        self.terms = self._sessions.begin(role) if comes_back and self._sessions is not None else None
        return WELCOME(
            _proof(self._token, "listener", role, self._nonce, nonce),
            reply,
            None if self.terms is None else self.terms._asdict(),
            recorded,
        )

    def _on_resume(
        self,
        magic: str,
        version: int,
        role: str,
        nonce: bytes,
        proof: bytes,
        session: dict[str, Any],
        session_proof: bytes,
    ) -> tuple[Any, ...]:
        self._check_token(role, nonce, proof)
        if self._sessions is None:
            raise Refused("resume", "nobody comes back to this listener")
        terms = self._sessions.find(session["id"], session["epoch"], role)
        attempt = session["attempt"]
        expected = terms.proof("connector", self._nonce, nonce, attempt, session["taken"])
        if not hmac.compare_digest(session_proof, expected):
            raise Refused("resume", "the session's secrets differ")
        taken = self._sessions.supersede(terms.id, attempt)
        self.role, self.terms, self.taken = role, terms, session["taken"]
        return RESUMED(
            _proof(self._token, "listener", role, self._nonce, nonce),
            terms.proof("listener", self._nonce, nonce, attempt, taken),
            taken,
        )

    def _check_token(self, role: str, nonce: bytes, proof: bytes) -> None:
        if not hmac.compare_digest(proof, _proof(self._token, "connector", role, self._nonce, nonce)):
            raise Refused("token", "the tokens differ")
        if role not in ROLES:
            raise Refused("role", f"unknown role {role!r}")


def refusal(error: Refused) -> tuple[Any, ...]:
    return REFUSED(error.code, str(error)[:MAX_REASON_LENGTH])


class ConnectorOpening:
    """The connecting end.

    Parameters
    ----------
    token:
        The cluster's token.
    role, info:
        What this end is, and says about itself.
    where:
        What it has connected to, for messages to people.
    back:
        The session that it comes back to, if it does.
    was:
        What it was to another listener, if it rejoins.
    comes_back:
        Whether it does when the connection breaks.

    Attributes
    ----------
    info : dict
        What the listener has said.
    terms : Terms or None
        Of the session that has begun.
    taken : int
        How many frames of an earlier connection's the listener has taken.
    recorded : int
        How many frames of an earlier session's the listener has found in the journal.
    """

    def __init__(
        self,
        token: bytes,
        role: str,
        info: dict[str, Any],
        where: str,
        back: Return | None = None,
        *,
        was: Was | None = None,
        comes_back: bool = False,
    ) -> None:
        self._token = token
        self._comes_back = comes_back
        self._back = back
        self._was = was
        self._role = role
        self._info = info
        self._where = where
        self._nonce = secrets.token_bytes(NONCE_NBYTES)
        self._listener_nonce = b""
        self._dispatch: Dispatch[tuple[Any, ...] | None] = Dispatch(
            FROM_LISTENER,
            {
                LISTENER_HELLO: self._on_hello,
                WELCOME: self._on_welcome,
                RESUMED: self._on_resumed,
                REFUSED: self._on_refused,
            },
        )
        self.info: dict[str, Any] = {}
        self.terms: Terms | None = None
        self.taken = 0
        self.recorded = 0

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
        if self._back is None:
            was = None if self._was is None else self._was._asdict()
            return HELLO(MAGIC, PROTOCOL_VERSION, self._role, self._nonce, proof, self._info, self._comes_back, was)
        terms, attempt, taken = self._back
        session = {"id": terms.id, "epoch": terms.epoch, "attempt": attempt, "taken": taken}
        session_proof = terms.proof("connector", nonce, self._nonce, attempt, taken)
        return RESUME(MAGIC, PROTOCOL_VERSION, self._role, self._nonce, proof, session, session_proof)

    def _on_welcome(
        self, proof: bytes, info: dict[str, Any], session: dict[str, Any] | None, recorded: int | None
    ) -> None:
        if not self._listener_nonce or self._back is not None or (recorded is None) != (self._was is None):
            raise ProtocolError("an unexpected welcome")
        self._check_token(proof)
        check_welcome(self._role, info)
        self.info = info
        if session is not None:
            seconds, restart = float(session["seconds"]), float(session["restart"])
            self.terms = Terms(session["id"], session["secret"], session["epoch"], seconds, restart)
        elif recorded is not None:
            raise ProtocolError("a welcome without a session")
        self.recorded = recorded or 0

    def _on_resumed(self, proof: bytes, session_proof: bytes, taken: int) -> None:
        if not self._listener_nonce or self._back is None:
            raise ProtocolError("an unexpected return")
        self._check_token(proof)
        self.terms = self._back.terms
        expected = self.terms.proof("listener", self._listener_nonce, self._nonce, self._back.attempt, taken)
        if not hmac.compare_digest(session_proof, expected):
            raise AuthenticationError(f"what answers at {self._where} does not know this session's secret")
        self.taken = taken

    def _check_token(self, proof: bytes) -> None:
        expected = _proof(self._token, "listener", self._role, self._listener_nonce, self._nonce)
        if not hmac.compare_digest(proof, expected):
            raise AuthenticationError(f"what answers at {self._where} does not know this cluster's token")

    def _on_refused(self, code: str, text: str) -> NoReturn:
        ways_out = {
            "token": "use the token of the host that started the cluster: copy its token file here, or set "
            "HOLDFAST_TOKEN (see 'holdfast start --help')",
            "version": f"this end speaks version {PROTOCOL_VERSION}; install the same version of holdfast on both ends",
        }
        way_out = f"; {ways_out[code]}" if code in ways_out else ""
        raise REFUSALS.get(code, ConnectError)(f"{self._where} refused the connection: {text}{way_out}")
