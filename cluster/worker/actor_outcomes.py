"""What calls of an actor come to, on its way to the callers.

An outcome leaves before the next call begins, or together with those of the calls that have begun by then: by the
actor's own thread if no call waits, else by the sender's (`outcomes`).
"""

from __future__ import annotations

import pickle
from typing import Any

from holdfast.cluster.comm import frames
from holdfast.cluster.errors import MAKE_ROOM, RemoteError
from holdfast.cluster.failures import dumping
from holdfast.cluster.protocol.limits import CALL_INLINE_NBYTES, CALLS_INLINE_NBYTES
from holdfast.cluster.protocol.worker import CALLS_DONE
from holdfast.cluster.worker.actor_calls import Call, WaitingCalls
from holdfast.cluster.worker.contents import collected
from holdfast.cluster.worker.display_names import display_name
from holdfast.cluster.worker.execution import STORE_TIMEOUT_SECONDS
from holdfast.cluster.worker.outcomes import OutcomeSender
from holdfast.cluster.worker.tracebacks import forget_locals, trim
from holdfast.objectstore import Encoded, Store, encode
from holdfast.objectstore.errors import StoreClosedError, StoreFullError, in_words

#: What is said of a call when nothing can be said about its failure.
UNSPEAKABLE = dumping.dump_exception(RemoteError("the call of an actor failed, and so did reporting how"))


class ActorOutcomes:
    """Sends what the calls of one actor come to.

    Parameters
    ----------
    store
        Where large results go.
    sender
        Takes outcomes for the scheduler.
    worker
        The worker's name, for messages to people.
    key
        Of the actor's task.
    waiting
        The calls that wait: an outcome waits for theirs.
    """

    def __init__(self, store: Store, sender: OutcomeSender, worker: str, key: Any, waiting: WaitingCalls) -> None:
        self._store = store
        self._sender = sender
        self._worker = worker
        self._key = key
        self._waiting = waiting

    def given(self, name: str, call: Call, value: Any) -> None:
        """A call has given this."""
        number, _, _, method, _, _ = call
        with collected() as inside:
            try:
                encoded = self._store.encode(value)
            except StoreClosedError:
                raise
            except Exception as error:  # an object's own reducer can raise anything
                kind = f"{type(value).__module__}.{type(value).__qualname__}"
                text = f"what {name}.{method} gave, a {kind}, can't be pickled: {in_words(error)}"
                raise pickle.PicklingError(text) from error
            finally:
                del value
        inline = stored = None
        if encoded.nbytes <= (CALLS_INLINE_NBYTES if self._waiting.ready else CALL_INLINE_NBYTES):
            inline = frames.raw(encoded.to_bytes())
        else:
            stored = self._stored(f"{name}.{method}", encoded)
        self._send((number, True, inline, stored, ""), inside)

    def raised(self, name: str, call: Call, error: BaseException) -> None:
        """A call has raised this."""
        number, _, _, method, _, _ = call
        if isinstance(error, StoreClosedError) and not self._store.is_open:
            raise error
        try:
            trim(error)
            note = f"Raised by {name}.{method} of actor {self._key!r:.200} on worker {self._worker!r}."
            with collected() as inside:
                blob, text = dumping.dump_exception(error, note)
            forget_locals(error)
        except BaseException:  # no memory, perhaps: whatever it is, this thread goes on, and the call has an end
            (blob, text), inside = UNSPEAKABLE, []
        inline = stored = None
        if len(blob) <= CALLS_INLINE_NBYTES:
            inline = frames.raw(blob)
        else:
            try:
                stored = self._stored(f"{name}.{method}", encode(blob))
            except StoreFullError:
                why = f"the method's exception takes {len(blob):,} bytes, and there was no room for it"
                inline = frames.raw(dumping.dump_text(text, why))
        self._send((number, False, inline, stored, text), inside)

    def _stored(self, title: str, encoded: Encoded) -> tuple[bytes, int, str]:
        name = display_name(title)
        try:
            object_id = self._store.put_encoded(encoded, key=name, timeout=STORE_TIMEOUT_SECONDS)
        except StoreFullError as error:
            raise StoreFullError(f"there is no room for what {name} gave: {error}. {MAKE_ROOM}") from None
        return bytes(object_id), encoded.nbytes, encoded.type_name

    def _send(self, entry: tuple[Any, ...], inside: list[Any]) -> None:
        keys = list(dict.fromkeys([future.key for future in inside]))
        outcome = CALLS_DONE, (*entry, keys)
        if inside or not self._waiting.ready:  # the futures are kept until it has left
            self._sender.put_now(outcome)
        else:
            self._sender.put(outcome)
